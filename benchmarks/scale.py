"""Where a run of 10 billion rows on 1,024 ranks begins, continues and resumes.

    python -m benchmarks.scale

By the functions for orders and shares only; there is no such table. Both are pure
functions of a position, so nothing here is of the size of the table.
"""

from __future__ import annotations

import json
import math
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lance_lightning.ordering.shares import EvalShare, TrainShare
from lance_lightning.ordering.world import World
from lance_lightning.samplers.base import Sampler
from lance_lightning.samplers.builtin import (
    BlockShuffle,
    Sequential,
    Shuffle,
    from_state,
)

ROWS = 10_000_000_000
RANKS = 1_024
BATCH = 256  # rows per rank
ROW_BYTES = 528
WINDOW = 512  # batches
SEED = 0
COLUMNS = ("first batch", "any batch", "resume", "first window")
EPOCH = 3


def run(repeats: int = 20) -> dict[str, Any]:
    """Return milliseconds by sampler and question, and the process's peak in MB."""
    world = World(rank=RANKS // 2, size=RANKS)
    table = {}
    for sampler in (BlockShuffle(), BlockShuffle(64), Shuffle(), Sequential()):
        sized = sampler.resolve(ROWS, RANKS * BATCH, ROW_BYTES)
        table[str(sized)] = _training(sampler, world, repeats)
    shard = EvalShare(ROWS, BATCH, world)
    middle = shard.num_batches // 2
    work: dict[str, Callable[[], Any]] = {
        "first batch": lambda: shard.positions(0, 1),
        "any batch": lambda: shard.positions(middle, middle + 1),
        "first window": lambda: shard.positions(0, WINDOW),
    }
    table["evaluation"] = {
        name: _milliseconds(each, repeats) for name, each in work.items()
    }
    return {"value": _peak_mb(), "milliseconds": table}


def _training(sampler: Sampler, world: World, repeats: int) -> dict[str, float]:
    global_batch = world.size * BATCH

    def batch(state: dict[str, Any], number: int, count: int = 1) -> Any:
        found = from_state(state)
        shard = TrainShare(ROWS, global_batch, world, False, found.strided)
        positions, _ = shard.positions(number, number + count)
        return found.indices(
            positions,
            num_rows=ROWS,
            seed=SEED,
            epoch=EPOCH,
            global_batch_size=global_batch,
        )

    def first(count: int = 1) -> Any:
        sized = sampler.resolve(ROWS, global_batch, ROW_BYTES)
        return batch(sized.state(), 0, count)

    saved = json.dumps(sampler.resolve(ROWS, global_batch, ROW_BYTES).state())
    steps = ROWS // global_batch
    work: dict[str, Callable[[], Any]] = {
        "first batch": first,
        "any batch": lambda: batch(json.loads(saved), steps // 3),
        "resume": lambda: batch(json.loads(saved), steps - 1),
        "first window": lambda: first(WINDOW),
    }
    return {name: _milliseconds(each, repeats) for name, each in work.items()}


def _milliseconds(work: Callable[[], Any], repeats: int) -> float:
    """Return the longest of some runs: the first pays for what is set up."""
    longest = 0.0
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        longest = max(longest, time.perf_counter() - began)
    return longest * 1e3


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts in ru_maxrss what started this process
        peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(peak[1]) / (1 << 10) if peak else math.nan
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def report(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    lines = [
        f"{ROWS:,} rows of {ROW_BYTES} bytes, {RANKS:,} ranks, {BATCH} rows per rank: "
        f"milliseconds, the longest of 20. A window is {WINDOW} batches. The whole "
        f"process peaked at {result['value']:.0f} MB.",
        "",
        f"| | {' | '.join(COLUMNS)} |",
        "|---|" + "---:|" * len(COLUMNS),
    ]
    for name, times in result["milliseconds"].items():
        found = [times.get(each) for each in COLUMNS]
        cells = ["" if each is None else f"{each:.2f}" for each in found]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(run()))
