"""Functions that workers run; a module of its own, so that workers load little."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.utils.data import get_worker_info


class OwnBatch:
    """A batch of the user's own type, which can pin itself."""

    def __init__(self, rows) -> None:
        self.rows, self.pinned = rows, False

    def pin_memory(self) -> OwnBatch:
        found = OwnBatch(self.rows)
        found.pinned = True
        return found


class WriteWorker:
    """A ``worker_init_fn`` that leaves a file for each worker it ran in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, worker: int) -> None:
        (self.folder / f"worker-{worker}").write_text(str(os.getpid()))


def slow(batch):
    """A transform that takes longer than anyone would wait."""
    time.sleep(60)
    return batch


def as_it_is(batch):
    return batch


def double(batch):
    return {**batch, "vector": batch["vector"] * 2}


def keep_even(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.filter(pc.equal(pc.bit_wise_and(batch["id"], 1), 0))


def augment(row: dict) -> dict:
    noise = (torch.rand(()).item(), np.random.rand(), random.random())
    return {"id": row["id"], "noise": torch.tensor(noise)}


def fail_on_50(batch):
    if 50 in batch["id"].tolist():
        raise KeyError("no such class")
    return batch


def jitter(batch):
    noise = (torch.rand(()).item(), np.random.rand(), random.random())
    return {**batch, "noise": torch.tensor(noise)}


def with_a_lambda(batch):
    return {**batch, "no": lambda: None}


def add_noise(batch):
    """Draw from the generators that are seeded for the batch."""
    return {
        "id": batch["id"],
        "noise": torch.rand(len(batch["id"])),
        "numpy": np.random.rand(),
        "worker": -1 if get_worker_info() is None else get_worker_info().id,
    }


def with_worker(batch):
    info = get_worker_info()
    batch["worker"] = None if info is None else (info.id, info.num_workers)
    return batch
