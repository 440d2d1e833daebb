"""Windows of many batches, read in sorted pieces; what runs in a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from lance_lightning.arrow import Unordered, sql_name
from lance_lightning.columns import nulls_error
from lance_lightning.display import Facts, Shown, columns_shown
from lance_lightning.errors import DecodeError, NullError, TransformError, WorkerError
from lance_lightning.formats import Format, move
from lance_lightning.grid import Requests, WindowGrid
from lance_lightning.ordering import EvalShare, TrainShare, WholeBatchShare
from lance_lightning.reading import (
    COLUMN_BYTES,
    IN_FLIGHT,
    IN_FLIGHT_FAR,
    IN_ORDER_PIECE_BYTES,
    LARGEST_PIECE_BYTES,
    MANY_COLUMNS,
    PIECE_BYTES,
    VARIABLE_PIECE_BYTES,
    BufferPool,
    CachedRows,
    Pool,
    RowSizes,
    Seen,
    Threads,
    Wanted,
    WindowOverflow,
    largest_value,
    read_windows,
    sort_offsets,
)
from lance_lightning.samplers import BlockShuffle, DrawnEpochs, Sampler
from lance_lightning.tables import BlobDataset, Plan, Snapshot, read_table, with_blobs
from lance_lightning.transforms import BatchPlace, Transforms, make_batch
from lance_lightning.types import ROW_ID, Array

WINDOW_BYTES = 80 << 20  # BlockShuffle's default buffer is 64 MB of rows, and a little

SMALL_WINDOW_BATCHES = 8
OBJECT_BYTES = 64  # of a short str, with the pointer to it
FEW_ROWS = 8  # rows looked at before those
SAMPLE_ROWS = 256  # rows looked at for the mean row's bytes
DECODED_ROWS = 4  # rows decoded for the same

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Stream:
    """Which rows come when, as a function of numbers.

    Args:
        plan: The rows of the split.
        shard: Which of an epoch's positions are this replica's.
        sampler: The order of an epoch; None is the plan's own order.
        seed: Seed of the order and of the user's functions.
    """

    plan: Plan
    shard: TrainShare | EvalShare
    sampler: Sampler | None
    seed: int

    def row_offsets(self, epoch: int, first: int, last: int) -> tuple[Array, Array]:
        """Return the rows of batches ``first`` to ``last``, the latter excluded.

        Returns:
            The table's row offsets in the order in which they are handed out,
            int64 of shape (rows,), and the rows of each batch, int64 of shape
            (last - first,).
        """
        if isinstance(self.shard, WholeBatchShare):
            sampler: Any = self.sampler
            batches = self.shard.batches_of_rank(first, last)
            positions, sizes = sampler.rows_of_batches(
                batches, seed=self.seed, epoch=epoch
            )
            return self.plan.offsets(positions), sizes
        positions, sizes = self.shard.positions(first, last)
        if self.sampler is not None and isinstance(self.shard, TrainShare):
            positions = self.sampler.indices(
                positions,
                num_rows=self.plan.num_rows,
                seed=self.seed,
                epoch=epoch,
                global_batch_size=self.shard.global_batch_size,
            )
        return self.plan.offsets(positions), sizes

    @property
    def is_in_order(self) -> bool:
        """Whether this replica's rows come about as they are in the table.

        Another question than how ranks share a batch: a rank's part of each batch
        can be in one piece, and the batches anywhere. A sampler that does not say
        is taken for one that shuffles, and a permutation has an order of its own.
        """
        order = self.sampler
        follows = order is None or getattr(order, "reads_in_table_order", False)
        return self.plan.sorted and bool(follows)

    @property
    def batch_rows(self) -> int:
        """Rows of a batch of this replica, about."""
        shard = self.shard
        return max(1, -(-shard.num_rows_of_rank // max(1, shard.num_batches)))

    def begin(self, epoch: int) -> None:
        """Settle an epoch's order where that is not a function of numbers.

        On the main thread: a sampler of others may draw from global generators.
        """
        if isinstance(self.sampler, DrawnEpochs):
            self.sampler.begin(self.seed, epoch)


@dataclass(frozen=True, slots=True)
class Rows:
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

    def part(self, start: int, stop: int) -> Rows:
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


@dataclass(frozen=True, slots=True)
class Reader:
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

    def rows(self, epoch: int, first: int, last: int, stride: int = 1) -> Rows:
        """Work out the rows of every ``stride``-th batch of ``[first, last)``."""
        offsets, sizes = self.stream.row_offsets(epoch, first, last)
        if stride > 1:
            wanted = np.arange(len(sizes)) % stride == 0
            offsets, sizes = offsets[np.repeat(wanted, sizes)], sizes[wanted]
        return Rows(
            epoch, first, sizes.tolist(), offsets, *sort_offsets(offsets), stride
        )

    def read(
        self, windows: Iterable[Rows], pool: Pool, threads: Threads
    ) -> Iterator[Window]:
        """Read windows as Arrow batches.

        Args:
            windows: What to read.
            pool: Where the memory of the rows comes from.
            threads: What reads ahead.
        """
        begun: deque[Rows] = deque()
        for data in self._arrow(self._begin(windows, begun), pool, threads):
            yield _window(data, begun.popleft())

    def read_bounded(
        self, windows: Iterable[Rows], pool: Pool, threads: Threads
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
        begun: deque[Rows] = deque()
        source = iter(windows)
        again: deque[Rows] = deque()
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
        self, rows: Rows, pool: Pool, threads: Threads, limit: int
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

    def _parts(self, again: deque[Rows], source: Iterator[Rows]) -> Iterator[Rows]:
        """Yield the rows of windows, in parts that are read at once."""
        limit = self.window_bytes
        while (rows := again.popleft() if again else next(source, None)) is not None:
            stop = self._batches_within(rows, limit)
            if stop < len(rows.sizes):
                again.appendleft(rows.part(stop, len(rows.sizes)))
                rows = rows.part(0, stop)
            yield rows

    def _batches_within(self, rows: Rows, limit: int) -> int:
        """Return how many batches to read at once, by what is known of their rows."""
        assert self.row_sizes is not None
        most = self.row_sizes.rows_within(len(rows.row_offsets), limit)
        return _batches_of(rows, most)

    def _begin(self, windows: Iterable[Rows], begun: deque[Rows]) -> Iterator[Wanted]:
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
        rows = Rows(0, 0, [count], offsets, *sort_offsets(offsets))
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

    def place(self, window: Window | Rows, at: int) -> BatchPlace:
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

    def _purpose(self, rows: Rows) -> str:
        last = rows.first + len(rows.sizes) - 1
        batches = (
            f"batch {last}"
            if last == rows.first
            else (f"batches {rows.first} to {last}")
        )
        return f" for {batches} of epoch {rows.epoch}, stage {self.stage!r},"


def _batches_of(rows: Rows, most: int) -> int:
    """Return how many of the first batches have so many rows at most, but one."""
    ends = np.cumsum(rows.sizes)
    return max(1, int(np.searchsorted(ends, most, side="right")))


def _window(data: pa.RecordBatch | Unordered, rows: Rows) -> Window:
    return Window(
        data, rows.epoch, rows.first, rows.sizes, rows.row_offsets, rows.stride
    )


def sampled_row_bytes(
    snapshot: Snapshot, columns: Any, schema: pa.Schema
) -> tuple[int, int]:
    """Return the mean bytes of a row and its largest value's, alike in every process.

    Fixed-width columns are reckoned from the schema; with others, evenly spread
    rows are read and their bytes counted; of blobs the sizes alone are read.
    """
    widths = [_width(field.type) for field in schema]
    if all(width is not None for width in widths):
        mean = max(1, int(sum(width for width in widths if width is not None)))
        return mean, mean
    rows = snapshot.num_rows
    spread = np.unique(np.linspace(0, rows - 1, min(rows, SAMPLE_ROWS)).astype("int64"))

    def sizes(dataset: Any) -> tuple[int, int]:
        # Large rows are not read all at once.
        few = spread[:: max(1, len(spread) // FEW_ROWS)]
        mean = dataset.take(few, columns=columns).nbytes // max(1, len(few))
        step = max(1, min(len(spread), WINDOW_BYTES // max(1, mean)))
        total, largest = 0, 1
        for start in range(0, len(spread), step):
            part = dataset.take(spread[start : start + step], columns=columns)
            total += int(part.nbytes)
            largest = max(largest, *map(largest_value, part.columns))
        reading = with_blobs(dataset, columns)
        if isinstance(reading, BlobDataset):
            total += reading.num_bytes(spread)
        return total, largest

    total, largest = read_table(snapshot, f"measuring {len(spread)} rows", sizes)
    return max(1, total // max(1, len(spread))), largest


def bytes_held(schema: pa.Schema, row_bytes: int) -> int:
    """Return the bytes of a row while it waits in a window.

    Text, bytes and lists become Python objects, which cost more than short ones hold.
    """
    objects = sum(_width(type_) is None for type_ in schema.types)
    return row_bytes + OBJECT_BYTES * objects


def is_variable(schema: pa.Schema) -> bool:
    """Return whether the width of a row varies."""
    return any(_width(type_) is None for type_ in schema.types)


def rows_of_piece(schema: pa.Schema, row_bytes: int, *, sort_offsets: bool) -> int:
    """Return how many rows are asked for at once.

    Args:
        schema: Of the columns that are read.
        row_bytes: Mean bytes of a row.
        sort_offsets: Whether the rows come as they lie in the split.
    """
    size = IN_ORDER_PIECE_BYTES if sort_offsets else PIECE_BYTES
    if is_variable(schema):
        size = VARIABLE_PIECE_BYTES
    if len(schema) > MANY_COLUMNS:  # whose calls cost more than their bytes
        size = max(size, min(len(schema) * COLUMN_BYTES, LARGEST_PIECE_BYTES))
    return max(1, size // row_bytes)


def window_grid(
    stream: Stream, row_bytes: int, *, small: bool, piece_rows: int | None = None
) -> WindowGrid:
    """Return which batches are read at once, bounded in bytes.

    Args:
        stream: Which rows come when.
        row_bytes: Mean bytes of a row.
        piece_rows: Rows of a piece; None is what `fetch.PIECE_BYTES` hold.
        small: A worker sends the batches of a window together, and the user's
            functions may have made them much larger than the rows: read fewer.
    """
    shard, sampler = stream.shard, stream.sampler
    rows = stream.batch_rows
    fit = max(1, WINDOW_BYTES // (row_bytes * rows))
    if small:
        return WindowGrid(min(fit, SMALL_WINDOW_BATCHES))
    if stream.is_in_order:
        # A window that is one piece is handed on as it was read.
        return WindowGrid(max(1, (piece_rows or PIECE_BYTES // row_bytes) // rows))
    buffer = sampler.buffer_size if isinstance(sampler, BlockShuffle) else None
    if buffer is None or not isinstance(shard, TrainShare):
        return WindowGrid(fit)
    # A window that straddles two of BlockShuffle's buffers, or cuts one, reads
    # blocks of which it needs a part.
    period = max(1, buffer // shard.global_batch_size)
    if fit < period:
        return WindowGrid(max(s for s in range(1, fit + 1) if period % s == 0))
    # The last buffer takes in what does not fill one of its own.
    tail = max(0, (shard.num_rows // buffer - 1) * period)
    return WindowGrid(fit - fit % period, tail)


def _width(type_: pa.DataType) -> float | None:
    """Return the bytes a value of this type takes, None where that differs."""
    if isinstance(type_, pa.ExtensionType | pa.FixedShapeTensorType):
        return _width(type_.storage_type)
    if pa.types.is_fixed_size_list(type_):
        inner = _width(type_.value_type)
        return None if inner is None else inner * type_.list_size
    try:
        return float(type_.bit_width) / 8
    except ValueError:
        return None
