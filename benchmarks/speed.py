"""How fast batches come: the measurement that every peer goes through alike."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads import WORKLOADS, Workload

WARM_SECONDS = 0.7


@dataclass(frozen=True, slots=True)
class Task:
    """What a peer is asked for.

    Args:
        workload: The kind of row.
        rows: Rows in the data.
        mode: The peer's way of reading, where it has several.
        batch_size: Rows of a batch.
        workers: Worker processes.
        path: Where the peer's `write` has put the data.
    """

    workload: Workload
    rows: int
    mode: str
    batch_size: int
    workers: int
    path: Path


def task_of(arguments: dict[str, Any]) -> Task:
    """Return the task that came in JSON."""
    workload = WORKLOADS[arguments["workload"]]
    rest = {name: arguments[name] for name in ("rows", "mode", "batch_size", "workers")}
    return Task(workload, path=Path(arguments["path"]), **rest)


def run(
    peer: str, seconds: float, cut: bool = False, **arguments: Any
) -> dict[str, Any]:
    """Measure one peer.

    Args:
        peer: Its module in ``benchmarks.peers``.
        seconds: How long to measure, at least.
        cut: Whether an epoch that takes longer may be cut short.
        **arguments: What `task_of` takes.

    Returns:
        ``value`` in rows per second; ``whole`` if these were whole epochs, their start
        included; ``exact`` if every epoch had every row once; ``first_batch_s`` from
        nothing but imports to the first batch; ``first_epoch`` the rate of the first
        epoch, from nothing but imports to its end, which is not in ``value``.
    """
    task = task_of(arguments)
    module = importlib.import_module(f"benchmarks.peers.{peer}")
    began = time.perf_counter()
    epochs = module.epochs(task)
    return measure(epochs, task.rows, seconds, began, cut)


def measure(
    epochs: Callable[[], Iterable[Any]],
    rows: int,
    seconds: float,
    began: float,
    cut: bool,
) -> dict[str, Any]:
    """Time batches.

    The first epoch is the warm-up for whole epochs. Where it may be cut and is not
    over within the time, that is measured within it, after a moment of warm-up: the
    start of an epoch is then left out, to the good of slow peers. Ids are compared in
    the first epoch and in one after those that are timed, where rows are counted.

    Args:
        epochs: Called for each epoch.
        rows: Rows of an epoch.
        seconds: How long to measure.
        began: When the loader was asked for.
        cut: Whether the first epoch may be cut short.
    """
    first_batch = mark = None
    ids: list[np.ndarray] = []
    seen = 0
    for batch in epochs():
        now = time.perf_counter()
        if first_batch is None:
            first_batch = now - began
        elif mark is None and now - began > first_batch + WARM_SECONDS:
            mark = now, seen
        elif cut and mark is not None and now - mark[0] > seconds:
            rate = (seen - mark[1]) / (now - mark[0])
            return _result(rate, first_batch, None)
        ids.append(ids_of(batch))
        seen += len(ids[-1])
    cold = seen / (time.perf_counter() - began)
    exact = is_permutation(ids, rows)
    ids.clear()
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        seen = sum(len(batch["id"]) for batch in epochs())
        times.append(time.perf_counter() - start)
        exact = exact and seen == rows
    rate = rows * len(times) / sum(times)
    exact = exact and is_permutation([ids_of(batch) for batch in epochs()], rows)
    return {**_result(rate, first_batch, exact), "first_epoch": round(cold)}


def ids_of(batch: Any) -> np.ndarray:
    """Return the ids of a batch: a copy, since it may be a slice of a window."""
    return np.array(batch["id"])


def is_permutation(ids: list[np.ndarray], rows: int) -> bool:
    """Return whether every row came once."""
    flat = np.concatenate(ids)
    return len(flat) == rows and bool(np.all(np.bincount(flat, minlength=rows) == 1))


def _result(rate: float, first_batch: float | None, exact: bool | None) -> dict:
    first = None if first_batch is None else round(first_batch, 4)
    whole = exact is not None
    return {"value": rate, "first_batch_s": first, "whole": whole, "exact": exact}
