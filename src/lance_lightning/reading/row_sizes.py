"""What rows turn out to take, where their width varies: learned while they are read."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

FIRST_ROWS = 256  # read at once before anything is known but a sample
MEMORY = 1 << 20  # rows that a mean is taken over, about
LARGE_BYTES = 80 << 20  # of a piece, should all its rows be as large as the largest
LEAST_ROWS = 32  # of a piece all the same


class Seen(NamedTuple):
    """What was found of some rows; plain, so that it can be sent.

    Args:
        rows: How many.
        size: Their bytes.
        largest: Bytes of the largest value.
    """

    rows: int
    size: int
    largest: int

    def since(self, before: Seen) -> Seen:
        """Return what was found since then."""
        return Seen(self.rows - before.rows, self.size - before.size, self.largest)


class RowSizes:
    """The sizes of the rows that were read.

    A sample misses rare large rows, and rows can be sorted by size. So at first little
    is read at once, then as many rows as were read before, and never more than the
    bytes that came allow. This decides how much is read at once, never what.

    Args:
        sampled: Mean bytes of a row, by a sample.
        largest: Bytes of the largest value of that sample.
    """

    def __init__(self, sampled: int, largest: int = 1) -> None:
        self._sampled = max(1, sampled)
        self._seen = 0
        self._size = 0
        self._rows = 0
        self._bytes = 0
        self._last = 0.0
        self._largest = max(1, largest)

    @property
    def mean(self) -> int:
        """The mean bytes of a row to reckon with."""
        seen = self._bytes / self._rows if self._rows else 0
        return max(1, int(max(self._sampled, seen, self._last)))

    @property
    def seen(self) -> Seen:
        """What was found of all rows so far."""
        return Seen(self._seen, self._size, self._largest)

    @property
    def _known(self) -> int:
        """Rows that may be read at once after what was seen."""
        return max(FIRST_ROWS, self._seen)

    def saw(self, piece: pa.Table) -> int:
        """Learn from a piece that was read, and return its bytes."""
        size = int(piece.nbytes)
        largest = max(map(largest_value, piece.columns), default=0)
        self.learn(Seen(len(piece), size, largest))
        return size

    def learn(self, seen: Seen) -> None:
        """Learn from rows that were read, here or in a worker."""
        rows, size, largest = seen
        if not rows:
            return
        if self._rows > MEMORY:
            self._rows //= 2
            self._bytes //= 2
        self._seen += rows
        self._size += size
        self._rows += rows
        self._bytes += size
        self._last = size / rows
        self._largest = max(self._largest, largest)

    def rows_within(self, rows: int, limit: int) -> int:
        """Return how many of some rows to read at once.

        Args:
            rows: How many there are.
            limit: The bytes they may take. Where a sample told the size about right
                half as much again is let pass, since windows that cut the blocks of
                `BlockShuffle` cost more to read. Where it did not, sizes differ by so
                much that a sixth is aimed at.
        """
        parts = 1
        if self._is_uneven or 2 * rows * self.mean > 3 * limit:
            parts = -(-6 * rows * self.mean // limit)
        return min(max(1, -(-rows // parts)), self._known)

    def most_bytes(self, limit: int) -> int:
        """Return the bytes at which a window that is being read is cut.

        Two windows are held at once, and of one that is cut what was read of it.
        """
        return limit // 2 if self._is_uneven else 3 * limit // 2

    @property
    def _is_uneven(self) -> bool:
        return 2 * self._sampled < self.mean

    def piece_rows(self, limit: int) -> int:
        """Return how many rows to ask for at once, for some bytes."""
        safe = max(LEAST_ROWS, LARGE_BYTES // self._largest)
        return max(1, min(limit // self.mean, safe, self._known))


def largest_value(column: pa.ChunkedArray) -> int:
    """Return the bytes of the largest text, bytes or list of a column; else 0.

    In a struct, of any of its fields.
    """
    return max(map(_largest_of, column.chunks), default=0)


def _largest_of(chunk: Any) -> int:
    types, type_ = pa.types, chunk.type
    if types.is_struct(type_):
        return max(map(_largest_of, chunk.flatten()), default=0)
    large = types.is_large_string(type_) or types.is_large_binary(type_)
    width = 1.0
    if types.is_list(type_) or types.is_large_list(type_):
        large = types.is_large_list(type_)
        values = chunk.values
        width = values.nbytes / max(1, len(values))
    elif not large and not types.is_string(type_) and not types.is_binary(type_):
        return 0
    if not len(chunk):
        return 0
    offsets = np.frombuffer(chunk.buffers()[1], np.int64 if large else np.int32)
    offsets = offsets[chunk.offset : chunk.offset + len(chunk) + 1]
    return int(np.diff(offsets).max() * width)
