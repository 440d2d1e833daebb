"""Batches of any kind: their tensors, and how many rows they have."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch

_LEAF_MODULES = frozenset({"PIL", "numpy", "pandas", "polars", "pyarrow"})
_LEAF_TYPES = (str, bytes, bytearray, memoryview, int, float, complex, type(None))


def is_leaf(value: Any) -> bool:
    """Tell whether a value has no tensor in it and goes to no device.

    Text, bytes, numbers, None, and all that belongs to numpy, Arrow, pandas, polars and
    Pillow. None of these is imported for it.
    """
    if isinstance(value, _LEAF_TYPES):
        return True
    owners = (kind.__module__.partition(".")[0] for kind in type(value).__mro__)
    return not _LEAF_MODULES.isdisjoint(owners)


def move(batch: Any, function: Callable[[Any], Any]) -> Any:
    """Return ``batch`` with ``function`` applied to each tensor in it.

    Walks mappings, lists, tuples, named tuples and dataclasses, and makes new ones.
    What has a ``to`` method of its own (a `PackedSequence`, a tokenizer's
    ``BatchEncoding``) goes to ``function`` whole. All else is handed on as it is.
    """
    if isinstance(batch, torch.Tensor):
        return function(batch)
    if type(batch) is not dict and (is_leaf(batch) or isinstance(batch, type)):
        return batch
    if callable(getattr(batch, "to", None)):
        return function(batch)
    if isinstance(batch, Mapping):
        moved = {key: move(value, function) for key, value in batch.items()}
        return _like_mapping(batch, moved)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(value, function) for value in batch))
    if isinstance(batch, list) and all(isinstance(v, _LEAF_TYPES) for v in batch):
        return batch  # a window's texts are many
    if isinstance(batch, list | tuple):
        return type(batch)(move(value, function) for value in batch)
    if dataclasses.is_dataclass(batch):
        clone = copy.copy(batch)
        for field in dataclasses.fields(batch):
            value = move(getattr(batch, field.name), function)
            object.__setattr__(clone, field.name, value)  # frozen ones too
        return clone
    return batch


def _like_mapping(batch: Mapping[Any, Any], moved: dict[Any, Any]) -> Any:
    if type(batch) is dict or not isinstance(batch, MutableMapping):
        return moved
    clone = copy.copy(batch)  # keeps, say, a default dict's factory
    clone.update(moved)
    return clone


def page_locked(batch: Any) -> Any:
    """Return a batch in page-locked memory, as torch's ``DataLoader`` does it.

    A batch of a type that has a ``pin_memory`` method of its own is locked by that.
    """
    if callable(getattr(batch, "pin_memory", None)):
        return batch.pin_memory()
    return move(batch, _page_locked_leaf)


def _page_locked_leaf(value: Any) -> Any:
    own = getattr(value, "pin_memory", None)
    return own() if callable(own) else value


def batch_size_of(batch: Any) -> int | None:
    """Return the number of rows of a batch, or None where it does not tell.

    Tensors and arrays count along their first axis, which is wrong for a torch_col
    batch (`Format.num_rows` knows better); DataFrames and Arrow their rows; mappings
    and tuples as the first value in them that tells; lists their length, but for a
    list of tensors that is a whole batch: that is one of columns, as from torch's
    default collate.
    """
    if isinstance(batch, Mapping):
        return _mapping_size(batch)
    if isinstance(batch, tuple) or _of_tensors(batch):
        sizes = (batch_size_of(value) for value in batch)
        return next((size for size in sizes if size is not None), None)
    return _plain_size(batch)


def _plain_size(value: Any) -> int | None:
    if isinstance(value, torch.Tensor | np.ndarray):
        return int(value.shape[0]) if value.ndim else None
    if isinstance(value, list):
        return len(value)
    if isinstance(value, _LEAF_TYPES) or not is_leaf(value):
        return None
    rows = getattr(value, "num_rows", None)
    if rows is None and hasattr(value, "__len__"):
        rows = len(value)
    return None if rows is None else int(rows)


def _of_tensors(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], _NESTED)


_NESTED = (torch.Tensor, np.ndarray, list)


def _mapping_size(batch: Mapping[Any, Any]) -> int | None:
    """Return the rows of a mapping by column.

    A list of tensors may be one per row (ragged lists) or one per place (torch's
    default collate of lists), so that every other column is asked first.
    """
    for certain in (True, False):
        for name, value in batch.items():
            if _of_tensors(value) is certain:
                continue
            offsets = batch.get(f"{name}_offsets")
            if offsets is not None and hasattr(offsets, "shape"):
                return max(int(offsets.shape[0]) - 1, 0)
            inner = isinstance(value, Mapping | tuple)
            size = batch_size_of(value) if inner else _plain_size(value)
            if size is not None:
                return size
    return None


def collated_size(batch: Any) -> int | None:
    """Return the rows of what torch's default collate made: a list is one of places."""
    if isinstance(batch, torch.Tensor):
        return int(batch.shape[0])
    values = list(batch.values()) if isinstance(batch, Mapping) else list(batch)
    if values and isinstance(values[0], str | bytes):
        return len(values)
    sizes = (collated_size(value) for value in values)
    return next((size for size in sizes if size is not None), None)
