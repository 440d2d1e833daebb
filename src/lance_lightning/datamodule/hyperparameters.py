"""Hyperparameters of the data module: plain, without secrets, and those it uses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from copy import deepcopy
from types import FrameType
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.utilities.parsing import AttributeDict

import lance_lightning
from lance_lightning.datamodule.plain_specs import TARGET, plain_dict

OF_CLI = ("_class_path", "_instantiator")
FUNCTIONS = (
    "arrow_transform",
    "transform",
    "sample_transform",
    "collate_fn",
    "decoders",
)


class Hyperparameters(AttributeDict):
    """The hyperparameters of a module; those that it uses are set on the module.

    Args:
        values: What there is.
        set_argument: Sets an argument of the module, and returns whether the name is
            one of them.
    """

    def __init__(
        self, values: dict[str, Any], set_argument: Callable[[str, Any], bool]
    ) -> None:
        super().__init__(values)
        object.__setattr__(self, "_set_argument", set_argument)

    def __setitem__(self, name: str, value: Any) -> None:
        if not self._set_argument(name, value):
            self.keep(name, value)

    def keep(self, name: str, value: Any) -> None:
        """Write a value down, whatever the module uses."""
        super().__setitem__(name, value)

    def update(self, *values: Any, **named: Any) -> None:
        """Set several, as ``dict`` does."""
        for name, value in dict(*values, **named).items():
            self[name] = value

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Set one unless it is there, as ``dict`` does."""
        if name not in self:
            self[name] = default
        return self[name]

    def __ior__(self, values: Any) -> Hyperparameters:  # type: ignore[misc]
        self.update(values)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return AttributeDict, (dict(self),)  # a copy belongs to no module


class PlainHyperparameters(LightningDataModule):
    """Saves plain dicts, lists and numbers, and sets what is changed in them."""

    def set_hyperparameter(self, name: str, value: Any) -> bool:
        """Set an argument that a hyperparameter stands for; False where it is none."""
        return False

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: Sequence[str] | str | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Save arguments of a subclass, as Lightning does but plain, without secrets.

        Without ``args`` these are all that made the subclass, so they take the place
        of this class's own; named ones are added to them.
        """
        here = inspect.currentframe()
        if frame is None and here is not None:
            frame = here.f_back
        self._hparams = AttributeDict(self.hparams if args else {})
        args = tuple(arg if isinstance(arg, str) else plain_dict(arg) for arg in args)
        super().save_hyperparameters(*args, ignore=ignore, frame=frame, logger=logger)
        plain = plain_dict(self.hparams)
        if not args:
            plain = with_class(self, plain)
        self._hparams = Hyperparameters(plain, self.set_hyperparameter)
        self._hparams_given = {
            name: value for name, value in self.hparams.items() if name not in OF_CLI
        }

    @property
    def hparams_initial(self) -> AttributeDict:
        """The constructor's arguments, under ``datamodule``, as loggers see them.

        Lightning merges it with the hyperparameters of the model, and stops the run
        where both have one of the same name, ``seed`` or ``batch_size`` say, with
        different values.
        """
        return AttributeDict({"datamodule": deepcopy(self._hparams_given)})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._hparams = Hyperparameters(dict(self.hparams), self.set_hyperparameter)


def _class_path(kind: type[Any]) -> str:
    """Return where a class is imported from: ours by its public name."""
    module = kind.__module__
    is_ours = module.startswith("lance_lightning.")
    if is_ours and kind.__name__ in lance_lightning.__all__:
        module = lance_lightning.__name__
    return f"{module}.{kind.__qualname__}"


def with_class(module: LightningDataModule, plain: dict[str, Any]) -> dict[str, Any]:
    """Return hyperparameters of which LightningCLI's run makes a module of the class.

    So ``load_from_checkpoint`` of ``LightningDataModule`` does after such a run. Which
    instantiator does it is known only to Lightning's private context.
    """
    given = _given_hyperparameters.get()
    if given is None:
        return plain
    kind = type(module)
    named = {name: _by_class_path(value) for name, value in plain.items()}
    # A function has no plain value, but the path by which the run named it is one.
    named |= {name: given[name] for name in FUNCTIONS if given.get(name) is not None}
    return {
        "_class_path": _class_path(kind),
        "_instantiator": given["_instantiator"],
        **named,
    }


def _by_class_path(value: Any) -> Any:
    """Return a plain value with its specs as LightningCLI takes them."""
    if isinstance(value, list):
        return [_by_class_path(item) for item in value]
    if not isinstance(value, dict):
        return value
    items = {name: _by_class_path(item) for name, item in value.items()}
    if TARGET not in items:
        return items
    return {"class_path": items.pop(TARGET), "init_args": items}


def outermost_frame() -> FrameType | None:
    """Return a frame from which Lightning finds no arguments of constructors.

    It would compare the hyperparameters with each of them, and a data frame that a
    subclass takes cannot be compared.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame
