"""The samplers a user names; each makes the order of one split."""

from lance_lightning.samplers.adapters import as_spec
from lance_lightning.samplers.base import (
    Order,
    PlanOrder,
    Sampler,
    TrainingSplit,
    training_share,
)
from lance_lightning.samplers.builtin import BlockShuffle, Sequential, Shuffle
from lance_lightning.samplers.sharded import ShardedBatches, ShardedFragments

__all__ = [
    "BlockShuffle",
    "Order",
    "PlanOrder",
    "Sampler",
    "Sequential",
    "ShardedBatches",
    "ShardedFragments",
    "Shuffle",
    "TrainingSplit",
    "as_spec",
    "training_share",
]
