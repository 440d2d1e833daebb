"""Configurations of runs that are resumed, and how far they run."""

from __future__ import annotations

from dataclasses import dataclass, field

from lance_lightning import RandomSplit
from tests.helpers.resuming import STEPS, Resumable

TWO_LOADERS = {
    "stage_splits": {"train": ["a", "b"]},
    "splits": RandomSplit(counts={"a": 23, "b": 9, "val": 5}),
}


class Planning(Resumable):
    """Asks how many steps there will be, before the loops are restored."""

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


@dataclass(frozen=True)
class Case:
    """A configuration, and how far it runs.

    Args:
        epochs: Epochs of the run that is broken off; None ends it by ``steps``.
        steps: Optimizer steps of it.
        trainer: More arguments of the trainer.
        module: Arguments of the data module.
        model: The class of the model.
        epoch: Steps of an epoch.
    """

    epochs: int | None = None
    steps: int | None = None
    trainer: dict = field(default_factory=dict)
    module: dict = field(default_factory=dict)
    model: type[Resumable] = Resumable
    epoch: int = STEPS

    def limits(self, more: bool) -> dict:
        """Return where a run ends; the unbroken one goes on after the broken one."""
        if self.epochs is None:
            return {"max_epochs": -1, "max_steps": self.steps + more * self.steps // 2}
        return {"max_epochs": self.epochs + more}


LIMITS = {"epochs": {"max_epochs": 3}, "steps": {"max_epochs": -1, "max_steps": 16}}


QUICK = {
    "epochs": Case(2),
    "steps": Case(None, 10),
    "validate every 4, steps": Case(None, 10, {"val_check_interval": 4}),
    "limit, steps": Case(None, 6, {"limit_train_batches": 4}, epoch=4),
    "two loaders": Case(2, None, {}, TWO_LOADERS),
    "planning": Case(2, model=Planning),
}


def dropped_by_lightning(case: Case, hook: str, done: int) -> int:
    """Return the batches by which Lightning itself makes the resumed run shorter.

    A checkpoint of ``on_train_epoch_start`` counts the epoch that begins but not its
    batches, and the loop leaves it at once. ``max_steps`` hides this: the loop goes on
    until it has them. (There a checkpoint at the end of an epoch opens that epoch
    again, Lightning's issues 19617 and 19403, but no row may be lost in it.)
    """
    if case.epochs is None or hook != "on_train_epoch_start" or done == 0:
        return 0
    return case.epoch
