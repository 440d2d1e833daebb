"""The batch size that ``self.log`` weighs an epoch's mean with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lance_lightning.batches import batch_size_of
from lance_lightning.loader import LanceDataLoader
from lance_lightning.shard import BatchShard


class LogBatchSize(Callback):
    """Tells Lightning how many rows a batch has.

    Left alone it takes the length of the first tensor: the number of columns for
    ``torch_col``, of features for a list of vectors, and an error for Arrow.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the size of a training batch."""
        _set_batch_size(trainer, trainer.train_dataloader, batch, batch_idx)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Set the size of a validation batch."""
        loader = _one_of(trainer.val_dataloaders, dataloader_idx)
        _set_batch_size(trainer, loader, batch, batch_idx)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Set the size of a test batch."""
        loader = _one_of(trainer.test_dataloaders, dataloader_idx)
        _set_batch_size(trainer, loader, batch, batch_idx)


def _one_of(loaders: Any, dataloader_idx: int) -> Any:
    """Return the evaluation loader of that number."""
    return loaders[dataloader_idx] if isinstance(loaders, list | tuple) else loaders


def _set_batch_size(trainer: Trainer, loaders: Any, batch: Any, batch_idx: int) -> None:
    """Fill in what Lightning's result collection would otherwise guess.

    ``Trainer._results`` is private: Lightning has no public way to give the size
    other than in every call of ``self.log``.
    """
    loader, batch = _first(loaders, batch)
    results = trainer._results
    # Other loaders are left to Lightning, a batch of None is still to be fetched.
    if batch is None or results is None or not isinstance(loader, LanceDataLoader):
        return
    results.batch_size = _rows(loader, batch, batch_idx)


def _first(loaders: Any, batch: Any) -> tuple[Any, Any]:
    """Return the first of several loaders and its part of the batch.

    Training takes from several at once, and Lightning weighs with the first.
    """
    if isinstance(loaders, list | tuple) and isinstance(batch, list | tuple):
        return _first(loaders[0], batch[0])
    if isinstance(loaders, Mapping) and isinstance(batch, Mapping):
        name = next(iter(loaders))
        return _first(loaders[name], batch[name])
    return loaders, batch


def _rows(loader: LanceDataLoader, batch: Any, batch_idx: int) -> int:
    """Return the rows of a batch: those that were read, unless it tells others.

    Only what the user's functions made can have another number of rows, and with
    ``torch_col`` its first dimension is not the rows.
    """
    reader = loader.reader
    told = None
    if reader.transforms and reader.format.name != "torch_col":
        told = batch_size_of(batch)
    if told is not None:
        return told
    if isinstance(reader.stream.shard, BatchShard) and not reader.transforms:
        return reader.format.num_rows(batch)  # the shard knows the mean alone
    # The shorter of two training loaders begins again within the epoch.
    return reader.stream.shard.rows_of_batch(batch_idx % len(loader))
