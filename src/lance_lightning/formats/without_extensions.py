"""Arrow rows without extension types, as other libraries take them."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from lance_lightning.arrow import is_bfloat16
from lance_lightning.columns import (
    ColumnOptions,
    Nulls,
    RowShape,
    plan_field,
    row_shape_of,
)


def without_extensions(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return ``batch`` with tensors as nested lists and bfloat16 as float32.

    Without metadata too: what pandas left there would make an index of a column.
    """
    columns = [_plain(array) for array in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _plain(array: pa.Array) -> pa.Array:
    arrow_type = array.type
    layout = row_shape_of(arrow_type)
    if isinstance(arrow_type, pa.BaseExtensionType) and layout.shape:
        return _nested(array, layout)
    if is_bfloat16(arrow_type):
        wide = ColumnOptions("numpy", Nulls("mask"))
        found = plan_field(pa.field("", arrow_type), wide).convert(array)
        return pa.array(found[""], pa.float32(), mask=~found["_mask"])
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage)
    if pa.types.is_fixed_size_list(arrow_type):
        size = arrow_type.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        plain = _plain(values)
        # polars cannot take a slice of fixed-size lists with nulls: made anew.
        same = plain is values and not array.null_count
        return array if same else _lists_of(plain, size, array)
    if pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type):
        values = array.values
        plain = _plain(values)
        if plain is values:
            return array
        offsets = pa.array(array.offsets.to_numpy())  # a slice of offsets is refused
        mask = array.is_null() if array.null_count else None
        return type(array).from_arrays(offsets, plain, mask=mask)
    if pa.types.is_struct(arrow_type):
        fields = [array.field(i) for i in range(arrow_type.num_fields)]
        plain_fields = [_plain(field) for field in fields]
        if all(a is b for a, b in zip(fields, plain_fields, strict=True)):
            return array
        names = [arrow_type.field(i).name for i in range(arrow_type.num_fields)]
        return pa.StructArray.from_arrays(plain_fields, names, mask=array.is_null())
    return array


def _nested(array: pa.Array, layout: RowShape) -> pa.Array:
    """Return fixed-shape tensors as fixed-size lists within lists."""
    storage = array.storage
    size = math.prod(layout.shape)
    values = storage.values.slice(storage.offset * size, len(array) * size)
    if layout.axes != tuple(range(len(layout.axes))):
        places = np.arange(len(values)).reshape(len(array), *layout.shape)
        order = places.transpose(0, *(axis + 1 for axis in layout.axes))
        values = values.take(pa.array(order.reshape(-1)))
    values = _plain(values)
    for inner in reversed(layout.row_shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, inner)
    return _lists_of(values, layout.row_shape[0], array)


def _lists_of(values: pa.Array, size: int, like: pa.Array) -> pa.Array:
    mask = like.is_null() if like.null_count else None
    return pa.FixedSizeListArray.from_arrays(values, size, mask=mask)
