"""Who gets which row when: pure arithmetic."""

from lance_lightning.ordering.block_shuffle import block_shuffle
from lance_lightning.ordering.permutations import key, keyed, shuffle
from lance_lightning.ordering.shares import (
    EvalShare,
    Share,
    TrainShare,
    WholeBatchShare,
)
from lance_lightning.ordering.world import World

__all__ = [
    "EvalShare",
    "Share",
    "TrainShare",
    "WholeBatchShare",
    "World",
    "block_shuffle",
    "key",
    "keyed",
    "shuffle",
]
