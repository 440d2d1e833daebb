"""Memory for rows that is used again."""

from __future__ import annotations

import contextlib
import weakref
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from lance_lightning.types import Array

ALIGNMENT = 64  # bytes; what Arrow recommends for its buffers
OWN_PARTS = 64  # columns that have memory of their own, however small
SHARED_PART_BYTES = 256 << 10
MUCH_BYTES = 128 << 20  # more than a column of a window has, unless rows are large


class Pool(Protocol):
    """Where the memory of a window comes from."""

    @property
    def private(self) -> BufferPool:
        """Where memory comes from that does not leave the process."""

    def take(self, size: int, part: int = 0) -> tuple[Array, pa.Buffer]:
        """Return ``size`` bytes to write to, and the same bytes for Arrow.

        Args:
            size: How many.
            part: The part of a window that they are for: memory is used again for
                the same part of another.
        """

    def parts(self, sizes: Sequence[int]) -> list[int]:
        """Return the part of a window that each column belongs to.

        Columns of one part share its memory: a tensor that is kept of one of them
        keeps the others too.

        Args:
            sizes: Bytes of each column.
        """


class BufferPool:
    """Memory that is used again once nobody looks at it any more.

    A window is tens of MB. Fresh memory of that size is mapped page by page while
    it is written, which costs as much as the writing. Each column has memory of its
    own, so that what is kept of it keeps no other; with more than `OWN_PARTS` columns,
    no more than about `SHARED_PART_BYTES` of others.

    Args:
        keep: How many free buffers are kept for a part of a window.
    """

    def __init__(self, keep: int = 2) -> None:
        self._keep = keep
        self._free: defaultdict[int, list[Array]] = defaultdict(list)
        self._private: BufferPool | None = None

    def take(self, size: int, part: int = 0) -> tuple[Array, pa.Buffer]:
        """Return ``size`` bytes to write to, and the same bytes for Arrow.

        They come back to the pool when Arrow's buffer, with every array, tensor
        and slice made of it, is gone.
        """
        memory = self._free_buffer(size, part)
        if memory is None:
            memory = np.empty(size, dtype=np.uint8)
        return memory[:size], self.lend(memory, size, part)

    def largest(self, part: int) -> Array:
        """Return the largest free buffer of a part to write to, or an empty one."""
        free = self._free[part]
        with contextlib.suppress(ValueError, IndexError):
            return free.pop(max(range(len(free)), key=lambda at: len(free[at])))
        return np.empty(0, dtype=np.uint8)

    def lend(self, memory: Array, size: int, part: int) -> pa.Buffer:
        """Return the first bytes of a buffer for Arrow, and have it back after that."""
        lent = memory[:size]
        weakref.finalize(lent, self._give_back, memory, part)
        return pa.py_buffer(lent)

    def parts(self, sizes: Sequence[int]) -> list[int]:
        """Return a part for each column; of very many, small neighbours share one."""
        if len(sizes) <= OWN_PARTS:
            return list(range(len(sizes)))
        parts: list[int] = []
        part = held = 0
        for size in sizes:
            if held and held + size > SHARED_PART_BYTES:
                part, held = part + 1, 0
            parts.append(part)
            held += size
        return parts

    def _free_buffer(self, size: int, part: int) -> Array | None:
        """Return the smallest free buffer of that many bytes, or None."""
        free = []
        with contextlib.suppress(IndexError):
            while True:  # one by one: no other thread gets the same
                free.append(self._free[part].pop())
        # A smaller one would be beside what takes its place.
        free = sorted((each for each in free if len(each) >= size), key=len)
        self._free[part] += free[1:]
        return free[0] if free else None

    @property
    def private(self) -> BufferPool:
        """Where memory comes from that a window needs while it is put in order."""
        if self._private is None:
            self._private = BufferPool()
        return self._private

    def _give_back(self, memory: Array, part: int) -> None:
        free = self._free[part]
        free.append(memory)
        while len(free) > self._keep:
            free.pop(0)

    def __getstate__(self) -> dict[str, Any]:
        return {"_keep": self._keep, "_free": defaultdict(list), "_private": None}


def padded(size: int) -> int:
    """Return a size rounded up to where the next column may begin."""
    return -(-size // ALIGNMENT) * ALIGNMENT
