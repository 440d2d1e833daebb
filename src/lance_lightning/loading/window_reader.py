"""Windows of many batches, read in sorted pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from lance_lightning.arrow import UnorderedRows
from lance_lightning.loading.sizing import WINDOW_BYTES, ReadSizes
from lance_lightning.loading.stream import Stream, Window, WindowRows
from lance_lightning.loading.window_grid import Requests
from lance_lightning.reading import (
    CachedRows,
    Pool,
    Seen,
    Threads,
    Wanted,
    WindowOverflow,
    read_windows,
    sort_offsets,
)
from lance_lightning.tables import Snapshot, read_table, with_blobs
from lance_lightning.types import ROW_ID, Array

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowReader:
    """Reads windows of a split as Arrow.

    Args:
        snapshot: The table at its pinned version.
        columns: What Lance is asked for, as `Snapshot.lance_columns` gives it.
        stream: Which rows come when.
        stage: For error messages.
        sizes: How much is read at once.
        cached: The rows on local disk, read there instead; None where they are not.
    """

    snapshot: Snapshot
    columns: Any
    stream: Stream
    stage: str
    sizes: ReadSizes
    cached: CachedRows | None = None

    def requests(self, epoch: int, start: int, stop: int) -> Requests:
        """Return the windows of an epoch's batches ``start`` to ``stop``, excluded."""
        return Requests(self.sizes.grid, epoch, start, stop)

    def windows(self, start: int, num_batches: int) -> Iterator[tuple[int, int]]:
        """Yield the windows (first batch, last batch excluded) from ``start`` on."""
        return (
            (first, last)
            for _, first, last in Requests(self.sizes.grid, 0, start, num_batches)
        )

    def rows(self, epoch: int, first: int, last: int, stride: int = 1) -> WindowRows:
        """Work out the rows of every ``stride``-th batch of ``[first, last)``."""
        offsets, sizes = self.stream.row_offsets(epoch, first, last)
        if stride > 1:
            wanted = np.arange(len(sizes)) % stride == 0
            offsets, sizes = offsets[np.repeat(wanted, sizes)], sizes[wanted]
        return WindowRows(
            epoch, first, sizes.tolist(), offsets, *sort_offsets(offsets), stride
        )

    def read(
        self, windows: Iterable[WindowRows], pool: Pool, threads: Threads
    ) -> Iterator[Window]:
        """Read windows as Arrow batches.

        Args:
            windows: What to read.
            pool: Where the memory of the rows comes from.
            threads: What reads ahead.
        """
        begun: deque[WindowRows] = deque()
        for data in self._arrow(self._begin(windows, begun), pool, threads):
            yield _window(data, begun.popleft())

    def read_bounded(
        self, windows: Iterable[WindowRows], pool: Pool, threads: Threads
    ) -> Iterator[Window]:
        """Read windows as Arrow batches, each in parts where its rows are large.

        Rows of fixed width take what their window was made for. Where the width varies
        a window is cut, between batches, by the bytes that came so far, and once more
        should it turn out to take too many. A batch is never cut.

        Args:
            windows: What to read.
            pool: Where the memory of the rows comes from.
            threads: What reads ahead.
        """
        if self.sizes.row_sizes is None:
            yield from self.read(windows, pool, threads)
            return
        begun: deque[WindowRows] = deque()
        source = iter(windows)
        again: deque[WindowRows] = deque()
        row_sizes = self.sizes.row_sizes

        def overflows(held: int) -> bool:
            too_many = held > row_sizes.most_bytes(WINDOW_BYTES)
            return too_many and len(begun[0].sizes) > 1

        while True:
            wanted = self._begin(self._parts(again, source), begun)
            try:
                for data in self._arrow(wanted, pool, threads, overflows):
                    yield _window(data, begun.popleft())
                return
            except WindowOverflow:
                rows = begun.popleft()
                half = len(rows.sizes) // 2
                cut = [rows.part(0, half), rows.part(half, len(rows.sizes))]
                again.extendleft(reversed([*cut, *begun]))
                begun.clear()

    def read_first(
        self, rows: WindowRows, pool: Pool, threads: Threads, limit: int
    ) -> tuple[Window, Seen | None]:
        """Read a window as an Arrow batch; its first batches only where it is large.

        Args:
            rows: What to read.
            pool: Where the memory of the rows comes from.
            threads: What reads ahead.
            limit: The bytes that it may take, about; a batch is never cut.

        Returns:
            The window, and what was found of the rows that were read for it; None
            where their width is fixed.
        """
        row_sizes = self.sizes.row_sizes
        if row_sizes is None:
            (window,) = self.read([rows], pool, threads)
            return window, None
        before = row_sizes.seen

        def overflows(held: int) -> bool:
            return held > row_sizes.most_bytes(limit) and len(rows.sizes) > 1

        while True:
            try:
                wanted = self._begin([rows], deque())
                (data,) = self._arrow(wanted, pool, threads, overflows)
                return _window(data, rows), row_sizes.seen.since(before)
            except WindowOverflow:
                seen = row_sizes.seen.since(before)
                fit = _batches_of(rows, limit * seen.rows // seen.size)
                rows = rows.part(0, min(fit, len(rows.sizes) // 2))

    def _parts(
        self, again: deque[WindowRows], source: Iterator[WindowRows]
    ) -> Iterator[WindowRows]:
        """Yield the rows of windows, in parts that are read at once."""
        limit = self.sizes.window_bytes
        while (rows := again.popleft() if again else next(source, None)) is not None:
            stop = self._batches_within(rows, limit)
            if stop < len(rows.sizes):
                again.appendleft(rows.part(stop, len(rows.sizes)))
                rows = rows.part(0, stop)
            yield rows

    def _batches_within(self, rows: WindowRows, limit: int) -> int:
        """Return how many batches to read at once, by what is known of their rows."""
        assert self.sizes.row_sizes is not None
        most = self.sizes.row_sizes.rows_within(len(rows.row_offsets), limit)
        return _batches_of(rows, most)

    def _begin(
        self, windows: Iterable[WindowRows], begun: deque[WindowRows]
    ) -> Iterator[Wanted]:
        for rows in windows:
            begun.append(rows)
            yield rows.sorted, rows.order, self._purpose(rows)

    def _arrow(
        self,
        asked: Iterator[Wanted],
        pool: Pool,
        threads: Threads,
        overflows: Callable[[int], bool] = lambda held: False,
    ) -> Iterator[pa.RecordBatch | UnorderedRows]:
        row_sizes = self.sizes.row_sizes
        if self.cached is not None:
            return self.cached.read_windows(asked, pool, row_sizes, overflows)
        return read_windows(
            self._read(
                "opening the columns", lambda table: with_blobs(table, self.columns)
            ),
            self.columns,
            asked,
            self.sizes.row_bytes,
            pool,
            threads,
            self.sizes.in_flight,
            self.sizes.piece_rows,
            variable=row_sizes is not None,
            door=lambda doing, work: self._read(doing, lambda _: work()),
            sizes=row_sizes,
            overflows=overflows,
        )

    def row_ids(self, offsets: Array) -> str:
        """Return row ids for an error, which a read that fails must not hide."""
        try:
            table = self._read(
                "reading row ids",
                lambda table: table.take(offsets.tolist(), columns=[ROW_ID]),
            )
        except Exception as error:
            return f"not known, since {error}"
        return str(table[ROW_ID].to_pylist())

    def _read(self, doing: str, work: Callable[[Any], T]) -> T:
        return read_table(self.snapshot, doing, work)

    def _purpose(self, rows: WindowRows) -> str:
        last = rows.first + len(rows.sizes) - 1
        batches = (
            f"batch {last}"
            if last == rows.first
            else (f"batches {rows.first} to {last}")
        )
        return f" for {batches} of epoch {rows.epoch}, stage {self.stage!r},"


def _batches_of(rows: WindowRows, most: int) -> int:
    """Return how many of the first batches have at most that many rows; at least 1."""
    ends = np.cumsum(rows.sizes)
    return max(1, int(np.searchsorted(ends, most, side="right")))


def _window(data: pa.RecordBatch | UnorderedRows, rows: WindowRows) -> Window:
    return Window(
        data, rows.epoch, rows.first, rows.sizes, rows.row_offsets, rows.stride
    )
