"""torch alone, over rows in memory or in memory maps: ceilings, not rivals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.peers.batches import generator, same, spawned
from benchmarks.speed import Task
from benchmarks.workloads import Workload


def write(workload: Workload, rows: int, path: Path) -> None:
    """Write one ``.npy`` file a column."""
    path.mkdir()
    files: dict[str, Any] = {}
    start = 0
    for chunk in workload.chunks(rows):
        for name, values in chunk.items():
            if name not in files:
                shape = (rows, *values.shape[1:])
                files[name] = np.lib.format.open_memmap(
                    path / f"{name}.npy", "w+", values.dtype, shape
                )
            files[name][start : start + len(values)] = values
        start += len(chunk["id"])


class Batches(Dataset[Any]):
    """Columns from which a batch is taken at once.

    Args:
        columns: Name to tensor or memory map.
        index: Makes of a list what such columns are indexed with.
    """

    def __init__(
        self, columns: dict[str, Any], index: Callable[[list[int]], Any]
    ) -> None:
        self.columns = columns
        self.index = index

    def __len__(self) -> int:
        return len(self.columns["id"])

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        """Return a batch."""
        at = self.index(indices)
        batch = {name: values[at] for name, values in self.columns.items()}
        return {name: torch.as_tensor(values) for name, values in batch.items()}


def epochs(task: Task) -> Callable[[], Iterable[Any]]:
    """Return what is called for each epoch."""
    mapped = "r" if task.mode == "memmap" else None
    columns: dict[str, Any] = {
        name: np.load(task.path / f"{name}.npy", mmap_mode=mapped)
        for name in task.workload.columns
    }
    if not mapped:
        columns = {name: torch.from_numpy(array) for name, array in columns.items()}
    index = np.array if mapped else torch.tensor
    options = {
        "batch_size": task.batch_size,
        "shuffle": True,
        "generator": generator(),
        **spawned(task.workers),
    }
    if task.mode == "item":
        loader = DataLoader(TensorDataset(*columns.values()), **options)
        return lambda: (dict(zip(columns, batch, strict=True)) for batch in loader)
    batches = DataLoader(Batches(columns, index), collate_fn=same, **options)
    return lambda: batches
