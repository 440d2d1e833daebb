"""How much is read at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from lance_lightning.loading.stream import Stream
from lance_lightning.loading.window_grid import WindowGrid
from lance_lightning.ordering import TrainShare
from lance_lightning.reading import (
    COLUMN_BYTES,
    IN_ORDER_PIECE_BYTES,
    LARGEST_PIECE_BYTES,
    MANY_COLUMNS,
    PIECE_BYTES,
    VARIABLE_PIECE_BYTES,
    largest_value,
)
from lance_lightning.samplers import BlockShuffle
from lance_lightning.tables import BlobDataset, Snapshot, read_table, with_blobs

WINDOW_BYTES = 80 << 20  # BlockShuffle's default buffer is 64 MB of rows, and a little

SMALL_WINDOW_BATCHES = 8
OBJECT_BYTES = 64  # of a short str, with the pointer to it
FEW_ROWS = 8  # rows looked at before those
SAMPLE_ROWS = 256  # rows looked at for the mean row's bytes
DECODED_ROWS = 4  # rows decoded for the same


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


def rows_of_piece(schema: pa.Schema, row_bytes: int, *, in_order: bool) -> int:
    """Return how many rows are asked for at once.

    Args:
        schema: Of the columns that are read.
        row_bytes: Mean bytes of a row.
        in_order: Whether the rows come as they lie in the split.
    """
    size = IN_ORDER_PIECE_BYTES if in_order else PIECE_BYTES
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
