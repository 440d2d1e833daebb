"""Batches handed out, in this process or from workers, from any batch on."""

from lance_lightning.loading.batch_reader import BatchReader
from lance_lightning.loading.clock import EpochClock, Start
from lance_lightning.loading.display import (
    Facts,
    Shown,
    batches_shown,
    columns_shown,
    html_of,
    splits_shown,
    text_of,
)
from lance_lightning.loading.iterable_dataset import LanceIterableDataset
from lance_lightning.loading.loader import LanceDataLoader, check_order, state_of
from lance_lightning.loading.loader_iterator import LoaderIterator
from lance_lightning.loading.map_dataset import LanceMapDataset
from lance_lightning.loading.process_group import world_of_torch
from lance_lightning.loading.sizing import ReadSizes, sampled_row_bytes
from lance_lightning.loading.state import (
    AFRESH,
    LoaderState,
    ModuleState,
    SourceState,
)
from lance_lightning.loading.stream import Stream
from lance_lightning.loading.torch_options import check_dataloader_kwargs
from lance_lightning.loading.transforms import Transforms

__all__ = [
    "AFRESH",
    "BatchReader",
    "EpochClock",
    "Facts",
    "LanceDataLoader",
    "LanceIterableDataset",
    "LanceMapDataset",
    "LoaderIterator",
    "LoaderState",
    "ModuleState",
    "ReadSizes",
    "Shown",
    "SourceState",
    "Start",
    "Stream",
    "Transforms",
    "batches_shown",
    "check_dataloader_kwargs",
    "check_order",
    "columns_shown",
    "html_of",
    "sampled_row_bytes",
    "splits_shown",
    "state_of",
    "text_of",
    "world_of_torch",
]
