"""Formats that are made of Arrow batch by batch: frames and Python values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from torch.utils.data import default_collate

from lance_lightning.arrow import (
    UnorderedRows,
    is_bfloat16,
    is_bytes,
    is_text,
    sql_name,
)
from lance_lightning.checks import require
from lance_lightning.columns import (
    ColumnOptions,
    Library,
    NullCount,
    Nulls,
    check_fill,
    count_nulls,
    nulls_error,
    plan_field,
    refuse_nanoseconds,
    refuse_times,
    row_shape_of,
    unsupported,
    with_bytes_of_files,
)
from lance_lightning.errors import DataError, is_panic
from lance_lightning.formats.batches import batch_size_of, collated_size
from lance_lightning.formats.without_extensions import without_extensions

_EXTRAS = ("pandas", "polars")  # format, module and extra have one name


@dataclass(frozen=True, slots=True)
class FromArrow:
    """How batches of Arrow, frames and Python values are made.

    Args:
        name: The output format.
        nulls_of: What was said of the nulls of a column; None where nothing was.
    """

    name: str
    nulls_of: Callable[[str], Nulls | None]

    def check(self, schema: pa.Schema) -> None:
        """Raise unless the format can hold each column and each fill value."""
        if self.name in _EXTRAS:
            require(self.name, f"output_format={self.name!r}", self.name)
        for field in schema:
            nulls = self.nulls_of(field.name)
            if nulls is not None and nulls.policy == "fill":
                _check_arrow_fill(field, nulls.value)
            if self.name == "python":
                _refuse_uncollatable(field.name, field.type)
            elif self.name == "python_col":
                refuse_nanoseconds(field.name, field.type)
            elif self.name in _EXTRAS:
                _refuse_unmade(self.name, field)

    def convert(
        self, rows: pa.RecordBatch | UnorderedRows
    ) -> pa.RecordBatch | UnorderedRows:
        """Return rows with their nulls settled: the window is Arrow."""
        if isinstance(rows, UnorderedRows):
            return replace(rows, batch=self._with_nulls_settled(rows.batch))
        return self._with_nulls_settled(rows)

    def slice(
        self, window: pa.RecordBatch | UnorderedRows, start: int, stop: int
    ) -> Any:
        """Return rows ``start`` to ``stop`` as one batch."""
        return _FROM_ARROW[self.name](window.slice(start, stop - start))

    def rows(
        self, window: pa.RecordBatch | UnorderedRows, start: int, stop: int
    ) -> list[dict[str, Any]]:
        """Return rows ``start`` to ``stop``, one dict per row."""
        return _to_rows(window.slice(start, stop - start))

    def num_rows(self, batch: Any) -> int:
        """Return how many rows a batch has."""
        size = collated_size(batch) if self.name == "python" else batch_size_of(batch)
        return size or 0

    def _with_nulls_settled(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return ``batch`` with nulls filled, where they are neither kept nor wrong."""
        columns, missing, fields = [], [], []
        for field, array in zip(batch.schema, batch.columns, strict=True):
            if self.name == "python":
                array = with_bytes_of_files(field.name, array)
                if array.type != field.type:
                    field = pa.field(field.name, array.type)
            nulls = self.nulls_of(field.name)
            if nulls is not None and nulls.policy == "fill":
                array = pc.fill_null(array, pa.scalar(nulls.value, field.type))
            elif nulls is not None or self._refuses_null(field.type):
                missing += _nulls_in(field.name, array)
            elif self.name == "pandas":
                leaf, count = _leaves(array)
                if self._refuses_null(leaf):
                    inside = not array.null_count
                    counted = NullCount(field.name, count, len(array), inside)
                    missing += [counted] if count else []
            if self.name == "python" and _holds_uint64(field.type):
                # Only for its check: Python's integers have no upper end, torch's do.
                plan_field(field, ColumnOptions("torch")).convert(array)
            columns.append(array)
            fields.append(field)
        if missing:
            raise nulls_error(missing)
        schema = pa.schema(fields, batch.schema.metadata)
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _refuses_null(self, arrow_type: pa.DataType) -> bool:
        types = pa.types
        whole = types.is_integer(arrow_type) or types.is_boolean(arrow_type)
        return self.name == "python" or (self.name == "pandas" and whole)


def _nulls_in(name: str, array: pa.Array) -> list[NullCount]:
    """Return the nulls of a column; of a struct those of each field, for a filter."""
    if pa.types.is_struct(array.type) and array.type.num_fields:
        found = []
        for field, part in zip(array.type, array.flatten(), strict=True):
            found += _nulls_in(f"{name}.{field.name}", part)
        return found
    count = count_nulls(array)
    inside = not array.null_count
    return [NullCount(name, count, len(array), inside)] if count else []


def _leaves(array: pa.Array) -> tuple[pa.DataType, int]:
    """Return what lists hold, and the nulls among it; pandas counts a null row too."""
    types, count = pa.types, 0
    while (
        types.is_list(array.type)
        or types.is_large_list(array.type)
        or types.is_fixed_size_list(array.type)
    ):
        # A null row of a fixed size is that many nulls to numpy, another is none.
        count += array.null_count if types.is_fixed_size_list(array.type) else 0
        array = array.flatten()
    return array.type, count + array.null_count


def _to_polars(batch: pa.RecordBatch) -> Any:
    import polars

    return polars.from_arrow(_checked(batch, "polars"))


def _to_pandas(batch: pa.RecordBatch) -> Any:
    return _checked(batch, "pandas").to_pandas(use_threads=False)


def _to_python(batch: pa.RecordBatch) -> dict[str, Any]:
    rows = _to_rows(batch)
    if not rows:
        return {name: [] for name in batch.schema.names}
    return cast("dict[str, Any]", default_collate(rows))


def _to_python_columns(batch: pa.RecordBatch) -> dict[str, list[Any]]:
    return cast("dict[str, list[Any]]", _checked(batch, "Python").to_pydict())


def _to_arrow(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


_FROM_ARROW: dict[str, Callable[[pa.RecordBatch], Any]] = {
    "arrow": _to_arrow,
    "pandas": _to_pandas,
    "polars": _to_polars,
    "python": _to_python,
    "python_col": _to_python_columns,
}


def _to_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return Python values, one dict per row.

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


def _holds_uint64(arrow_type: pa.DataType) -> bool:
    """Tell whether the numbers of a column are uint64."""
    return bool(pa.types.is_uint64(row_shape_of(arrow_type).leaf))


def _check_arrow_fill(field: pa.Field, value: Any) -> None:
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


def _refuse_uncollatable(name: str, arrow_type: pa.DataType) -> None:
    """Raise a `DataError` where torch's default collate would fail."""
    types = pa.types
    tensor = isinstance(arrow_type, pa.FixedShapeTensorType)
    if tensor or types.is_fixed_size_list(arrow_type):
        return _refuse_uncollatable(name, arrow_type.value_type)
    if types.is_dictionary(arrow_type):
        return _refuse_uncollatable(name, arrow_type.value_type)
    if types.is_struct(arrow_type):
        for field in arrow_type:
            _refuse_uncollatable(f"{name}.{field.name}", field.type)
        return None
    if is_bfloat16(arrow_type):
        return None
    if isinstance(arrow_type, pa.BaseExtensionType):
        return _refuse_uncollatable(name, arrow_type.storage_type)
    number = types.is_integer(arrow_type) or types.is_floating(arrow_type)
    if number or types.is_boolean(arrow_type):
        return None
    if is_text(arrow_type) or is_bytes(arrow_type):
        return None
    why = "torch's default collate takes no such Python value"
    if types.is_list(arrow_type) or types.is_large_list(arrow_type):
        why = "torch's default collate needs lists of one length"
    raise unsupported(name, arrow_type, why)


def _refuse_unmade(name: str, field: pa.Field) -> None:
    """Raise a `DataError` where a DataFrame of no rows cannot be made either."""
    why = f"{name} has no such type"
    if name == "polars" and pa.types.is_decimal256(field.type):
        # Found by trying, polars would print a stack trace of Rust.
        raise unsupported(field.name, field.type, why)
    empty = pa.RecordBatch.from_arrays([pa.nulls(0, field.type)], [field.name])
    try:
        _FROM_ARROW[name](empty)
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):  # polars' own
            raise
        why = f"{name} cannot be made of it ({error})"
        raise unsupported(field.name, field.type, why) from error
