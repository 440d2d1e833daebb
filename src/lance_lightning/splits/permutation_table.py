"""A LanceDB permutation table that the user brings: its rows, and where they are.

It says by row id which row is in which split. LanceDB records in its metadata which
version of the base table it was built on, and the names of the splits.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.sources import as_source
from lance_lightning.tables import (
    Snapshot,
    identity_of,
    read_table,
    scan_table,
    strip_secrets,
)
from lance_lightning.types import ROW_ID


@dataclass(frozen=True, slots=True, eq=False)
class PermutationRows:
    """The content of a permutation table, in its order.

    Args:
        ids: The row id of each row, uint64.
        splits: The split of each row, int64; negative for none.
        names: The names of the splits, if they were recorded.
        version: The version that was permuted, if it was recorded.
        branch: The branch that was permuted; None is main.
    """

    ids: Any
    splits: Any
    names: tuple[str, ...] | None
    version: int | None
    branch: str | None

    def default_names(self) -> tuple[str, ...]:
        """Return the recorded names, else ``split_0``, ``split_1``, ..."""
        if self.names is not None:
            return self.names
        count = int(self.splits.max(initial=0)) + 1
        return tuple(f"split_{index}" for index in range(count))

    def digest(self) -> str:
        """Return the SHA-256, in hex, of rows, splits and what was permuted."""
        place = json.dumps([self.version, self.branch])
        digest = hashlib.sha256(place.encode())
        digest.update(self.ids.astype("<u8").tobytes())
        digest.update(self.splits.astype("<i8").tobytes())
        return digest.hexdigest()


def arrow_of(table: Any) -> Any:
    """Return the ``pyarrow.Table`` of a permutation table, wherever it is.

    Raises:
        ConfigError: It is not a permutation table.
        SourceError: There is no Lance dataset at the path.
    """
    if isinstance(table, (str, os.PathLike)):
        found = read_table(
            as_source(table).resolve(Path()),
            "reading the permutation table",
            lambda dataset: dataset.to_table(),
        )
    elif isinstance(table, pa.Table):
        found = table
    else:
        to_arrow = getattr(table, "to_arrow", None)
        found = to_arrow() if callable(to_arrow) else None
    if isinstance(found, pa.Table) and {"row_id", "split_id"} <= {*found.schema.names}:
        return found.select(["row_id", "split_id"])
    at = isinstance(table, (str, os.PathLike))
    shown = repr(strip_secrets(os.fspath(table))) if at else type(table)
    raise ConfigError(
        "table must be a LanceDB permutation table, with columns 'row_id' and "
        f"'split_id', or the path of its Lance dataset, got {shown}"
    )


def rows_of(table: Any) -> PermutationRows:
    """Return the content of a permutation table given as a ``pyarrow.Table``.

    Raises:
        ConfigError: A column holds something else than it should.
    """
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if not pa.types.is_integer(column.type):
            raise ConfigError(
                f"{name!r} of a permutation table must hold integers, got {column.type}"
            )
    if table["row_id"].null_count:
        raise ConfigError(
            f"'row_id' of a permutation table holds {table['row_id'].null_count} "
            "nulls, which name no row; remove them"
        )
    found = {
        key.decode(): value.decode()
        for key, value in (table.schema.metadata or {}).items()
    }
    return PermutationRows(
        ids=table["row_id"].to_numpy().astype(np.uint64),
        splits=table["split_id"].cast(pa.int64()).fill_null(-1).to_numpy(),
        names=tuple(json.loads(found["split_names"]))
        if "split_names" in found
        else None,
        version=int(found["base_version"]) if "base_version" in found else None,
        branch=found.get("base_branch"),
    )


def check_base(rows: PermutationRows, snapshot: Snapshot) -> None:
    """Check that the row ids mean the same rows in the snapshot.

    They do in another version too where it has the same fragments: an index was
    built, or a setting changed. Otherwise a row id can be gone or, after an
    overwrite, be that of another row. Where no version was recorded, nothing tells.

    Raises:
        SourceError: Other rows can be there.
    """
    recorded = (rows.version, rows.branch)
    if rows.version is None or recorded == (snapshot.version, snapshot.branch):
        return
    dataset = snapshot.open()
    try:
        permuted = dataset.checkout_version((rows.branch, rows.version))
        if identity_of(permuted).fragments == identity_of(dataset).fragments:
            return
    except (ValueError, OSError):
        pass  # the version is gone: nothing tells which rows it had
    branch = "" if rows.branch is None else f", branch={rows.branch!r}"
    raise SourceError(
        f"the permutation table was built on version={rows.version}{branch}, and the "
        f"rows are read at {snapshot.describe()}, where its row ids can mean other "
        f"rows; give the source version={rows.version}{branch}, or build the "
        "permutation again"
    )


def row_ids(snapshot: Snapshot) -> Any:
    """Return the row id, uint64, at each row offset."""
    batches = scan_table(
        snapshot,
        "reading the row ids",
        lambda: snapshot.open().scanner(columns=[ROW_ID], scan_in_order=True),
    )
    parts = [batch[ROW_ID].to_numpy() for batch in batches]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def offsets_of(ids: Any, snapshot: Snapshot) -> Any:
    """Return the row offset, uint64, of each row id.

    Raises:
        SourceError: A row id is not in the table.
    """
    there = row_ids(snapshot)
    order = np.argsort(there, kind="stable")
    # A row more, so that what is beyond the last has a place to be compared at.
    places = np.append(order, 0)[np.searchsorted(there, ids, sorter=order)]
    missing = there[places] != ids if len(there) else np.ones(len(ids), bool)
    if missing.any():
        raise SourceError(
            f"{int(missing.sum())} of the {len(ids)} row ids of the permutation table "
            f"are not in {snapshot.describe()} (the first: {ids[missing][0]}), since "
            "their rows were deleted, rewritten or moved, or it belongs to another "
            "table; give the source the version that was permuted (version=...), or "
            "build the permutation again"
        )
    return places.astype(np.uint64)
