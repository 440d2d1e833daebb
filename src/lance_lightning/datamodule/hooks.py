"""Which hooks of the data module Lightning is to call, and which the base class's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from types import MethodType
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.tuner.lr_finder import _LRCallback
from lightning.pytorch.utilities.model_helpers import is_overridden

from lance_lightning.callbacks import LogBatchSize
from lance_lightning.types import STAGES


def follow_trainer(module: LightningDataModule, own: type, trainer: Any) -> None:
    """Fit in with a trainer that asks for loaders.

    Not in ``setup``: the batch-size finder takes all callbacks away after it.

    Args:
        module: The data module.
        own: Our class, of which the module's may be a subclass.
        trainer: The trainer.
    """
    if not any(isinstance(found, LogBatchSize) for found in trainer.callbacks):
        # Before the user's, which may log too, and in another list: one of them
        # may be asking for loaders right now.
        # The learning rate finder reads what its own callback, the first, noted.
        first = sum(isinstance(found, _LRCallback) for found in trainer.callbacks)
        trainer.callbacks = [
            *trainer.callbacks[:first],
            LogBatchSize(),
            *trainer.callbacks[first:],
        ]
    model = trainer.lightning_module
    theirs = is_overridden("transfer_batch_to_device", model)
    restore_hook(module, own, "transfer_batch_to_device", not theirs)


def restore_loader_hooks(
    module: LightningDataModule, own: type, stage_splits: Mapping[str, Sequence[str]]
) -> None:
    """Use our hooks for loaders of the stages that a split serves."""
    for stage in STAGES:
        # Of training fit would say that there is no such method.
        ours = stage == "train" or bool(stage_splits[stage])
        restore_hook(
            module, own, f"{stage}_dataloader", ours, partial(_without_split, own)
        )


def restore_hook(
    module: LightningDataModule,
    own: type,
    name: str,
    ours: bool,
    instead: Callable[[type, str], Any] = getattr,
) -> None:
    """Use our hook, or on this instance one that counts as the base class's.

    Lightning asks whether a hook is overridden: a stage without a split, or a model
    that moves its own batches, is to count as not. A subclass's own hook stays.

    Args:
        module: The data module.
        own: Our class, of which the module's may be a subclass.
        name: The hook's.
        ours: Whether ours is used.
        instead: Returns the other one, for the base class and the name.
    """
    module.__dict__.pop(name, None)
    if not ours and getattr(type(module), name) is getattr(own, name):
        hook = instead(LightningDataModule, name)
        setattr(module, name, MethodType(hook, module))


def _without_split(own: type, base: type, name: str) -> Any:
    """Return a loader hook of ours that Lightning takes for that of the base class.

    Fit then skips the stage, and a trainer that is told to run it calls the hook, which
    says which splits there are.
    """
    ours = getattr(own, name)

    @wraps(getattr(base, name))
    def hook(self: Any) -> Any:
        return ours(self)

    return hook
