"""Which rows come when, as a function of numbers.

How a window, its pieces and its batches belong together::

    epoch     | batch 0 | batch 1 | batch 2 | batch 3 | batch 4 | ...  the order's rows
    window    |---- the rows of batches 0 to 3 -------|                read ahead
    sorted     3 4 5 9 | 12 14 15 | 70 71 76 77 | 90                   by row offset
    pieces    |-------| |--------| |-----------| |--|                  asked for at once
    gathered   each row is written to its place in the window
    converted |---------------------------------------|                once for all four
    batches   | batch 0 | batch 1 | batch 2 | batch 3 |                slices of it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lance_lightning.errors import ConfigError
from lance_lightning.ordering import Share
from lance_lightning.reading import sort_offsets
from lance_lightning.samplers import Order
from lance_lightning.tables import Plan
from lance_lightning.types import Array


@dataclass(frozen=True, slots=True)
class Stream:
    """Which rows come when, as a function of numbers.

    Args:
        plan: The rows of the split.
        share: Which of an epoch's positions are this replica's.
        order: The order of an epoch.
        seed: Seed of the order and of the user's functions.
    """

    plan: Plan
    share: Share
    order: Order
    seed: int

    def row_offsets(self, epoch: int, first: int, last: int) -> tuple[Array, Array]:
        """Return the rows of batches ``first`` to ``last``, the latter excluded.

        Returns:
            The table's row offsets in the order in which they are handed out,
            int64 of shape (rows,), and the rows of each batch, int64 of shape
            (last - first,).

        Raises:
            ConfigError: The order gives what are no rows of the split.
        """
        indices, sizes = self.share.indices(self.order, epoch, first, last)
        rows = self.plan.num_rows
        if len(indices) and not (indices.min() >= 0 and indices.max() < rows):
            wrong = indices[(indices < 0) | (indices >= rows)]
            raise ConfigError(
                f"{type(self.order).__name__}.indices gives index {wrong[0]} in epoch "
                f"{epoch}, and the split has {rows} rows, 0 to {rows - 1}, so rows of "
                "other splits would be read: let it give indices into the split"
            )
        return self.plan.offsets(indices), sizes

    @property
    def is_in_order(self) -> bool:
        """Whether this replica's rows come about as they are in the table.

        Another question than how ranks share a batch: a rank's part of each batch
        can be in one piece, and the batches anywhere. A permutation has an order of
        its own.
        """
        return self.plan.sorted and self.order.reads_in_table_order

    @property
    def batch_rows(self) -> int:
        """Rows of a batch of this replica, about."""
        share = self.share
        return max(1, -(-share.num_rows_of_rank // max(1, share.num_batches)))

    def begin(self, epoch: int) -> None:
        """Draw an epoch's order where that is not a function of numbers.

        On the main thread: a sampler of others may draw from global generators.
        """
        self.order.prepare(epoch)


@dataclass(frozen=True, slots=True)
class WindowRows:
    """The rows of consecutive batches, not read yet.

    Args:
        epoch: The epoch they belong to.
        first: The first batch.
        sizes: Rows of each batch.
        row_offsets: The table's row offsets, in the order in which they come.
        sorted: The same, sorted.
        order: The place of each of the sorted; None where they were sorted.
        stride: From a batch to the next: several readers may share an epoch.
    """

    epoch: int
    first: int
    sizes: Sequence[int]
    row_offsets: Array
    sorted: Array
    order: Array | None
    stride: int = 1

    def part(self, start: int, stop: int) -> WindowRows:
        """Return some of the batches."""
        before, until = sum(self.sizes[:start]), sum(self.sizes[:stop])
        offsets = self.row_offsets[before:until]
        ranked, order = sort_offsets(offsets)
        return replace(
            self,
            first=self.first + start * self.stride,
            sizes=self.sizes[start:stop],
            row_offsets=offsets,
            sorted=ranked,
            order=order,
        )


@dataclass(frozen=True, slots=True)
class Window:
    """Converted rows of consecutive batches.

    Args:
        data: What the format made of them (Arrow where a worker sends them).
        epoch: The epoch they belong to.
        first: The first batch.
        sizes: Rows of each batch.
        row_offsets: The table's row offsets of all rows.
        stride: From a batch to the next.
    """

    data: Any
    epoch: int
    first: int
    sizes: Sequence[int]
    row_offsets: Array
    stride: int = 1

    @property
    def numbers(self) -> range:
        """The batches' numbers within the epoch."""
        return range(
            self.first, self.first + len(self.sizes) * self.stride, self.stride
        )
