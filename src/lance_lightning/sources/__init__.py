"""What a user names; each source finds its table."""

from lance_lightning.sources.arrow import ArrowSource
from lance_lightning.sources.base import Source
from lance_lightning.sources.database import LanceDBSource
from lance_lightning.sources.lance import LanceSource
from lance_lightning.sources.open_objects import (
    PermutationSource,
    TableSource,
    as_source,
    live_source,
)
from lance_lightning.sources.separate import SeparateSources

__all__ = [
    "ArrowSource",
    "LanceDBSource",
    "LanceSource",
    "PermutationSource",
    "SeparateSources",
    "Source",
    "TableSource",
    "as_source",
    "live_source",
]
