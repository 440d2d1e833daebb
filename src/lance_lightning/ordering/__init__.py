"""Who gets which row when: pure arithmetic."""

from lance_lightning.ordering.block_shuffle import block_shuffle
from lance_lightning.ordering.eval_share import EvalShare
from lance_lightning.ordering.permutations import key, keyed, shuffle
from lance_lightning.ordering.share import Share
from lance_lightning.ordering.shares import TrainShare, WholeBatchShare
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
