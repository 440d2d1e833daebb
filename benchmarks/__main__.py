"""Run the benchmarks: tables on standard output, `results.json` and charts beside.

make bench                          everything, 30 to 40 minutes
make bench BENCH_ARGS=--quick       a few minutes, on fewer rows
python -m benchmarks --help
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import costs, quality, scale
from benchmarks.cases import (
    CASES,
    COSTS,
    SCAN,
    Settings,
    cost_jobs,
    data_jobs,
    key_of,
    memory_jobs,
    other_jobs,
    speed_jobs,
)
from benchmarks.machine import machine
from benchmarks.promises import promise_table
from benchmarks.report import OTHERS, Results, other_table, speed_table
from benchmarks.rounds import DATA, Bench, Job
from benchmarks.workloads import WORKLOADS

HERE = Path(__file__).parent
SECTIONS = ("speed", "fit", "memory", "quality", "scale", "costs")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    peers = sorted({case.peer for case in CASES})
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer rows, rounds and workloads")
    add("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    add("--workloads", nargs="+", choices=list(WORKLOADS))
    add("--peers", nargs="+", choices=peers, default=(), help="default: all")
    add("--rounds", type=int, help="default 3; with --quick 1")
    add("--scale", type=float, help="part of the rows; default 1, with --quick 0.3")
    add("--seconds", type=float, help="of one measurement; default 2, with --quick 1")
    add("--batch-size", type=int, default=256)
    add("--no-workers", action="store_true", help="leave worker processes out")
    add("--threads", type=int, default=0, help="of torch and BLAS; default: all cores")
    add("--cpus", type=int, default=0, help="use only that many processors (Linux)")
    add("--tables", action="store_true", help="of results.json; measure nothing")
    add("--timeout", type=int, default=180, help="seconds for one measurement")
    add("--out", type=Path, default=HERE, help="folder of results.json and charts")
    args = parser.parse_args(argv)
    quick = {"workloads": ["narrow"], "rounds": 1, "scale": 0.3, "seconds": 1.0}
    whole = {"workloads": list(WORKLOADS), "rounds": 3, "scale": 1.0, "seconds": 2.0}
    for name, value in (quick if args.quick else whole).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def measure(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Run everything that was asked for."""
    settings = Settings(
        tuple(args.workloads),
        tuple(args.peers),
        not (args.no_workers or args.quick),
        args.scale,
        args.seconds,
        args.batch_size,
    )
    DATA.mkdir(parents=True, exist_ok=True)
    # Writing may take longer than any measurement.
    writing = Bench(args.threads, args.cpus, 10 * args.timeout)
    writing.rounds(data_jobs(settings), 1)
    bench = Bench(args.threads, args.cpus, args.timeout)
    results: dict[str, list[dict[str, Any]]] = {}
    if "speed" in args.sections:
        for workload in settings.workloads:
            results |= bench.rounds(speed_jobs(settings, workload), args.rounds)
    if "fit" in args.sections:
        # Training and reading share the cores, which spreads them most.
        more = 0 if args.quick else 2
        results |= bench.rounds(other_jobs(settings), args.rounds + more)
    if "memory" in args.sections:
        epochs = 5 if args.quick else 20
        results |= bench.rounds(memory_jobs(settings, epochs), 1)
    if "quality" in args.sections:
        rows = int(1_000_000 * args.scale)
        results |= bench.rounds(quality.jobs(rows, peers=not args.quick), 1)
    if "scale" in args.sections:
        results |= bench.rounds([Job("scale", "benchmarks.scale", {})], 1)
    if "costs" in args.sections:
        results |= bench.rounds(cost_jobs(settings), 1)
    return results


def say(results: Results, workloads: Sequence[str]) -> str:
    """Return all tables as Markdown."""
    parts = ["## Promises", promise_table(results)]
    found = [
        speed_table(results, each)
        for each in workloads
        if key_of(each, SCAN) in results
    ]
    parts += ["## Rows per second", *found] if found else []
    if any(key.startswith(OTHERS) for key in results):
        parts += ["## Training, start-up, memory", other_table(results)]
    mixed = {key: one for key, one in results.items() if key.startswith("quality")}
    if mixed:
        parts += ["## Shuffle quality", quality.report(mixed)]
    if "milliseconds" in results.get("scale", [{}])[0]:
        parts += ["## Scale", scale.report(results["scale"][0])]
    priced = {
        key.removeprefix(COSTS): one[0]
        for key, one in results.items()
        if key.startswith(COSTS) and "found" in one[0]
    }
    if priced:
        parts += ["## What reading costs, in seconds", costs.report(priced)]
    return "\n\n".join(parts)


def as_json(about: dict[str, Any], results: Results) -> str:
    """Return everything as JSON, a line for each measurement."""
    lines = [f"{json.dumps(key)}: {json.dumps(one)}" for key, one in results.items()]
    head = json.dumps(about)
    return f'{{"about": {head},\n"results": {{\n' + ",\n".join(lines) + "\n}}\n"


def draw(results: Results, workloads: Sequence[str], folder: Path) -> None:
    """Draw the charts."""
    from benchmarks import charts

    for workload in workloads:
        charts.speed_chart(results, workload, folder / f"speed-{workload}.png")
    charts.quality_chart(results, folder / "quality.png")
    charts.memory_chart(results, folder / "memory.png")


def main() -> None:
    """Measure, print, write, draw."""
    args = arguments()
    if args.tables:
        found = json.loads((args.out / "results.json").read_text())
        workloads = found["about"]["options"]["workloads"]
        print(say(found["results"], workloads))
        draw(found["results"], workloads, args.out)
        return
    began = time.time()
    about = machine()
    results = measure(args)
    seconds = round(time.time() - began)
    chosen = {name: value for name, value in vars(args).items() if name != "out"}
    about |= {"options": chosen, "seconds": seconds, "load": os.getloadavg()}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(as_json(about, results))
    print("\n" + say(results, args.workloads))
    print(f"\n{seconds} s on {about['cores']} cores, {about['processor']}")
    draw(results, args.workloads, args.out)


if __name__ == "__main__":
    main()
