"""A dict of columns, each converted for itself: torch and numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lance_lightning.arrow import UnorderedRows
from lance_lightning.columns import (
    Column,
    ColumnOptions,
    convert_columns,
    plan_columns,
    rows_of_columns,
    slice_columns,
)
from lance_lightning.formats.batches import batch_size_of

BY_COLUMN = ("numpy", "torch")


class LastPlan:
    """The plan of the last schema: every window of a loader has the same."""

    def __init__(self) -> None:
        self._last: tuple[pa.Schema, dict[str, Column]] | None = None

    def of(
        self, schema: pa.Schema, plan: Callable[[pa.Schema], dict[str, Column]]
    ) -> dict[str, Column]:
        """Return the plan of a schema, made if it is another than the last."""
        last = self._last
        if last is None or last[0] != schema:
            last = self._last = schema, plan(schema)
        return last[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"_last": None}  # plans hold functions, which no worker can get


@dataclass(frozen=True, slots=True)
class ByColumn:
    """How torch and numpy batches are made.

    Args:
        options: How a column of this name is converted.
        last_plan: The plan that was made last.
    """

    options: Callable[[str], ColumnOptions]
    last_plan: LastPlan

    def check(self, schema: pa.Schema) -> None:
        """Raise unless each column can be converted."""
        self._columns(schema)

    def convert(self, rows: pa.RecordBatch | UnorderedRows) -> dict[str, Any]:
        """Return rows as a window: the value of each column."""
        columns = self._columns(rows.schema)
        if isinstance(rows, UnorderedRows):
            arrays = rows.batch.columns
            return convert_columns(columns, arrays, rows.others, rows.order)
        return convert_columns(columns, rows.columns)

    def slice(self, window: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
        """Return rows ``start`` to ``stop`` as one batch of views."""
        return slice_columns(window, start, stop)

    def rows(
        self, window: dict[str, Any], start: int, stop: int
    ) -> list[dict[str, Any]]:
        """Return rows ``start`` to ``stop``, one dict per row."""
        return rows_of_columns(window, start, stop)

    def num_rows(self, batch: Any) -> int:
        """Return how many rows a batch has."""
        return batch_size_of(batch) or 0

    def _columns(self, schema: pa.Schema) -> dict[str, Column]:
        return self.last_plan.of(schema, lambda s: plan_columns(s, self.options))
