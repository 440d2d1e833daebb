"""The data module's arguments: taken when it is made, and those that are set later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lance_lightning.datamodule.config import SHOWN, ModuleConfig
from lance_lightning.datamodule.hyperparameters import (
    Hyperparameters,
    PlainHyperparameters,
    outermost_frame,
    with_class,
)
from lance_lightning.datamodule.pins import PinnedTables
from lance_lightning.datamodule.plain_specs import (
    check_saved,
    from_plain,
    named,
    plain_dict,
)
from lance_lightning.errors import ConfigError
from lance_lightning.sources import live_source

SIZES = {"batch_size": "global_batch_size", "global_batch_size": "batch_size"}
# Arguments that say nothing of which rows come in which order.
CHANGEABLE = {*SIZES, "eval_batch_size", "num_workers"}


class ArgumentsSetLater(PlainHyperparameters):
    """Takes arguments, and takes one that is set later as if it had been given."""

    _argument_names: ClassVar[frozenset[str]]  # of the constructor
    _config: ModuleConfig
    _given: dict[str, Any]
    _tables: PinnedTables
    _has_loaders = False  # whether loaders were handed out

    def _take(self, values: Mapping[str, Any]) -> None:
        """Check the arguments, use them, and save them as hyperparameters.

        Args:
            values: The arguments by name; other names are left out.
        """
        names = self._argument_names
        given = {name: value for name, value in values.items() if name in names}
        check_saved(given)
        given = {name: as_meant(name, value) for name, value in given.items()}
        self._configure(given)
        self._tables = self._config.tables()
        plain = with_class(self, self._plain(given))
        self.save_hyperparameters(plain, frame=outermost_frame())

    def _restore_hooks(self) -> None:
        """Settle which of Lightning's hooks are ours, by the arguments."""

    def _configure(self, given: dict[str, Any]) -> None:
        """Check the arguments and use them."""
        self._config = ModuleConfig.checked(given)
        self._given = given
        self.__dict__.update(self._config.shown())
        self._restore_hooks()

    def _plain(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return hyperparameters that load with ``weights_only=True``."""
        plain = plain_dict(given)
        del plain["world"]  # it is of this process only
        if self._config.batch_size is None:
            # The tuner looks here for the size it is to scale.
            del plain["batch_size"]
        else:
            plain["batch_size"] = self._config.batch_size
        return plain

    def __setattr__(self, name: str, value: Any) -> None:
        """Take an argument that is set later as if it had been given.

        Raises:
            ConfigError: It cannot work; or loaders were handed out, and then only batch
                sizes and ``num_workers`` may change.
        """
        if not self.set_hyperparameter(name, value):
            super().__setattr__(name, value)

    def set_hyperparameter(self, name: str, value: Any) -> bool:
        """Set an argument, here and among the hyperparameters; False where it is none.

        Raises:
            ConfigError: As for ``setattr``.
        """
        if name not in self._argument_names or "_given" not in self.__dict__:
            return False
        value = as_meant(name, value)
        if not _is_same(value, self._given[name]):
            self._set_argument(name, value)
        return True

    def _set_argument(self, name: str, value: Any) -> None:
        if self._has_loaders and name not in CHANGEABLE:
            raise ConfigError(
                f"{name} cannot be set to {value!r} any more: loaders were handed out "
                f"with {self._given[name]!r}, and the run and its checkpoint would "
                f"disagree; set {name} before loaders are asked for, or give it to a "
                "new data module"
            )
        given = {**self._given, name: value}
        if name in SIZES and value is not None:  # one takes the place of the other
            given[SIZES[name]] = None
        self._configure(given)
        if name in ("cache_dir", "source", "splits"):
            self._tables = self._config.tables()
        if name not in ("batch_size", *SHOWN):
            self.__dict__[name] = value
        # A checkpoint is to hold what is trained with.
        saved, hparams = self._plain(given), self.hparams
        assert isinstance(hparams, Hyperparameters)
        other = SIZES.get(name)
        for each in (name, other) if other in hparams else (name,):
            if each in saved:
                hparams.keep(each, saved[each])
            else:
                hparams.pop(each, None)


def as_meant(name: str, value: Any) -> Any:
    """Return an argument as it is meant, of whatever form it was given in."""
    value = from_plain(value, name)
    if name == "source":
        return live_source(value)
    return named(name, value) if name in ("splits", "sampler") else value


def _is_same(value: Any, other: Any) -> bool:
    """Return whether setting a value changes nothing."""
    if value is other:
        return True
    try:
        return type(value) is type(other) and bool(value == other)
    except Exception:  # of a table or an array
        return False
