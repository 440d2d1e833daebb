"""The batch size that ``self.log`` weighs an epoch's mean with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lance_lightning.formats import batch_size_of
from lance_lightning.loading import LanceDataLoader


class LogBatchSize(Callback):
    """Tells Lightning how many rows a batch has.

    Left alone it takes the length of the first tensor: the number of columns for
    ``torch_col``, of features for a list of vectors, and an error for Arrow.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the size of a training batch."""
        _set_batch_size(trainer, batch, batch_idx)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Set the size of a validation batch."""
        _set_batch_size(trainer, batch, batch_idx, dataloader_idx)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Set the size of a test batch."""
        _set_batch_size(trainer, batch, batch_idx, dataloader_idx)


def _set_batch_size(
    trainer: Trainer, batch: Any, batch_idx: int, dataloader_idx: int = 0
) -> None:
    """Fill in what Lightning's result collection would otherwise guess.

    ``Trainer._results`` is private: Lightning has no public way to give the size
    other than in every call of ``self.log``. So are the combined loader of a loop and
    its mode, without which a dict of loaders cannot be told from a dict of columns.
    """
    results, loop = trainer._results, trainer._active_loop
    combined = None if loop is None else loop._combined_loader
    # A batch of None is still to be fetched.
    if batch is None or results is None or combined is None:
        return
    if combined._mode == "sequential":  # of evaluation; training has no such mode
        loader = combined.flattened[dataloader_idx]
    else:
        loader, batch = _first(combined.iterables, batch)
    if isinstance(loader, LanceDataLoader):  # others are left to Lightning
        results.batch_size = _rows(loader, batch, batch_idx)


def _first(loaders: Any, batch: Any) -> tuple[Any, Any]:
    """Return the first of several loaders that gave a batch, and that batch.

    Where batches come from several at once, Lightning weighs with the first. An
    exhausted loader gives None.
    """
    given = (pair for pair in _pairs(loaders, batch) if pair[1] is not None)
    return next(given, (None, None))


def _pairs(loaders: Any, batch: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each loader of a collection with its part of the batch."""
    if isinstance(loaders, Mapping):
        if isinstance(batch, Mapping) and set(loaders) == set(batch):
            for name in loaders:
                yield from _pairs(loaders[name], batch[name])
    elif isinstance(loaders, list | tuple):
        if isinstance(batch, list | tuple) and len(loaders) == len(batch):
            for loader, part in zip(loaders, batch, strict=True):
                yield from _pairs(loader, part)
    else:
        yield loaders, batch


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
    makes_batches = reader.stream.order.batches_per_epoch is not None
    if makes_batches and not reader.transforms:
        return reader.format.num_rows(batch)  # the share knows only the mean
    # The shorter of two training loaders begins again within the epoch.
    return reader.stream.share.rows_of_batch(batch_idx % len(loader))
