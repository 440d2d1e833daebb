"""One tensor of all columns: torch_row and torch_col."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lance_lightning.arrow import UnorderedRows, in_order
from lance_lightning.checks import check_one_of
from lance_lightning.columns import (
    CAST_DTYPES,
    Column,
    ColumnOptions,
    NumberColumn,
    Unwrapped,
    as_numpy,
    convert_columns,
    plan_columns,
    unsupported,
)
from lance_lightning.errors import DataError
from lance_lightning.formats.batches import batch_size_of
from lance_lightning.formats.by_column import LastPlan
from lance_lightning.formats.policies import refuse_no_columns

STACKED = ("torch_col", "torch_row")


@dataclass(frozen=True, slots=True)
class StackedWindow:
    """A window of torch_row or torch_col.

    Args:
        tensor: Shape (rows, C), or (C, rows).
        shapes: The shape of one row of each column; their sizes sum to C.
        by_row: The rows come first.
    """

    tensor: torch.Tensor
    shapes: dict[str, tuple[int, ...]]
    by_row: bool

    def slice(self, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start`` to ``stop``, a view."""
        return self.tensor.narrow(0 if self.by_row else 1, start, stop - start)

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return rows ``start`` to ``stop`` as dicts of their columns."""
        found = self.slice(start, stop)
        if not self.by_row:
            found = found.T
        widths = [math.prod(shape) for shape in self.shapes.values()]
        parts = [
            part.reshape(stop - start, *shape).unbind(0)
            for part, shape in zip(
                torch.split(found, widths, 1), self.shapes.values(), strict=True
            )
        ]
        return [
            dict(zip(self.shapes, row, strict=True)) for row in zip(*parts, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Stacked:
    """How torch_row and torch_col batches are made.

    Args:
        name: The output format.
        options: How a column of this name is converted.
        last_plan: The plan that was made last.
    """

    name: str
    options: Callable[[str], ColumnOptions]
    last_plan: LastPlan

    def check(self, schema: pa.Schema) -> None:
        """Raise unless all columns are numbers of one tensor."""
        self.last_plan.of(schema, self._plan)

    def convert(self, rows: pa.RecordBatch | UnorderedRows) -> StackedWindow:
        """Return rows as one tensor."""
        batch = in_order(rows)
        columns = self.last_plan.of(batch.schema, self._plan)
        shapes, parts = {}, []
        values = convert_columns(columns, batch.columns)
        for name, array in zip(columns, batch.columns, strict=True):
            value = values[name]
            shapes[name] = tuple(value.shape[1:])
            width = math.prod(shapes[name])
            parts.append(as_numpy(value).reshape(len(array), width))
        by_row = self.name == "torch_row"
        stacked = torch.from_numpy(_join(parts, by_row))
        if value.dtype is torch.bfloat16:
            stacked = stacked.view(torch.bfloat16)
        return StackedWindow(stacked, shapes, by_row)

    def slice(self, window: StackedWindow, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start`` to ``stop`` as one batch, a view."""
        return window.slice(start, stop)

    def rows(
        self, window: StackedWindow, start: int, stop: int
    ) -> list[dict[str, Any]]:
        """Return rows ``start`` to ``stop``, one dict per row."""
        return window.rows(start, stop)

    def num_rows(self, batch: Any) -> int:
        """Return how many rows a batch has."""
        if self.name == "torch_col":
            return int(batch.shape[1])
        return batch_size_of(batch) or 0

    def _plan(self, schema: pa.Schema) -> dict[str, Column]:
        refuse_no_columns(schema)
        columns = plan_columns(schema, self.options)
        dtypes: dict[str, torch.dtype] = {}
        for name, column in columns.items():
            found = _numbers_of(column)
            if found is None or found.number.tensor is None:
                arrow_type = schema.field(name).type
                why = f"{self.name} stacks columns of numbers into one tensor"
                raise unsupported(name, arrow_type, why)
            dtypes[name] = found.number.tensor
        if len(set(dtypes.values())) == 1:
            return columns
        dtype = _common_dtype(self.name, dtypes)
        check_one_of("dtype", dtype, CAST_DTYPES)

        def cast(name: str) -> ColumnOptions:
            return replace(self.options(name), dtype=dtype)

        return replace(self, options=cast)._plan(schema)


def _numbers_of(column: Column) -> NumberColumn | None:
    """Return the column of numbers inside a column; None where there is none."""
    while isinstance(column, Unwrapped):
        column = column.column
    return column if isinstance(column, NumberColumn) else None


def _common_dtype(name: str, dtypes: Mapping[str, torch.dtype]) -> str:
    """Return the dtype that holds every column's digits.

    numpy's promotion, but for 64-bit integers beside floats: float64 has 53 bits.
    """
    names = [str(dtype).removeprefix("torch.") for dtype in dtypes.values()]
    common = np.result_type(*(n.replace("bfloat16", "float32") for n in names))
    if common.kind == "f" and "int64" in names:
        listed = ", ".join(f"{c}: {n}" for c, n in zip(dtypes, names, strict=True))
        raise DataError(
            f"output_format={name!r} makes one tensor of all columns, and {common} "
            f"would lose digits of int64 ({listed}): set dtype='float32' or another, "
            "choose columns of one dtype with columns=[...], or output_format='torch'"
        )
    return str(common)


def _join(parts: list[np.ndarray], by_row: bool) -> np.ndarray:
    """Join arrays of shape (rows, width); a single one is not copied."""
    if len(parts) == 1:
        return parts[0] if by_row else parts[0].T
    rows, width = len(parts[0]), sum(part.shape[1] for part in parts)
    # ``out``, since numpy would take the order of memory from the transposed parts.
    if by_row:
        out = np.empty((rows, width), parts[0].dtype)
        return np.concatenate(parts, axis=1, out=out)
    out = np.empty((width, rows), parts[0].dtype)
    return np.concatenate([part.T for part in parts], axis=0, out=out)
