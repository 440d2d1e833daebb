"""How many rows each split of given shares has, rounded as LanceDB rounds them."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from typing import Any

from lance_lightning.splits.builder_request import builder_sizes


def split_sizes(splits: Any, num_rows: int) -> list[int]:
    """Return the number of rows of each split, for ratios, counts or fixed."""
    asked = builder_sizes(splits)
    if "counts" in asked:
        return list(asked["counts"])
    if "fixed" in asked:
        return [num_rows // asked["fixed"]] * asked["fixed"]
    ratios = asked["ratios"]
    sizes = [_rounded(ratio * num_rows) for ratio in ratios]
    places = itertools.cycle(range(len(sizes)))
    excess = sum(sizes) - num_rows
    while excess > 0:
        place = next(places)
        if sizes[place]:
            sizes[place] -= 1
            excess -= 1
    # Ratios that sum to one leave no row out.
    total = functools.reduce(operator.add, ratios)
    if abs(num_rows - total * num_rows) < 0.5:
        for place in itertools.islice(places, -excess):
            sizes[place] += 1
    return sizes


def _rounded(value: float) -> int:
    """Round halves up, where Python's round() goes to the even number."""
    below = math.floor(value)
    return below + (value - below >= 0.5)
