"""What workers are asked for, window by window."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator

from lance_lightning.loading.batch_reader import BatchReader
from lance_lightning.loading.stream import WindowRows
from lance_lightning.loading.window_grid import Request
from lance_lightning.reading import Seen


class WindowRequests:
    """What torch's sampler hands to the workers: the windows of an epoch, in order.

    Where the width of a row varies, a window is cut between batches when a worker is
    about to be asked for it, by the sizes of the rows that came before. That decides
    how much is read at once, never what.

    Args:
        reader: What the workers read.
        most_bytes: Of a window, where the width of a row varies.
        most_sent: Bytes that a worker may send at once.
        batch_bytes: Of the rows of a batch, about.
    """

    def __init__(
        self,
        reader: BatchReader,
        most_bytes: int,
        most_sent: int = sys.maxsize,
        batch_bytes: int = 1,
    ) -> None:
        self._reader = reader
        self._limit = min(reader.sizes.window_bytes, most_bytes)
        # What a sampler of others draws is drawn only here: in another process it
        # could draw something else.
        self._draws = reader.stream.order.draws
        self._batch_rows = reader.stream.batch_rows
        self._most_sent = most_sent
        self._most_batches = max(1, most_sent // max(1, batch_bytes))
        self._only_one = False
        self._pending: Iterable[Request] = ()
        self._asked: deque[Request] = deque()

    def begin(self, windows: Iterable[Request], *, only_one: bool = False) -> None:
        """Let these be the windows that the next iteration asks for.

        Args:
            windows: The windows.
            only_one: Ask once only, for a first batch: all memory is for that.
        """
        self._pending = windows
        self._only_one = only_one

    def __iter__(self) -> Iterator[Request | WindowRows]:
        self._asked.clear()
        for epoch, first, last in self._pending:
            while first < last:
                stop = first + self._batches_at_once(last - first)
                self._asked.append((epoch, first, stop))
                rows = self._reader.rows
                yield rows(epoch, first, stop) if self._draws else (epoch, first, stop)
                if self._only_one:
                    return
                first = stop

    def answered(self, seen: Seen | None) -> Request:
        """Return the request whose answer came, and learn from the rows in it."""
        if self._reader.sizes.row_sizes is not None and seen is not None:
            self._reader.sizes.row_sizes.learn(seen)
        return self._asked.popleft()

    def learn_sent(self, batches: int, num_bytes: int, *, is_full: bool) -> None:
        """Learn from the batches that a worker sent.

        Args:
            batches: How many.
            num_bytes: Their bytes; 0 where the worker did not cut them.
            is_full: Whether it sent no more since memory is short.
        """
        if is_full:
            self._most_batches = max(1, batches)
            self._most_sent = min(self._most_sent, num_bytes or self._most_sent)
        elif num_bytes and 2 * num_bytes <= self._most_sent:
            self._most_batches = max(self._most_batches, 2 * batches)

    def _batches_at_once(self, batches: int) -> int:
        """Return how many of some batches to ask for at once."""
        if self._only_one:
            return 1
        batches = min(batches, self._most_batches)
        row_sizes = self._reader.sizes.row_sizes
        if row_sizes is None:
            return batches
        most = row_sizes.rows_within(batches * self._batch_rows, self._limit)
        return min(batches, max(1, most // self._batch_rows))
