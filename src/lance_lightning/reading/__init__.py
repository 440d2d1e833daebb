"""Rows at given offsets, out of a table, as Arrow windows."""

from lance_lightning.reading.gather import memories
from lance_lightning.reading.memory import ALIGNMENT, BufferPool, Pool, padded
from lance_lightning.reading.pieces import (
    COLUMN_BYTES,
    IN_ORDER_PIECE_BYTES,
    LARGEST_PIECE_BYTES,
    MANY_COLUMNS,
    PIECE_BYTES,
    VARIABLE_PIECE_BYTES,
    sort_offsets,
)
from lance_lightning.reading.row_cache import CachedRows, cache_rows
from lance_lightning.reading.row_sizes import RowSizes, Seen, largest_value
from lance_lightning.reading.threads import Ahead, Threads, read_ahead
from lance_lightning.reading.windows import (
    IN_FLIGHT,
    IN_FLIGHT_FAR,
    Wanted,
    WindowOverflow,
    read_windows,
)

__all__ = [
    "ALIGNMENT",
    "COLUMN_BYTES",
    "IN_FLIGHT",
    "IN_FLIGHT_FAR",
    "IN_ORDER_PIECE_BYTES",
    "LARGEST_PIECE_BYTES",
    "MANY_COLUMNS",
    "PIECE_BYTES",
    "VARIABLE_PIECE_BYTES",
    "Ahead",
    "BufferPool",
    "CachedRows",
    "Pool",
    "RowSizes",
    "Seen",
    "Threads",
    "Wanted",
    "WindowOverflow",
    "cache_rows",
    "largest_value",
    "memories",
    "padded",
    "read_ahead",
    "read_windows",
    "sort_offsets",
]
