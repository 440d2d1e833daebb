"""Whose trainer it is, and which loaders and iterators its loops use.

No public name tells the iterator of a loop from one that a callback made of the same
loader: this is the one place that knows the private ones.
"""

from __future__ import annotations

import sys
from types import FrameType, FunctionType
from typing import Any

from lance_lightning.errors import ConfigError

_OTHER = "pytorch_lightning"  # `pip install lightning` brings it too
_ONE_PACKAGE = (
    f"a Trainer of the package {_OTHER} takes only data modules of its own "
    "classes, and this one is of lightning's: write `import lightning.pytorch as pl` "
    f"in the place of `import {_OTHER} as pl`, for trainer, model and callbacks"
)


def refuse_other_package(trainer: Any) -> None:
    """Raise unless a trainer is of the package that the data module is of.

    Raises:
        ConfigError: It is of ``pytorch_lightning``.
    """
    packages = {kind.__module__.partition(".")[0] for kind in type(trainer).__mro__}
    if _OTHER in packages:
        raise ConfigError(_ONE_PACKAGE)


def not_iterable() -> ConfigError:
    """Return the error of a data module that was iterated.

    A trainer of ``pytorch_lightning`` does so in ``fit(model, data)``.
    """
    where = f". And {_ONE_PACKAGE}" if _OTHER in sys.modules else ""
    return ConfigError(
        "a LanceDataModule has loaders and is none, so it gives no batches: iterate "
        f"data.train_dataloader(){where}"
    )


def training_loaders(trainer: Any) -> list[Any]:
    """Return the loaders that the fit loop iterates, out of any collection."""
    combined = trainer.fit_loop._combined_loader
    return [] if combined is None else list(combined.flattened)


def evaluation_loaders(trainer: Any) -> list[Any]:
    """Return the loaders that the trainer's other loops iterate."""
    combined = [loop._combined_loader for loop in _evaluation_loops(trainer)]
    found = [each.flattened for each in combined if each is not None]
    return [loader for loaders in found for loader in loaders]


def is_of_fit(trainer: Any, iterator: Any) -> bool:
    """Return whether the fit loop takes its batches from an iterator."""
    return _takes_from(trainer.fit_loop, iterator)


def is_of_evaluation(trainer: Any, iterator: Any) -> bool:
    """Return whether another loop of the trainer takes its batches from it."""
    return any(_takes_from(loop, iterator) for loop in _evaluation_loops(trainer))


def is_fetching(trainer: Any) -> bool:
    """Return whether, in this thread, the fit loop is asking for a batch."""
    fetcher = trainer.fit_loop._data_fetcher
    methods = [
        vars(kind)[name]
        for kind in type(fetcher).__mro__
        for name in ("__iter__", "__next__")
        if isinstance(vars(kind).get(name), FunctionType)
    ]
    return any(running(method) is fetcher for method in methods)


def states_not_loaded(trainer: Any) -> list[dict[str, Any]]:
    """Return the states of loaders that Lightning read and did not hand to them.

    It does not where the loaders were asked for before the checkpoint was restored
    (``estimated_stepping_batches``), nor at the end of an epoch.
    """
    states: list[dict[str, Any]] = trainer.fit_loop._combined_loader_states_to_load
    return states


def running(method: Any) -> Any:
    """Return the object whose method runs in this thread, None where none does.

    A loader that was handed to ``Trainer.fit`` is told nothing of the trainer.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is method.__code__:
            return frame.f_locals["self"]
        frame = frame.f_back
    return None


def _evaluation_loops(trainer: Any) -> list[Any]:
    return [
        trainer.fit_loop.epoch_loop.val_loop,
        trainer.validate_loop,
        trainer.test_loop,
        trainer.predict_loop,
    ]


def _takes_from(loop: Any, iterator: Any) -> bool:
    combined = loop._combined_loader
    if combined is None or combined._iterator is None:
        return False
    return any(each is iterator for each in combined._iterator.iterators)
