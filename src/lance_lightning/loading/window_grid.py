"""Which batches of an epoch are read together: windows, worked out when asked for."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import SupportsIndex, overload

Request = tuple[int, int, int]  # epoch, first batch, last batch excluded


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Which batches of an epoch are read at once.

    Args:
        size: Batches a window, counted from batch 0.
        tail: The batch from which on all that is left is one window; None where
            the last windows are like the others.
    """

    size: int
    tail: int | None = None

    def end(self, batch: int) -> int:
        """Return the end of the window that a batch belongs to."""
        if self.tail is not None and batch >= self.tail:
            return sys.maxsize
        end = (batch // self.size + 1) * self.size
        return end if self.tail is None else min(end, self.tail)


@dataclass(frozen=True, slots=True)
class Requests(Sequence[Request]):
    """The windows of an epoch from a batch on: arithmetic, however many there are.

    Their borders are on a grid that begins at batch 0, so that a resumed epoch reads
    the same windows, the first one cut short.

    Args:
        grid: Where the borders are.
        epoch: The epoch.
        start: The first batch.
        stop: One past the last batch.
    """

    grid: WindowGrid
    epoch: int
    start: int
    stop: int

    def __len__(self) -> int:
        tail = self.start < self.stop and self._tail < self.stop
        return self._regular + tail

    @overload
    def __getitem__(self, index: SupportsIndex) -> Request: ...

    @overload
    def __getitem__(self, index: slice) -> list[Request]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Request | list[Request]:
        """Return a window, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[operator.index(index)]
        first = max(
            self.start, (self.start // self.grid.size + number) * self.grid.size
        )
        if number >= self._regular:
            first = max(self.start, self._tail)
        return self.epoch, first, min(self.grid.end(first), self.stop)

    def __iter__(self) -> Iterator[Request]:
        first = self.start
        while first < self.stop:
            last = min(self.grid.end(first), self.stop)
            yield self.epoch, first, last
            first = last

    def most_batches(self) -> int:
        """Return how many batches the largest window has; 0 where there is none."""
        last = len(self) - 1
        # The first and the last can be cut short, and the tail is one of its own size.
        some = {number for number in (0, 1, last - 1, last) if 0 <= number <= last}
        return max((self[n][2] - self[n][1] for n in some), default=0)

    @property
    def _tail(self) -> int:
        return self.stop if self.grid.tail is None else self.grid.tail

    @property
    def _regular(self) -> int:
        """Windows before the tail."""
        end, size = min(self.stop, self._tail), self.grid.size
        return max(0, -(-end // size) - self.start // size) if self.start < end else 0
