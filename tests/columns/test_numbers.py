"""Arrow column to tensor or array, kind by kind."""

import datetime
from decimal import Decimal

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch
from lance.arrow import bfloat16_array

from lance_lightning.columns.column import ColumnOptions, Nulls
from lance_lightning.columns.converted import (
    convert_columns,
    rows_of_columns,
    slice_columns,
)
from lance_lightning.columns.planning import plan_columns
from lance_lightning.errors import ConfigError, DataError
from tests.helpers.arrays import MASK, ROWS, convert

NUMBERS = [
    (pa.int8(), torch.int8),
    (pa.int16(), torch.int16),
    (pa.int32(), torch.int32),
    (pa.int64(), torch.int64),
    (pa.uint8(), torch.uint8),
    (pa.uint16(), torch.int32),
    (pa.uint32(), torch.int64),
    (pa.uint64(), torch.int64),
    (pa.float16(), torch.float16),
    (pa.float32(), torch.float32),
    (pa.float64(), torch.float64),
    (pa.bool_(), torch.bool),
]
IDS = [str(arrow_type) for arrow_type, _ in NUMBERS]


def numbers(arrow_type, rows=ROWS, nulls=()):
    values = [i % 3 == 0 if pa.types.is_boolean(arrow_type) else i for i in range(rows)]
    if pa.types.is_float16(arrow_type):
        values = [np.float16(value) for value in values]
    values = [None if i in nulls else value for i, value in enumerate(values)]
    return pa.array(values, arrow_type)


def address(array):
    width = array.type.bit_width // 8
    return array.buffers()[-1].address + array.offset * width


class TestNumbers:
    @pytest.mark.parametrize(("arrow_type", "dtype"), NUMBERS, ids=IDS)
    @pytest.mark.parametrize("offset", [0, 3, 9])
    def test_dtype_and_values_of_a_slice(self, arrow_type, dtype, offset):
        array = numbers(arrow_type).slice(offset, 7)
        tensor = convert(array)["x"]
        assert tensor.dtype == dtype
        assert tensor.tolist() == array.to_pylist()

    @pytest.mark.parametrize(("arrow_type", "dtype"), NUMBERS, ids=IDS)
    def test_numpy_keeps_arrows_own_dtype(self, arrow_type, dtype):
        values = convert(numbers(arrow_type), target="numpy")["x"]
        assert values.dtype == arrow_type.to_pandas_dtype()
        assert values.tolist() == numbers(arrow_type).to_pylist()
        assert values.flags.writeable

    @pytest.mark.parametrize("policy", ["error", "mask", "fill"])
    @pytest.mark.parametrize(("arrow_type", "dtype"), NUMBERS, ids=IDS)
    def test_dtype_follows_the_schema_whatever_the_nulls(
        self, arrow_type, dtype, policy
    ):
        nulls = Nulls(policy, True if pa.types.is_boolean(arrow_type) else 1)
        for rows in (0, ROWS):
            array = numbers(arrow_type, rows)
            assert convert(array, nulls=nulls)["x"].dtype == dtype
        if policy == "error":
            return
        for array in (
            numbers(arrow_type, nulls=(1, 8)),
            numbers(arrow_type, nulls=range(ROWS)),
            pa.nulls(ROWS, arrow_type),
        ):
            out = convert(array.slice(1, 9), nulls=nulls)
            assert out["x"].dtype == dtype
            fill = int(policy == "fill")
            filled = [fill if v is None else v for v in array.slice(1, 9).to_pylist()]
            assert out["x"].tolist() == filled

    def test_no_rows_keep_dtype_and_shape(self):
        array = pa.array([], pa.list_(pa.list_(pa.float32(), 3), 2))
        tensor = convert(array)["x"]
        assert tensor.shape == (0, 2, 3)
        assert tensor.dtype == torch.float32
        nothing = pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float32(), 2)).slice(2, 0)
        assert convert(nothing)["x"].shape == (0, 2)

    @pytest.mark.parametrize(
        "arrow_type",
        [pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.timestamp("us")],
        ids=str,
    )
    def test_memory_is_not_copied(self, arrow_type):
        array = numbers(arrow_type).slice(5)
        for target in ("torch", "numpy"):
            value = convert(array, target=target)["x"]
            at = value.data_ptr() if target == "torch" else value.ctypes.data
            assert at == address(array)

    def test_fixed_size_lists_are_not_copied(self):
        values = pa.array(np.arange(24, dtype=np.float32))
        array = pa.FixedSizeListArray.from_arrays(values, 3).slice(2)
        tensor = convert(array)["x"]
        assert tensor.data_ptr() == address(values) + 2 * 3 * 4
        batch = slice_columns({"x": tensor}, 1, 3)["x"]
        assert batch.data_ptr() == tensor.data_ptr() + 3 * 4

    def test_memory_outlives_the_arrow_array(self):
        array = pa.array(np.arange(100_000))
        tensor = convert(array)["x"]
        del array
        pa.array(np.zeros(100_000))
        assert tensor.sum().item() == 99_999 * 50_000

    def test_tensors_of_lances_memory_can_be_written(self, tmp_path):
        table = pa.table({"x": np.arange(10), "y": np.arange(10) % 2 == 0})
        dataset = lance.write_dataset(table, tmp_path / "t.lance")
        for name in ("x", "y"):
            array = dataset.take([2, 5, 7])[name].combine_chunks()
            for target in ("torch", "numpy"):
                value = convert(array, target=target)["x"]
                value[0] = 1  # warnings are errors
                assert value[0] == 1

    def test_uint64_beyond_int64_names_column_and_value(self):
        array = pa.array([1, 2**63], pa.uint64())
        with pytest.raises(DataError, match=f"column 'x' holds {2**63}, outside int64"):
            convert(array)
        assert convert(array, target="numpy")["x"].tolist() == [1, 2**63]
        largest = pa.array([2**63 - 1], pa.uint64())
        assert convert(largest)["x"].tolist() == [2**63 - 1]

    def test_what_lies_under_a_null_is_no_value(self):
        # Its memory holds a number that would be out of range.
        data = np.array([1, 2**64 - 1], np.uint64)
        array = pa.array(data, mask=np.array([False, True]))
        out = convert(array, nulls=Nulls("mask"))
        assert out["x"].tolist() == [1, 0]

    def test_nan_and_infinity_are_values(self):
        array = pa.array([float("nan"), float("inf")], pa.float32())
        tensor = convert(array)["x"]
        assert tensor.isnan().tolist() == [True, False]
        assert tensor.isinf().tolist() == [False, True]


class TestNulls:
    @pytest.mark.parametrize("target", ["torch", "numpy"])
    def test_error_names_column_and_count(self, target):
        array = numbers(pa.int64(), nulls=(1, 4)).slice(1, 6)
        with pytest.raises(DataError, match="column 'x' has 2 nulls among the 6"):
            convert(array, target=target)

    def test_nulls_outside_the_slice_do_not_count(self):
        array = numbers(pa.int64(), nulls=(0, 10)).slice(1, 9)
        assert convert(array)["x"].tolist() == list(range(1, 10))

    @pytest.mark.parametrize("target", ["torch", "numpy"])
    def test_mask_is_true_where_a_value_is(self, target):
        out = convert(numbers(pa.int32(), 4, nulls=(2,)), target=target, nulls=MASK)
        assert list(out) == ["x", "x_mask"]
        assert out["x_mask"].tolist() == [True, True, False, True]
        assert out["x"].tolist() == [0, 1, 0, 3]
        assert str(out["x_mask"].dtype).endswith("bool")

    def test_a_mask_comes_without_nulls_too(self):
        out = convert(numbers(pa.int32(), 3), nulls=MASK)
        assert out["x_mask"].tolist() == [True] * 3

    def test_nulls_within_lists_are_nulls(self):
        array = pa.array([[1, 2], None, [3, None], [5, 6]], pa.list_(pa.int32(), 2))
        with pytest.raises(DataError, match="column 'x' has 2 nulls among the 4"):
            convert(array)
        out = convert(array.slice(1), nulls=MASK)
        assert out["x"].tolist() == [[0, 0], [3, 0], [5, 6]]
        assert out["x_mask"].tolist() == [[False, False], [True, False], [True, True]]
        filled = convert(array.slice(1), nulls=Nulls("fill", 9))
        assert filled["x"].tolist() == [[9, 9], [3, 9], [5, 6]]

    def test_nulls_at_every_level_of_nested_lists(self):
        rows = [[[1, 2], None], None, [[None, 4], [5, 6]]]
        array = pa.array(
            [[[0, 0], [0, 0]], *rows], pa.list_(pa.list_(pa.int64(), 2), 2)
        )
        out = convert(array.slice(1), nulls=Nulls("fill", -1))
        gone = [-1, -1]
        assert out["x"].tolist() == [[[1, 2], gone], [gone, gone], [[-1, 4], [5, 6]]]

    def test_values_under_a_null_list_are_not_valid(self):
        values = pa.array([0, 1, 2, None, 4, 5])
        mask = pa.array([False, False, True])
        array = pa.FixedSizeListArray.from_arrays(values, 2, mask=mask)
        out = convert(array, nulls=MASK)
        assert out["x"].tolist() == [[0, 1], [2, 0], [0, 0]]
        assert out["x_mask"].tolist() == [[True, True], [True, False], [False, False]]

    def test_filling_does_not_write_to_arrow(self):
        array = numbers(pa.int64(), 4, nulls=(1,))
        convert(array, nulls=Nulls("fill", 7))["x"][0] = 99
        assert array.to_pylist() == [0, None, 2, 3]

    @pytest.mark.parametrize(
        ("arrow_type", "value"),
        [
            (pa.int64(), 1.5),
            (pa.int64(), True),
            (pa.int64(), "1"),
            (pa.int8(), 300),
            (pa.uint8(), -1),
            (pa.uint64(), 2**63),
            (pa.bool_(), 1),
            (pa.float32(), "0"),
            (pa.float32(), 1e300),
            (pa.float16(), 1e6),
            (pa.float32(), True),
            (pa.string(), 0),
            (pa.string(), b""),
            (pa.binary(), ""),
            (pa.timestamp("us"), 0.5),
            (pa.list_(pa.int64(), 2), [0, 0]),
            (pa.struct({"a": pa.int64()}), 0),
            (pa.struct({"a": pa.int64()}), {"b": 0}),
        ],
        ids=repr,
    )
    def test_a_fill_value_of_another_type_is_refused(self, arrow_type, value):
        with pytest.raises(ConfigError, match=r"fills column 'x(\.a)?' with"):
            convert(pa.nulls(1, arrow_type), nulls=Nulls("fill", value))

    @pytest.mark.parametrize(
        ("arrow_type", "value", "given"),
        [
            (pa.int64(), np.int64(4), 4),
            (pa.float32(), 2, 2.0),
            (pa.float16(), 0.5, 0.5),
            (pa.bool_(), True, True),
            (pa.large_string(), "none", "none"),
            (pa.binary(2), b"--", b"--"),
            (pa.date32(), datetime.date(1970, 1, 3), 2),
            (pa.timestamp("ms"), datetime.datetime(1970, 1, 1, 0, 0, 1), 1000),
            (pa.duration("s"), datetime.timedelta(minutes=1), 60),
            (pa.time32("s"), 5, 5),
        ],
        ids=repr,
    )
    def test_a_fill_value_of_the_columns_type_is_taken(self, arrow_type, value, given):
        out = convert(pa.nulls(2, arrow_type), nulls=Nulls("fill", value))["x"]
        assert (out.tolist() if hasattr(out, "tolist") else out) == [given] * 2

    def test_fill_may_be_nan(self):
        out = convert(pa.nulls(1, pa.float64()), nulls=Nulls("fill", float("nan")))
        assert out["x"].isnan().all()


class TestShapes:
    def test_nested_fixed_size_lists(self):
        rows = [[[i, i + 1, i + 2], [0, 0, i]] for i in range(6)]
        array = pa.array(rows, pa.list_(pa.list_(pa.float64(), 3), 2)).slice(2, 3)
        tensor = convert(array)["x"]
        assert tensor.shape == (3, 2, 3)
        assert tensor.tolist() == array.to_pylist()

    def test_lists_of_bools(self):
        rows = [[i % 2 == 0, i % 3 == 0, True] for i in range(9)]
        array = pa.array(rows, pa.list_(pa.bool_(), 3)).slice(3, 5)
        assert convert(array)["x"].tolist() == array.to_pylist()

    @pytest.mark.parametrize("permutation", [None, [0, 1], [1, 0]])
    def test_fixed_shape_tensors_keep_their_shape(self, permutation):
        kind = pa.fixed_shape_tensor(pa.int32(), (2, 3), permutation=permutation)
        values = pa.array(np.arange(24), pa.int32())
        storage = pa.FixedSizeListArray.from_arrays(values, 6)
        array = pa.ExtensionArray.from_storage(kind, storage)
        expected = array.to_numpy_ndarray()[1:3]  # Arrow's own reading
        tensor = convert(array.slice(1, 2))["x"]
        assert tensor.shape == expected.shape
        assert tensor.tolist() == expected.tolist()

    def test_null_fixed_shape_tensors(self):
        kind = pa.fixed_shape_tensor(pa.int32(), (2, 1), permutation=[1, 0])
        storage = pa.array([None, [1, 2], None], pa.list_(pa.int32(), 2))
        array = pa.ExtensionArray.from_storage(kind, storage).slice(1)
        out = convert(array, nulls=MASK)
        assert out["x"].tolist() == [[[1, 2]], [[0, 0]]]
        assert out["x_mask"].tolist() == [[[True, True]], [[False, False]]]

    @pytest.mark.parametrize("fixed", [False, True])
    def test_bfloat16(self, fixed):
        values = [0.5, 1.25, -3.0, 4.0, 1e30, 7.0]
        array = bfloat16_array(values)
        if fixed:
            array = pa.FixedSizeListArray.from_arrays(array, 2)
        array = array.slice(1)
        expected = torch.tensor(values, dtype=torch.bfloat16)
        expected = expected.view(3, 2)[1:] if fixed else expected[1:]
        tensor = convert(array)["x"]
        assert tensor.dtype == torch.bfloat16
        assert tensor.equal(expected)
        widened = convert(array, target="numpy")["x"]
        assert widened.dtype == np.float32
        assert widened.tolist() == expected.tolist()

    def test_bfloat16_nulls(self):
        array = bfloat16_array([1.5, None])
        out = convert(array, nulls=Nulls("fill", -2.5))["x"]
        assert out.dtype == torch.bfloat16
        assert out.tolist() == [1.5, -2.5]


TEXTS = [pa.string(), pa.large_string(), pa.string_view()]
BYTES = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3)]


class TestTexts:
    @pytest.mark.parametrize("arrow_type", TEXTS + BYTES, ids=str)
    def test_text_and_bytes_are_lists(self, arrow_type):
        values = ["abc", "äö", "", "x" * 40, "end"]
        if arrow_type not in TEXTS:
            values = [b"abc", b"\x00\xff\n", b"xyz", b"123", b"end"]
        array = pa.array(values, arrow_type).slice(1, 3)
        assert convert(array)["x"] == values[1:4]
        found = convert(array, target="numpy")["x"]
        assert found.dtype == object
        assert found.tolist() == values[1:4]
        assert convert(array.slice(0, 0))["x"] == []

    @pytest.mark.parametrize("arrow_type", TEXTS + BYTES, ids=str)
    def test_nulls_of_text(self, arrow_type):
        one = "one" if arrow_type in TEXTS else b"one"
        array = pa.array([one, None, one, None], arrow_type).slice(1)
        with pytest.raises(DataError, match="column 'x' has 2 nulls among the 3"):
            convert(array)
        assert convert(array, nulls=Nulls("fill", one))["x"] == [one] * 3
        out = convert(array, nulls=MASK)
        assert out["x"] == [one[:0], one, one[:0]]
        assert out["x_mask"].tolist() == [False, True, False]

    def test_dictionaries_are_what_their_values_are(self):
        array = pa.array(["a", "b", None, "a"]).dictionary_encode()
        assert convert(array.slice(0, 2))["x"] == ["a", "b"]
        with pytest.raises(DataError, match="has 1 nulls"):
            convert(array)
        ints = pa.DictionaryArray.from_arrays([1, 0, 1], pa.array([5, 6], pa.int16()))
        assert convert(ints)["x"].tolist() == [6, 5, 6]
        assert convert(ints)["x"].dtype == torch.int16

    def test_a_null_within_a_dictionary_is_a_null(self):
        array = pa.DictionaryArray.from_arrays([0, 1], pa.array(["a", None]))
        with pytest.raises(DataError, match="column 'x' has 1 nulls"):
            convert(array)

    def test_extensions_without_meaning_are_their_storage(self):
        array = pa.array(["{}", "[1]"]).cast(pa.json_())
        assert convert(array)["x"] == ["{}", "[1]"]


class TestTimes:
    @pytest.mark.parametrize(
        ("arrow_type", "numpy_dtype"),
        [
            (pa.timestamp("s"), "datetime64[s]"),
            (pa.timestamp("ns"), "datetime64[ns]"),
            (pa.timestamp("us", tz="Europe/Paris"), "datetime64[us]"),
            (pa.duration("ms"), "timedelta64[ms]"),
            (pa.date32(), "datetime64[D]"),
            (pa.date64(), "datetime64[ms]"),
            (pa.time32("ms"), "int64"),
            (pa.time64("ns"), "int64"),
        ],
        ids=str,
    )
    def test_int64_in_the_columns_unit(self, arrow_type, numpy_dtype):
        plain = pa.int32() if arrow_type.bit_width == 32 else pa.int64()
        numbers = [0, 86_400_000, 2 * 86_400_000, 3]
        if arrow_type == pa.date64():
            numbers[3] = 0
        array = pa.array(numbers, plain).view(arrow_type).slice(1)
        tensor = convert(array)["x"]
        assert tensor.dtype == torch.int64
        assert tensor.tolist() == numbers[1:]
        found = convert(array, target="numpy")["x"]
        assert found.dtype == np.dtype(numpy_dtype)
        assert found.view(np.int64).tolist() == numbers[1:]

    def test_decimals_become_floats_only_when_told(self):
        array = pa.array([Decimal("1.25"), Decimal("-3.50")], pa.decimal128(6, 2))
        with pytest.raises(DataError, match=r"column 'x' has type decimal128\(6, 2\)"):
            convert(array)
        tensor = convert(array, dtype="float64")["x"]
        assert tensor.dtype == torch.float64
        assert tensor.tolist() == [1.25, -3.5]
        with pytest.raises(ConfigError, match="would cut the fractions"):
            convert(array, dtype="int64")


class TestDtype:
    def test_numbers_are_cast_when_told(self):
        assert convert(numbers(pa.int64()), dtype="float32")["x"].dtype == torch.float32
        values = convert(numbers(pa.uint16()), dtype="uint8", target="numpy")["x"]
        assert values.dtype == np.uint8
        assert values.tolist() == list(range(ROWS))
        bf16 = convert(bfloat16_array([1.5]), dtype="float64")["x"]
        assert bf16.tolist() == [1.5]
        assert bf16.dtype == torch.float64

    @pytest.mark.parametrize(
        ("array", "dtype"),
        [
            (pa.array([300]), "uint8"),
            (pa.array([-1]), "uint8"),
            (pa.array([1e300]), "float32"),
            (pa.array([70_000]), "float16"),
        ],
        ids=str,
    )
    def test_values_beyond_a_dtype_are_errors(self, array, dtype):
        with pytest.raises(DataError, match=rf"column 'x' holds .*{dtype}"):
            convert(array, dtype=dtype)

    def test_dtype_neither_cuts_fractions_nor_reads_text(self):
        with pytest.raises(ConfigError, match="would cut the fractions of column 'x'"):
            convert(pa.array([0.5]), dtype="int32")
        with pytest.raises(ConfigError, match="only columns of numbers"):
            convert(pa.array(["1"]), dtype="int32")


class TestStructs:
    STRUCT = pa.struct({"a": pa.int64(), "b": pa.struct({"c": pa.string()})})

    def test_structs_are_dicts(self):
        rows = [{"a": i, "b": {"c": str(i)}} for i in range(5)]
        out = convert(pa.array(rows, self.STRUCT).slice(2))["x"]
        assert out["a"].tolist() == [2, 3, 4]
        assert out["b"] == {"c": ["2", "3", "4"]}

    def test_a_null_struct_has_null_fields(self):
        array = pa.array([{"a": 1, "b": {"c": "x"}}, None, {"a": 3, "b": None}])
        with pytest.raises(DataError, match=r"column 'x\.a' has 1 nulls"):
            convert(array)
        out = convert(array.slice(1), nulls=MASK)["x"]
        assert out["a"].tolist() == [0, 3]
        assert out["a_mask"].tolist() == [False, True]
        assert out["b"]["c_mask"].tolist() == [False, False]
        fill = {"a": -1, "b": {"c": "none"}}
        filled = convert(array, nulls=Nulls("fill", fill))["x"]
        assert filled["a"].tolist() == [1, -1, 3]
        assert filled["b"]["c"] == ["x", "none", "none"]

    def test_rows_of_a_struct(self):
        array = pa.array([{"a": i, "b": {"c": str(i)}} for i in range(4)], self.STRUCT)
        columns = plan_columns(
            [pa.field("x", array.type)], lambda _: ColumnOptions("numpy")
        )
        rows = rows_of_columns(convert_columns(columns, [array]), 1, 3)
        assert rows == [{"x": {"a": i, "b": {"c": str(i)}}} for i in (1, 2)]
