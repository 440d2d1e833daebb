"""The constants of the cost model that chooses between takes and ranged scans.

A take pays for every run of neighbours and for every byte, a ranged scan for the
call and for every byte: both are fitted to reads of narrow rows and of text.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.speed import task_of

RUNS = (1, 4, 16, 64, 256)  # rows of neighbours
PARTS = (1, 2, 4, 8, 16)  # of a piece
REPEATS = 15
TAKE = ("TAKE_RUN_SECONDS", "TAKE_BYTE_SECONDS")
SCAN = ("SCAN_CALL_SECONDS", "SCAN_BYTE_SECONDS")
VARIABLE_SCAN = ("SCAN_CALL_SECONDS", "VARIABLE_SCAN_BYTE_SECONDS")

Ints = np.ndarray[Any, Any]


def run(row_bytes: int, variable: bool, **arguments: Any) -> dict[str, Any]:
    """Fit the constants; ``value`` is how many bytes of a scan cost as much as a run.

    Args:
        row_bytes: Mean bytes of a row.
        variable: Whether the width of a row varies.
        **arguments: What `speed.task_of` takes.
    """
    import lance

    from lance_lightning.reading import pieces

    task = task_of(arguments)
    dataset, columns = lance.dataset(str(task.path)), list(task.workload.columns)
    rng = np.random.Generator(np.random.Philox(key=0))
    size = pieces.VARIABLE_PIECE_BYTES if variable else pieces.PIECE_BYTES
    piece = size // row_bytes

    def seconds(rows: int, neighbours: int) -> float:
        times = []
        for _ in range(REPEATS):
            offsets = _runs(rng, task.rows, rows, neighbours)
            began = time.perf_counter()
            pieces.read_piece(dataset, columns, offsets)
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    # The price of a run must not depend on how many rows are asked for: two sizes.
    takes = [(rows, run) for rows in (piece, piece // 4) for run in RUNS]
    take = _fit(
        [(rows // run, rows * row_bytes) for rows, run in takes],
        [seconds(rows // run * run, run) for rows, run in takes],
    )
    sizes = [piece // part for part in PARTS]
    scan = _fit(
        [(1, rows * row_bytes) for rows in sizes],
        [seconds(rows, rows) for rows in sizes],
    )
    names = (*TAKE, *(VARIABLE_SCAN if variable else SCAN))
    found = dict(zip(names, (*take, *scan), strict=True))
    used = {name: getattr(pieces, name) for name in found}
    return {"value": take[0] / scan[1], "found": found, "used": used}


def _runs(rng: np.random.Generator, table: int, rows: int, neighbours: int) -> Ints:
    """Return sorted offsets in runs of neighbours at random places."""
    starts = np.sort(rng.choice(table // neighbours, rows // neighbours, replace=False))
    return (starts[:, None] * neighbours + np.arange(neighbours)).reshape(-1)


def _fit(counts: list[tuple[int, int]], seconds: list[float]) -> tuple[float, ...]:
    """Return the prices that explain the times best, each time weighed alike."""
    weights = 1 / np.array(seconds)
    scaled = np.array(counts, dtype=float) * weights[:, None]
    prices, *_ = np.linalg.lstsq(scaled, np.ones(len(seconds)), rcond=None)
    return tuple(float(price) for price in prices)


def report(results: Mapping[str, dict[str, Any]]) -> str:
    """Return a Markdown table of results by workload."""
    lines = ["| constant | workload | in use | found here |", "|---|---|---:|---:|"]
    for workload, result in results.items():
        for name, found in result["found"].items():
            used = result["used"][name]
            lines.append(f"| `{name}` | {workload} | {used:.2g} | {found:.2g} |")
    return "\n".join(lines)
