"""The batch size that ``self.log`` weighs an epoch's mean with."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class LogBatchSize(Callback):
    """Tells Lightning how many rows a batch has.

    Left alone it takes the length of the first tensor: the number of columns for
    ``torch_col``, of features for a list of vectors, and an error for Arrow.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the size of a training batch."""
        _set_batch_size(trainer, batch)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Set the size of a validation batch."""
        _set_batch_size(trainer, batch)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Set the size of a test batch."""
        _set_batch_size(trainer, batch)


def _set_batch_size(trainer: Trainer, batch: Any) -> None:
    """Fill in what Lightning's result collection would otherwise guess.

    ``Trainer._results`` is private: Lightning has no public way to give the size
    other than in every call of ``self.log``.
    """
    results = trainer._results
    if results is not None:
        results.batch_size = trainer.datamodule.rows_in(batch)  # type: ignore[attr-defined]
