"""Columns of lists of numbers, whose rows are of unequal length."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lance_lightning.column import (
    Column,
    Options,
    Padding,
    as_numpy,
    from_numpy,
    is_list,
    like,
    null_error,
)
from lance_lightning.tensors import plan_numbers


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
    """

    values: Any
    offsets: Any
    policy: str
    padding: Padding
    mask: Any = None

    def batch(self, start: int, stop: int) -> dict[str, Any]:
        """Return the value of rows ``start`` to ``stop``, by suffix."""
        offsets = self.offsets[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        parts = {"": self.values}
        if self.mask is not None:
            parts["_mask"] = self.mask
        if self.policy == "list":
            return {s: _split(v, offsets) for s, v in parts.items()}
        if self.policy == "values_offsets":
            flat = {s: v[first:last] for s, v in parts.items()}
            return {**flat, "_offsets": _minus(offsets, first)}
        if self.policy == "nested":
            bounds = _minus(offsets, first)
            return {
                s: torch.nested.nested_tensor_from_jagged(v[first:last], bounds)
                for s, v in parts.items()
            }
        lengths = np.diff(as_numpy(offsets))
        zeros = replace(self.padding, value=None)  # nothing is valid there
        padded = {
            s: _pad(v[first:last], lengths, zeros if s else self.padding)
            for s, v in parts.items()
        }
        return {**padded, "_lengths": like(self.offsets, lengths)}

    def rows(self, start: int, stop: int) -> dict[str, list[Any]]:
        """Return each row's own numbers, by suffix: views, not padded."""
        offsets = self.offsets[start : stop + 1]
        out = {"": _split(self.values, offsets)}
        if self.mask is not None:
            out["_mask"] = _split(self.mask, offsets)
        return out


def _minus(offsets: Any, first: int) -> Any:
    return like(offsets, as_numpy(offsets) - first)


def _split(values: Any, offsets: Any) -> list[Any]:
    bounds = as_numpy(offsets).tolist()
    return [values[a:b] for a, b in itertools.pairwise(bounds)]


def _pad(values: Any, lengths: np.ndarray, padding: Padding) -> Any:
    """Return rows as wide as the longest, rounded up, padding after the end of each."""
    flat = as_numpy(values)
    width = -(-int(lengths.max(initial=0)) // padding.multiple) * padding.multiple
    shape = (len(lengths), width, *flat.shape[1:])
    if padding.value is None:
        out = np.zeros(shape, flat.dtype)
    else:
        out = np.full(shape, padding.value, flat.dtype)
    out[np.arange(width) < lengths[:, None]] = flat
    return like(values, out)


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
    options: Options

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
        parts = self.numbers.convert(array.flatten())  # what lies under nulls left out
        offsets = from_numpy(offsets, self.options.target)
        ragged = Ragged(
            parts[""],
            offsets,
            self.options.ragged,
            self.options.padding,
            parts.get("_mask"),
        )
        return {"": ragged}


def plan_lists(name: str, arrow_type: pa.DataType, options: Options) -> Lists | None:
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
