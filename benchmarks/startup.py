"""How soon the first batch comes from spawned workers.

A bare worker imports this file, so it imports next to nothing.
"""

from __future__ import annotations

import time
from typing import Any


def import_and_tell(connection: Any) -> None:
    """Be a bare worker: import what any of ours must, and say so."""
    import lance  # noqa: F401
    import torch  # noqa: F401

    connection.send(True)


def run(bare: int = 0, **arguments: Any) -> dict[str, Any]:
    """Measure seconds from the start of the workers.

    Args:
        bare: That many bare workers instead of our loader's.
        **arguments: What `task_of` takes.
    """
    if bare:
        return {"value": _bare(bare)}
    from benchmarks.peers.ours import loader
    from benchmarks.speed import task_of

    made = loader(task_of(arguments))
    began = time.perf_counter()
    batches = iter(made)
    next(batches)
    seconds = time.perf_counter() - began
    made.close()
    return {"value": seconds}


def _bare(count: int) -> float:
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(count)]
    began = time.perf_counter()
    workers = [
        context.Process(target=import_and_tell, args=(there,)) for _, there in pipes
    ]
    for worker in workers:
        worker.start()
    for here, _ in pipes:
        here.recv()
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return seconds
