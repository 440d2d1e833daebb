"""What the project promises of its speed, and whether a run shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import BLOCK_SHUFFLE, CASES, PERMUTATION, SCAN, key_of
from benchmarks.report import Results
from benchmarks.rounds import ratio

WINDOWS_IN_FLIGHT = 2  # one in use, one being read
MEMORY_ALLOWANCE = 200  # MB


@dataclass(frozen=True, slots=True)
class Promise:
    """A number and the bounds it has to be within.

    Args:
        text: What is promised.
        least: The least it may be, or None.
        most: The most it may be, or None.
        found: What a run shows; None where it did not measure that.
        spread: Least and most over the rounds, where there are several.
    """

    text: str
    least: float | None
    most: float | None
    found: float | None
    spread: tuple[float, float] | None = None

    @property
    def holds(self) -> bool | None:
        """Whether it holds; None where it was not measured."""
        if self.found is None:
            return None
        above = self.least is None or self.found >= self.least
        return above and (self.most is None or self.found <= self.most)


def _narrow(name: str, workers: int = 0) -> str:
    return key_of("narrow", name, workers)


def _fit(threads: str) -> tuple[str, str]:
    return f"fit, {threads}: our loader", f"fit, {threads}: constant batch"


_BLOCK, _SCAN = _narrow(BLOCK_SHUFFLE), _narrow(SCAN)
_ROW_BY_ROW = "torch in memory, row by row"
_FAR = "Shuffle, table of 100 windows"
_TAKE = _narrow("Lance, a take per batch")
_BARE = "first batch: bare workers, 1"

# What is promised, the two that are compared, the least and the most of their ratio.
RATIOS: tuple[tuple[str, str, str, float | None, float | None], ...] = (
    ("BlockShuffle / raw scan", _BLOCK, _SCAN, 0.9, None),
    (f"BlockShuffle / {PERMUTATION}", _BLOCK, _narrow(PERMUTATION), 20, None),
    (f"BlockShuffle / {_ROW_BY_ROW}", _BLOCK, _narrow(_ROW_BY_ROW), 3, None),
    ("Shuffle / a take per batch", _narrow("Shuffle"), _TAKE, 6, None),
    (f"{_FAR} / a take per batch", _narrow(_FAR), _TAKE, 1.8, None),
    ("Sequential / raw scan", _narrow("Sequential"), _SCAN, 2.5, None),
    *(
        (
            f"BlockShuffle / raw scan, {each}",
            key_of(each, BLOCK_SHUFFLE),
            key_of(each, SCAN),
            1.0,
            None,
        )
        for each in ("wide", "text")
    ),
    ("Trainer.fit / a constant batch, one thread", *_fit("one thread"), 0.9, None),
    (
        "Trainer.fit / a constant batch, default threads",
        *_fit("default threads"),
        0.78,
        None,
    ),
    ("2 workers / in-process", _narrow(BLOCK_SHUFFLE, 2), _BLOCK, 0.8, None),
    (
        "first batch, 2 workers / a bare worker",
        "first batch: ours, 2 workers",
        _BARE,
        None,
        1.7,
    ),
)


def promises(results: Results) -> Iterator[Promise]:
    """Return every promise with what a run shows."""
    for text, one, base, least, most in RATIOS:
        found = ratio(results.get(one, []), results.get(base, []))
        middle, spread = (None, None) if found is None else (found[0], found[1:])
        yield Promise(text, least, most, middle, spread)
    yield _fastest_rival(results, _BLOCK)
    yield from _quality(results)
    for key, measured in results.items():
        if key.startswith("memory") and "value" in measured[0]:
            yield from _memory(key, measured[0])
    yield from _scale(results.get("scale", [{}])[0])


def _fastest_rival(results: Results, block: str) -> Promise:
    text = "BlockShuffle / the fastest rival that shuffles"
    found: list[tuple[float, float, float, str]] = []
    for case in CASES:
        for workers in case.workers:
            one = results.get(key_of("narrow", case.name, workers), [])
            over = ratio(results.get(block, []), one)
            if case.kind == "rival" and case.shuffles and over:
                found.append((*over, case.name))
    if not found:
        return Promise(text, 1, None, None)
    middle, least, most, name = min(found)
    return Promise(f"{text} ({name})", 1, None, middle, (least, most))


def _quality(results: Results) -> Iterator[Promise]:
    one = results.get(f"quality: {BLOCK_SHUFFLE}", [{}])[0]
    lags = one.get("lags")
    most = max(abs(lag) for lag in lags[:8]) if lags else None
    yield Promise("spread of batch means, sorted column", 0.9, 1.1, one.get("value"))
    yield Promise("autocorrelation of batch means, lags 1-8", None, 0.15, most)


def _memory(key: str, one: dict[str, Any]) -> Iterator[Promise]:
    bound = WINDOWS_IN_FLIGHT * one["window"] + MEMORY_ALLOWANCE
    yield Promise(f"{key}: peak, MB", None, round(bound), round(one["value"]))
    after = one["epochs"]
    if len(after) > 3:
        # The allocator settles in the first epochs.
        growth = max(after[-3:]) - max(after[:3])
        yield Promise(
            f"{key}: growth from epochs 1-3 to the last 3, MB", None, 50, growth
        )


def _scale(one: dict[str, Any]) -> Iterator[Promise]:
    found = one.get("milliseconds", {}).values()
    longest = max((max(each.values()) for each in found), default=None)
    yield Promise("10 billion rows, 1,024 ranks: peak, MB", None, 100, one.get("value"))
    yield Promise("10 billion rows, 1,024 ranks: longest, ms", None, 100, longest)


def promise_table(results: Results) -> str:
    """Return the Markdown table of all promises."""
    lines = ["| promise | bound | found | least - most | |", "|---|---|---:|---:|---|"]
    for each in promises(results):
        bounds = [] if each.least is None else [f"at least {each.least:g}"]
        bounds += [] if each.most is None else [f"at most {each.most:g}"]
        found = "" if each.found is None else f"{each.found:.3g}"
        spread = (
            ""
            if each.spread is None
            else f"{each.spread[0]:.3g} - {each.spread[1]:.3g}"
        )
        said = {True: "holds", False: "**does not hold**", None: "not measured"}[
            each.holds
        ]
        lines.append(
            f"| {each.text} | {', '.join(bounds)} | {found} | {spread} | {said} |"
        )
    return "\n".join(lines)
