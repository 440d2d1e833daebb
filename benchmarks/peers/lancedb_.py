"""LanceDB: a `DataLoader` over a table or a permutation, and its streaming."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
from torch.utils.data import DataLoader

from benchmarks.peers.batches import arrow_to_batch, collate_rows, generator, spawned
from benchmarks.speed import Task


def _table(path: Path) -> Any:
    return lancedb.connect(str(path.parent)).open_table(path.stem)


def _loader(dataset: Any, collate: Any, task: Task) -> Callable[[], Iterable[Any]]:
    loader = DataLoader(
        dataset,
        task.batch_size,
        shuffle=True,
        generator=generator(),
        collate_fn=collate,
        **spawned(task.workers),
    )
    return lambda: loader


def _permutation(task: Task, form: str) -> Callable[[], Iterable[Any]]:
    from lancedb.permutation import Permutation

    columns = list(task.workload.columns)
    permutation = Permutation.identity(_table(task.path)).select_columns(columns)
    collate = {"python": collate_rows, "arrow": arrow_to_batch, "torch": None}[form]
    return _loader(permutation.with_format(form), collate, task)


def _split_rows(batch: Any) -> list[dict[str, Any]]:
    columns = arrow_to_batch(batch)
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _streaming(task: Task, tensors: bool) -> Callable[[], Iterable[Any]]:
    from lancedb.streaming import StreamingDataLoader, StreamingDataset

    table = _table(task.path)
    numbers = count()
    options = spawned(task.workers)
    options.pop("persistent_workers", None)  # it has none

    def epoch() -> Any:
        # One dataset an epoch: the second time over, it gives no rows.
        dataset = StreamingDataset(
            table,
            num_splits=max(1, task.workers),
            epoch=next(numbers),
            columns=list(task.workload.columns),
            read_batch_size=task.batch_size if tensors else 64,
            transform=_split_rows if tensors else None,
        )
        return StreamingDataLoader(
            dataset, batch_size=task.batch_size, collate_fn=collate_rows, **options
        )

    return epoch


def epochs(task: Task) -> Callable[[], Iterable[Any]]:
    """Return what is called for each epoch."""
    name, _, form = task.mode.partition("/")
    if name == "table":
        return _loader(_table(task.path), arrow_to_batch, task)
    if name == "permutation":
        return _permutation(task, form)
    return _streaming(task, tensors=form == "tensors")


def _streaming_order(rows: int, path: Path) -> Any:
    from lancedb.streaming import StreamingDataset

    dataset = StreamingDataset(_table(path), columns=["id"], read_batch_size=8192)
    return np.fromiter((row["id"] for row in dataset), np.int64)


orders = {"lancedb.streaming": _streaming_order}
