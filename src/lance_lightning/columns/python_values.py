"""Columns of Python values: text, bytes, and nested values that are no numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lance_lightning.arrow import is_bytes, is_list, is_text, take_rows
from lance_lightning.columns.column import (
    ColumnOptions,
    MaskedColumn,
    count_nulls,
    null_error,
    refuse_dtype,
    refuse_nanoseconds,
    unsupported,
)
from lance_lightning.columns.fill_values import check_fill
from lance_lightning.columns.times import refuse_times


@dataclass(frozen=True, slots=True)
class LazyValues:
    """A window's Python values, made when a batch is asked for.

    Made all together they would hold the window's memory twice, and more.

    Args:
        array: The values in Arrow.
        make: Makes the Python values of a part of it.
        order: Where each row's value is, int64 of shape (rows,); None is in order.
    """

    array: pa.Array
    make: Callable[[pa.Array], Any]
    order: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: slice) -> Any:
        if self.order is None:
            return self.make(self.array[rows])
        return self.make(take_rows(self.array, self.order[rows]))


@dataclass(frozen=True, slots=True)
class Texts(MaskedColumn):
    """A column of str or bytes: a list for torch, an object array for numpy."""

    empty: str | bytes  # in the place of a null under a mask

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Return one str or bytes per row, and a mask of shape (rows,)."""
        self.refuse_nulls(array)
        return self.with_mask(LazyValues(array, self._values), array)

    def _values(self, array: pa.Array) -> Any:
        nulls = self.options.nulls
        values = array.to_numpy(zero_copy_only=False)
        if array.null_count:
            null = array.is_null().to_numpy(zero_copy_only=False)
            values[null] = nulls.value if nulls.policy == "fill" else self.empty
        return values.tolist() if self.options.target == "torch" else values


def plan_texts(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> Texts | None:
    """Plan a column of str or bytes."""
    if not (is_text(arrow_type) or is_bytes(arrow_type)):
        return None
    refuse_dtype(name, arrow_type, options)
    if options.nulls.policy == "fill":
        check_fill(name, arrow_type, options.nulls.value)
    return Texts(name, options, "" if is_text(arrow_type) else b"")


@dataclass(frozen=True, slots=True)
class Objects(MaskedColumn):
    """A column of lists or maps of Python values, one per row, as Arrow gives them.

    A list for torch, an object array for numpy. Under a mask a null row is an empty
    list, and a null inside one stays None.
    """

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Return one list per row (of pairs for a map), and a mask of shape (rows,)."""
        masked = self.options.nulls.policy == "mask"
        nulls = 0 if masked else count_nulls(array)
        if nulls:
            raise null_error(self.name, nulls, len(array), not array.null_count)
        return self.with_mask(LazyValues(array, self._values), array)

    def _values(self, array: pa.Array) -> Any:
        refuse_times(self.name, array, "Python")
        values = [[] if value is None else value for value in array.to_pylist()]
        if self.options.target == "torch":
            return values
        out = np.empty(len(values), object)
        for at, value in enumerate(values):  # numpy would make an axis of lists
            out[at] = value
        return out


def plan_objects(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> Objects | None:
    """Plan a column of lists or maps that hold anything but numbers."""
    fixed = pa.types.is_fixed_size_list(arrow_type)
    if not (is_list(arrow_type) or fixed or pa.types.is_map(arrow_type)):
        return None
    refuse_dtype(name, arrow_type, options)
    if options.nulls.policy == "fill":
        why = "its nulls cannot be filled: give nulls='mask', or fill them in SQL"
        raise unsupported(name, arrow_type, why)
    refuse_nanoseconds(name, arrow_type)
    return Objects(name, options)
