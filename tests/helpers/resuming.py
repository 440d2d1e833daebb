"""Runs that save from every hook, and runs resumed from what they saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import torch

from lance_lightning import LanceDataModule, RandomSplit
from tests.helpers.models import Recorder
from tests.helpers.trainers import quiet_trainer

TRAIN_ROWS, VAL_ROWS, BATCH = 23, 14, 4
STEPS = 6  # of an epoch, the last batch is not full
SPLITS = RandomSplit(counts={"train": TRAIN_ROWS, "val": VAL_ROWS})

# In these the step has run, and the batch is not processed yet.
WITHIN_A_STEP = {
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
}
HOOKS = sorted(
    {
        name
        for name in vars(L.Callback)
        if name.startswith(("on_before_", "on_after_", "on_train_", "on_validation_"))
    }
    | {"on_fit_start", "on_sanity_check_start", "on_sanity_check_end"}
)


class Resumable(Recorder):
    """Records training batches, and the batches of each validation by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.validations: list[list[list[int]]] = []

    def training_step(self, batch, batch_idx):
        batches = batch if isinstance(batch, list) else [batch]
        self.seen["train"].append([each["id"].tolist() for each in batches])
        return sum(self.layer(each["vector"]).square().mean() for each in batches)

    def on_validation_start(self):
        self.validations.append([])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.validations[-1].append(batch["id"].tolist())


@dataclass(frozen=True)
class Saved:
    """A checkpoint, and how many training batches were processed before it."""

    hook: str
    done: int
    path: Path

    def __str__(self) -> str:
        return f"{self.hook} after {self.done} batches"

    def state(self):
        """Return the data module's state."""
        return torch.load(self.path, weights_only=True)["LanceDataModule"]


class SaveFrom(L.Callback):
    """Saves a checkpoint from hooks, each time that they are called.

    Args:
        folder: Where to.
        hooks: From which hooks.
        done: After how many training batches; None is always.
    """

    def __init__(self, folder: Path, hooks=HOOKS, done=None) -> None:
        self.folder = folder
        self.done = done
        self.saved: list[Saved] = []
        for hook in hooks:
            setattr(self, hook, self._saver(hook))

    def _saver(self, hook: str):
        def save(trainer, module, *args, **kwargs):
            done = len(module.seen["train"]) - (hook in WITHIN_A_STEP)
            if self.done is None or done in self.done:
                path = self.folder / f"{len(self.saved):04d}-{hook}-{done}.ckpt"
                trainer.save_checkpoint(path, weights_only=False)
                self.saved.append(Saved(hook, done, path))

        return save

    def one(self, hook: str, done: int) -> Saved:
        """Return the first checkpoint that was saved there."""
        return next(s for s in self.saved if (s.hook, s.done) == (hook, done))


@dataclass
class Runs:
    """Runs that are configured alike.

    Args:
        folder: Where they write.
        uri: The table.
        module: Arguments of the data module.
        trainer: Arguments of the trainer.
        model: The class of the model.
        kind: The class of the data module.
    """

    folder: Path
    uri: str
    module: dict = field(default_factory=dict)
    trainer: dict = field(default_factory=dict)
    model: type[Resumable] = Resumable
    kind: type[LanceDataModule] = LanceDataModule

    def data(self, **module) -> LanceDataModule:
        """Return a new data module."""
        defaults = {
            "splits": SPLITS,
            "columns": ["id", "vector"],
            "batch_size": BATCH,
            "eval_batch_size": 8,
            "cache_dir": self.folder / "cache",
        }
        return self.kind(self.uri, **{**defaults, **self.module, **module})

    def trainer_of(self, callbacks=(), **trainer) -> L.Trainer:
        """Return a new trainer."""
        return quiet_trainer(
            self.folder, **{**self.trainer, **trainer, "callbacks": list(callbacks)}
        )

    def fit(self, ckpt=None, callbacks=(), module=None, model=None, **trainer):
        """Fit a new model with a new data module and trainer, and return the model."""
        model = model or self.model()
        data = self.data(**(module or {}))
        self.trainer_of(callbacks, **trainer).fit(
            model, datamodule=data, ckpt_path=ckpt
        )
        return model

    def rows(self, ckpt=None, callbacks=(), module=None, model=None, **trainer):
        """Fit, and return the ids of the training batches."""
        return self.fit(ckpt, callbacks, module, model, **trainer).seen["train"]
