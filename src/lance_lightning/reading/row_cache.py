"""The selected columns of a split on local disk, memory-mapped."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lance_lightning.arrow import (
    UnorderedRows,
    batch_of,
    in_order,
    take_rows,
    with_wide_index,
)
from lance_lightning.cache_folder import build_once
from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.reading.gather import RowGather, part_of
from lance_lightning.reading.memory import BufferPool, Pool
from lance_lightning.reading.pieces import PIECE_BYTES, VARIABLE_PIECE_BYTES
from lance_lightning.reading.row_sizes import RowSizes
from lance_lightning.reading.threads import Threads
from lance_lightning.reading.windows import Wanted, WindowOverflow, read_windows
from lance_lightning.tables import Plan, Snapshot, read_table, strip_secrets, with_blobs
from lance_lightning.types import Array

CHUNK_BYTES = 8 * PIECE_BYTES
FILE = "rows.arrow"
LAYOUT = 1  # of the file: another one gets another name


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedRows:
    """Rows of a split in an Arrow IPC stream, in the order of the table.

    It pickles in a few hundred bytes: each process maps the file for itself, and
    all share its pages.

    Args:
        path: The file.
        plan: The rows of the split.
    """

    path: str
    plan: Plan

    def read_windows(
        self,
        windows: Iterable[Wanted],
        pool: Pool,
        sizes: RowSizes | None = None,
        overflows: Callable[[int], bool] = lambda held: False,
    ) -> Iterator[pa.RecordBatch | UnorderedRows]:
        """Read windows of rows, each in its order, as `fetch.read_windows` does.

        Args:
            windows: Sorted row offsets and the place of each.
            pool: Where the memory of the rows comes from.
            sizes: What rows turn out to take; None where that is known.
            overflows: Says, for the bytes of a window that were read, whether they
                are too many.

        Raises:
            WindowOverflow: What was read of a window is too much.
        """
        batches, ends = _mapped(self.path)
        for offsets, order, *_ in windows:
            gather = RowGather(len(offsets), pool)
            at = self.plan.places_in_table_order(offsets)
            places = slice(0, len(offsets)) if order is None else order
            done = held = 0
            while done < len(at):
                number = int(np.searchsorted(ends, at[done], side="right"))
                until = int(np.searchsorted(at, ends[number]))
                if sizes is not None:
                    until = min(until, done + sizes.piece_rows(VARIABLE_PIECE_BYTES))
                own = part_of(places, done, until - done)
                batch = batches[number]
                rows = at[done:until] - (ends[number] - len(batch))
                done = until
                if sizes is None:
                    gather.put(pa.Table.from_batches([batch]), own, rows)
                    continue
                arrays = [take_rows(column, rows) for column in batch.columns]
                piece = pa.Table.from_batches([batch_of(arrays, batch.schema)])
                held += sizes.saw(piece)
                if done < len(at) and overflows(held):
                    raise WindowOverflow
                gather.put(piece, own)
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
    sizes: RowSizes | None = None,
) -> CachedRows:
    """Return the rows of a split on local disk, written by whoever comes first.

    Args:
        folder: The cache folder.
        snapshot: The table at its pinned version.
        columns: What Lance is asked for.
        plan: The rows of the split.
        row_bytes: Mean bytes of a row.
        limit: The most bytes it may take.
        sizes: What rows turn out to take; None where their width is fixed.

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
        written = 0
        batches = _chunks(snapshot, columns, plan, row_bytes, chunk, sizes)
        first = _wide(next(batches))
        # A stream: in a file all batches share their dictionaries.
        with pa.ipc.new_stream(str(aside / FILE), first.schema) as writer:
            for batch in itertools.chain([first], map(_wide, batches)):
                written += int(batch.nbytes)
                if sizes is not None and written > limit:
                    raise ConfigError(
                        f"the columns of split {plan.name!r} take more on disk than "
                        f"cache_bytes, {limit}: allow more, choose fewer columns, or "
                        "leave cache_bytes out"
                    )
                writer.write_batch(batch)

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
    return CachedRows(str(build_once(target, build) / FILE), plan)


def _chunks(
    snapshot: Snapshot,
    columns: Any,
    plan: Plan,
    row_bytes: int,
    chunk: int,
    sizes: RowSizes | None,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a split, that many at once or, where they are large, fewer."""
    start, most = 0, chunk
    asked: deque[int] = deque()

    def windows() -> Iterator[Wanted]:
        first = start
        asked.clear()
        while first < max(1, plan.num_rows):
            count = min(most, plan.num_rows - first)
            if sizes is not None:
                count = min(count, sizes.rows_within(count, CHUNK_BYTES))
            asked.append(count)
            at = np.arange(first, first + count)
            rows = plan.in_table_order(at)
            yield rows, None, f" for the local copy of split {plan.name!r}"
            first += max(1, count)

    def overflows(held: int) -> bool:
        return sizes is not None and held > sizes.most_bytes(CHUNK_BYTES)

    doing = f"keeping the rows of split {plan.name!r}"
    dataset = read_table(snapshot, doing, lambda table: with_blobs(table, columns))
    while True:
        batches = read_windows(
            dataset,
            columns,
            windows(),
            row_bytes,
            BufferPool(),
            Threads(),
            door=lambda doing, work: read_table(snapshot, doing, lambda _: work()),
            sizes=sizes,
            overflows=overflows,
        )
        try:
            for batch in batches:
                yield in_order(batch)
                start, most = start + asked.popleft(), chunk
            return
        except WindowOverflow:
            most = max(1, asked[0] // 2)


def _wide(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return dictionaries with an index that counts the values of all batches."""
    arrays = [
        with_wide_index(array) if pa.types.is_dictionary(array.type) else array
        for array in batch.columns
    ]
    return batch_of(arrays, batch.schema)


@functools.lru_cache(maxsize=16)
def _mapped(path: str) -> tuple[list[pa.RecordBatch], Array]:
    """Return the record batches, and for each how many rows end with it."""
    try:
        batches = list(pa.ipc.open_stream(pa.memory_map(path)))
    except FileNotFoundError as error:
        raise SourceError(
            f"the rows that were kept in {path!r} are gone; start again, with "
            "cache_dir=... a folder that nothing cleans up meanwhile"
        ) from error
    return batches, np.cumsum([len(batch) for batch in batches])
