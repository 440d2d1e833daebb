"""Schemas of any depth in all output formats."""

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lance_lightning.errors import DataError
from lance_lightning.formats.format import Format
from tests.helpers.any_schema import BY_COLUMN, KEEP_NULLS, MANY, leaf_values, plain

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
