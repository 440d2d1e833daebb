"""Formats that are made of Arrow batch by batch: frames and Python values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch.utils.data import default_collate

from lance_lightning.arrow import is_bfloat16, is_bytes, is_text, sql_name
from lance_lightning.columns import (
    Library,
    Nulls,
    Options,
    RowShape,
    check_fill,
    plan_field,
    refuse_times,
    row_shape_of,
    unsupported,
)
from lance_lightning.errors import DataError, is_panic


def _to_polars(batch: pa.RecordBatch) -> Any:
    import polars

    return polars.from_arrow(_checked(batch, "polars"))


def _to_pandas(batch: pa.RecordBatch) -> Any:
    return _checked(batch, "pandas").to_pandas(use_threads=False)


def _to_python(batch: pa.RecordBatch) -> dict[str, Any]:
    rows = to_rows(batch)
    if not rows:
        return {name: [] for name in batch.schema.names}
    return cast("dict[str, Any]", default_collate(rows))


def _to_python_columns(batch: pa.RecordBatch) -> dict[str, list[Any]]:
    return cast("dict[str, list[Any]]", _checked(batch, "Python").to_pydict())


def _to_arrow(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


FROM_ARROW: dict[str, Callable[[pa.RecordBatch], Any]] = {
    "arrow": _to_arrow,
    "pandas": _to_pandas,
    "polars": _to_polars,
    "python": _to_python,
    "python_col": _to_python_columns,
}


def to_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return Python values, one dict a row.

    Raises:
        DataError: A time that Python cannot hold.
    """
    return cast("list[dict[str, Any]]", _checked(batch, "Python").to_pylist())


def _checked(batch: pa.RecordBatch, library: Library) -> pa.RecordBatch:
    """Return ``batch`` without extensions, for a library that can hold its times."""
    plain = without_extensions(batch)
    for name, array in zip(plain.schema.names, plain.columns, strict=True):
        refuse_times(name, array, library)
    return plain


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
        wide = Options("numpy", Nulls("mask"))
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


def holds_uint64(arrow_type: pa.DataType) -> bool:
    """Tell whether the numbers of a column are uint64."""
    return bool(pa.types.is_uint64(row_shape_of(arrow_type).leaf))


def check_arrow_fill(field: pa.Field, value: Any) -> None:
    """Raise unless Arrow can fill the nulls of ``field`` with ``value``."""
    nested = pa.types.is_nested(field.type) or pa.types.is_dictionary(field.type)
    if nested or isinstance(field.type, pa.BaseExtensionType):
        raise _unfilled(field)
    check_fill(field.name, field.type, value)
    try:
        pc.fill_null(pa.nulls(1, field.type), pa.scalar(value, field.type))
    except pa.ArrowNotImplementedError:
        raise _unfilled(field) from None


def _unfilled(field: pa.Field) -> DataError:
    return DataError(
        f"nulls of column {field.name!r} ({field.type}) cannot be filled in this "
        "format: choose output_format='torch' or 'numpy', or fill them in SQL, "
        f"columns={{{field.name!r}: {f'coalesce({sql_name(field.name)}, ...)'!r}}}"
    )


def refuse_uncollatable(name: str, arrow_type: pa.DataType) -> None:
    """Raise a `DataError` where torch's default collate would fail."""
    types = pa.types
    tensor = isinstance(arrow_type, pa.FixedShapeTensorType)
    if tensor or types.is_fixed_size_list(arrow_type):
        return refuse_uncollatable(name, arrow_type.value_type)
    if types.is_dictionary(arrow_type):
        return refuse_uncollatable(name, arrow_type.value_type)
    if types.is_struct(arrow_type):
        for field in arrow_type:
            refuse_uncollatable(f"{name}.{field.name}", field.type)
        return None
    if is_bfloat16(arrow_type):
        return None
    if isinstance(arrow_type, pa.BaseExtensionType):
        return refuse_uncollatable(name, arrow_type.storage_type)
    number = types.is_integer(arrow_type) or types.is_floating(arrow_type)
    if number or types.is_boolean(arrow_type):
        return None
    if is_text(arrow_type) or is_bytes(arrow_type):
        return None
    why = "torch's default collate takes no such Python value"
    if types.is_list(arrow_type) or types.is_large_list(arrow_type):
        why = "torch's default collate needs lists of one length"
    raise unsupported(name, arrow_type, why)


def refuse_unmade(name: str, field: pa.Field) -> None:
    """Raise a `DataError` where a DataFrame of no rows cannot be made either."""
    why = f"{name} has no such type"
    if name == "polars" and pa.types.is_decimal256(field.type):
        # Found by trying, polars would print a stack trace of Rust.
        raise unsupported(field.name, field.type, why)
    empty = pa.RecordBatch.from_arrays([pa.nulls(0, field.type)], [field.name])
    try:
        FROM_ARROW[name](empty)
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):  # polars' own
            raise
        why = f"{name} cannot be made of it ({error})"
        raise unsupported(field.name, field.type, why) from error
