"""The rows of a split: a range of row offsets, or one memory-mapped file of them.

A row offset is the place of a row among the live rows of a table at one version,
in scan order: what Lance's ``take`` and ``scanner(offset=, limit=)`` count in.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lance_lightning.errors import SourceError

_CHUNK = 1 << 20  # offsets hashed at a time, so that a plan is never held twice


@dataclass(frozen=True, slots=True)
class Plan:
    """Which rows of a table a split holds, and in which order.

    It pickles in a few hundred bytes: each process maps the file for itself.

    Args:
        name: The split's name.
        num_rows: How many rows it has; it may be none.
        digest: The SHA-256, in hex, of the row offsets: two plans that give the same
            rows in the same order have the same digest.
        path: A ``.npy`` file of row offsets (uint32, or uint64 where they need it);
            None for the rows from ``start`` on.
        start: The first row offset of a range.
        sorted: Whether the offsets ascend. Only a user's own permutation table can
            give another order.
    """

    name: str
    num_rows: int
    digest: str
    path: str | None = None
    start: int = 0
    sorted: bool = True

    @property
    def is_range(self) -> bool:
        """Whether the rows are side by side, so that no file holds them."""
        return self.path is None

    def offsets(self, indices: Any) -> Any:
        """Return the row offsets, int64, at ``indices``, int64 from 0 to num_rows.

        Raises:
            SourceError: The plan's file is gone.
        """
        if self.path is None:
            return indices + np.int64(self.start)
        return _mapped(self.path)[indices].astype(np.int64)

    def in_table_order(self, indices: Any) -> Any:
        """Return the row offsets, int64, at ``indices`` of the ascending offsets."""
        if self.path is None or self.sorted:
            return self.offsets(indices)
        return _ascending(self.path)[indices].astype(np.int64)

    def places_in_table_order(self, offsets: Any) -> Any:
        """Return where among the split's ascending row offsets some of them are."""
        if self.path is None:
            return offsets - np.int64(self.start)
        found = _mapped(self.path) if self.sorted else _ascending(self.path)
        # Of another dtype, the whole file would be converted.
        return np.searchsorted(found, offsets.astype(found.dtype))


# Mapped, not read: the processes of a machine share its pages.
@functools.lru_cache(maxsize=32)
def _mapped(path: str) -> Any:
    try:
        return np.load(path, mmap_mode="r").view(np.ndarray)
    except FileNotFoundError as error:
        raise SourceError(
            f"the plan file {path!r} is gone, so the rows of its split are not known; "
            "start again, with cache_dir=... a folder that nothing cleans up meanwhile"
        ) from error


@functools.lru_cache(maxsize=8)
def _ascending(path: str) -> Any:
    return np.sort(_mapped(path))


def range_plan(name: str, start: int, stop: int) -> Plan:
    """Return the plan of the rows from ``start`` up to, not with, ``stop``."""
    digest = hashlib.sha256(f"range {start} {stop}".encode()).hexdigest()
    return Plan(name, stop - start, digest, start=start)


def save_offsets(path: Path, name: str, offsets: Any) -> Plan:
    """Write row offsets, a 1-D array of integers in plan order, and return the plan.

    Offsets that are one range need no file and none is written.
    """
    size = len(offsets)
    ascending = bool((offsets[1:] > offsets[:-1]).all())
    if size == 0:
        return range_plan(name, 0, 0)
    if ascending and int(offsets[-1]) - int(offsets[0]) == size - 1:
        return range_plan(name, int(offsets[0]), int(offsets[-1]) + 1)
    fits = int(offsets.max()) <= np.iinfo(np.uint32).max
    stored = offsets.astype(np.uint32 if fits else np.uint64, copy=False)
    np.save(path, stored)
    return Plan(name, size, _digest(stored), str(path), sorted=ascending)


def _digest(offsets: Any) -> str:
    # Of the numbers, not of the file: its width and header say nothing of the rows.
    digest = hashlib.sha256(b"offsets ")
    for first in range(0, len(offsets), _CHUNK):
        digest.update(offsets[first : first + _CHUNK].astype("<u8").tobytes())
    return digest.hexdigest()
