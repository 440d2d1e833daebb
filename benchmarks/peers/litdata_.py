"""LitData: chunks made by ``optimize``, read by its streaming loader."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

# Before the import, or it asks the network for a newer release.
os.environ.setdefault("DISABLE_UPGRADE_PROMPT", "1")
os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")

import litdata
import numpy as np

from benchmarks.peers.batches import collate_rows
from benchmarks.speed import Task
from benchmarks.workloads import WORKLOADS, Workload

CHUNK_BYTES = "64MB"
CHUNK_ROWS = 120_000  # narrow rows in such a chunk


def _samples(name: str, rows: int) -> Iterator[dict[str, Any]]:
    for sample in WORKLOADS[name].samples(rows):
        yield {**sample, "id": int(sample["id"])}


def write(workload: Workload, rows: int, path: Path) -> None:
    """Write chunks."""
    litdata.optimize(
        fn=partial(_samples, workload.name),
        inputs=[rows],
        output_dir=str(path),
        chunk_bytes=CHUNK_BYTES,
        num_workers=1,
        verbose=False,
    )


def epochs(task: Task) -> Callable[[], Iterable[Any]]:
    """Return what is called for each epoch."""
    # "full" shuffles whole chunks; by default it is windows of 256 rows.
    full = {"item_shuffle_window": 0, "batch_decode": 0} if task.mode == "full" else {}
    dataset = litdata.StreamingDataset(
        str(task.path), shuffle=True, drop_last=False, **full
    )
    ragged = {"collate_fn": collate_rows} if task.workload.name == "tokens" else {}
    loader = litdata.StreamingDataLoader(
        dataset, batch_size=task.batch_size, num_workers=task.workers, **ragged
    )
    return lambda: loader


def _ids(rows: int) -> Iterator[dict[str, int]]:
    for number in range(rows):
        yield {"id": number}


def _order(rows: int, path: Path, **options: Any) -> Any:
    if not (path / "index.json").exists():
        litdata.optimize(
            fn=_ids,
            inputs=[rows],
            output_dir=str(path),
            chunk_size=CHUNK_ROWS,
            num_workers=1,
            verbose=False,
        )
    dataset = litdata.StreamingDataset(str(path), shuffle=True, **options)
    loader = litdata.StreamingDataLoader(dataset, batch_size=256)
    return np.concatenate([np.asarray(batch["id"]) for batch in loader])


orders = {
    "LitData, default": _order,
    "LitData, whole chunks": partial(_order, item_shuffle_window=0, batch_decode=0),
}
