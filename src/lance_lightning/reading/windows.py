"""Rows in any order out of a Lance table, through small sorted pieces.

A whole scan maps fresh memory for every batch and spends its time on page faults;
a result of a few MB reuses the last one's memory. So rows are asked for little and
often, sorted, and written straight to their final places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from lance_lightning.arrow import (
    UnorderedRows,
    batch_of,
    concatenated,
    empty_array,
    in_order,
)
from lance_lightning.reading.gather import RowGather
from lance_lightning.reading.memory import Pool
from lance_lightning.reading.pieces import Piece, pieces_of, read_piece
from lance_lightning.reading.row_sizes import RowSizes
from lance_lightning.reading.threads import Threads, read_ahead
from lance_lightning.types import Array

MALLOC_BYTES = 24 << 20  # more than all but a few allocations of a piece
IN_FLIGHT = 2  # pieces asked for at once: one is decoded while one is written
IN_FLIGHT_FAR = 8  # over a network, where waiting is what costs


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
) -> Iterator[pa.RecordBatch | UnorderedRows]:
    """Read windows of rows, each in its order; pieces are read ahead across them.

    Args:
        dataset: An open Lance dataset.
        columns: Column names, or new names to SQL expressions.
        windows: Sorted row offsets and the place of each, as `sort_offsets` gives them;
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
        arrays = dict(zip(copied, in_order(gather.finish()).columns, strict=True))
    if own:
        arrays[largest] = _one_array(table.column(largest))
    return batch_of([arrays[number] for number in range(len(sizes))], table.schema)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return concatenated(column.chunks) if len(column) else empty_array(column.type)
