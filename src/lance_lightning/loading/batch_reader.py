"""Windows of many batches, read in sorted pieces; what runs in a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from lance_lightning.arrow import Unordered, sql_name
from lance_lightning.columns import nulls_error
from lance_lightning.errors import DecodeError, NullError, TransformError, WorkerError
from lance_lightning.formats import Format, move
from lance_lightning.loading.display import Facts, Shown, columns_shown
from lance_lightning.loading.sizing import DECODED_ROWS, WINDOW_BYTES
from lance_lightning.loading.stream import Stream, Window, WindowRows
from lance_lightning.loading.transforms import BatchPlace, Transforms, make_batch
from lance_lightning.loading.window_grid import Requests, WindowGrid
from lance_lightning.reading import (
    IN_FLIGHT,
    IN_FLIGHT_FAR,
    IN_ORDER_PIECE_BYTES,
    VARIABLE_PIECE_BYTES,
    BufferPool,
    CachedRows,
    Pool,
    RowSizes,
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
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class BatchReader:
    """Everything that is needed to read batches, in a few KB: it goes to workers.

    Args:
        snapshot: The table at its pinned version.
        columns: What Lance is asked for, as `Snapshot.lance_columns` gives it.
        stream: Which rows come when.
        format: The output format.
        transforms: The user's functions.
        stage: For error messages.
        row_bytes: Mean bytes of a row in these columns.
        grid: Which batches make a window.
        piece_rows: Rows asked for at once; None is what `fetch.PIECE_BYTES` hold.
        variable: Whether the width of a row varies.
        cached: The rows on local disk, read there instead; None where they are not.
        shown: What reprs show of the columns.
        row_sizes: What rows turn out to take; None where their width is fixed.
    """

    snapshot: Snapshot
    columns: Any
    stream: Stream
    format: Format
    transforms: Transforms
    stage: str
    row_bytes: int
    grid: WindowGrid
    piece_rows: int | None = None
    variable: bool = False
    cached: CachedRows | None = None
    shown: Shown = field(default_factory=Shown, compare=False, repr=False)
    row_sizes: RowSizes | None = None

    def facts(self) -> Facts:
        """Return what is known of the rows and columns, for a repr."""
        plan = self.stream.plan
        return {
            "source": self.snapshot.describe(),
            "split": f"{plan.name}, {plan.num_rows:,} rows",
            **columns_shown(self.columns, self.shown, self.format),
        }

    def requests(self, epoch: int, start: int, stop: int) -> Requests:
        """Return the windows of an epoch's batches ``start`` to ``stop``, excluded."""
        return Requests(self.grid, epoch, start, stop)

    def windows(self, start: int, num_batches: int) -> Iterator[tuple[int, int]]:
        """Yield the windows (first batch, last batch excluded) from ``start`` on."""
        return (
            (first, last)
            for _, first, last in Requests(self.grid, 0, start, num_batches)
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
        if self.row_sizes is None:
            yield from self.read(windows, pool, threads)
            return
        begun: deque[WindowRows] = deque()
        source = iter(windows)
        again: deque[WindowRows] = deque()
        row_sizes = self.row_sizes

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
        row_sizes = self.row_sizes
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

    @property
    def window_bytes(self) -> int:
        """The bytes to read at once where the width of a row varies."""
        return VARIABLE_PIECE_BYTES if self.stream.is_in_order else WINDOW_BYTES

    def _parts(
        self, again: deque[WindowRows], source: Iterator[WindowRows]
    ) -> Iterator[WindowRows]:
        """Yield the rows of windows, in parts that are read at once."""
        limit = self.window_bytes
        while (rows := again.popleft() if again else next(source, None)) is not None:
            stop = self._batches_within(rows, limit)
            if stop < len(rows.sizes):
                again.appendleft(rows.part(stop, len(rows.sizes)))
                rows = rows.part(0, stop)
            yield rows

    def _batches_within(self, rows: WindowRows, limit: int) -> int:
        """Return how many batches to read at once, by what is known of their rows."""
        assert self.row_sizes is not None
        most = self.row_sizes.rows_within(len(rows.row_offsets), limit)
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
    ) -> Iterator[pa.RecordBatch | Unordered]:
        if self.cached is not None:
            return self.cached.read_windows(asked, pool, self.row_sizes, overflows)
        return read_windows(
            self._read(
                "opening the columns", lambda table: with_blobs(table, self.columns)
            ),
            self.columns,
            asked,
            self.row_bytes,
            pool,
            threads,
            self._in_flight,
            self.piece_rows,
            variable=self.variable,
            door=lambda doing, work: self._read(doing, lambda _: work()),
            sizes=self.row_sizes,
            overflows=overflows,
        )

    @property
    def _in_flight(self) -> int:
        """Pieces asked for at once: fewer where they are large, of many columns."""
        usual = IN_FLIGHT if self.snapshot.is_local else IN_FLIGHT_FAR
        rows = self.piece_rows or 1
        if rows == 1 or rows * self.row_bytes <= IN_ORDER_PIECE_BYTES:
            return usual
        return max(1, usual * IN_ORDER_PIECE_BYTES // (rows * self.row_bytes))

    @property
    def cuts_batches(self) -> bool:
        """Whether a worker cuts the batches and sends those, not the window's rows.

        There are functions of the user's, or decoders.
        """
        return bool(self.transforms) or self.format.decoders is not None

    def sent_row_bytes(self) -> int:
        """Return the mean bytes of a row as a worker sends it.

        Where there are decoders some of the split's rows are decoded to find out.
        """
        plan = self.stream.plan
        if self.format.decoders is None or not plan.num_rows:
            return self.row_bytes
        count = min(plan.num_rows, DECODED_ROWS)
        offsets = plan.offsets(np.arange(count))
        rows = WindowRows(0, 0, [count], offsets, *sort_offsets(offsets))
        (window,) = self.read([rows], BufferPool(), Threads())
        sizes: list[int] = []
        move(self.convert(window).data, lambda tensor: sizes.append(tensor.nbytes))
        return max(self.row_bytes, sum(sizes) // count)

    def parts(self, window: Window) -> Iterator[Window]:
        """Cut a window that was read into what is converted at once.

        That is a batch where there are decoders: decoded, its rows take many times
        the memory of their bytes.
        """
        if self.format.decoders is None:
            yield window
            return
        start = 0
        for number, size in zip(window.numbers, window.sizes, strict=True):
            yield Window(
                window.data.slice(start, size),
                window.epoch,
                number,
                [size],
                window.row_offsets[start : start + size],
            )
            start += size

    def convert(self, window: Window) -> Window:
        """Convert an Arrow window to the output format, once for all its batches.

        With an ``arrow_transform`` it stays Arrow: the batches are converted
        after it has run.
        """
        if self.transforms.arrow_transform is not None:
            return window
        try:
            return replace(window, data=self.format.convert(window.data))
        except DecodeError as error:
            at = error.row or 0
            if isinstance(window.data, Unordered):  # it was counted as read
                at = int(np.flatnonzero(window.data.order == at)[0])
            ids = self._row_ids(window.row_offsets[at : at + 1])
            raise DecodeError(f"{error}; row ids {ids}", error.row) from error.__cause__
        except NullError as error:
            raise nulls_error(error.found, self._sql_of) from None

    def batches(self, window: Window) -> Iterator[Any]:
        """Cut a converted window into batches and run the user's functions."""
        start = 0
        if not self.transforms:
            for size in window.sizes:
                yield self.format.slice(window.data, start, start + size)
                start += size
            return
        for at, size in enumerate(window.sizes):
            place = self.place(window, at)
            try:
                batch = make_batch(
                    window.data,
                    start,
                    start + size,
                    self.format,
                    self.transforms,
                    place,
                )
            except TransformError as error:
                ids = self._row_ids(np.array(error.row_offsets, np.int64))
                raise TransformError(f"{error}; row ids {ids}") from error.__cause__
            except DecodeError as error:  # after an arrow_transform
                ids = self._row_ids(place.row_offsets[:8])
                raise DecodeError(f"{error}; in the batch of row ids {ids}") from (
                    error.__cause__
                )
            yield batch
            start += size

    def place(self, window: Window | WindowRows, at: int) -> BatchPlace:
        """Return where a window's batch number ``at``, from 0, stands."""
        start = sum(window.sizes[:at])
        return BatchPlace(
            self.stage,
            self.stream.seed,
            window.epoch,
            window.first + at * window.stride,
            self.stream.shard.world.rank,
            window.row_offsets[start : start + window.sizes[at]],
        )

    def not_sent(self, place: BatchPlace, error: Exception) -> TransformError:
        """Return the error for a batch that cannot cross from a worker."""
        said = str(error)
        if not isinstance(error, WorkerError):  # which has a remedy of its own
            said = (
                f"{type(error).__name__}: {error}; let your functions return tensors, "
                "arrays and plain values, or use num_workers=0"
            )
        ids = self._row_ids(place.row_offsets[:8])
        return TransformError(
            f"a batch cannot be sent from a worker: {said} ({place}); row ids {ids}"
        )

    def _sql_of(self, name: str) -> str:
        """Return how a filter names a column, which can have a new name here."""
        column, dot, field = name.partition(".")
        if not isinstance(self.columns, Mapping) or column not in self.columns:
            return sql_name(name)
        return f"{self.columns[column]}{dot}{sql_name(field) if field else ''}"

    def _row_ids(self, offsets: Array) -> str:
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
    """Return how many of the first batches have so many rows at most, but one."""
    ends = np.cumsum(rows.sizes)
    return max(1, int(np.searchsorted(ends, most, side="right")))


def _window(data: pa.RecordBatch | Unordered, rows: WindowRows) -> Window:
    return Window(
        data, rows.epoch, rows.first, rows.sizes, rows.row_offsets, rows.stride
    )
