"""Rows that were read in another order than they are handed out in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa

from lance_lightning.arrow.arrays import batch_of, take_rows
from lance_lightning.types import Array


@dataclass(frozen=True, slots=True)
class UnorderedRows:
    """Rows of which only the columns of fixed width are in order.

    The others are as they were read and are put in order with each batch: that takes
    no second copy of the window.

    Args:
        batch: The rows.
        others: The numbers of the columns that are not in order: of those that have no
            `FixedWidth`.
        order: Where these have each row, int64 of shape (rows,).
    """

    batch: pa.RecordBatch
    others: Collection[int]
    order: Array

    @property
    def num_rows(self) -> int:
        """Rows of the window."""
        return int(self.batch.num_rows)

    @property
    def schema(self) -> pa.Schema:
        """What the columns are."""
        return self.batch.schema

    def slice(self, start: int, length: int) -> pa.RecordBatch:
        """Return rows from ``start`` on, in order."""
        order = self.order[start : start + length]
        arrays = [
            take_rows(column, order)
            if number in self.others
            else column.slice(start, length)
            for number, column in enumerate(self.batch.columns)
        ]
        return batch_of(arrays, self.batch.schema)


def in_order(rows: pa.RecordBatch | UnorderedRows) -> pa.RecordBatch:
    """Return the rows of a window in order."""
    return rows.slice(0, rows.num_rows) if isinstance(rows, UnorderedRows) else rows
