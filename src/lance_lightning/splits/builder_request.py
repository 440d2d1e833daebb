"""What LanceDB's builder is asked for."""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

from lance_lightning.splits.specs import HashSplit

# -- what LanceDB's builder is asked for ---------------------------------------


def builder_request(splits: Any) -> dict[str, Any]:
    """Return the method of LanceDB's builder for these splits, and its arguments.

    The columns are those of the stand-in: c0, c1, ...
    """
    if isinstance(splits, HashSplit):
        return {
            "method": "split_hash",
            "columns": [f"c{i}" for i in range(len(splits.columns))],
            "split_weights": list(splits.split_weights.values()),
            "discard_weight": splits.discard_weight,  # LanceDB fails on its own None
        }
    own = {"seed": splits.seed, "clump_size": splits.clump_size}
    return {"method": "split_random", **builder_sizes(splits), **own}


def builder_sizes(splits: Any) -> dict[str, Any]:
    """Return the sizes of splits, as an argument of the builder's methods."""
    if splits.ratios:
        return {"ratios": _at_most_one(list(splits.ratios.values()))}
    if splits.counts:
        return {"counts": list(splits.counts.values())}
    return {"fixed": len(splits.fixed)}


def _at_most_one(ratios: list[float]) -> list[float]:
    """Take from the largest share what rounding adds to the sum beyond 1.

    LanceDB refuses a sum above 1, be it by the last bit.
    """
    largest = ratios.index(max(ratios))
    # In turn, as LanceDB adds them: Python's sum() is more exact from 3.12 on.
    while (excess := functools.reduce(operator.add, ratios) - 1.0) > 0:
        below = math.nextafter(ratios[largest], 0.0)
        ratios[largest] = min(below, ratios[largest] - excess)
    return ratios
