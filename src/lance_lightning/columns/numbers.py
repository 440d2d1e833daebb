"""Columns of numbers: dtype and shape follow only from the schema.

Numbers are not copied where their memory can be used as it is. The tensor then *is*
Arrow's memory, and writable: give these functions memory that nobody else reads (the
reader's fresh windows), not a table that is still in use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.dlpack import from_dlpack

from lance_lightning.arrow import is_bfloat16, sql_name
from lance_lightning.columns.column import (
    ColumnOptions,
    MaskedColumn,
    from_numpy,
    null_error,
)
from lance_lightning.columns.dtypes import (
    NumberTypes,
    RowShape,
    number_types_of,
    refuse_fractions,
    row_shape_of,
)
from lance_lightning.columns.fill_values import arrow_value, check_fill
from lance_lightning.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class NumberColumn(MaskedColumn):
    """A column of numbers: one per row, or the same shape in every row."""

    layout: RowShape
    number: NumberTypes
    fill: Any = 0  # as it is stored

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Return a value of shape (rows, *row shape), and its mask."""
        leaves, valid = _leaves(array)
        values = _read(leaves, self.number.stored)
        if valid is not None and valid.size:
            self._refuse_invalid(valid, len(array), inside=not array.null_count)
            values = np.where(valid, values, np.asarray(self.fill, values.dtype))
        out = {"": self._finish(self._arrange(self._cast(values), len(array)))}
        if self.options.nulls.policy == "mask":
            if valid is None:
                valid = np.ones(len(values), np.bool_)
            mask = self._arrange(valid, len(array))
            out["_mask"] = from_numpy(mask, self.options.target)
        return out

    def constant(self, value: Any, doing: str) -> tuple[Any, Any]:
        """Return ``value`` as the column stores it, and as it is handed out.

        Args:
            value: What the user gave.
            doing: What it is for, such as "nulls fills".

        Raises:
            ConfigError: The column, or its output, cannot hold it.
        """
        leaf, stored = self.layout.leaf, self.number.stored
        found = _stored_fill(self.name, leaf, stored, value, doing)
        try:
            return found, self._cast(np.full(1, found, stored))[0]
        except DataError as error:
            raise ConfigError(
                f"{doing} column {self.name!r} with {value!r}, which its output cannot "
                f"hold: {error}"
            ) from error

    def _refuse_invalid(self, valid: np.ndarray, rows: int, inside: bool) -> None:
        if self.options.nulls.policy == "error":
            whole = valid.reshape(rows, -1).all(axis=1)
            raise null_error(self.name, int(rows - whole.sum()), rows, inside)

    def _cast(self, values: np.ndarray) -> np.ndarray:
        given = self.number.given
        if self.number.bfloat16 and given != np.int16:
            values = _widen_bfloat16(values)
        if given.kind in "mM":
            return values.astype(np.int64, copy=False).view(given)
        return cast(self.name, values, given)

    def _arrange(self, values: np.ndarray, rows: int) -> np.ndarray:
        """Shape the flat numbers into rows, without a copy."""
        values = values.reshape(rows, *self.layout.shape)
        axes = self.layout.axes
        if axes == tuple(range(len(axes))):
            return values
        return values.transpose(0, *(axis + 1 for axis in axes))

    def _finish(self, values: np.ndarray) -> Any:
        found = from_numpy(values, self.options.target)
        return found.view(torch.bfloat16) if self._as_bfloat16 else found

    @property
    def _as_bfloat16(self) -> bool:
        return self.number.tensor is torch.bfloat16


def plan_numbers(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> NumberColumn | None:
    """Plan a column of numbers."""
    layout = row_shape_of(arrow_type)
    number = number_types_of(layout.leaf, options)
    if number is None:
        return None
    if options.dtype is not None:
        refuse_fractions(name, layout.leaf, options.dtype)
    column = NumberColumn(name, options, layout, number)
    if options.nulls.policy != "fill":
        return column
    fill, _ = column.constant(options.nulls.value, "nulls fills")
    return replace(column, fill=fill)


def _leaves(array: pa.Array) -> tuple[pa.Array, np.ndarray | None]:
    """Unwrap ``array`` to its flat numbers.

    Returns:
        The numbers, one array whatever the nesting, and which of them are valid: a
        null row makes all its numbers invalid. None where all are.
    """
    valid: np.ndarray | None = None
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if array.null_count:
            here = array.is_valid().to_numpy(zero_copy_only=False)
            valid = here if valid is None else valid & here
        if not pa.types.is_fixed_size_list(array.type):
            return array, valid
        size = array.type.list_size
        if valid is not None:
            valid = np.repeat(valid, size)
        # Neither ``values`` nor its length knows of the slice that ``array`` is, and
        # ``flatten`` would leave out the numbers under a null.
        array = array.values.slice(array.offset * size, len(array) * size)


def _read(leaves: pa.Array, stored: np.dtype[Any]) -> np.ndarray:
    """Return the memory of flat numbers as a writable array, nulls left as they are.

    Not copied but for bools, which Arrow packs into bits.
    """
    data = leaves.buffers()[-1]
    if len(leaves) == 0 or data is None:
        return np.zeros(len(leaves), stored)
    if stored.kind == "b":
        bits = _without_nulls(leaves, pa.bool_(), data)
        array: np.ndarray = bits.to_numpy(zero_copy_only=False)
        return array
    plain = _without_nulls(leaves, _INTEGERS[stored.itemsize], data)
    # DLPack: from_numpy would call the memory read-only and warn.
    return from_dlpack(plain).numpy().view(stored)


_INTEGERS = {1: pa.int8(), 2: pa.int16(), 4: pa.int32(), 8: pa.int64()}


def _without_nulls(leaves: pa.Array, plain: pa.DataType, data: pa.Buffer) -> pa.Array:
    return pa.Array.from_buffers(
        plain, len(leaves), [None, data], null_count=0, offset=leaves.offset
    )


def _widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return bfloat16 as float32: the same bits, and 16 more of zero."""
    return (bits.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def cast(name: str, values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return ``values`` as ``dtype``; a view where the width stays the same.

    Raises:
        DataError: A value beyond the range of ``dtype``.
    """
    if values.dtype == dtype:
        return values
    if dtype.kind in "iu" and not np.can_cast(values.dtype, dtype):
        _check_range(name, values, dtype)
        if values.itemsize == dtype.itemsize:
            return values.view(dtype)
    try:
        with np.errstate(over="raise"):
            return values.astype(dtype)
    except FloatingPointError:
        raise DataError(
            f"column {name!r} holds values beyond {dtype.name}, which would become "
            "infinite: choose a wider dtype, or scale the column in SQL"
        ) from None


def _check_range(name: str, values: np.ndarray, dtype: np.dtype[Any]) -> None:
    limits = np.iinfo(dtype)
    as_text = f"cast({sql_name(name)} as ...)"
    if not len(values):
        return
    for found in (int(values.max()), int(values.min())):
        if not limits.min <= found <= limits.max:
            raise DataError(
                f"column {name!r} holds {found}, outside {dtype.name} "
                f"({limits.min} to {limits.max}), and would wrap around: choose "
                "output_format='numpy' or 'arrow', which keep the column's own type, "
                f"or cast it in SQL, columns={{{name!r}: {as_text!r}}}"
            )


def _stored_fill(
    name: str, leaf: pa.DataType, stored: np.dtype[Any], value: Any, doing: str
) -> Any:
    """Return ``value`` as the column stores it."""
    check_fill(name, leaf, value, doing)
    if is_bfloat16(leaf):
        made = torch.tensor(float(value), dtype=torch.bfloat16)
        return made.view(torch.int16).item()
    return _read(pa.array([arrow_value(leaf, value)], leaf), stored)[0]
