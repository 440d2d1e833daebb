"""Writes a peer's data; in a process of its own, since formats need their libraries."""

from __future__ import annotations

import importlib
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.workloads import WORKLOADS


def run(peer: str, workload: str, rows: int, path: str) -> dict[str, Any]:
    """Write the data; ``value`` is the seconds it took."""
    folder = Path(path)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    module = importlib.import_module(f"benchmarks.peers.{peer}")
    module.write(WORKLOADS[workload], rows, folder)
    seconds = time.perf_counter() - began
    # Named after it is whole: an interrupted write is made again.
    folder.with_name(folder.name + ".done").touch()
    return {"value": seconds}
