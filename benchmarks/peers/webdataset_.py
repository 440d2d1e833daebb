"""WebDataset: tar files, shuffled by shard and in a buffer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from benchmarks.peers.batches import collate_rows
from benchmarks.speed import Task
from benchmarks.workloads import Workload

SHARD_ROWS = 10_000
BUFFER = 10_000
ENCODINGS = {
    "id": "id.cls",
    "label": "label.cls",
    "vector": "vector.npy",
    "image": "image.npy",
    "text": "text.txt",
    "tokens": "tokens.npy",
}


def write(workload: Workload, rows: int, path: Path) -> None:
    """Write tar files."""
    path.mkdir()
    pattern = f"{path}/%05d.tar"
    with webdataset.ShardWriter(pattern, maxcount=SHARD_ROWS, verbose=0) as writer:
        for sample in workload.samples(rows):
            member = {ENCODINGS[name]: value for name, value in sample.items()}
            for name in ("id.cls", "label.cls"):
                if name in member:
                    member[name] = int(member[name])
            writer.write({"__key__": f"{sample['id']:09d}", **member})


def epochs(task: Task) -> Callable[[], Iterable[Any]]:
    """Return what is called for each epoch."""
    shards = sorted(str(shard) for shard in task.path.glob("*.tar"))
    names = task.workload.columns

    def collate(samples: list[tuple[Any, ...]]) -> dict[str, Any]:
        return collate_rows([dict(zip(names, row, strict=True)) for row in samples])

    rows = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0)
        .shuffle(BUFFER)
        .decode()
        .to_tuple(*(ENCODINGS[name] for name in names))
        .batched(task.batch_size, collation_fn=collate, partial=True)
    )
    loader = webdataset.WebLoader(rows, batch_size=None, num_workers=task.workers)
    return lambda: loader


def _order(rows: int, path: Path) -> Any:
    rng = random.Random(0)
    starts = list(range(0, rows, SHARD_ROWS))
    rng.shuffle(starts)
    ids = (n for start in starts for n in range(start, min(start + SHARD_ROWS, rows)))
    return np.fromiter(webdataset.shuffle(BUFFER, rng=rng)(ids), np.int64)


orders = {"WebDataset, shards of 10,000, buffer 10,000": _order}
