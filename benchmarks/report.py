"""Tables of what was measured, and the promises compared with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.cases import CASES, SCAN, key_of
from benchmarks.rounds import median, ratio, values
from benchmarks.workloads import WORKLOADS

OTHERS = ("fit", "first batch", "memory")
Results = Mapping[str, list[dict[str, Any]]]


def speed_table(results: Results, workload: str) -> str:
    """Return the Markdown table of one workload, fastest first within a kind."""
    scan = results.get(key_of(workload, SCAN), [])
    lines = [
        f"**{workload}**: {WORKLOADS[workload].about}",
        "",
        "| | workers | rows/s | least - most | of the raw scan | first batch, s | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for kind in ("ours", "ceiling", "rival"):
        found = []
        for case in CASES:
            for workers in case.workers:
                one = results.get(key_of(workload, case.name, workers))
                if case.kind == kind and one:
                    found.append((-(median(one) or 0), _row(case, workers, one, scan)))
        lines += [row for _, row in sorted(found, key=lambda pair: pair[0])]
    return "\n".join(lines)


def _row(case: Any, workers: int, one: list[dict[str, Any]], scan: list[Any]) -> str:
    name = {"ours": f"**{case.name}**", "ceiling": f"_{case.name}_"}.get(
        case.kind, case.name
    )
    if median(one) is None:
        return f"| {name} | {workers} | | | | | {_why(one[-1])} |"
    found = values(one)
    over = ratio(one, scan)
    notes = [case.order] if case.order else []
    if any(each.get("exact") is False for each in one):
        notes.append("**not every row once**")
    first = median(one, "first_batch_s")
    return (
        f"| {name} | {workers} | {median(one):,.0f} "
        f"| {min(found):,.0f} - {max(found):,.0f} "
        f"| {'' if over is None else f'{over[0]:.2f}'} "
        f"| {'' if first is None else f'{first:.2f}'} | {', '.join(notes)} |"
    )


def _why(result: Mapping[str, Any]) -> str:
    if "missing" in result:
        return f"not installed: {result['missing']}"
    return f"fails: {result.get('error', '?')}".replace("|", "/")[:160]


def other_table(results: Results) -> str:
    """Return the Markdown table of training, start-up and memory."""
    lines = ["| | median | least - most | |", "|---|---:|---:|---|"]
    for key, one in results.items():
        if not key.startswith(OTHERS):
            continue
        found = values(one)
        if not found:
            lines.append(f"| {key} | | | {_why(one[-1])} |")
            continue
        unit, digits = _unit(key)
        note = _memory(one[0]) if key.startswith("memory") else ""
        lines.append(
            f"| {key} | {median(one):,.{digits}f} {unit} "
            f"| {min(found):,.{digits}f} - {max(found):,.{digits}f} | {note} |"
        )
    return "\n".join(lines)


def _unit(key: str) -> tuple[str, int]:
    if key.startswith("fit"):
        return "rows/s", 0
    return ("s", 2) if key.startswith("first batch") else ("MB", 0)


def _memory(one: Mapping[str, Any]) -> str:
    after = one["epochs"]
    some = sorted({1, len(after) // 2, len(after)})
    said = ", ".join(f"{after[epoch - 1]} after epoch {epoch}" for epoch in some)
    return f"above {one['base']:.0f} MB; {said}; a window is {one['window']:.0f} MB"
