"""MosaicML Streaming: MDS shards and its shuffles."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.batches import collate_rows
from benchmarks.speed import Task
from benchmarks.workloads import Workload

ENCODINGS = {
    "id": "int64",
    "label": "int64",
    "vector": "ndarray:float32:128",
    "image": "ndarray:uint8:12288",
    "text": "str",
    "tokens": "ndarray:int32",
}
CANONICAL_NODES = 1  # its default for one node
BLOCK = 4_000_000  # its default for one canonical node
SHARD_ROWS = 126_000  # narrow rows in a shard of its default size, 64 MB


def _stand_in_for_torchvision() -> None:
    """Let ``import streaming`` find the torchvision that it names and never uses."""

    def attribute(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})

    for part in ("", ".datasets", ".transforms", ".transforms.functional"):
        module = types.ModuleType("torchvision" + part)
        module.__path__ = []
        name = module.__name__
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__getattr__ = attribute  # type: ignore[method-assign]
        sys.modules[name] = module


try:
    import torchvision.datasets  # noqa: F401
except ImportError:
    _stand_in_for_torchvision()

streaming = importlib.import_module("streaming")


def write(workload: Workload, rows: int, path: Path) -> None:
    """Write MDS shards."""
    columns = {name: ENCODINGS[name] for name in workload.columns}
    with streaming.MDSWriter(out=str(path), columns=columns) as writer:
        for sample in workload.samples(rows):
            writer.write(sample)


def epochs(task: Task) -> Callable[[], Iterable[Any]]:
    """Return what is called for each epoch."""
    streaming.base.util.clean_stale_shared_memory()
    dataset = streaming.StreamingDataset(
        local=str(task.path),
        shuffle=True,
        shuffle_algo=task.mode,
        batch_size=task.batch_size,
    )
    ragged = {"collate_fn": collate_rows} if task.workload.name == "tokens" else {}
    persistent = {"persistent_workers": True} if task.workers else {}
    loader = streaming.StreamingDataLoader(
        dataset,
        batch_size=task.batch_size,
        num_workers=task.workers,
        **ragged,
        **persistent,
    )
    return lambda: loader


def _order(rows: int, path: Path, algorithm: str) -> Any:
    from streaming.base.partition import get_partitions
    from streaming.base.shuffle import get_shuffle

    sizes = np.diff([*range(0, rows, SHARD_ROWS), rows])
    ids = get_shuffle(algorithm, sizes, CANONICAL_NODES, 0, 0, BLOCK)
    positions = get_partitions("relaxed", rows, CANONICAL_NODES, 1, 1, 1, 256)
    flat = positions.ravel()
    return np.asarray(ids)[flat[flat >= 0]]


orders = {
    "MosaicML py1e": partial(_order, algorithm="py1e"),
    "MosaicML py1br": partial(_order, algorithm="py1br"),
}
