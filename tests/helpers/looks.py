"""Looks at loaders while a fit runs."""

from __future__ import annotations

from itertools import islice

import lightning as L

from tests.helpers.tables import flat

BEFORE = ("setup", "on_fit_start", "on_sanity_check_start", "on_train_start")
WITHIN = (
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_train_epoch_end",
)
AFTER = ("on_train_end", "on_fit_end", "on_save_checkpoint")
HOOKS = BEFORE + WITHIN + AFTER


def of_the_hook(trainer):
    return iter(trainer.datamodule.train_dataloader())


def of_the_loader(trainer):
    # There is none yet in the first hooks.
    return iter(trainer.train_dataloader or [None])


class Looks(L.Callback):
    """Takes batches of the training loader from hooks, and keeps the iterators.

    Args:
        hooks: From which.
        looks: What makes an iterator.
        batches: How many are taken; None is all.
    """

    def __init__(self, hooks=HOOKS, looks=(of_the_hook, of_the_loader), batches=1):
        self.seen: list[tuple[str, int, list[int]]] = []
        self.kept: list = []
        for hook in hooks:
            setattr(self, hook, self._looker(hook, looks, batches))

    def _looker(self, hook, looks, batches):
        def look(trainer, module, *args, **kwargs):
            for make in looks:
                iterator = make(trainer)
                self.kept.append(iterator)
                taken = list(islice(iterator, batches))
                if taken != [None]:
                    rows = flat(batch["id"].tolist() for batch in taken)
                    self.seen.append((hook, trainer.current_epoch, rows))

        return look


class Wrapper:
    """A user's loader that iterates ours."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        yield from self.loader
