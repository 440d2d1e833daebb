"""The selected columns of a split on local disk, memory-mapped."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lance_lightning.blobs import with_blobs
from lance_lightning.cache import build_once
from lance_lightning.door import read_table
from lance_lightning.fetch import PIECE_BYTES, Threads, Wanted, read_windows
from lance_lightning.gather import (
    BufferPool,
    Pool,
    RowGather,
    part_of,
    with_wide_index,
)
from lance_lightning.layout import Unordered, batch_of, ordered
from lance_lightning.plan import Plan
from lance_lightning.snapshot import Snapshot, strip_secrets
from lance_lightning.types import ConfigError, SourceError

CHUNK_BYTES = 8 * PIECE_BYTES
FILE = "rows.arrow"
LAYOUT = 1  # of the file: another one gets another name

Array = np.ndarray[Any, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedRows:
    """Rows of a split in an Arrow IPC stream, in the order of the table.

    It pickles in a few hundred bytes: each process maps the file for itself, and
    all share its pages.

    Args:
        path: The file.
        plan: The rows of the split.
        chunk: Rows of each record batch but the last.
    """

    path: str
    plan: Plan
    chunk: int

    def read_windows(
        self, windows: Iterable[Wanted], pool: Pool
    ) -> Iterator[pa.RecordBatch | Unordered]:
        """Read windows of rows, each in its order, as `fetch.read_windows` does.

        Args:
            windows: Sorted row offsets and the place of each.
            pool: Where the memory of the rows comes from.
        """
        batches = _mapped(self.path)
        for offsets, order, *_ in windows:
            gather = RowGather(len(offsets), pool)
            at = self.plan.places_in_table_order(offsets)
            places = slice(0, len(offsets)) if order is None else order
            done = 0
            while done < len(at):
                number = int(at[done]) // self.chunk
                start = number * self.chunk
                until = int(np.searchsorted(at, start + self.chunk))
                own = part_of(places, done, until - done)
                batch = pa.Table.from_batches([batches[number]])
                gather.put(batch, own, at[done:until] - start)
                done = until
            if not len(at):
                gather.put(pa.Table.from_batches([batches[0].slice(0, 0)]), slice(0, 0))
            yield gather.finish()


def cache_rows(
    folder: Path,
    snapshot: Snapshot,
    columns: Any,
    plan: Plan,
    row_bytes: int,
    limit: int,
) -> CachedRows:
    """Return the rows of a split on local disk, written by whoever comes first.

    Args:
        folder: The cache folder.
        snapshot: The table at its pinned version.
        columns: What Lance is asked for.
        plan: The rows of the split.
        row_bytes: Mean bytes of a row.
        limit: The most bytes it may take.

    Raises:
        ConfigError: The rows take more, or the folder cannot be written.
    """
    need = plan.num_rows * row_bytes
    if need > limit:
        raise ConfigError(
            f"the columns of split {plan.name!r} take about {need} bytes on disk "
            f"({plan.num_rows} rows of {row_bytes}), and cache_bytes is {limit}: allow "
            "more, choose fewer columns, or leave cache_bytes out"
        )
    chunk = max(1, CHUNK_BYTES // row_bytes)

    def build(aside: Path) -> None:
        _log.info("keeping %d rows of split %r in %s", plan.num_rows, plan.name, target)
        _write(aside / FILE, snapshot, columns, plan, row_bytes, chunk)

    key = [
        LAYOUT,
        snapshot.identity.to_dict(),
        strip_secrets(snapshot.uri),
        list(columns.items()) if isinstance(columns, dict) else list(columns or []),
        plan.digest,
        chunk,
    ]
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    target = folder / f"rows-{name}"
    return CachedRows(str(build_once(target, build) / FILE), plan, chunk)


def _write(
    path: Path, snapshot: Snapshot, columns: Any, plan: Plan, row_bytes: int, chunk: int
) -> None:
    def windows() -> Iterator[Wanted]:
        for start in range(0, max(1, plan.num_rows), chunk):
            at = np.arange(start, min(start + chunk, plan.num_rows))
            rows = plan.in_table_order(at)
            yield rows, None, f" for the local copy of split {plan.name!r}"

    doing = f"keeping the rows of split {plan.name!r}"
    dataset = read_table(snapshot, doing, lambda table: with_blobs(table, columns))
    batches = read_windows(
        dataset,
        columns,
        windows(),
        row_bytes,
        BufferPool(),
        Threads(),
        door=lambda doing, work: read_table(snapshot, doing, lambda _: work()),
    )
    first = _wide(ordered(next(batches)))
    # A stream: in a file all batches share their dictionaries.
    with pa.ipc.new_stream(str(path), first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(_wide(ordered(batch)))


def _wide(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return dictionaries with an index that counts the values of all batches."""
    arrays = [
        with_wide_index(array) if pa.types.is_dictionary(array.type) else array
        for array in batch.columns
    ]
    return batch_of(arrays, batch.schema)


@functools.lru_cache(maxsize=16)
def _mapped(path: str) -> list[pa.RecordBatch]:
    try:
        return list(pa.ipc.open_stream(pa.memory_map(path)))
    except FileNotFoundError as error:
        raise SourceError(
            f"the rows that were kept in {path!r} are gone; start again, with "
            "cache_dir=... a folder that nothing cleans up meanwhile"
        ) from error
