"""The plans of all splits of a table, built once and kept in the cache folder."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from lance_lightning.cache_folder import build_once
from lance_lightning.errors import ConfigError
from lance_lightning.splits.assignment import FilteredRows, offsets_of_splits
from lance_lightning.splits.progress_bar import Progress
from lance_lightning.splits.specs import (
    AllRows,
    CalculatedSplit,
    HashSplit,
    PermutationSplit,
    RandomSplit,
    SequentialSplit,
    Splits,
)
from lance_lightning.tables import Plan, Snapshot, range_plan, save_offsets

FORMAT = 1  # of the plans' folders: part of their name
_SPECS = (
    AllRows,
    RandomSplit,
    HashSplit,
    SequentialSplit,
    CalculatedSplit,
    PermutationSplit,
)
_META = "meta.json"


_log = logging.getLogger(__name__)


# -- plans ---------------------------------------------------------------------


def build_plans(
    splits: Splits,
    snapshot: Snapshot,
    filter: str | None,
    cache: Path,
    *,
    progress: bool = True,
) -> dict[str, Plan]:
    """Return split name -> plan, built now unless the cache has them.

    A split may have no row. Processes that ask at the same time build once.

    Args:
        splits: Who gets which rows.
        snapshot: The table, pinned.
        filter: A SQL expression that rows must pass, or None.
        cache: The cache folder.
        progress: Show a bar on stderr when it takes longer than a few seconds.

    Raises:
        ConfigError: The splits do not fit the table, or LanceDB's builder failed.
        SourceError: The filter or a column does not fit the table.
    """
    if not isinstance(splits, _SPECS):
        listed = ", ".join(spec.__name__ for spec in _SPECS)
        raise ConfigError(f"splits must be one of {listed}, got {splits!r}")
    snapshot.check_filter(filter)
    if isinstance(splits, AllRows) and filter is None:
        return {splits.name: range_plan(splits.name, 0, snapshot.num_rows)}
    what = {
        "format": FORMAT,
        "identity": snapshot.identity.to_dict(),
        "filter": filter,
        "splits": splits.key(),
    }
    canonical = json.dumps(what, sort_keys=True, separators=(",", ":"))
    name = hashlib.sha256(canonical.encode()).hexdigest()
    build = functools.partial(
        _build, what=what, splits=splits, snapshot=snapshot, progress=progress
    )
    return _read_plans(build_once(Path(cache).absolute() / "plans" / name, build))


def _build(
    folder: Path,
    *,
    what: dict[str, Any],
    splits: Any,
    snapshot: Snapshot,
    progress: bool,
) -> None:
    scratch = folder / "scratch"
    scratch.mkdir()
    bar = Progress(snapshot.num_rows, progress)
    try:
        table = FilteredRows(snapshot, what["filter"], bar)
        offsets = offsets_of_splits(splits, table, scratch)
    finally:
        bar.close()
    shutil.rmtree(scratch)
    plans = [
        save_offsets(folder / f"{index}.npy", name, rows)
        for index, (name, rows) in enumerate(
            zip(splits.split_names, offsets, strict=True)
        )
    ]
    sizes = ", ".join(f"{plan.name} {plan.num_rows}" for plan in plans)
    left = snapshot.num_rows - sum(plan.num_rows for plan in plans)
    _log.info("built splits: %s; rows in no split: %d", sizes, left)
    found = {**what, "plans": [_plan_meta(plan) for plan in plans]}
    (folder / _META).write_text(json.dumps(found, indent=1), encoding="utf-8")


def _plan_meta(plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "num_rows": plan.num_rows,
        "digest": plan.digest,
        "file": Path(plan.path).name if plan.path else None,
        "start": plan.start,
        "sorted": plan.sorted,
    }


def _read_plans(folder: Path) -> dict[str, Plan]:
    found = json.loads((folder / _META).read_text(encoding="utf-8"))["plans"]
    plans = {}
    for meta in found:
        name = meta.pop("file")
        path = str(folder / name) if name else None
        plans[meta["name"]] = Plan(path=path, **meta)
    return plans
