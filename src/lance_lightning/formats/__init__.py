"""The nine output formats: rows become a batch."""

from lance_lightning.formats.batches import batch_size_of, move, page_locked
from lance_lightning.formats.format import Format

__all__ = ["Format", "batch_size_of", "move", "page_locked"]
