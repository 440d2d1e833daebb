"""Python values, and what is no tensor."""

import pyarrow as pa
import pytest

from lance_lightning.columns.column import ColumnOptions, Nulls
from lance_lightning.columns.planning import plan_columns
from lance_lightning.errors import ConfigError, DataError
from tests.helpers.arrays import MASK, convert

NESTED = [
    (pa.list_(pa.string()), [["a"], [], ["b", "c"]]),
    (pa.large_list(pa.binary()), [[b"a"], [], [b"b"]]),
    (pa.list_(pa.list_(pa.int64())), [[[1], []], [], [[2, 3]]]),
    (pa.list_view(pa.string()), [["a"], [], ["b", "c"]]),
    (pa.list_(pa.string(), 2), [["a", "b"], ["c", "d"], ["e", "f"]]),
    (pa.list_(pa.struct({"k": pa.int64()})), [[{"k": 1}], [], [{"k": 2}]]),
    (pa.list_(pa.dictionary(pa.int8(), pa.string())), [["a"], [], ["a", "b"]]),
    (pa.map_(pa.string(), pa.int64()), [[("a", 1)], [], [("b", 2), ("c", 3)]]),
]


class TestObjects:
    @pytest.mark.parametrize(("arrow_type", "rows"), NESTED, ids=str)
    def test_nested_values_are_python_values(self, arrow_type, rows):
        array = pa.array([rows[0], *rows, rows[0]], arrow_type).slice(1, 3)
        assert convert(array)["x"] == rows
        out = convert(array, target="numpy")["x"]
        assert out.dtype == object
        assert out.shape == (3,)
        assert out.tolist() == rows

    @pytest.mark.parametrize(("arrow_type", "rows"), NESTED, ids=str)
    def test_null_rows(self, arrow_type, rows):
        array = pa.array([None, rows[0]], arrow_type)
        with pytest.raises(DataError, match="column 'x' has 1 nulls"):
            convert(array)
        out = convert(array, nulls=MASK)
        assert out["x"] == [[], rows[0]]
        assert out["x_mask"].tolist() == [False, True]
        with pytest.raises(DataError, match="its nulls cannot be filled"):
            convert(array, nulls=Nulls("fill", "a"))

    def test_nulls_within(self):
        kind = pa.map_(pa.string(), pa.int64())
        array = pa.array([[("a", None)], [("b", 1)], [("c", None)]], kind)
        with pytest.raises(DataError, match="column 'x' has 2 nulls"):
            convert(array)
        assert convert(array, nulls=MASK)["x"][0] == [("a", None)]
        assert convert(array.slice(1, 1))["x"] == [[("b", 1)]]

    def test_run_ends_are_decoded(self):
        array = pa.RunEndEncodedArray.from_arrays([1, 3, 4], ["a", "b", "c"])
        assert convert(array.slice(1, 3))["x"] == ["b", "b", "c"]
        array = pa.RunEndEncodedArray.from_arrays([1, 3], [5, 6])
        assert convert(array)["x"].tolist() == [5, 6, 6]


class TestPlans:
    @pytest.mark.parametrize(
        "arrow_type",
        [
            pa.null(),
            pa.month_day_nano_interval(),
            pa.struct([]),
        ],
        ids=str,
    )
    def test_other_types_are_refused_with_the_remedies(self, arrow_type):
        field = pa.field("x", arrow_type)
        with pytest.raises(DataError, match="column 'x' has type") as caught:
            plan_columns([field], lambda _: ColumnOptions("torch"))
        for remedy in ("columns=[...]", "output_format=", "cast(`x` as"):
            assert remedy in str(caught.value)

    def test_a_field_of_a_struct_is_named_in_full(self):
        field = pa.field("s", pa.struct({"t": pa.struct({"n": pa.null()})}))
        with pytest.raises(DataError, match=r"column 's\.t\.n' has type null"):
            plan_columns([field], lambda _: ColumnOptions("torch"))

    def test_a_name_that_would_come_twice_is_refused(self):
        fields = [pa.field("x", pa.int64()), pa.field("x_mask", pa.bool_())]
        assert list(plan_columns(fields, lambda _: ColumnOptions("torch"))) == [
            "x",
            "x_mask",
        ]
        with pytest.raises(ConfigError, match="'x' also gives 'x_mask'"):
            plan_columns(fields, lambda _: ColumnOptions("torch", MASK))
        fields = [pa.field("x", pa.list_(pa.int64())), pa.field("x_lengths", pa.int8())]
        with pytest.raises(ConfigError, match="'x' also gives 'x_lengths'"):
            plan_columns(fields, lambda _: ColumnOptions("torch"))
