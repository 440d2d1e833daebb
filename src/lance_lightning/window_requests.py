"""What workers are asked for, window by window."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from lance_lightning.drawn import DrawnOrder
from lance_lightning.grid import Request
from lance_lightning.reader import Reader, Rows
from lance_lightning.row_sizes import Seen


class WindowRequests:
    """What torch's sampler hands to the workers: the windows of an epoch, in order.

    Where the width of a row varies, a window is cut between batches when a worker is
    about to be asked for it, by the sizes of the rows that came before. That decides
    how much is read at once, never what.

    Args:
        reader: What the workers read.
        most_bytes: Of a window, where the width of a row varies.
    """

    def __init__(self, reader: Reader, most_bytes: int) -> None:
        self._reader = reader
        self._limit = min(reader.window_bytes, most_bytes)
        # What a sampler of others draws is drawn here alone: in another process it
        # could draw something else.
        self._draws = isinstance(reader.stream.sampler, DrawnOrder)
        shard = reader.stream.shard
        rows = -(-shard.num_rows_of_rank // max(1, shard.num_batches))
        self._batch_rows = max(1, rows)
        self._pending: Iterable[Request] = ()
        self._asked: deque[Request] = deque()

    def begin(self, windows: Iterable[Request]) -> None:
        """Let these be the windows that the next iteration asks for."""
        self._pending = windows

    def __iter__(self) -> Iterator[Request | Rows]:
        self._asked.clear()
        for epoch, first, last in self._pending:
            while first < last:
                stop = first + self._batches_at_once(last - first)
                self._asked.append((epoch, first, stop))
                rows = self._reader.rows
                yield rows(epoch, first, stop) if self._draws else (epoch, first, stop)
                first = stop

    def answered(self, seen: Seen | None) -> Request:
        """Return the request whose answer came, and learn from the rows in it."""
        if self._reader.row_sizes is not None and seen is not None:
            self._reader.row_sizes.learn(seen)
        return self._asked.popleft()

    def _batches_at_once(self, batches: int) -> int:
        """Return how many of some batches to ask for at once."""
        row_sizes = self._reader.row_sizes
        if row_sizes is None:
            return batches
        most = row_sizes.rows_within(batches * self._batch_rows, self._limit)
        return min(batches, max(1, most // self._batch_rows))
