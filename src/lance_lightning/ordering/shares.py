"""Who gets which positions of an epoch of training: equal steps on every rank.

Pure arithmetic. Nothing here is of the size of the split: a share is made in a
moment, and asking for batches costs what they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lance_lightning.checks import check_int
from lance_lightning.errors import ConfigError
from lance_lightning.ordering.share import (
    PositionShare,
    Rows,
    check_batches,
    check_rows,
)
from lance_lightning.ordering.world import World
from lance_lightning.types import Ints


@dataclass(frozen=True, slots=True)
class TrainShare(PositionShare):
    """The share of one rank in an epoch of training.

    Global batch t is the positions ``[t G, (t + 1) G)`` for every world size, G the
    global batch size, so that another world size trains on the same batches. The
    last global batch, of fewer rows, is shared out as well; with fewer rows than
    ranks each of the ranks that would get none repeats one of its rows.

    Global batches of 8 rows over 4 ranks, of a split of 19 rows: the positions of each
    rank, shared in strides and in parts::

                 batch 0           batch 1           batch 2, of 3 rows
        strided  0 1 2 3 4 5 6 7   8 9 . . . 14 15   16 17 18
        rank     0 1 2 3 0 1 2 3   0 1 . . .  2  3    0  1  2   rank 3 repeats 16
        parts    0 0 1 1 2 2 3 3   0 0 . . .  3  3    1  2  3   rank 0 repeats 16

    Args:
        num_rows: Rows in the split.
        global_batch_size: Rows in a batch over all ranks.
        world: This rank and the number of ranks.
        drop_last: Leave out the last global batch if it is not full.
        strided: Rank r takes the positions that are r modulo the world size, else
            the r-th part of each global batch.

    Raises:
        ConfigError: There are no rows, fewer than ranks, or with ``drop_last``
            fewer than one global batch; or the ranks cannot share a global batch
            evenly.
    """

    is_training: ClassVar[bool] = True

    num_rows: int
    global_batch_size: int
    world: World
    drop_last: bool
    strided: bool

    def __post_init__(self) -> None:
        check_int("global_batch_size", self.global_batch_size, 1)
        check_rows(self.num_rows, self.world)
        if self.global_batch_size % self.world.size:
            raise ConfigError(
                f"global_batch_size {self.global_batch_size} is not a multiple of "
                f"the world size {self.world.size}, so the ranks' batches would "
                f"differ in size; choose a multiple, or give batch_size"
            )
        if self.drop_last and self.num_rows < self.global_batch_size:
            raise ConfigError(
                f"the split has {self.num_rows} rows, fewer than one global batch "
                f"of {self.global_batch_size}, so with drop_last=True there would be "
                f"no batch; use drop_last=False or a smaller batch"
            )

    @property
    def batch_size(self) -> int:
        """Rows in a full batch of this rank."""
        return self.global_batch_size // self.world.size

    @property
    def num_full_batches(self) -> int:
        """Full batches in an epoch."""
        return self.num_rows // self.global_batch_size

    @property
    def num_batches(self) -> int:
        """Batches in an epoch, the same for every rank."""
        return self.num_full_batches + bool(self._rows_at_end)

    @property
    def num_rows_of_rank(self) -> int:
        """Rows that this rank delivers in an epoch, with what it repeats."""
        return self.num_full_batches * self.batch_size + len(self._end_positions())

    @property
    def repeated_rows(self) -> int:
        """Rows that come twice in an epoch, over all ranks."""
        if not self._rows_at_end:
            return 0
        return max(0, self.world.size - self._rows_at_end)

    @property
    def last_batch_rows(self) -> int:
        """Rows in this rank's last batch of an epoch."""
        return len(self._end_positions()) or self.batch_size

    @property
    def left_out_batches(self) -> int:
        """Batches that the order makes and no rank gets: it makes none."""
        return 0

    def positions(self, first: int, last: int) -> tuple[Ints, Ints]:
        """Return the positions of this rank's batches ``[first, last)``.

        Returns:
            The positions of the batches one after the other, and the number of
            rows of each batch, shape ``(last - first,)``.

        Raises:
            ConfigError: The epoch has no such batches.
        """
        check_batches(first, last, self.num_batches)
        full = min(last, self.num_full_batches)
        parts = [self._full_positions(min(first, full), full)]
        counts = np.full(last - first, self.batch_size, np.int64)
        if full < last and first < last:
            parts.append(self._end_positions())
            counts[-1] = len(parts[-1])
        return np.concatenate(parts), counts

    def rows_of_batch(self, number: int) -> int:
        """Return the rows of one of this rank's batches."""
        return (
            self.batch_size if number < self.num_full_batches else self.last_batch_rows
        )

    @property
    def _rows_at_end(self) -> int:
        """Rows in the last global batch if it comes and is not full, else 0."""
        return 0 if self.drop_last else self.num_rows % self.global_batch_size

    def _full_positions(self, first: int, last: int) -> Ints:
        batch, rank, size = self.global_batch_size, self.world.rank, self.world.size
        if self.strided:
            return np.arange(first * batch + rank, last * batch, size, dtype=np.int64)
        begins = np.arange(first, last, dtype=np.int64) * batch
        own = np.arange(self.batch_size, dtype=np.int64) + rank * self.batch_size
        return (begins[:, None] + own).reshape(-1)

    def _end_positions(self) -> Ints:
        m, rank, size = self._rows_at_end, self.world.rank, self.world.size
        if not m:
            return np.empty(0, np.int64)
        if self.strided:
            own = np.arange(rank, m, size, dtype=np.int64)
        else:
            begin, end = rank * m // size, (rank + 1) * m // size
            own = np.arange(begin, end, dtype=np.int64)
        if not len(own):
            own = np.array([rank % m], np.int64)
        return own + (self.num_rows - m)


@dataclass(frozen=True, slots=True)
class WholeBatchShare:
    """The share of one rank where the order makes the batches: whole ones.

    Step t is the batches ``[t W, (t + 1) W)``, one per rank, W the world size. Those
    that do not make a step are left out. Sizes in rows are means.

    Args:
        num_rows: Rows of all batches.
        batches: Batches of an epoch, over all ranks.
        world: This rank and the number of ranks.

    Raises:
        ConfigError: There are fewer batches than ranks.
    """

    is_training: ClassVar[bool] = True
    global_batch_size: ClassVar[None] = None
    drop_last: ClassVar[None] = None
    repeated_rows: ClassVar[int] = 0

    num_rows: int
    batches: int
    world: World

    def __post_init__(self) -> None:
        if self.batches < self.world.size:
            raise ConfigError(
                f"the sampler makes {self.batches} batches for {self.world.size} "
                "ranks, so some rank would have none and the others would wait for it "
                "forever; make more batches or use fewer ranks"
            )

    @property
    def batch_size(self) -> int:
        """Rows in the mean batch."""
        return -(-self.num_rows // self.batches)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch, the same for every rank."""
        return self.batches // self.world.size

    @property
    def num_full_batches(self) -> int:
        """All of them: each is as the order makes it."""
        return self.num_batches

    @property
    def num_rows_of_rank(self) -> int:
        """Rows that this rank delivers in an epoch, by the mean batch."""
        return self.num_batches * self.batch_size

    @property
    def last_batch_rows(self) -> int:
        """Rows in this rank's last batch, by the mean batch."""
        return self.batch_size

    @property
    def left_out_batches(self) -> int:
        """Batches of an epoch that no rank gets."""
        return self.batches % self.world.size

    def rows_of_batch(self, number: int) -> int:
        """Return the rows of a batch, by the mean batch."""
        return self.batch_size

    def indices(
        self, order: Rows, epoch: int, first: int, last: int
    ) -> tuple[Ints, Ints]:
        """Return the rows of batches; see `Share.indices`."""
        return order.batches(self.batches_of_rank(first, last), epoch)

    def batches_of_rank(self, first: int, last: int) -> Ints:
        """Return which of the order's batches are this rank's in these steps."""
        check_batches(first, last, self.num_batches)
        steps = np.arange(first, last, dtype=np.int64)
        return steps * self.world.size + self.world.rank
