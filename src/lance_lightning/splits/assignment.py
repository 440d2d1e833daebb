"""The splits a user names, and the plans that LanceDB's permutation builder makes.

LanceDB assigns random and sequential splits by only a row's place, hashed ones by its
values. So a stand-in that holds no more than that gives the same assignment as the
table, and what comes back is mapped to the table's row offsets. Sequential and
calculated splits need no builder, nor lancedb.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.splits.builder import (
    assign,
    assigned_of,
    write_blank_stand_in,
    write_stand_in,
)
from lance_lightning.splits.builder_request import builder_request
from lance_lightning.splits.permutation_table import (
    arrow_of,
    check_base,
    offsets_of,
    rows_of,
)
from lance_lightning.splits.progress_bar import Progress
from lance_lightning.splits.specs import (
    AllRows,
    CalculatedSplit,
    HashSplit,
    PermutationSplit,
    SequentialSplit,
)
from lance_lightning.splits.split_sizes import split_sizes
from lance_lightning.tables import Snapshot, scan_table
from lance_lightning.types import ROW_OFFSET

# -- rows of the table ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FilteredRows:
    """The rows of the table that the filter keeps, in scan order."""

    snapshot: Snapshot
    filter: str | None
    progress: Progress

    def batches(self, columns: Any) -> Iterator[Any]:
        """Yield record batches of the columns, then the row offset."""
        for batch in scan_table(
            self.snapshot,
            "reading the rows to split",
            lambda: self.snapshot.scan(columns, self.filter),
        ):
            self.progress.tick(batch.num_rows)
            yield batch

    def offsets(self) -> Any:
        """Return the row offsets, ascending."""
        if self.filter is None:
            return np.arange(self.snapshot.num_rows, dtype=np.uint64)
        parts = [batch[ROW_OFFSET].to_numpy() for batch in self.batches([ROW_OFFSET])]
        return np.sort(np.concatenate(parts or [np.empty(0, np.uint64)]))


# -- assignment ----------------------------------------------------------------


def offsets_of_splits(splits: Any, table: FilteredRows, scratch: Path) -> list[Any]:
    """Return the row offsets of each split."""
    if isinstance(splits, AllRows):
        return [table.offsets()]
    if isinstance(splits, PermutationSplit):
        return _permuted(splits, table)
    count = len(splits.split_names)
    if isinstance(splits, CalculatedSplit):
        kept, assigned = _calculated(splits, table)
    elif isinstance(splits, SequentialSplit):
        kept = table.offsets()
        _check_sizes(splits, len(kept))
        return np.split(kept, np.cumsum(split_sizes(splits, len(kept))))[:count]
    else:
        kept, assigned = _built(splits, table, scratch)
    return [np.sort(kept[assigned == index]) for index in range(count)]


def _check_sizes(splits: Any, num_rows: int) -> None:
    """Say what LanceDB's builder would refuse, with the numbers."""
    if num_rows == 0:
        return
    if splits.counts and sum(splits.counts.values()) > num_rows:
        listed = ", ".join(f"{name}={count}" for name, count in splits.counts.items())
        raise ConfigError(
            f"counts name {sum(splits.counts.values())} rows ({listed}), but there are "
            f"{num_rows}; lower them, or give ratios. Hydra merges mappings, so a "
            "default left in place may be the cause; null removes a split"
        )
    small = [n for n, r in (splits.ratios or {}).items() if r * num_rows < 1]
    if small or (splits.fixed and len(splits.fixed) > num_rows):
        few = small or list(splits.fixed)
        raise ConfigError(
            f"{num_rows} rows give less than one to each of the splits {few}; "
            "LanceDB takes no empty split: give it a larger share, or remove it (null)"
        )


def _stand_in_of_columns(
    columns: Sequence[str], table: FilteredRows, scratch: Path
) -> Any:
    """Write the columns of the kept rows, and return the kept rows' offsets."""
    asked = [*columns, ROW_OFFSET]
    found = table.snapshot.projected_schema(asked)
    # New names, as a field of a struct keeps its dot; no metadata, which could ask
    # for another encoding. Neither is part of the hash.
    schema = pa.schema(
        [pa.field(f"c{i}", kind) for i, kind in enumerate(found.types[:-1])]
    )
    offsets = [np.empty(0, np.uint64)]

    def batches() -> Iterator[Any]:
        for batch in table.batches(asked):
            offsets.append(batch[ROW_OFFSET].to_numpy())
            yield pa.record_batch(batch.columns[:-1], schema=schema)

    write_stand_in(scratch, schema, batches())
    return np.concatenate(offsets)


def _calculated(splits: CalculatedSplit, table: FilteredRows) -> tuple[Any, Any]:
    """Return the kept rows' offsets, and the split of each."""
    sql, count = splits.calculation, len(splits.split_names)
    _check_calculation(sql, table.snapshot)
    offsets = [np.empty(0, np.uint64)]
    assigned = [np.empty(0, np.uint8)]
    for batch in table.batches({"split_id": sql, ROW_OFFSET: ROW_OFFSET}):
        found = batch.column(0)
        _check_not_negative(sql, found)
        assigned.append(assigned_of(found, count))
        offsets.append(batch[ROW_OFFSET].to_numpy())
    return np.concatenate(offsets), np.concatenate(assigned)


def _check_calculation(sql: str, snapshot: Snapshot) -> None:
    try:
        asked = {"split_id": sql, ROW_OFFSET: ROW_OFFSET}
        kind = snapshot.projected_schema(asked).types[0]
        # As a filter, to be told when it would give something else each time.
        snapshot.check_filter(f"({sql}\n) IS NOT NULL")
    except SourceError as error:
        raise SourceError(f"the calculation {sql!r} assigns no row: {error}") from error
    if not pa.types.is_integer(kind):
        raise ConfigError(
            f"the calculation {sql!r} gives {kind}, and must give a whole number, the "
            "place of a row's split in split_names; cast(... as bigint) makes one"
        )


def _check_not_negative(sql: str, found: Any) -> None:
    lowest = pc.min(found).as_py()
    if lowest is not None and lowest < 0:
        raise ConfigError(
            f"the calculation {sql!r} gives {lowest}, so no split can take that row; "
            "it must give 0 for the first name, 1 for the second, null for none"
        )


# -- LanceDB's builder ---------------------------------------------------------


def _built(splits: Any, table: FilteredRows, scratch: Path) -> tuple[Any, Any]:
    """Return the kept rows' offsets, and the split of each as LanceDB has it."""
    if isinstance(splits, HashSplit):
        table.snapshot.projected_schema(splits.columns)
        kept = _stand_in_of_columns(splits.columns, table, scratch)
    else:
        kept = table.offsets()
        _check_sizes(splits, len(kept))
        write_blank_stand_in(scratch, len(kept))
    if len(kept) == 0:
        return kept, kept
    return kept, _assigned(splits, len(kept), scratch, table.progress)


def _assigned(splits: Any, num_rows: int, scratch: Path, progress: Progress) -> Any:
    """Return the index of each row's split, as LanceDB's builder has it."""
    request = builder_request(splits)
    count = len(splits.split_names)
    try:
        return assign(scratch, request, num_rows, count, progress.tick)
    except RuntimeError as error:
        hint = ""
        if request.get("clump_size"):
            hint = "; a divisor of 1024 as clump_size, or none, always works"
        raise ConfigError(
            f"LanceDB's permutation builder made no splits of {num_rows} rows with "
            f"{splits!r}: {error}{hint}"
        ) from None


# -- permutation tables --------------------------------------------------------


def _permuted(splits: PermutationSplit, table: FilteredRows) -> list[Any]:
    """Return the row offsets of each split, in the order of the permutation table."""
    rows = rows_of(arrow_of(splits.table))
    if rows.digest() != splits.digest:
        raise SourceError(
            f"the permutation table of {splits!r} has changed since it was first "
            "read, so ranks could read other rows; start again"
        )
    check_base(rows, table.snapshot)
    count = len(splits.split_names)
    named = (rows.splits >= 0) & (rows.splits < count)
    offsets = offsets_of(rows.ids[named], table.snapshot)
    kept = np.zeros(table.snapshot.num_rows, bool)
    kept[offsets] = True
    repeated = len(offsets) - int(kept.sum())
    if repeated:
        raise ConfigError(
            f"{repeated} row ids come more than once in the permutation table, so a "
            "row would be in two splits, or twice in one; keep each once"
        )
    if table.filter is not None:
        kept[:] = False
        kept[table.offsets()] = True
    passed, of = kept[offsets], rows.splits[named]
    return [offsets[passed & (of == index)] for index in range(count)]
