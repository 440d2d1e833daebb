"""Which rows belong to which split: specs, and the plans built from them."""

from lance_lightning.splits.building import build_plans
from lance_lightning.splits.lancedb_permutation import permutation_of
from lance_lightning.splits.specs import (
    AllRows,
    CalculatedSplit,
    HashSplit,
    PermutationSplit,
    RandomSplit,
    SequentialSplit,
    Splits,
)

__all__ = [
    "AllRows",
    "CalculatedSplit",
    "HashSplit",
    "PermutationSplit",
    "RandomSplit",
    "SequentialSplit",
    "Splits",
    "build_plans",
    "permutation_of",
]
