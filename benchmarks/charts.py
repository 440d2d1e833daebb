"""Charts of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter, MaxNLocator

from benchmarks.cases import CASES, key_of
from benchmarks.quality import LAGS
from benchmarks.report import Results
from benchmarks.rounds import median, values

COLOURS = {"ours": "#0b6e99", "ceiling": "#9aa5ab", "rival": "#d08c42"}
COLUMNS = 4


def speed_chart(results: Results, workload: str, path: Path) -> None:
    """Draw rows per second of everything measured on one workload, in one process."""
    bars = []
    for case in CASES:
        one = results.get(key_of(workload, case.name), [])
        if values(one):
            bars.append((median(one), values(one), case))
    if not bars:
        return
    bars.sort(key=lambda bar: bar[0])
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(bars) + 1.2))
    for place, (middle, found, case) in enumerate(bars):
        axes.barh(place, middle, color=COLOURS[case.kind])
        axes.plot([min(found), max(found)], [place, place], color="black", lw=1)
        said = f" {EngFormatter(places=1, sep='')(middle)}"
        axes.annotate(said, (max(found), place), va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [case.name for *_, case in bars], fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.set_xlabel("rows per second (logarithmic), no worker processes")
    axes.set_title(f"{workload}: ours blue, rivals orange, ceilings grey", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12, y=0.01)
    _save(figure, path)


def quality_chart(results: Results, path: Path) -> None:
    """Draw where rows come in an epoch, and how alike neighbouring batches are."""
    found = [
        (key.removeprefix("quality: "), one[0])
        for key, one in results.items()
        if key.startswith("quality") and "value" in one[0]
    ]
    if not found:
        return
    lines = -(-len(found) // COLUMNS)
    figure, grid = plt.subplots(
        2 * lines,
        COLUMNS,
        figsize=(3 * COLUMNS, 3 * lines),
        height_ratios=[3, 1] * lines,
        squeeze=False,
    )
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.axis("off")
    pairs = zip(grid[0::2].flat, grid[1::2].flat, found, strict=False)
    for order, lags, (name, result) in pairs:
        _order(order, lags, name, result)
    figure.suptitle(
        "row (up) by place in the epoch (right); below it the autocorrelation of "
        f"batch means at lags {LAGS[0]}-{LAGS[-1]}, from -0.2 to 1",
        fontsize=10,
    )
    _save(figure, path)


def _order(order: Any, lags: Any, name: str, result: dict[str, Any]) -> None:
    order.axis("on")
    order.plot(result["drawn"], ",", color=COLOURS["ours"], alpha=0.6)
    order.set_title(f"{name}\nspread {result['value']:.2f}", fontsize=8)
    lags.axis("on")
    lags.bar(list(LAGS), result["lags"], color=COLOURS["rival"])
    lags.axhline(0, color="black", lw=0.5)
    lags.set_ylim(-0.2, 1)


def memory_chart(results: Results, path: Path) -> None:
    """Draw resident memory after each epoch."""
    found = [
        (key.removeprefix("memory, "), one[0])
        for key, one in results.items()
        if key.startswith("memory") and "value" in one[0]
    ]
    if not found:
        return
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for name, result in found:
        epochs = range(1, len(result["epochs"]) + 1)
        axes.plot(epochs, result["epochs"], marker=".", label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("MB above the start")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
