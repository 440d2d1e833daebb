"""Hugging Face datasets: map style, and iterable with a shuffle buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from torch.utils.data import DataLoader

from benchmarks.peers.batches import collate_rows, generator, spawned
from benchmarks.speed import Task
from benchmarks.workloads import Workload, arrow_batches

SHARDS = 32
BUFFER = 10_000

datasets.disable_progress_bars()


def write(workload: Workload, rows: int, path: Path) -> None:
    """Write Arrow files."""
    import pyarrow as pa

    table = pa.Table.from_batches(arrow_batches(workload, rows))
    datasets.Dataset(table).save_to_disk(str(path), num_shards=8)


def epochs(task: Task) -> Callable[[], Iterable[Any]]:
    """Return what is called for each epoch."""
    rows = datasets.load_from_disk(str(task.path)).with_format("torch")
    ragged = task.workload.name == "tokens"
    options = {
        "batch_size": task.batch_size,
        "collate_fn": collate_rows if ragged else None,
        **spawned(task.workers),
    }
    if task.mode == "map":
        loader = DataLoader(rows, shuffle=True, generator=generator(), **options)
    else:
        stream = rows.to_iterable_dataset(num_shards=SHARDS)
        loader = DataLoader(stream.shuffle(seed=0, buffer_size=BUFFER), **options)
    return lambda: loader


def _buffer_order(rows: int, path: Path) -> Any:
    ids = datasets.Dataset.from_dict({"id": np.arange(rows)})
    stream = ids.to_iterable_dataset(num_shards=SHARDS)
    shuffled = stream.shuffle(seed=0, buffer_size=BUFFER)
    return np.fromiter((row["id"] for row in shuffled), np.int64)


orders = {"HF iterable, 32 shards, buffer 10,000": _buffer_order}
