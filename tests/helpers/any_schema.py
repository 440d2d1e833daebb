"""Schemas, tables and slices that Hypothesis draws, and what formats make of them."""

import numpy as np
import pyarrow as pa
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

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
