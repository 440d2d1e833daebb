"""Train PyTorch Lightning models straight from Lance datasets and LanceDB tables.

Names are handed on lazily: a worker process that unpickles one of them imports
torch, pyarrow and lance, but neither lightning nor hydra nor lancedb.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lance_lightning.datamodule import LanceDataModule
    from lance_lightning.errors import (
        ConfigError,
        DataError,
        LanceLightningError,
        SourceError,
        StateError,
        TransformError,
        WorkerError,
    )
    from lance_lightning.loading import (
        LanceDataLoader,
        LanceIterableDataset,
        LanceMapDataset,
    )
    from lance_lightning.ordering import World
    from lance_lightning.samplers import (
        BlockShuffle,
        Sequential,
        ShardedBatches,
        ShardedFragments,
        Shuffle,
    )
    from lance_lightning.sources import (
        ArrowSource,
        LanceDBSource,
        LanceSource,
        SeparateSources,
    )
    from lance_lightning.splits import (
        AllRows,
        CalculatedSplit,
        HashSplit,
        PermutationSplit,
        RandomSplit,
        SequentialSplit,
    )

__version__ = "0.1.0"

_MODULES = {
    "AllRows": "splits",
    "ArrowSource": "sources",
    "BlockShuffle": "samplers",
    "CalculatedSplit": "splits",
    "ConfigError": "errors",
    "DataError": "errors",
    "HashSplit": "splits",
    "LanceDBSource": "sources",
    "LanceDataLoader": "loading",
    "LanceDataModule": "datamodule",
    "LanceIterableDataset": "loading",
    "LanceLightningError": "errors",
    "LanceMapDataset": "loading",
    "LanceSource": "sources",
    "PermutationSplit": "splits",
    "RandomSplit": "splits",
    "SeparateSources": "sources",
    "Sequential": "samplers",
    "SequentialSplit": "splits",
    "ShardedBatches": "samplers",
    "ShardedFragments": "samplers",
    "Shuffle": "samplers",
    "SourceError": "errors",
    "StateError": "errors",
    "TransformError": "errors",
    "WorkerError": "errors",
    "World": "ordering",
}

__all__ = [
    "AllRows",
    "ArrowSource",
    "BlockShuffle",
    "CalculatedSplit",
    "ConfigError",
    "DataError",
    "HashSplit",
    "LanceDBSource",
    "LanceDataLoader",
    "LanceDataModule",
    "LanceIterableDataset",
    "LanceLightningError",
    "LanceMapDataset",
    "LanceSource",
    "PermutationSplit",
    "RandomSplit",
    "SeparateSources",
    "Sequential",
    "SequentialSplit",
    "ShardedBatches",
    "ShardedFragments",
    "Shuffle",
    "SourceError",
    "StateError",
    "TransformError",
    "WorkerError",
    "World",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'lance_lightning' has no attribute {name!r}")
    module = importlib.import_module(f"lance_lightning.{_MODULES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
