"""pylance: the raw scan, a take a batch, and what `lance.torch` offers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lance
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.batches import (
    arrow_to_batch,
    collate_rows,
    generator,
    same,
    spawned,
)
from benchmarks.speed import Task
from benchmarks.workloads import Workload, arrow_batches

SCAN_BATCH = 8192


def write(workload: Workload, rows: int, path: Path) -> None:
    """Write a Lance table; LanceDB opens it too, its name ending in ``.lance``."""
    import pyarrow as pa

    first = next(arrow_batches(workload, 1))
    batches = arrow_batches(workload, rows)
    reader = pa.RecordBatchReader.from_batches(first.schema, batches)
    if workload.in_batches:
        lance.write_dataset(reader, str(path))
    else:
        lance.write_dataset(reader.read_all().combine_chunks(), str(path))


class TakeABatch(Dataset[Any]):
    """One ``take`` for the rows of a batch.

    Args:
        uri: Where the table is.
        columns: Columns to read.
    """

    def __init__(self, uri: str, columns: list[str]) -> None:
        self.uri = uri
        self.columns = columns
        self.dataset: Any = None
        self.rows = lance.dataset(uri).count_rows()

    def __len__(self) -> int:
        return self.rows

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        """Return a batch."""
        if self.dataset is None:
            self.dataset = lance.dataset(self.uri)
        return arrow_to_batch(self.dataset.take(indices, columns=self.columns))


def _scan(task: Task) -> Callable[[], Iterable[Any]]:
    dataset = lance.dataset(str(task.path))
    columns = list(task.workload.columns)
    return lambda: dataset.scanner(columns=columns, batch_size=SCAN_BATCH).to_batches()


def _take(task: Task) -> Callable[[], Iterable[Any]]:
    dataset = TakeABatch(str(task.path), list(task.workload.columns))
    loader = DataLoader(
        dataset,
        task.batch_size,
        shuffle=True,
        generator=generator(),
        collate_fn=same,
        **spawned(task.workers),
    )
    return lambda: loader


def _dataset(task: Task) -> Callable[[], Iterable[Any]]:
    from lance.sampler import ShardedBatchSampler
    from lance.torch.data import LanceDataset

    # Its own conversion refuses text and lists.
    own = (
        {}
        if task.workload.name in ("narrow", "wide")
        else {"to_tensor_fn": arrow_to_batch}
    )
    dataset = LanceDataset(
        str(task.path),
        task.batch_size,
        columns=list(task.workload.columns),
        sampler=ShardedBatchSampler(rank=0, world_size=1, randomize=True, seed=0),
        **own,
    )
    loader = DataLoader(dataset, batch_size=None, **spawned(task.workers))
    return lambda: loader


def _safe(task: Task) -> Callable[[], Iterable[Any]]:
    from lance.torch.data import SafeLanceDataset, get_safe_loader

    dataset = SafeLanceDataset(str(task.path))
    options = {"shuffle": True, "generator": generator(), "collate_fn": collate_rows}
    if task.workers:
        loader = get_safe_loader(dataset, task.batch_size, task.workers, **options)
    else:  # which get_safe_loader does not take
        loader = DataLoader(dataset, task.batch_size, **options)
    return lambda: loader


def epochs(task: Task) -> Callable[[], Iterable[Any]]:
    """Return what is called for each epoch."""
    modes = {"scan": _scan, "take": _take, "dataset": _dataset, "safe": _safe}
    return modes[task.mode](task)


def _batch_order(rows: int, path: Path) -> Any:
    import numpy as np
    from lance.sampler import ShardedBatchSampler
    from lance.torch.data import LanceDataset

    sampler = ShardedBatchSampler(rank=0, world_size=1, randomize=True, seed=0)
    dataset = LanceDataset(str(path), 256, columns=["id"], sampler=sampler)
    return np.concatenate([np.asarray(batch) for batch in dataset])


orders = {"LanceDataset, shuffled batches": _batch_order}
