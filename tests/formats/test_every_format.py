"""Any schema and any slice in all output formats."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import default_collate

from lance_lightning.errors import DataError
from lance_lightning.formats.format import Format
from lance_lightning.types import OUTPUT_FORMATS
from tests.helpers.any_schema import (
    BY_COLUMN,
    LEAVES,
    MANY,
    STACKED,
    batch_of,
    held,
    leaf_values,
    plain,
    tables,
)


def expected_batch(name, batch, expected):
    """Return what a batch of a format holds, from the rows as Python values."""
    if name in ("arrow", *BY_COLUMN, "polars", "pandas", "python_col"):
        return expected
    names = list(expected)
    columns = zip(*expected.values(), strict=True)
    rows = [dict(zip(names, row, strict=True)) for row in columns]
    return plain(default_collate(rows)) if rows else {name: [] for name in names}


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
