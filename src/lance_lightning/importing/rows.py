"""Rows to import: what every reader of files gives, and how to begin in the middle."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

# What a damaged file raises, of any format.
UNREADABLE = (
    OSError,  # gzip's and bz2's too
    EOFError,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    pa.ArrowException,
)
BATCH_BYTES = 16 * 1024**2  # about what is in memory at a time, a few times over
BATCH_ROWS = 65_536  # at most


@dataclass(frozen=True, slots=True)
class Input:
    """Rows to import.

    Attributes:
        files: What they are read from.
        schema: Of every batch.
        num_rows: How many there are; None where only reading all would tell.
        batches: Takes the number of rows to leave out at the start, and gives batches.
    """

    files: Sequence[Path]
    schema: Any
    num_rows: int | None
    batches: Callable[[int], Iterator[Any]]


def rows_a_batch(num_rows: int, num_bytes: int) -> int:
    """Return how many rows make a batch, by the bytes of all rows."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * max(num_rows, 1) // max(num_bytes, 1)))


def after(batches: Iterator[Any], skip: int) -> Iterator[Any]:
    """Leave out the first ``skip`` rows."""
    for batch in batches:
        if skip >= batch.num_rows:
            skip -= batch.num_rows
            continue
        yield batch.slice(skip)
        skip = 0


def parts_after(
    parts: Sequence[Any], counts: Sequence[int], skip: int
) -> Iterator[tuple[Any, int]]:
    """Give each part of known rows, from the one that holds row ``skip`` on.

    And the number of its own rows to leave out.
    """
    for part, count in zip(parts, counts, strict=True):
        if skip < count:
            yield part, skip
        skip = max(0, skip - count)
