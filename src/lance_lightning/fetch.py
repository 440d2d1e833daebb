"""Rows in any order out of a Lance table, through small sorted pieces.

A whole scan maps fresh memory for every batch and spends its time on page faults;
a result of a few MB reuses the last one's memory. So rows are asked for little and
often, sorted, and written straight to their final places.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import lance
import numpy as np
import pyarrow as pa

from lance_lightning.arrow import (
    Unordered,
    batch_of,
    concatenated,
    empty_array,
    ordered,
)
from lance_lightning.errors import DataError
from lance_lightning.gather import Places, Pool, RowGather, part_of
from lance_lightning.row_sizes import RowSizes
from lance_lightning.types import Array

PIECE_BYTES = 5 << 20
IN_ORDER_PIECE_BYTES = 8 << 20  # a piece is the window then: nothing lies beside it
# Lance's buffers for text and lists double while they grow, so that a piece takes
# several times its bytes.
VARIABLE_PIECE_BYTES = 2 << 20
MALLOC_BYTES = 24 << 20  # more than all but a few allocations of a piece
IN_FLIGHT = 2  # pieces asked for at once: one is decoded while one is written
IN_FLIGHT_FAR = 8  # over a network, where waiting is what costs

# What reading costs on one core, from a local disk in the page cache. A take pays
# for every run of neighbours and for the bytes; a ranged scan for the call and for
# every byte in between, at a third of the price where rows have a fixed width.
TAKE_RUN_SECONDS = 6e-6
TAKE_BYTE_SECONDS = 0.8e-9
SCAN_CALL_SECONDS = 3e-4
SCAN_BYTE_SECONDS = 0.26e-9
VARIABLE_SCAN_BYTE_SECONDS = 0.8e-9  # text and lists are decoded alike by both
# And for every column: of each call, of a take's runs, and of each name by which a scan
# is asked for it. So many columns are read in larger pieces, by name never in a scan.
COLUMN_CALL_SECONDS = 6e-5
COLUMN_RUN_SECONDS = 1e-7
COLUMN_BYTES = 16 << 10  # of a column, in a piece
MANY_COLUMNS = 64
LARGEST_PIECE_BYTES = 64 << 20

T = TypeVar("T")
U = TypeVar("U")

# Sorted row offsets, the place of each, and what they are for.
Wanted = tuple[Array, Array | None] | tuple[Array, Array | None, str]
# Rows of the window, a piece of it, whether it is the last, what the window is for.
Task = tuple[int, "Piece", bool, str]
# Calls what reads a piece, given what is done.
Door = Callable[[str, Callable[[], pa.Table]], pa.Table]


def directly(doing: str, work: Callable[[], pa.Table]) -> pa.Table:
    """Call what reads a piece, errors as they are."""
    return work()


class WindowOverflow(Exception):
    """The rows of a window turn out to take more bytes than it may."""


class Threads:
    """The threads that read ahead for one loader, kept from epoch to epoch.

    glibc's malloc has memory for each thread: new threads in every epoch would leave
    more and more of it behind.
    """

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}

    def pool(self, task: str, count: int = 1) -> ThreadPoolExecutor:
        """Return so many threads for a task; they end with this object."""
        if task not in self._pools:
            name = f"lance_lightning_{task}"
            self._pools[task] = ThreadPoolExecutor(count, thread_name_prefix=name)
        return self._pools[task]

    def __getstate__(self) -> dict[str, Any]:
        return {"_pools": {}}


def read_ahead(
    produce: Callable[[T], U],
    requests: Iterable[T],
    pool: ThreadPoolExecutor,
    depth: int = 1,
) -> Generator[U, None, None]:
    """Yield ``produce(request)`` in order, ``depth`` ahead on background threads."""
    pending: deque[Future[U]] = deque()
    try:
        for request in requests:
            pending.append(pool.submit(produce, request))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # An early break must leave no thread reading on, and not wait for one.
        for future in pending:
            future.cancel()


class Ahead(Generic[T]):
    """Items that a background thread makes, one ahead, each when it is told to begin.

    Args:
        iterable: What makes them.
        pool: The thread.
    """

    def __init__(self, iterable: Iterable[T], pool: ThreadPoolExecutor) -> None:
        self._iterator = iter(iterable)
        self._pool = pool
        self._begun: Future[T | None] | None = None

    def begin(self) -> None:
        """Begin with the next item, if that was not done yet."""
        if self._begun is None:
            self._begun = self._pool.submit(next, self._iterator, None)

    def take(self) -> T | None:
        """Wait for the next item and return it; None where there is no more."""
        self.begin()
        assert self._begun is not None
        begun, self._begun = self._begun, None
        return begun.result()

    def close(self) -> None:
        """Make no more of them, without waiting for the one that is being made."""
        if self._begun is not None:
            self._begun.cancel()


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that are asked for at once.

    Args:
        offsets: Sorted row offsets to read; a range is read whole.
        places: Where the rows belong in the window.
        rows: Which of the rows that are read are meant; None is all.
    """

    offsets: Array | range
    places: Places
    rows: Array | None = None


def pieces_of(
    offsets: Array,
    order: Array | None,
    row_bytes: int,
    piece_rows: int | None = None,
    *,
    variable: bool = False,
    num_columns: int = 1,
    sizes: RowSizes | None = None,
) -> Iterator[Piece]:
    """Cut sorted rows into pieces.

    Args:
        offsets: Sorted row offsets, int64 of shape (rows,), repeats allowed.
        order: The place of each in the window; None is their own order.
        row_bytes: Mean bytes of a row.
        piece_rows: Rows of a piece; None is what `PIECE_BYTES` hold.
        variable: Whether the width of a row varies.
        num_columns: How many columns are read.
        sizes: What rows turn out to take, asked at each piece.
    """
    start = 0
    while start < len(offsets):
        size = piece_rows or max(1, PIECE_BYTES // row_bytes)
        if sizes is not None:
            row_bytes = sizes.mean
            size = min(size, sizes.piece_rows(VARIABLE_PIECE_BYTES))
        part = offsets[start : start + size]
        places: Places = slice(start, start + len(part))
        if order is not None:
            places = order[places]
        scan = not are_neighbours(part) and scan_is_cheaper(
            part, row_bytes, variable, num_columns, size
        )
        if scan:
            yield from _whole_ranges(part, places, size)
        else:
            yield Piece(part, places)
        start += len(part)


def _whole_ranges(offsets: Array, places: Places, size: int) -> Iterator[Piece]:
    """Cut the range that sorted rows span into pieces that are read whole."""
    last = int(offsets[-1])
    done = 0
    while done < len(offsets):
        start = int(offsets[done])
        stop = min(start + size, last + 1)
        until = int(np.searchsorted(offsets, stop))
        own = part_of(places, done, until - done)
        yield Piece(range(start, stop), own, offsets[done:until] - start)
        done = until


def scan_is_cheaper(
    offsets: Array,
    row_bytes: int,
    variable: bool,
    num_columns: int = 1,
    piece_rows: int = 1,
) -> bool:
    """Return whether to read everything between sorted rows and drop the rest."""
    scan_byte = VARIABLE_SCAN_BYTE_SECONDS if variable else SCAN_BYTE_SECONDS
    span = (int(offsets[-1]) - int(offsets[0]) + 1) * row_bytes
    runs = 1 + int(np.count_nonzero(np.diff(offsets) > 1))
    run = max(TAKE_RUN_SECONDS, num_columns * COLUMN_RUN_SECONDS)
    take = runs * run + len(offsets) * row_bytes * TAKE_BYTE_SECONDS
    take += num_columns * COLUMN_CALL_SECONDS
    calls = -(-span // max(PIECE_BYTES, piece_rows * row_bytes))
    call = SCAN_CALL_SECONDS + num_columns * COLUMN_CALL_SECONDS
    return calls * call + span * scan_byte < take


def are_neighbours(offsets: Array | range) -> bool:
    """Return whether sorted offsets are one range."""
    if isinstance(offsets, range) or len(offsets) == 0:
        return True
    span = int(offsets[-1]) - int(offsets[0]) + 1
    return span == len(offsets) and bool(np.all(np.diff(offsets) == 1))


def read_piece(dataset: Any, columns: Any, offsets: Array | range) -> pa.Table:
    """Read sorted rows at once: neighbours by a ranged scan, others by a take.

    Args:
        dataset: An open Lance dataset.
        columns: Column names, or new names to SQL expressions.
        offsets: Sorted row offsets, int64 of shape (rows,), repeats allowed, or a
            range of them.

    Raises:
        DataError: Lance gave another number of rows.
    """
    count = len(offsets)
    if count == 0:
        return dataset.scanner(columns=columns, limit=0).to_table()
    named = isinstance(columns, list) and len(columns) > MANY_COLUMNS
    by_take = named and isinstance(dataset, lance.LanceDataset)
    if are_neighbours(offsets) and not by_take:
        piece = dataset.scanner(
            columns=columns, offset=int(offsets[0]), limit=count, batch_size=count
        ).to_table()
    else:
        piece = dataset.take(np.asarray(offsets).tolist(), columns=columns)
    if piece.num_rows != count:
        raise DataError(
            f"asked Lance for {count} rows from offset {int(offsets[0])} to "
            f"{int(offsets[-1])} and got {piece.num_rows}"
        )
    return piece


def in_order(offsets: Array) -> tuple[Array, Array | None]:
    """Return row offsets sorted, and the place of each; None where they were."""
    count = len(offsets)
    if count < 2 or bool(np.all(offsets[1:] >= offsets[:-1])):
        return offsets, None
    bits = int(count - 1).bit_length()
    if int(offsets.max()) >> (63 - bits):
        order = np.argsort(offsets, kind="stable")
        return offsets[order], order
    # Sorted with its place in the low bits a number needs no second array: half
    # the time of an argsort.
    packed = (offsets << bits) | np.arange(count)
    packed.sort()
    return packed >> bits, packed & ((1 << bits) - 1)


def read_windows(
    dataset: Any,
    columns: Any,
    windows: Iterable[Wanted],
    row_bytes: int,
    pool: Pool,
    threads: Threads,
    in_flight: int = IN_FLIGHT,
    piece_rows: int | None = None,
    *,
    variable: bool = False,
    door: Door = directly,
    sizes: RowSizes | None = None,
    overflows: Callable[[int], bool] = lambda held: False,
) -> Iterator[pa.RecordBatch | Unordered]:
    """Read windows of rows, each in its order; pieces are read ahead across them.

    Args:
        dataset: An open Lance dataset.
        columns: Column names, or new names to SQL expressions.
        windows: Sorted row offsets and the place of each, as `in_order` gives them;
            then, if known, what they are for.
        row_bytes: Mean bytes of a row.
        pool: Where the memory of the rows comes from.
        threads: What reads the pieces.
        in_flight: Pieces asked for at once.
        piece_rows: Rows of a piece; None is what `PIECE_BYTES` hold.
        variable: Whether the width of a row varies.
        door: Calls what reads a piece, and explains its errors.
        sizes: What rows turn out to take; None where that is known.
        overflows: Says, for the bytes of a window that were read, whether they are
            too many.

    Yields:
        The rows, in memory that nobody else uses.

    Raises:
        WindowOverflow: What was read of a window is too much.
    """
    _let_malloc_keep_pieces()

    def read(task: Task) -> tuple[int, Piece, bool, pa.Table]:
        rows, piece, last, purpose = task
        offsets = piece.offsets
        table = door(
            f"reading {len(offsets)} rows{purpose}",
            lambda: read_piece(dataset, columns, offsets),
        )
        return rows, piece, last, table

    gather: RowGather | None = None
    held = 0
    for rows, piece, last, table in read_ahead(
        read,
        _tasks(
            windows,
            row_bytes,
            piece_rows,
            variable,
            _width(dataset, columns),
            sizes,
        ),
        threads.pool("pieces", in_flight),
        in_flight,
    ):
        if sizes is not None:
            held += sizes.saw(table)
            if not last and overflows(held):
                raise WindowOverflow
            held = 0 if last else held
        if gather is None and last and _is_the_window(piece, rows):
            yield _as_read(table, pool)
            continue
        gather = gather or RowGather(rows, pool)
        gather.put(table, piece.places, piece.rows)
        del table  # its memory serves the next piece
        if last:
            yield gather.finish()
            gather = None


def _let_malloc_keep_pieces() -> None:
    """Let glibc serve the next piece from the memory of the last one.

    Its malloc maps what is larger than a threshold anew, and gives free memory back
    beyond twice that, so that every piece would be paged in again. The threshold
    rises, up to 32 MB, to the size of what was mapped and is freed (mallopt(3),
    ``M_MMAP_THRESHOLD``); at first it is 128 KB. Elsewhere this does nothing.
    """
    np.empty(MALLOC_BYTES, np.uint8)


def _tasks(
    windows: Iterable[Wanted],
    row_bytes: int,
    piece_rows: int | None,
    variable: bool,
    num_columns: int,
    sizes: RowSizes | None,
) -> Iterator[Task]:
    """Yield the pieces of all windows."""
    for offsets, order, *purpose in windows:
        doing = purpose[0] if purpose else ""
        pieces = pieces_of(
            offsets,
            order,
            row_bytes,
            piece_rows,
            variable=variable,
            num_columns=num_columns,
            sizes=sizes,
        )
        piece = next(pieces, Piece(offsets, slice(0, 0)))
        for following in pieces:
            yield len(offsets), piece, False, doing
            piece = following
        yield len(offsets), piece, True, doing


def _width(dataset: Any, columns: Any) -> int:
    """Return how many columns are read."""
    if columns is not None:
        return len(columns)
    return len(getattr(dataset, "schema", ()))


def _is_the_window(piece: Piece, rows: int) -> bool:
    in_place = isinstance(piece.places, slice) and piece.places == slice(0, rows)
    return in_place and piece.rows is None


def _as_read(table: pa.Table, pool: Pool) -> pa.RecordBatch:
    """Return a window that is one piece, without a copy of its largest column.

    What Lance reads at once it may hold in one memory for all columns. So the others
    are copied, and all of them where none is the largest by far: what is kept of a
    column keeps no other.
    """
    sizes = [column.nbytes for column in table.columns]
    largest = int(np.argmax(sizes)) if sizes else 0
    own = sizes and 2 * sizes[largest] >= sum(sizes)
    copied = [number for number in range(len(sizes)) if not own or number != largest]
    arrays: dict[int, pa.Array] = {}
    if copied:
        gather = RowGather(len(table), pool)
        gather.put(table.select(copied), slice(0, len(table)))
        arrays = dict(zip(copied, ordered(gather.finish()).columns, strict=True))
    if own:
        arrays[largest] = _one_array(table.column(largest))
    return batch_of([arrays[number] for number in range(len(sizes))], table.schema)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return concatenated(column.chunks) if len(column) else empty_array(column.type)
