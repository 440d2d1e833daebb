"""Who gets which rows in validation, test and prediction: each row exactly once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lance_lightning.checks import check_int
from lance_lightning.ordering.share import (
    PositionShare,
    check_batches,
    check_rows,
)
from lance_lightning.ordering.world import World
from lance_lightning.types import Ints


@dataclass(frozen=True, slots=True)
class EvalShare(PositionShare):
    """The share of one rank in validation, test or prediction.

    Each row comes exactly once over all ranks, in the order of the plan, and every
    rank makes the same number of steps: full batches and then small ones, down to
    one row.

    Args:
        num_rows: Rows in the split.
        batch_size: Rows in a full batch of one rank.
        world: This rank and the number of ranks.

    Raises:
        ConfigError: There are no rows, or fewer than ranks.
    """

    is_training: ClassVar[bool] = False
    global_batch_size: ClassVar[None] = None
    drop_last: ClassVar[None] = None
    repeated_rows: ClassVar[int] = 0
    left_out_batches: ClassVar[int] = 0

    num_rows: int
    batch_size: int
    world: World

    def __post_init__(self) -> None:
        check_int("batch_size", self.batch_size, 1)
        check_rows(self.num_rows, self.world)

    @property
    def num_batches(self) -> int:
        """Batches of this rank; the same for every rank unless `uneven`."""
        return min(self._steps, self.num_rows_of_rank)

    @property
    def num_rows_of_rank(self) -> int:
        """Rows that this rank delivers."""
        begin, end = self._rows
        return end - begin

    @property
    def uneven(self) -> bool:
        """Whether some ranks make one step fewer, having too few rows.

        Only with batches of one row, where equal steps would need a repeated row.
        """
        return self.num_rows // self.world.size < self._steps

    @property
    def num_full_batches(self) -> int:
        """Full batches of this rank."""
        return self.num_rows_of_rank // self.batch_size

    @property
    def last_batch_rows(self) -> int:
        """Rows in this rank's last batch."""
        return self.rows_of_batch(self.num_batches - 1)

    def positions(self, first: int, last: int) -> tuple[Ints, Ints]:
        """Return the positions of this rank's batches ``[first, last)``.

        Returns:
            The positions of the batches one after the other, and the number of
            rows of each batch, shape ``(last - first,)``.

        Raises:
            ConfigError: There are no such batches.
        """
        check_batches(first, last, self.num_batches)
        rows, batches = self.num_rows_of_rank, self.num_batches
        i = np.arange(first, last + 1, dtype=np.int64)
        # As many rows are held back as steps are left: none is without a row.
        starts = np.minimum(i * self.batch_size, rows - (batches - i)) + self._rows[0]
        return np.arange(starts[0], starts[-1], dtype=np.int64), np.diff(starts)

    def rows_of_batch(self, number: int) -> int:
        """Return the rows of one of this rank's batches."""
        done, left = number * self.batch_size, self.num_batches - number
        rows = self.num_rows_of_rank
        end = min(done + self.batch_size, rows - left + 1)
        return end - min(done, rows - left)

    @property
    def _rows(self) -> tuple[int, int]:
        n, rank, size = self.num_rows, self.world.rank, self.world.size
        return rank * n // size, (rank + 1) * n // size

    @property
    def _steps(self) -> int:
        """Steps of the rank with the most rows."""
        most = -(-self.num_rows // self.world.size)
        return -(-most // self.batch_size)
