"""The order that a sampler makes of a number of rows, without a table."""

from __future__ import annotations

from typing import Any, cast

from lance_lightning.samplers import Order, Sampler, TrainingSplit
from lance_lightning.tables.plan import range_plan


def order_of(sampler: Sampler, rows: int, batch: int, row_bytes: int) -> Order:
    """Return a sampler's order of the rows 0 to ``rows``, with seed 0.

    Args:
        sampler: One whose order follows from numbers only.
        rows: Rows in the split.
        batch: Rows in a batch over all ranks.
        row_bytes: Mean bytes of a row.
    """
    nothing = cast(Any, None)
    split = TrainingSplit(
        plan=range_plan("train", 0, rows),
        snapshot=nothing,
        dataset=nothing,
        world_size=1,
        global_batch_size=batch,
        seed=0,
        row_bytes=row_bytes,
    )
    return sampler.order_of(split)
