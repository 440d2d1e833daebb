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

from benchmarks.orders import order_of
from lance_lightning import BlockShuffle, Sequential, Shuffle, World, samplers
from lance_lightning.ordering import EvalShare
from lance_lightning.samplers import Order, Sampler, training_share

ROWS = 10_000_000_000
RANKS = 1_024
BATCH = 256  # rows per rank
ROW_BYTES = 528
WINDOW = 512  # batches
COLUMNS = ("first batch", "any batch", "resume", "first window")
EPOCH = 3


def run(repeats: int = 20) -> dict[str, Any]:
    """Return milliseconds by sampler and question, and the process's peak in MB."""
    world = World(rank=RANKS // 2, size=RANKS)
    table = {}
    for sampler in (BlockShuffle(), BlockShuffle(64), Shuffle(), Sequential()):
        order = order_of(sampler, ROWS, RANKS * BATCH, ROW_BYTES)
        table[_name(order)] = _training(sampler, world, repeats)
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


def _name(order: Order) -> str:
    sizes = dict(order.state() or {})
    name = sizes.pop("sampler")
    return f"{name}({', '.join(f'{key}={size}' for key, size in sizes.items())})"


def _training(sampler: Sampler, world: World, repeats: int) -> dict[str, float]:
    global_batch = world.size * BATCH

    def batch(sampler: Sampler, number: int, count: int = 1) -> Any:
        order = order_of(sampler, ROWS, global_batch, ROW_BYTES)
        share = training_share(order, global_batch, world, False)
        return share.indices(order, EPOCH, number, number + count)

    def first(count: int = 1) -> Any:
        return batch(sampler, 0, count)

    def restored(state: str) -> Sampler:
        sizes = json.loads(state)
        made: Sampler = getattr(samplers, sizes.pop("sampler"))(**sizes)
        return made

    saved = json.dumps(order_of(sampler, ROWS, global_batch, ROW_BYTES).state())
    steps = ROWS // global_batch
    work: dict[str, Callable[[], Any]] = {
        "first batch": first,
        "any batch": lambda: batch(restored(saved), steps // 3),
        "resume": lambda: batch(restored(saved), steps - 1),
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
