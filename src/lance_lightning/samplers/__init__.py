"""The samplers a user names; each makes the order of one split."""

from lance_lightning.samplers.adapters import as_spec
from lance_lightning.samplers.base import (
    Sampler,
    SplitSampler,
    TrainingSplit,
    training_shard,
)
from lance_lightning.samplers.builtin import BlockShuffle, Sequential, Shuffle
from lance_lightning.samplers.drawn_epochs import DrawnEpochs
from lance_lightning.samplers.sharded import (
    FragmentOrder,
    ShardedBatches,
    ShardedFragments,
)

__all__ = [
    "BlockShuffle",
    "DrawnEpochs",
    "FragmentOrder",
    "Sampler",
    "Sequential",
    "ShardedBatches",
    "ShardedFragments",
    "Shuffle",
    "SplitSampler",
    "TrainingSplit",
    "as_spec",
    "training_shard",
]
