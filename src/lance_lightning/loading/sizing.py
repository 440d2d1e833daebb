"""How much is read at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lance_lightning.formats import Format
from lance_lightning.loading.stream import Stream
from lance_lightning.loading.transforms import Transforms
from lance_lightning.loading.window_grid import WindowGrid
from lance_lightning.reading import (
    COLUMN_BYTES,
    IN_FLIGHT,
    IN_FLIGHT_FAR,
    IN_ORDER_PIECE_BYTES,
    LARGEST_PIECE_BYTES,
    MANY_COLUMNS,
    PIECE_BYTES,
    VARIABLE_PIECE_BYTES,
    RowSizes,
    largest_value,
)
from lance_lightning.tables import BlobDataset, Snapshot, read_table, with_blobs

WINDOW_BYTES = 80 << 20  # BlockShuffle's default buffer is 64 MB of rows, and a little

SMALL_WINDOW_BATCHES = 8
OBJECT_BYTES = 64  # of a short str, with the pointer to it
FEW_ROWS = 8  # rows looked at before those
SAMPLE_ROWS = 256  # rows looked at for the mean row's bytes
DECODED_ROWS = 4  # rows decoded for the same


class RowBytes(NamedTuple):
    """What a sample says of the rows.

    Args:
        mean: Mean bytes of a row.
        largest: Bytes of the largest value.
    """

    mean: int
    largest: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadSizes:
    """How much of a split is read at once; `of` works it out.

    Args:
        row_bytes: Mean bytes of a row in the columns that are read.
        grid: Which batches make a window.
        piece_rows: Rows asked for at once.
        in_flight: Pieces asked for at once.
        window_bytes: Bytes to read at once where the width of a row varies.
        row_sizes: What rows turn out to take; None where their width is fixed.
    """

    row_bytes: int
    grid: WindowGrid
    piece_rows: int
    in_flight: int
    window_bytes: int
    row_sizes: RowSizes | None

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        schema: pa.Schema,
        rows: RowBytes,
        stream: Stream,
        *,
        format: Format,
        transforms: Transforms,
        num_workers: int,
    ) -> ReadSizes:
        """Return the sizes for a stream of batches.

        Args:
            snapshot: The table.
            schema: Of the columns that are read.
            rows: What a sample says of their rows.
            stream: Which rows come when.
            format: The output format.
            transforms: The user's functions.
            num_workers: Processes that read; 0 reads in this one.
        """
        piece_rows = rows_of_piece(schema, rows.mean, in_order=stream.is_in_order)
        most_batches = None
        if num_workers and format.decoders is not None:
            most_batches = 1  # a worker sends decoded batches, which are large
        elif num_workers and transforms:
            most_batches = SMALL_WINDOW_BATCHES
        return cls(
            row_bytes=rows.mean,
            grid=window_grid(
                stream,
                bytes_held(schema, rows.mean),
                most_batches=most_batches,
                piece_rows=piece_rows,
            ),
            piece_rows=piece_rows,
            in_flight=pieces_in_flight(
                piece_rows, rows.mean, is_local=snapshot.is_local
            ),
            window_bytes=VARIABLE_PIECE_BYTES if stream.is_in_order else WINDOW_BYTES,
            row_sizes=RowSizes(*rows) if is_variable(schema) else None,
        )


def sampled_row_bytes(snapshot: Snapshot, columns: Any, schema: pa.Schema) -> RowBytes:
    """Return the mean bytes of a row and its largest value's, alike in every process.

    Fixed-width columns are computed from the schema; with others, evenly spread
    rows are read and their bytes counted; of blobs only the sizes are read.
    """
    widths = [_width(field.type) for field in schema]
    if all(width is not None for width in widths):
        mean = max(1, int(sum(width for width in widths if width is not None)))
        return RowBytes(mean, mean)
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
    return RowBytes(max(1, total // max(1, len(spread))), largest)


def bytes_held(schema: pa.Schema, row_bytes: int) -> int:
    """Return the bytes of a row while it waits in a window.

    Text, bytes and lists become Python objects, which cost more than short ones hold.
    """
    objects = sum(_width(type_) is None for type_ in schema.types)
    return row_bytes + OBJECT_BYTES * objects


def is_variable(schema: pa.Schema) -> bool:
    """Return whether the width of a row varies."""
    return any(_width(type_) is None for type_ in schema.types)


def rows_of_piece(schema: pa.Schema, row_bytes: int, *, in_order: bool) -> int:
    """Return how many rows are asked for at once.

    Args:
        schema: Of the columns that are read.
        row_bytes: Mean bytes of a row.
        in_order: Whether the rows come as they are in the split.
    """
    size = IN_ORDER_PIECE_BYTES if in_order else PIECE_BYTES
    if is_variable(schema):
        size = VARIABLE_PIECE_BYTES
    if len(schema) > MANY_COLUMNS:  # whose calls cost more than their bytes
        size = max(size, min(len(schema) * COLUMN_BYTES, LARGEST_PIECE_BYTES))
    return max(1, size // row_bytes)


def pieces_in_flight(piece_rows: int, row_bytes: int, *, is_local: bool) -> int:
    """Return how many pieces are asked for at once.

    Fewer where they are large, of many columns.

    Args:
        piece_rows: Rows of a piece.
        row_bytes: Mean bytes of a row.
        is_local: Whether the table is on this machine's disks.
    """
    usual = IN_FLIGHT if is_local else IN_FLIGHT_FAR
    size = piece_rows * row_bytes
    if piece_rows == 1 or size <= IN_ORDER_PIECE_BYTES:
        return usual
    return max(1, usual * IN_ORDER_PIECE_BYTES // size)


def window_grid(
    stream: Stream,
    row_bytes: int,
    *,
    most_batches: int | None = None,
    piece_rows: int | None = None,
) -> WindowGrid:
    """Return which batches are read at once, bounded in bytes.

    Args:
        stream: Which rows come when.
        row_bytes: Mean bytes of a row.
        most_batches: Of a window, where a worker sends its batches together: the
            user's functions may have made them much larger than the rows.
        piece_rows: Rows of a piece; None is what `PIECE_BYTES` hold.
    """
    share, period = stream.share, stream.order.read_period
    rows = stream.batch_rows
    fit = max(1, WINDOW_BYTES // (row_bytes * rows))
    if most_batches is not None:
        return WindowGrid(min(fit, most_batches))
    if stream.is_in_order:
        # A window that is one piece is handed on as it was read.
        return WindowGrid(max(1, (piece_rows or PIECE_BYTES // row_bytes) // rows))
    if period is None:
        return WindowGrid(fit)
    # A window that straddles two of BlockShuffle's buffers, or cuts one, reads
    # blocks of which it needs a part.
    if fit < period:
        return WindowGrid(max(s for s in range(1, fit + 1) if period % s == 0))
    # The last buffer takes in what does not fill one of its own.
    tail = max(0, (share.num_full_batches // period - 1) * period)
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
