"""Output formats: what a batch is, and that every slice is right."""

import dataclasses
import pickle
import re
import subprocess
import sys
from collections import OrderedDict, defaultdict, namedtuple
from types import MappingProxyType

import lance
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lance.arrow import bfloat16_array
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import default_collate

from lance_lightning.arrow.unordered import Unordered, ordered
from lance_lightning.errors import ConfigError, DataError
from lance_lightning.formats.batches import batch_size_of, is_leaf, move
from lance_lightning.formats.format import Format
from lance_lightning.types import OUTPUT_FORMATS

BY_COLUMN = ("torch", "numpy")
STACKED = ("torch_row", "torch_col")
KEEP_NULLS = ("arrow", "polars", "python_col")


def batch_of(format, table, start=0, stop=None):
    batch = record_batch(table)
    stop = batch.num_rows if stop is None else stop
    format.check(batch.schema)
    return format.slice(format.convert(batch), start, stop)


def record_batch(table):
    return table if isinstance(table, pa.RecordBatch) else pa.record_batch(table)


def plain(value):
    """Return tensors, arrays and their containers as Python lists and dicts."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


# --- any schema, any slice, all formats ---------------------------------------------

INTS = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
UINTS = [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
LEAVES = [*INTS, *UINTS, *FLOATS, pa.bool_()]
TEXTS = [pa.string(), pa.large_string(), pa.string_view()]
BYTES = [pa.binary(), pa.large_binary(), pa.binary(2)]


def leaf_values(arrow_type):
    if arrow_type in INTS or arrow_type in UINTS:
        bits = arrow_type.bit_width - (arrow_type in INTS or arrow_type == pa.uint64())
        low = -(2**bits) if arrow_type in INTS else 0
        return st.integers(low, 2**bits - 1)
    if arrow_type in FLOATS:
        return st.floats(width=arrow_type.bit_width, allow_nan=False)
    if arrow_type in TEXTS:
        return st.text(max_size=4)
    if arrow_type in BYTES:
        least = 2 if arrow_type == BYTES[2] else 0
        return st.binary(min_size=least, max_size=2)
    return st.booleans()


@st.composite
def columns(draw, rows, numbers):
    """Draw an array with rows to spare on both sides, and its rows as lists."""
    leaf = draw(st.sampled_from(LEAVES if numbers else LEAVES + TEXTS + BYTES))
    top = 0 if leaf in TEXTS + BYTES else 2
    shape = draw(st.lists(st.integers(1, 3), min_size=0, max_size=top))
    size = int(np.prod(shape))
    before, after = draw(st.integers(0, 9)), draw(st.integers(0, 3))
    total = (before + rows + after) * size
    flat = draw(st.lists(leaf_values(leaf), min_size=total, max_size=total))
    made = [np.float16(v) for v in flat] if leaf == pa.float16() else flat
    array = pa.array(made, leaf)
    if shape and draw(st.booleans()):
        array = pa.FixedSizeListArray.from_arrays(array, size)
        kind = pa.fixed_shape_tensor(leaf, shape)
        array = pa.ExtensionArray.from_storage(kind, array)
    else:
        for inner in reversed(shape):
            array = pa.FixedSizeListArray.from_arrays(array, inner)
    # What Arrow says of a fixed-shape tensor is flat, and of float16 a numpy number.
    found = [float(v) if leaf in FLOATS else v for v in flat]
    for inner in reversed(shape):
        found = [found[i : i + inner] for i in range(0, len(found), inner)]
    return array.slice(before, rows), found[before : before + rows]


@st.composite
def tables(draw, numbers=False):
    rows = draw(st.integers(0, 9))
    drawn = draw(st.lists(columns(rows, numbers), min_size=1, max_size=4))
    names = [f"c{i}" for i in range(len(drawn))]
    batch = pa.RecordBatch.from_arrays([array for array, _ in drawn], names)
    start = draw(st.integers(0, rows))
    stop = draw(st.integers(start, rows))
    expected = dict(zip(names, [found for _, found in drawn], strict=True))
    return batch, expected, start, stop


def expected_batch(name, batch, expected):
    """Return what a batch of a format holds, from the rows as Python values."""
    if name in ("arrow", *BY_COLUMN, "polars", "pandas", "python_col"):
        return expected
    names = list(expected)
    columns = zip(*expected.values(), strict=True)
    rows = [dict(zip(names, row, strict=True)) for row in columns]
    return plain(default_collate(rows)) if rows else {name: [] for name in names}


def held(name, found):
    """Return what a batch of a format holds as Python values."""
    if name == "arrow":
        return nested(found)
    if name == "polars":
        return found.to_dict(as_series=False)
    if name == "pandas":
        return plain({c: found[c].tolist() for c in found.columns})
    return plain(found)


def nested(batch):
    """Return an Arrow batch as lists, tensors in their shape."""
    out = {}
    for field, array in zip(batch.schema, batch.columns, strict=True):
        rows = array.to_pylist()
        if isinstance(field.type, pa.FixedShapeTensorType):
            shape, leaf = field.type.shape, field.type.value_type.to_pandas_dtype()
            rows = [np.array(row, leaf).reshape(shape).tolist() for row in rows]
        out[field.name] = rows
    return out


MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", [n for n in OUTPUT_FORMATS if n not in STACKED])
@MANY
@given(tables())
def test_every_format_holds_the_tables_values(name, drawn):
    batch, expected, start, stop = drawn
    format = Format(name)
    format.check(batch.schema)
    expected = {c: values[start:stop] for c, values in expected.items()}
    of_window = format.slice(format.convert(batch), start, stop)
    alone = batch.slice(start, stop - start)
    of_slice = format.slice(format.convert(alone), 0, stop - start)
    for found in (of_window, of_slice):
        assert held(name, found) == expected_batch(name, batch, expected)
        assert format.num_rows(found) == stop - start
    if name in BY_COLUMN:
        for column in expected:
            if isinstance(of_window[column], list):
                continue
            assert of_window[column].dtype == of_slice[column].dtype
            assert of_window[column].shape == of_slice[column].shape


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
@MANY
@given(tables(numbers=True))
def test_rows_are_those_of_the_table(name, drawn):
    batch, expected, start, stop = drawn
    if name in STACKED:
        batch, expected = batch.select(["c0"]), {"c0": expected["c0"]}
    format = Format(name)
    rows = format.rows(format.convert(batch), start, stop)
    assert len(rows) == stop - start
    for column, values in expected.items():
        assert [plain(row[column]) for row in rows] == values[start:stop]
    kind = {"torch": torch.Tensor, "numpy": np.generic | np.ndarray}.get(name)
    if kind is not None:
        assert all(isinstance(value, kind) for row in rows for value in row.values())


LONG = [pa.int64(), pa.uint32(), pa.uint64()]


def has_leaf(arrow_type, leaves):
    if isinstance(arrow_type, pa.FixedShapeTensorType):
        return arrow_type.value_type in leaves
    if pa.types.is_fixed_size_list(arrow_type):
        return has_leaf(arrow_type.value_type, leaves)
    return arrow_type in leaves


def in_float64(values):
    return np.array(values, dtype=np.float64).tolist() if values else values


@pytest.mark.parametrize("name", STACKED)
@MANY
@given(tables(numbers=True))
def test_stacked_formats_hold_all_columns_in_order(name, drawn):
    batch, expected, start, stop = drawn
    format = Format(name)
    types = {array.type for array in batch.columns}
    if len(types) > 1 and any(has_leaf(t, LONG) for t in types):
        format = dataclasses.replace(format, dtype="float64")
        expected = {c: in_float64(values) for c, values in expected.items()}
    format.check(batch.schema)
    found = format.slice(format.convert(batch), start, stop)
    by_row = found if name == "torch_row" else found.T
    names = list(expected)
    for at in range(start, stop):
        row = [np.ravel(expected[c][at]).tolist() for c in names]
        assert by_row[at - start].tolist() == [value for part in row for value in part]
    assert format.num_rows(found) == stop - start
    alone = batch.slice(start, stop - start)
    of_slice = format.slice(format.convert(alone), 0, stop - start)
    assert of_slice.equal(found)
    assert of_slice.dtype == found.dtype


@MANY
@given(st.data())
def test_filled_and_masked_nulls_are_those_of_the_table(data):
    leaf = data.draw(st.sampled_from(LEAVES))
    value = leaf_values(leaf)
    width = data.draw(st.integers(1, 3))
    row = st.lists(st.none() | value, min_size=width, max_size=width) | st.none()
    rows = data.draw(st.lists(row, max_size=8))
    flat = [part for r in rows for part in (r or [None] * width)]
    if leaf == pa.float16():
        flat = [None if v is None else np.float16(v) for v in flat]
    leaves = pa.array(flat, leaf)
    mask = pa.array([r is None for r in rows], pa.bool_())
    array = pa.FixedSizeListArray.from_arrays(leaves, width, mask=mask)
    start = data.draw(st.integers(0, len(rows)))
    array, rows = array.slice(start), rows[start:]
    fill = data.draw(value)
    full = [r or [None] * width for r in rows]
    for name in BY_COLUMN:
        out = batch_of(Format(name, nulls={"fill": fill}), {"x": array})
        filled = [[fill if v is None else v for v in r] for r in full]
        assert plain(out["x"]) == filled
        out = batch_of(Format(name, nulls={"x": "mask"}), {"x": array})
        assert plain(out["x_mask"]) == [[v is not None for v in r] for r in full]
        zeros = [[0 if v is None else v for v in r] for r in full]
        assert plain(out["x"]) == zeros
        if any(v is None for r in full for v in r):
            with pytest.raises(DataError, match="column 'x' has"):
                batch_of(Format(name), {"x": array})


# --- torch_row and torch_col --------------------------------------------------------


def test_one_column_is_stacked_without_a_copy():
    vectors = pa.array(np.arange(24, dtype=np.float32))
    table = {"x": pa.FixedSizeListArray.from_arrays(vectors, 4)}
    for name, shape in (("torch_row", (3, 4)), ("torch_col", (4, 3))):
        found = batch_of(Format(name), table, 2, 5)
        assert found.shape == shape
        assert found.data_ptr() == vectors.buffers()[1].address + 2 * 4 * 4
    scalars = pa.array(np.arange(10))
    found = batch_of(Format("torch_col"), {"x": scalars}, 3, 5)
    assert found.tolist() == [[3, 4]]
    assert found.data_ptr() == scalars.buffers()[1].address + 3 * 8


def test_rows_or_columns_of_a_stacked_batch_are_contiguous():
    vectors = pa.array([[0.0] * 2] * 3, pa.list_(pa.float64(), 2))
    for table in (
        {"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]},
        {"v": vectors, "w": vectors},
    ):
        assert batch_of(Format("torch_row"), table, 1, 3).is_contiguous()
        assert batch_of(Format("torch_col"), table, 1, 3).stride(1) == 1


DIGITS = [
    ((pa.int64(), pa.float32()), "int64"),
    ((pa.int64(), pa.float64()), "int64"),
    ((pa.uint64(), pa.float64()), "int64"),
    ((pa.int8(), pa.float16(), pa.int64()), "int64"),
]
KEPT = [
    ((pa.int32(), pa.float32()), torch.float64),
    ((pa.int16(), pa.float32()), torch.float32),
    ((pa.float16(), pa.float32()), torch.float32),
    ((pa.uint8(), pa.int8()), torch.int16),
    ((pa.uint16(), pa.bool_()), torch.int32),
    ((pa.int64(), pa.bool_()), torch.int64),
    ((pa.uint64(), pa.int64()), torch.int64),
    ((pa.bool_(), pa.bool_()), torch.bool),
]


@pytest.mark.parametrize("name", STACKED)
@pytest.mark.parametrize("types", [types for types, _ in DIGITS], ids=str)
def test_a_mix_that_would_lose_digits_is_refused_at_check(name, types):
    schema = pa.schema([pa.field(f"c{i}", t) for i, t in enumerate(types)])
    with pytest.raises(DataError, match=r"lose digits of int64 \(c0: ") as caught:
        Format(name).check(schema)
    assert all(f"c{i}: " in str(caught.value) for i in range(len(types)))
    Format(name, dtype="float32").check(schema)


@pytest.mark.parametrize("name", STACKED)
@pytest.mark.parametrize(("types", "dtype"), KEPT, ids=str)
def test_a_mix_that_keeps_its_digits_is_widened(name, types, dtype):
    table = {f"c{i}": pa.array([1, 0]).cast(t) for i, t in enumerate(types)}
    found = batch_of(Format(name), table)
    assert found.dtype == dtype
    assert sorted(found.flatten().tolist()) == [0] * len(types) + [1] * len(types)


def test_a_dtype_settles_the_mix():
    table = {"id": [2**24 + 1, 1], "x": pa.array([0.5, 1.5], pa.float32())}
    found = batch_of(Format("torch_row", dtype="float64"), table)
    assert found.dtype == torch.float64
    assert found.tolist() == [[2**24 + 1, 0.5], [1, 1.5]]
    with pytest.raises(ConfigError, match="cut the fractions of column 'x'"):
        batch_of(Format("torch_row", dtype="int64"), table)


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_one_dtype_of_floats_is_that_of_all_floats_and_of_nothing_else(name):
    table = {
        "id": pa.array([2**53 + 1, 1]),
        "small": pa.array([7, 1], pa.uint8()),
        "flag": [True, False],
        "when": pa.array([1, 2], pa.timestamp("s")),
        "text": ["a", "b"],
        "half": pa.array(np.array([0.5, 1.5], np.float16)),
        "double": [0.1, 2.5],
        "vector": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64(), 2)),
        "ragged": [[0.1], [0.2, 0.3]],
        "parts": [{"x": 0.1, "n": 2**53 + 1}, {"x": 0.2, "n": 3}],
    }
    format = Format(name, dtype="float32")
    found, kept = batch_of(format, table), batch_of(Format(name), table)
    floats = {"half", "double", "vector", "ragged"}
    for column in floats:
        assert str(found[column].dtype).endswith("float32")
        np.testing.assert_allclose(found[column], kept[column], rtol=1e-6)
    assert str(found["parts"]["x"].dtype).endswith("float32")
    assert found["parts"]["n"].tolist() == [2**53 + 1, 3]
    for column in set(kept) - floats - {"parts"}:
        assert getattr(found[column], "dtype", None) == getattr(
            kept[column], "dtype", None
        )
        assert list(found[column]) == list(kept[column])
    (row,) = format.rows(format.convert(record_batch(table)), 0, 1)
    assert row["double"].dtype == found["double"].dtype
    with pytest.raises(DataError, match=r"'x' holds .*float16.*infinite"):
        batch_of(Format(name, dtype="float16"), {"x": [1e6]})


def test_a_float_dtype_of_all_columns_widens_bfloat16():
    batch = record_batch({"x": bfloat16_array([0.5, 1.5])})
    assert batch_of(Format("torch"), batch)["x"].dtype == torch.bfloat16
    found = batch_of(Format("torch", dtype="float32"), batch)["x"]
    assert found.dtype == torch.float32
    assert found.tolist() == [0.5, 1.5]


def test_bfloat16_is_stacked():
    table = {"a": bfloat16_array([1.5, 2.5]), "b": bfloat16_array([3.5, 4.5])}
    found = batch_of(Format("torch_row"), table)
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [[1.5, 3.5], [2.5, 4.5]]
    mixed = {**table, "c": pa.array([1, 2], pa.int16())}
    assert batch_of(Format("torch_col"), mixed).dtype == torch.float32


@pytest.mark.parametrize("name", STACKED)
@pytest.mark.parametrize(
    "arrow_type",
    [pa.string(), pa.struct({"a": pa.int8()}), pa.list_(pa.int8())],
    ids=str,
)
def test_only_numbers_are_stacked(name, arrow_type):
    schema = pa.schema({"x": pa.int64(), "y": arrow_type})
    with pytest.raises(DataError, match=r"column 'y' has type .* stacks columns of"):
        Format(name).check(schema)


def test_stacked_nulls():
    table = {"a": pa.array([1, None, 3]), "b": [4, 5, 6]}
    with pytest.raises(DataError, match="column 'a' has 1 nulls"):
        batch_of(Format("torch_row"), table)
    filled = Format("torch_row", nulls={"a": {"fill": 9}})
    assert batch_of(filled, table).tolist() == [[1, 4], [9, 5], [3, 6]]


# --- nulls --------------------------------------------------------------------------

NULLS = {"i": pa.array([1, None]), "s": ["a", "b"]}


@pytest.mark.parametrize("name", [*BY_COLUMN, *STACKED, "python", "pandas"])
def test_null_integers_are_errors_by_default(name):
    table = {"i": NULLS["i"]} if name in STACKED else NULLS
    with pytest.raises(DataError, match="column 'i' has 1 nulls among the 2 values"):
        batch_of(Format(name), table)


@pytest.mark.parametrize("name", KEEP_NULLS)
def test_formats_that_can_hold_null_keep_it(name):
    assert held(name, batch_of(Format(name), NULLS))["i"] == [1, None]
    named = Format(name, nulls={"i": "error"})
    with pytest.raises(DataError, match="column 'i' has 1 nulls"):
        batch_of(named, NULLS)


def test_pandas_keeps_what_has_a_null_of_its_own():
    table = {"f": pa.array([0.5, None]), "s": ["a", None]}
    found = batch_of(Format("pandas"), table)
    assert found["f"].dtype == batch_of(Format("pandas"), {"f": [0.5]})["f"].dtype
    assert found.isna().to_numpy().tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("name", [n for n in OUTPUT_FORMATS if n not in STACKED])
def test_nulls_are_filled_in_every_format(name):
    found = batch_of(Format(name, nulls={"i": {"fill": 7}}), NULLS)
    assert held(name, found) == {"i": [1, 7], "s": ["a", "b"]}


@pytest.mark.parametrize("name", [n for n in OUTPUT_FORMATS if n not in STACKED])
def test_a_fill_value_of_another_type_is_refused_at_check(name):
    schema = record_batch(NULLS).schema
    with pytest.raises(ConfigError, match=r"fills column 's' with 0 \(int\)"):
        Format(name, nulls={"fill": 0}).check(schema)
    with pytest.raises(ConfigError, match=r"fills column 'i' with 0.5 \(float\)"):
        Format(name, nulls={"i": {"fill": 0.5}}).check(schema)


def test_a_column_of_the_name_fill():
    table = {"fill": pa.array([1, None])}
    for nulls in ({"fill": {"fill": 3}}, {"fill": 3}):
        out = batch_of(Format("torch", nulls=nulls), table)
        assert out["fill"].tolist() == [1, 3]


def test_columns_that_a_mapping_does_not_name_are_errors():
    table = {"a": pa.array([1, None]), "b": pa.array([1, None])}
    with pytest.raises(DataError, match="column 'b' has 1 nulls"):
        batch_of(Format("torch", nulls={"a": "mask"}), table)


@pytest.mark.parametrize("name", ["arrow", "pandas", "polars", "python", "python_col"])
def test_what_arrow_cannot_fill_is_refused_at_check(name):
    schema = pa.schema({"x": pa.list_(pa.int64(), 2)})
    with pytest.raises(DataError, match="coalesce"):
        Format(name, nulls={"fill": 0}).check(schema)


def test_python_finds_nulls_within():
    arrays = {
        "list": pa.array([[1, None]], pa.list_(pa.int64(), 2)),
        "struct": pa.array([{"a": None}], pa.struct({"a": pa.int64()})),
        "dictionary": pa.DictionaryArray.from_arrays([0], pa.array([None], "string")),
    }
    named = {"struct": "struct.a"}  # its field, for the filter that leaves it out
    for name, array in arrays.items():
        found = re.escape(f"column '{named.get(name, name)}' has 1 nulls")
        with pytest.raises(DataError, match=found):
            batch_of(Format("python"), {name: array})


# --- arguments and schemas ----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "tensor"}, "output_format must be one of .*'torch'.*got 'tensor'"),
        ({"nulls": "ignore"}, "nulls must be 'error', 'mask' or .*got 'ignore'"),
        ({"nulls": None}, "nulls must be"),
        ({"nulls": {"a": "skip"}}, "nulls must be .*got 'skip'"),
        ({"nulls": {"fill": None}}, "fill null with null"),
        ({"name": "arrow", "nulls": "mask"}, "for the formats torch and numpy"),
        ({"name": "torch_row", "nulls": {"a": "mask"}}, "not for 'torch_row'"),
        ({"ragged": "cut"}, "ragged must be one of 'pad'.*got 'cut'"),
        ({"ragged": {"a": 1}}, "ragged must be one of"),
        ({"ragged": {"pad": 0, "multiple": 0}}, "ragged: multiple must be at least 1"),
        ({"ragged": {"a": {"pat": 0}}}, "ragged must be one of .*got {'pat': 0}"),
        ({"name": "numpy", "ragged": "nested"}, "numpy has not"),
        ({"dtype": "int64"}, "does not fit output_format='torch'"),
        ({"name": "numpy", "dtype": "uint8"}, "does not fit output_format='numpy'"),
        ({"name": "arrow", "dtype": {"a": "float32"}}, "does not fit"),
        ({"name": "torch_row", "dtype": {"a": "float32"}}, "does not fit"),
        ({"name": "pandas", "dtype": "float32"}, "does not fit"),
        ({"name": "torch_row", "dtype": "float31"}, "dtype must be one of"),
        ({"dtype": {"a": "complex"}}, "dtype must be one of"),
    ],
    ids=str,
)
def test_arguments_are_checked_at_construction(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Format(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"nulls": {"lable": "mask"}},
        {"ragged": {"lable": "pad"}},
        {"dtype": {"lable": "int8"}},
    ],
    ids=str,
)
def test_an_unknown_column_lists_the_columns(arguments):
    schema = pa.schema({"image": pa.int8(), "label": pa.int64()})
    with pytest.raises(ConfigError, match=r"'lable', which .* are image, label"):
        Format(**arguments).check(schema)


def test_no_column_is_refused():
    with pytest.raises(ConfigError, match="no column"):
        Format().check(pa.schema([]))


@pytest.mark.parametrize("name", ["polars", "pandas"])
def test_a_missing_package_names_its_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'lance-lightning\[{name}\]'"):
        Format(name).check(pa.schema({"x": pa.int64()}))


WITHOUT_EXTRAS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pandas", "polars", "PIL"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import pyarrow as pa
from lance_lightning.formats import Format, batch_size_of, move

batch = pa.record_batch({"x": [1, 2, None], "f": [0.5, 1.5, 2.5]}).slice(0, 2)
text = pa.record_batch({"x": [1, 2], "s": ["a", "b"]})
for name in ("torch", "numpy", "torch_row", "torch_col", "arrow", "python"):
    for table in (batch, text):
        if "_" in name:
            table = table.select(["x"])
        format = Format(name)
        format.check(table.schema)
        window = format.convert(table)
        found = format.slice(window, 0, 2)
        assert format.num_rows(move(found, lambda t: t)) == 2
        assert batch_size_of(found) or name == "torch_col"
        assert len(format.rows(window, 0, 2)) == 2
assert not {"lancedb", "lightning", "hydra"} & set(sys.modules)
"""


def test_formats_need_no_other_formats_package():
    subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], check=True, timeout=120)


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_formats_pickle_small(name):
    format = Format(name, nulls={"x": {"fill": 1}})
    assert pickle.loads(pickle.dumps(format)) == format
    assert len(pickle.dumps(format)) < 400


@pytest.mark.parametrize("name", [*BY_COLUMN, "torch_row", "torch_col"])
def test_windows_of_other_columns_are_planned_anew(name):
    format = Format(name)
    tables = [{"x": [1, 2]}, {"x": [0.5]}, {"y": [1, 2], "x": [3, 4]}, {"x": [5]}]
    for table in tables:
        found = format.convert(record_batch(table))
        batch = format.slice(found, 0, len(table["x"]))
        expected = Format(name).slice(
            Format(name).convert(record_batch(table)), 0, len(table["x"])
        )
        assert plain(batch) == plain(expected)
    # What it knows of the last window stays here: plans hold functions.
    assert pickle.dumps(format) == pickle.dumps(Format(name))


@pytest.mark.parametrize("name", [*BY_COLUMN, "torch_row", "python"])
def test_windows_pickle(name):
    table = {"x": [1, 2, 3]}
    if name in BY_COLUMN:
        table.update(s=["a", "b", "c"], r=[[1], [], [2, 3]])
    format = Format(name)
    window = format.convert(record_batch(table))
    found = format.slice(pickle.loads(pickle.dumps(window)), 1, 3)
    assert plain(found) == plain(format.slice(window, 1, 3))


@pytest.mark.parametrize(
    ("name", "arrow_type"),
    [
        ("python", pa.timestamp("us")),
        ("python", pa.date32()),
        ("python", pa.decimal128(5, 2)),
        ("python", pa.list_(pa.int64())),
        ("python", pa.null()),
        ("polars", pa.decimal256(5, 2)),
        ("polars", pa.month_day_nano_interval()),
        ("torch", pa.null()),
        ("numpy", pa.null()),
    ],
    ids=str,
)
def test_types_a_format_lacks_are_refused_at_check(name, arrow_type):
    with pytest.raises(DataError, match=r"column 'x' has type .*columns="):
        Format(name).check(pa.schema({"ok": pa.int8(), "x": arrow_type}))


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_blobs_that_were_not_read_are_refused(name):
    with pytest.raises(DataError, match="column 'x' is a blob, and a server"):
        Format(name).check(pa.schema([lance.blob_field("x")]))


def test_python_is_torchs_default_collate():
    table = {
        "i": [1, 2],
        "f": [0.5, 1.5],
        "s": ["a", "b"],
        "v": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        "d": pa.array([{"k": 1}, {"k": 2}]),
        "h": bfloat16_array([0.5, 1.5]),
    }
    found = batch_of(Format("python"), table)
    rows = record_batch({**table, "h": [0.5, 1.5]}).to_pylist()
    expected = default_collate(rows)
    assert plain(found) == plain(expected)
    assert found["i"].dtype == torch.int64
    assert found["f"].dtype == torch.float64
    assert [v.tolist() for v in found["v"]] == [[1.0, 3.0], [2.0, 4.0]]
    assert Format("python").num_rows(found) == 2
    assert Format("python").num_rows({"v": found["v"]}) == 2


def test_python_refuses_uint64_that_torch_cannot_hold():
    table = {"x": pa.array([2**63], pa.uint64())}
    with pytest.raises(DataError, match=f"column 'x' holds {2**63}"):
        batch_of(Format("python"), table)
    assert batch_of(Format("python_col"), table) == {"x": [2**63]}


@pytest.mark.parametrize("name", ["polars", "pandas", "python_col"])
def test_extension_types_are_plain_outside_arrow(name):
    kind = pa.fixed_shape_tensor(pa.int32(), (2, 3), permutation=[1, 0])
    storage = pa.array([list(range(6)), None, [9] * 6], pa.list_(pa.int32(), 6))
    tensor = pa.ExtensionArray.from_storage(kind, storage)
    inner = pa.FixedSizeListArray.from_arrays(bfloat16_array([0.5, 1.5, 2.5] * 2), 2)
    table = {
        "t": tensor,
        "v": inner,
        "s": pa.StructArray.from_arrays(
            [inner], ["w"], mask=pa.array([False, True, False])
        ),
    }
    found = held(name, batch_of(Format(name), table, 0, 2))
    assert found["t"] == [[[0, 3], [1, 4], [2, 5]], None]
    assert found["v"] == [[0.5, 1.5], [2.5, 0.5]]
    first = found["s"][0]["w"]
    assert plain(first) == [0.5, 1.5]
    assert name == "polars" or found["s"][1] is None


@pytest.mark.parametrize("name", ["polars", "python_col"])
def test_lists_of_extension_types_are_plain_outside_arrow(name):
    offsets = pa.array([0, 1, 1, 3, 4], pa.int32())
    mask = pa.array([False, True, False, False])
    values = bfloat16_array([0.5, 1.5, 2.5, 3.5])
    array = pa.ListArray.from_arrays(offsets, values, mask=mask)
    found = held(name, batch_of(Format(name), {"x": array.slice(1)}, 0, 2))
    assert found["x"] == [None, [1.5, 2.5]]


def test_polars_takes_batches_of_null_vectors():
    rows = [[1.0, 2.0], None, [3.0, 4.0], None]
    table = {"x": pa.array(rows, pa.list_(pa.float32(), 2))}
    for start in range(4):
        assert batch_of(Format("polars"), table, start)["x"].to_list() == rows[start:]


def test_pandas_makes_no_index_of_the_tables_metadata():
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index([5, 6], name="key"))
    batch = pa.RecordBatch.from_pandas(frame)
    assert list(batch_of(Format("pandas"), batch).columns) == ["x", "key"]


def test_batches_do_not_share_rows():
    window = Format().convert(record_batch({"x": [1, 2, 3, 4]}))
    first, second = (Format().slice(window, i, i + 2) for i in (0, 2))
    first["x"] += 10
    assert second["x"].tolist() == [3, 4]


def test_ragged_batches_are_as_wide_as_they_are_in_any_window():
    batch = record_batch({"x": [[1], [2, 3, 4], [5, 6]], "y": [[1], [], [2, 2]]})
    format = Format("torch", ragged={"y": "values_offsets"})
    whole = format.slice(format.convert(batch), 0, 1)
    alone = format.slice(format.convert(batch.slice(0, 1)), 0, 1)
    assert list(whole) == ["x", "x_lengths", "y", "y_offsets"]
    assert plain(whole) == plain(alone)
    assert whole["x"].shape == (1, 1)
    found = format.slice(format.convert(batch), 1, 3)
    assert format.num_rows(found) == batch_size_of(found) == 2
    assert batch_size_of({"y": found["y"], "y_offsets": found["y_offsets"]}) == 2


def as_plain(value):
    """Return what `plain` does of any format's batch."""
    if isinstance(value, pd.DataFrame):
        return plain(value.to_dict("list"))
    if isinstance(value, pl.DataFrame):
        return value.to_dicts()
    if isinstance(value, pa.RecordBatch):
        return value.to_pylist()
    if isinstance(value, dict):
        return {name: as_plain(inner) for name, inner in value.items()}
    nested = isinstance(value, torch.Tensor) and value.is_nested
    return plain(list(value.unbind()) if nested else value)


RAGGED = ("pad", "values_offsets", "list", "nested")
LAZY = [
    *(Format(name) for name in OUTPUT_FORMATS),
    *(Format("torch", ragged=ragged, nulls="mask") for ragged in RAGGED),
    *(Format("numpy", ragged=ragged, nulls="mask") for ragged in RAGGED[:3]),
]


@pytest.mark.parametrize(
    "format", LAZY, ids=lambda each: f"{each.name}-{each.ragged}-{each.nulls}"
)
def test_columns_that_lie_as_they_were_read_come_in_order(format):
    rows = range(10)
    columns = {"id": list(rows), "flag": [i % 3 == 0 for i in rows]}
    if not format.name.startswith("torch_"):
        columns["text"] = [str(i) * i for i in rows]
        columns["struct"] = [{"a": i, "b": str(i)} for i in rows]
    if not format.name.startswith("torch_") and format.name != "python":
        columns["list"] = [list(range(i % 4)) for i in rows]
        columns["texts"] = [[str(i)] * (i % 3) for i in rows]
    if format.nulls == "mask":
        columns["list"][3], columns["text"][5] = None, None
        columns["list"][6] = [6, None]
    batch = record_batch(columns)
    order = np.random.default_rng(0).permutation(10)
    as_read = [
        column if name == "id" else column.take(pa.array(np.argsort(order)))
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    others = range(1, len(columns))
    read = pa.record_batch(as_read, batch.schema.names)
    unordered = Unordered(read, others, order)
    assert ordered(unordered) == batch
    for start, stop in ((0, 4), (4, 9), (9, 10)):
        expected, found = (
            format.slice(format.convert(each), start, stop)
            for each in (batch, unordered)
        )
        assert as_plain(found) == as_plain(expected)
        expected, found = (
            format.rows(format.convert(each), start, stop)
            for each in (batch, unordered)
        )
        assert plain(found) == plain(expected)


CONVERTING = """
import threading
import numpy as np, psutil, pyarrow as pa
from lance_lightning.formats import Format

rows = 400_000
wide = pa.array(np.zeros(rows * 16, np.float32))
table = {
    "v": pa.FixedSizeListArray.from_arrays(wide, 16),
    "u": pa.array(np.zeros(rows, np.uint16)),
    "n": pa.array([1, None] * (rows // 2)),
    "b": pa.array(np.zeros(rows, bool)),
    "s": pa.array(["text"] * rows),
}
batch = pa.record_batch(table)

def convert(seen):
    for name in ("torch", "numpy", "torch_row", "torch_col"):
        nulls = {"n": {"fill": 0}}
        dtype = "float32" if "_" in name else None
        format = Format(name, nulls=nulls, dtype=dtype)
        format.convert(batch if dtype is None else batch.select(["v", "u", "n", "b"]))
        seen.append(psutil.Process().num_threads())

seen = []
before = psutil.Process().num_threads()
thread = threading.Thread(target=convert, args=(seen,))
thread.start()
thread.join()
assert max(seen) <= before + 1, (before, seen)
"""


def test_converting_starts_no_threads():
    subprocess.run([sys.executable, "-c", CONVERTING], check=True, timeout=120)


# --- batches of any kind ------------------------------------------------------------

Point = namedtuple("Point", ["x", "name"])


@dataclasses.dataclass(frozen=True)
class Pair:
    left: torch.Tensor
    right: object


def test_move_reaches_every_tensor_and_nothing_else():
    one = torch.ones(2)
    frame, table = pd.DataFrame({"x": [1]}), pa.table({"x": [1]})
    array = np.array(["a"], object)
    batch = {
        "tensor": one,
        "list": [one, "text", None],
        "tuple": (one, b"bytes"),
        "named": Point(one, "p"),
        "pair": Pair(one, [one]),
        "leaves": [frame, table, array, pl.DataFrame({"x": [1]}), 1, 2.0],
        "ordered": OrderedDict(a=one),
        "default": defaultdict(list, a=one),
        "frozen": MappingProxyType({"a": one}),
    }
    moved = move(batch, lambda tensor: tensor + 1)
    two = [2.0, 2.0]
    assert moved["tensor"].tolist() == two
    assert plain(moved["list"]) == [two, "text", None]
    assert isinstance(moved["tuple"], tuple)
    assert moved["named"].name == "p"
    assert moved["named"].x.tolist() == two
    assert moved["pair"].left.tolist() == moved["pair"].right[0].tolist() == two
    assert all(a is b for a, b in zip(moved["leaves"], batch["leaves"], strict=True))
    assert type(moved["ordered"]) is OrderedDict
    assert moved["default"].default_factory is list
    for name in ("ordered", "default", "frozen"):
        assert moved[name]["a"].tolist() == two
    assert one.tolist() == [1.0, 1.0]


def test_move_hands_on_what_moves_itself():
    packed = pack_sequence([torch.ones(3), torch.ones(2)])
    seen = []
    move({"p": packed}, lambda value: seen.append(value) or value)
    assert seen == [packed]


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_move_walks_windows_of_every_format(name):
    table = {"x": [1, 2], "y": [3, 4]}
    if name in BY_COLUMN:
        table.update(r=[[1], [2, 3]], s=["a", "b"])
    format = Format(name)
    window = format.convert(record_batch(table))
    moved = move(window, torch.clone)
    found = held(name, format.slice(moved, 0, 2)) if name not in STACKED else None
    expected = format.slice(window, 0, 2)
    assert found == (held(name, expected) if name not in STACKED else None)
    if name in STACKED:
        assert format.slice(moved, 0, 2).equal(expected)
        assert format.rows(moved, 1, 2) == [{"x": 2, "y": 4}]


LEAF_VALUES = ["s", b"b", 1, None, np.zeros(2), np.float32(1), pa.array([1])]
LEAF_VALUES += [pd.DataFrame(), pd.Series([1]), pl.DataFrame(), pl.Series([1])]


@pytest.mark.parametrize("value", LEAF_VALUES, ids=lambda v: type(v).__name__)
def test_leaves(value):
    assert is_leaf(value)


@pytest.mark.parametrize("value", [torch.ones(1), {}, [], (), Point(1, 2), object()])
def test_no_leaves(value):
    assert not is_leaf(value)


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.zeros(3, 5), 3),
        (np.zeros((4, 2)), 4),
        (pa.record_batch({"a": [1, 2]}), 2),
        (pa.table({"a": [1, 2]}), 2),
        (pd.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]}), 3),
        (pl.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]}), 3),
        ({"s": "word", "x": torch.zeros(5, 2)}, 5),
        ({"s": ["ab", "cdefg"]}, 2),
        ({"s": [b"ab", b"cdefg"]}, 2),
        ({"inner": {"x": torch.zeros(2)}}, 2),
        ({"ragged": [torch.zeros(7), torch.zeros(1)], "y": torch.zeros(2)}, 2),
        ({"ragged": [torch.zeros(7), torch.zeros(1), torch.zeros(1)]}, 3),
        ({"places": [torch.zeros(2)] * 9, "y": torch.zeros(2)}, 2),
        ({"loss": torch.tensor(1.0), "y": torch.zeros(2)}, 2),
        ((torch.zeros(6, 2), torch.zeros(6)), 6),
        ([torch.zeros(6, 2), torch.zeros(6)], 6),
        (Point(torch.zeros(6, 2), "x"), 6),
        ([{"x": torch.zeros(9)}] * 4, 4),
        (["long text", "b"], 2),
        ("text", None),
        (b"bytes", None),
        (torch.tensor(1.0), None),
        ({}, None),
        (None, None),
        (object(), None),
    ],
)
def test_batch_size_of(batch, size):
    assert batch_size_of(batch) == size


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_num_rows_of_every_format(name):
    table = {"v": pa.array([[1.0] * 5] * 3, pa.list_(pa.float32(), 5))}
    if name not in STACKED:
        table["s"] = ["abcd"] * 3
    format = Format(name)
    window = format.convert(record_batch(table))
    for rows in (0, 1, 3):
        batch = format.slice(window, 0, rows)
        assert format.num_rows(batch) == rows
        if name not in ("torch_col", "python"):
            assert batch_size_of(batch) == rows


# --- schemas of any depth -----------------------------------------------------------

DEEP_LEAVES = [
    pa.int64(),
    pa.uint8(),
    pa.float32(),
    pa.bool_(),
    pa.string(),
    pa.binary(),
]


def deeper(inner):
    return st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        inner.map(lambda kind: pa.list_(kind, 2)),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda kinds: pa.struct({f"f{i}": kind for i, kind in enumerate(kinds)})
        ),
    )


DEEP_TYPES = st.recursive(st.sampled_from(DEEP_LEAVES), deeper, max_leaves=5)


def deep_values(kind, null):
    """Return a strategy of a type's values, with nulls anywhere in them or nowhere."""
    if pa.types.is_map(kind):
        pair = st.tuples(st.text(max_size=2), deep_values(kind.item_type, null))
        found = st.lists(pair, max_size=3)
    elif pa.types.is_struct(kind):
        fields = {field.name: deep_values(field.type, null) for field in kind}
        found = st.fixed_dictionaries(fields)
    elif pa.types.is_nested(kind):
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        inner = deep_values(kind.value_type, null)
        found = st.lists(inner, min_size=size or 0, max_size=size or 3)
    else:
        found = leaf_values(kind)
    return st.none() | found if null else found


@st.composite
def deep_batches(draw, null):
    rows = draw(st.integers(0, 6))
    kinds = draw(st.lists(DEEP_TYPES, min_size=1, max_size=3))
    arrays = [
        pa.array(
            draw(st.lists(deep_values(kind, null), min_size=rows, max_size=rows)), kind
        )
        for kind in kinds
    ]
    batch = pa.RecordBatch.from_arrays(arrays, [f"c{i}" for i in range(len(arrays))])
    start = draw(st.integers(0, rows))
    return batch, start, draw(st.integers(start, rows))


def rows_within(value):
    """Return the rows of a batch's column: a struct is a dict of columns."""
    if not isinstance(value, dict):
        return plain(value)
    parts = {name: rows_within(inner) for name, inner in value.items()}
    return [
        dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)
    ]


@pytest.mark.parametrize("name", BY_COLUMN)
@MANY
@given(deep_batches(null=False))
def test_nested_columns_hold_the_tables_values(name, drawn):
    batch, start, stop = drawn
    format = Format(name, ragged="list")
    format.check(batch.schema)
    window = format.convert(batch)
    expected = plain(batch.slice(start, stop - start).to_pylist())
    found = rows_within(format.slice(window, start, stop))
    assert found == expected or not expected
    rows = format.rows(window, start, stop)
    assert plain(rows) == expected
    of_slice = format.convert(batch.slice(start, stop - start))
    assert rows_within(format.slice(of_slice, 0, stop - start)) == found


@pytest.mark.parametrize("name", KEEP_NULLS)
@MANY
@given(deep_batches(null=True))
def test_nested_nulls_are_kept(name, drawn):
    batch, start, stop = drawn
    format = Format(name)
    format.check(batch.schema)
    found = format.slice(format.convert(batch), start, stop)
    expected = batch.slice(start, stop - start)
    if name == "polars":
        assert found.equals(
            pl.from_arrow(
                pa.Table.from_pylist(expected.to_pylist(), schema=expected.schema)
            )
        )
    else:
        assert (found if name == "python_col" else found.to_pydict()) == (
            expected.to_pydict()
        )


@MANY
@given(deep_batches(null=True))
def test_nested_nulls_are_found(drawn):
    batch, _, _ = drawn
    for field, array in zip(batch.schema, batch.columns, strict=True):
        one = pa.RecordBatch.from_arrays([array], [field.name])
        for name in BY_COLUMN:
            if holds_null(array.to_pylist()):
                with pytest.raises(DataError, match="column 'c"):
                    Format(name).convert(one)
            else:
                Format(name).convert(one)


def holds_null(value):
    if isinstance(value, dict):
        return any(map(holds_null, value.values()))
    if isinstance(value, list | tuple):
        return any(map(holds_null, value))
    return value is None


@pytest.mark.parametrize("size", [-1, 2])
def test_pandas_refuses_nulls_inside_lists_of_integers(size):
    kind, form = pa.list_(pa.int64(), size), Format("pandas")
    whole = pa.record_batch({"x": pa.array([[2**53 + 1, 1], [3, 4]], kind)})
    assert form.slice(form.convert(whole), 0, 2)["x"][0].tolist() == [2**53 + 1, 1]
    holed = pa.record_batch({"x": pa.array([[2**53 + 1, None], [1, 2]], kind)})
    with pytest.raises(DataError, match="1 null"):
        form.convert(holed)
