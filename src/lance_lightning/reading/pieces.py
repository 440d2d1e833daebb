"""Pieces of a window: what is asked of Lance at once, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from lance_lightning.errors import DataError
from lance_lightning.reading.gather import Places, part_of
from lance_lightning.reading.row_sizes import RowSizes
from lance_lightning.types import Array

PIECE_BYTES = 5 << 20
IN_ORDER_PIECE_BYTES = 8 << 20  # a piece is the window then: nothing is beside it
# Lance's buffers for text and lists double while they grow, so that a piece takes
# several times its bytes.
VARIABLE_PIECE_BYTES = 2 << 20


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


def sort_offsets(offsets: Array) -> tuple[Array, Array | None]:
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
