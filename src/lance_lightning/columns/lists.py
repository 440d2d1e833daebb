"""Columns of lists of numbers, whose rows are of unequal length."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lance_lightning.arrow import is_list
from lance_lightning.columns.column import (
    Column,
    ColumnOptions,
    Padding,
    as_numpy,
    as_same_kind,
    from_numpy,
    null_error,
    nulls_error,
)
from lance_lightning.columns.numbers import plan_numbers
from lance_lightning.errors import NullError


@dataclass(frozen=True, slots=True)
class Ragged:
    """The lists of a window, from which each batch takes its own.

    Padding belongs to the batch: a batch is as wide as its own longest list, whatever
    window it came in.

    Args:
        values: All numbers end to end, shape (numbers, *row shape).
        offsets: Where each row's numbers begin and the last one's end, int64, shape
            (rows + 1,).
        policy: One of `RAGGED_POLICIES`.
        padding: How they are padded; its value is of the dtype of ``values``.
        mask: Which numbers are valid, of the shape of ``values``; or None.
        order: Which list is each row's, int64 of shape (rows,); None is its own.
    """

    values: Any
    offsets: Any
    policy: str
    padding: Padding
    mask: Any = None
    order: np.ndarray | None = None

    def batch(self, start: int, stop: int) -> dict[str, Any]:
        """Return the value of rows ``start`` to ``stop``, by suffix."""
        starts, ends = self._bounds(start, stop)
        parts = self._parts()
        if self.policy == "list":
            return {s: _split(v, starts, ends) for s, v in parts.items()}
        if self.policy == "pad":
            lengths = ends - starts
            zeros = replace(self.padding, value=None)  # nothing is valid there
            padded = {
                s: _pad(v, starts, lengths, zeros if s else self.padding)
                for s, v in parts.items()
            }
            return {**padded, "_lengths": as_same_kind(self.offsets, lengths)}
        bounds = np.zeros(len(starts) + 1, np.int64)
        np.cumsum(ends - starts, out=bounds[1:])
        offsets = as_same_kind(self.offsets, bounds)
        flat = {s: self._end_to_end(v, starts, ends) for s, v in parts.items()}
        if self.policy == "values_offsets":
            return {**flat, "_offsets": offsets}
        return {
            s: torch.nested.nested_tensor_from_jagged(v, offsets)
            for s, v in flat.items()
        }

    def rows(self, start: int, stop: int) -> dict[str, list[Any]]:
        """Return each row's own numbers, by suffix: views, not padded."""
        bounds = self._bounds(start, stop)
        return {s: _split(v, *bounds) for s, v in self._parts().items()}

    def _parts(self) -> dict[str, Any]:
        return {"": self.values} | ({} if self.mask is None else {"_mask": self.mask})

    def _bounds(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where the numbers of each row begin and end."""
        offsets = as_numpy(self.offsets)
        if self.order is None:
            return offsets[start:stop], offsets[start + 1 : stop + 1]
        rows = self.order[start:stop]
        return offsets[rows], offsets[rows + 1]

    def _end_to_end(self, values: Any, starts: np.ndarray, ends: np.ndarray) -> Any:
        if self.order is None:
            return values[int(starts[0]) : int(ends[-1])] if len(starts) else values[:0]
        flat = as_numpy(values)
        parts = [flat[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        return as_same_kind(values, np.concatenate([flat[:0], *parts]))


def _split(values: Any, starts: np.ndarray, ends: np.ndarray) -> list[Any]:
    bounds = zip(starts.tolist(), ends.tolist(), strict=True)
    return [values[a:b] for a, b in bounds]


def _pad(values: Any, starts: np.ndarray, lengths: np.ndarray, padding: Padding) -> Any:
    """Return rows as wide as the longest, rounded up, padding after the end of each."""
    flat = as_numpy(values)
    width = -(-int(lengths.max(initial=0)) // padding.multiple) * padding.multiple
    shape = (len(lengths), width, *flat.shape[1:])
    if padding.value is None:
        out = np.zeros(shape, flat.dtype)
    else:
        out = np.full(shape, padding.value, flat.dtype)
    # Row by row: a mask of all places costs as much again as the numbers.
    for row, start, length in zip(out, starts.tolist(), lengths.tolist(), strict=True):
        row[:length] = flat[start : start + length]
    return as_same_kind(values, out)


@dataclass(frozen=True, slots=True)
class Lists:
    """A column of lists of numbers.

    Args:
        name: The column's name.
        numbers: The numbers of all lists, as a column.
        options: How it is converted; a padding value is of the numbers' dtype.
    """

    name: str
    numbers: Column
    options: ColumnOptions

    def suffixes(self) -> tuple[str, ...]:
        """Return the suffixes of a batch under the ragged policy."""
        extra = {"pad": ("_lengths",), "values_offsets": ("_offsets",)}
        return (*self.numbers.suffixes(), *extra.get(self.options.ragged, ()))

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Return a `Ragged`. A null list is one of no numbers, unless an error."""
        if array.null_count and self.options.nulls.policy == "error":
            raise null_error(self.name, array.null_count, len(array))
        lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        offsets = np.zeros(len(array) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        try:  # what is under null lists is left out
            parts = self.numbers.convert(array.flatten())
        except NullError as error:
            (found,) = error.found
            raise nulls_error([replace(found, inside=True)]) from None
        offsets = from_numpy(offsets, self.options.target)
        ragged = Ragged(
            parts[""],
            offsets,
            self.options.ragged,
            self.options.padding,
            parts.get("_mask"),
        )
        return {"": ragged}


def plan_lists(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> Lists | None:
    """Plan a column of lists of numbers; lists of anything else are not ragged."""
    if not is_list(arrow_type):
        return None
    numbers = plan_numbers(name, arrow_type.value_type, options)
    if numbers is None:
        return None
    padding = options.padding
    if padding.value is not None:
        _, value = numbers.constant(padding.value, "ragged pads")
        options = replace(options, padding=replace(padding, value=value))
    return Lists(name, numbers, options)
