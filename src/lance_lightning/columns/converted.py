"""Columns of a batch, converted, cut into batches and into rows."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lance_lightning.columns.column import (
    Column,
    NullCount,
    as_numpy,
    as_same_kind,
    nulls_error,
)
from lance_lightning.columns.lists import Ragged
from lance_lightning.columns.python_values import LazyValues
from lance_lightning.errors import NullError


def convert_columns(
    columns: Mapping[str, Column],
    arrays: Iterable[pa.Array],
    others: Collection[int] = (),
    order: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the window value of each column, masks beside their columns.

    Args:
        columns: The plans.
        arrays: The rows.
        others: The numbers of the columns that are not in order.
        order: Where these have each row, int64 of shape (rows,).

    Raises:
        DataError: Values, or the nulls of any of the columns, that their output
            cannot hold.
    """
    window: dict[str, Any] = {}
    taken: set[int] = set()
    nulls: list[NullCount] = []
    pairs = zip(columns.items(), arrays, strict=True)
    for number, ((name, column), array) in enumerate(pairs):
        own = {buffer.address for buffer in array.buffers() if buffer is not None}
        try:
            found = column.convert(array)
        except NullError as error:  # all columns that have some are told at once
            nulls += error.found
            continue
        if order is not None and number in others:
            found = {suffix: _ordered(value, order) for suffix, value in found.items()}
        # One column under two names is one memory: each gets its own to write to.
        parts = found if taken.isdisjoint(own) else copy.deepcopy(found)
        window.update({name + suffix: value for suffix, value in parts.items()})
        taken |= own
    if nulls:
        raise nulls_error(nulls)
    return window


def _ordered(value: Any, order: np.ndarray) -> Any:
    """Return what a column became with row i where ``order[i]`` was."""
    if isinstance(value, LazyValues | Ragged):
        return replace(value, order=order)
    if isinstance(value, dict):  # a struct's fields
        return {name: _ordered(part, order) for name, part in value.items()}
    if isinstance(value, list):  # what was decoded, of unequal shapes
        return [value[at] for at in order.tolist()]
    return as_same_kind(value, as_numpy(value)[order])


# --- windows ------------------------------------------------------------------------


def slice_columns(window: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Return rows ``start`` to ``stop`` of a converted window: views, no copies."""
    batch: dict[str, Any] = {}
    for name, value in window.items():
        if isinstance(value, Ragged):
            found = value.batch(start, stop)
            batch.update({name + suffix: part for suffix, part in found.items()})
        elif isinstance(value, dict):
            batch[name] = slice_columns(value, start, stop)
        else:
            batch[name] = value[start:stop]
    return batch


def rows_of_columns(
    window: Mapping[str, Any], start: int, stop: int
) -> list[dict[str, Any]]:
    """Return rows ``start`` to ``stop`` of a converted window, one dict per row."""
    columns: dict[str, Sequence[Any]] = {}
    for name, value in window.items():
        if isinstance(value, Ragged):
            found = value.rows(start, stop)
            columns.update({name + suffix: part for suffix, part in found.items()})
        elif isinstance(value, dict):
            columns[name] = rows_of_columns(value, start, stop)
        elif isinstance(value, torch.Tensor):
            columns[name] = value[start:stop].unbind(0)
        else:
            columns[name] = list(value[start:stop])
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]
