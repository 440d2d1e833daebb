"""This package: samplers, formats, workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import lance_lightning
from benchmarks.speed import Task
from lance_lightning import LanceDataModule
from lance_lightning.loading.clock import EpochClock
from lance_lightning.loading.loader import LanceDataLoader
from lance_lightning.loading.window_grid import WindowGrid

CACHE_BYTES = 10 << 30
SMALL_WINDOW = 100  # the table is so many times the window of "Shuffle/small"


def data_module(task: Task, **more: Any) -> Any:
    """Return our data module; the mode is SAMPLER, SAMPLER/FORMAT or Shuffle/MODE."""
    sampler, _, form = task.mode.partition("/")
    options = {
        "source": str(task.path),
        "sampler": getattr(lance_lightning, sampler)(),
        "columns": list(task.workload.columns),
        "output_format": form if form not in ("", "small", "cached") else "torch",
        "cache_bytes": CACHE_BYTES if form == "cached" else None,
        "batch_size": task.batch_size,
        "num_workers": task.workers,
        "cache_dir": task.path.parent / "cache",
    }
    return LanceDataModule(**{**options, **more})


def loader(task: Task) -> Any:
    """Return our loader, without a trainer."""
    data = data_module(task)
    data.prepare_data()
    data.setup("fit")
    made = data.train_dataloader()
    return _with_small_window(made, task) if task.mode.endswith("/small") else made


def _with_small_window(made: Any, task: Task) -> Any:
    """Return the loader with the window it would have beside a far larger table."""
    batches = max(1, task.rows // SMALL_WINDOW // task.batch_size)
    sizes = replace(made.reader.sizes, grid=WindowGrid(batches, None))
    reader = replace(made.reader, sizes=sizes)
    return LanceDataLoader(reader, clock=EpochClock())


def epochs(task: Task) -> Callable[[], Iterable[Any]]:
    """Return what is called for each epoch."""
    made = loader(task)
    return lambda: made
