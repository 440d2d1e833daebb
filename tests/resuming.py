"""Runs that save from every hook, and runs resumed from what they saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
from conftest import Recorder, quiet_trainer

from lance_lightning import LanceDataModule, RandomSplit

# A batch whose step has run is not processed yet in these.
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
    """Records training batches, and the batches of each validation by themselves.

    Args:
        fail_at: The number of a training batch on which the step raises.
    """

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.fail_at = fail_at
        self.validations: list[list[list[int]]] = []

    def training_step(self, batch, batch_idx):
        if self.fail_at == len(self.seen["train"]):
            raise RuntimeError("the step failed")
        batches = batch if isinstance(batch, list) else [batch]
        self.seen["train"].append([each["id"].tolist() for each in batches])
        return sum(self.layer(each["vector"]).square().mean() for each in batches)

    def on_validation_start(self):
        self.validations.append([])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.validations[-1].append(batch["id"].tolist())


class Planning(Resumable):
    """Asks how many steps there will be, before any state is restored."""

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


@dataclass(frozen=True)
class Saved:
    """A checkpoint, and how many training batches were processed before it."""

    hook: str
    done: int
    path: Path

    def __str__(self) -> str:
        return f"{self.hook} after {self.done} batches"


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


@dataclass
class Setup:
    """How the runs of a comparison are configured: all of them alike.

    Args:
        folder: Where the runs write.
        uri: The table.
        module: Arguments of the data module.
        trainer: Arguments of the trainer.
        model: The class of the model.
    """

    folder: Path
    uri: str
    module: dict = field(default_factory=dict)
    trainer: dict = field(default_factory=dict)
    model: type[Resumable] = Resumable

    def data(self, **module) -> LanceDataModule:
        return LanceDataModule(
            self.uri,
            **{
                "splits": RandomSplit(counts={"train": 23, "val": 14}),
                "columns": ["id", "vector"],
                "batch_size": 4,
                "cache_dir": self.folder / "cache",
                **self.module,
                **module,
            },
        )

    def fit(self, ckpt=None, callbacks=(), module=None, model=None, **trainer):
        """Fit a new model with a new data module and trainer, and return the model."""
        model = model or self.model()
        runs = quiet_trainer(
            self.folder, **{**self.trainer, **trainer, "callbacks": list(callbacks)}
        )
        runs.fit(model, datamodule=self.data(**(module or {})), ckpt_path=ckpt)
        return model
