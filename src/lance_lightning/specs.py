"""Specs as plain dicts and back: what hyperparameters hold, what Hydra leaves."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any

from lance_lightning import samplers, snapshot, sources, splits
from lance_lightning.types import ConfigError

TARGET = "_target_"
UNSAVED = "_unsaved_"  # marks what a checkpoint cannot hold, and says what it was

SPECS: dict[str, type[Any]] = {
    spec.__name__: spec
    for spec in (
        samplers.BlockShuffle,
        samplers.Sequential,
        samplers.Shuffle,
        sources.ArrowSource,
        sources.LanceDBSource,
        sources.LanceSource,
        sources.SeparateSources,
        splits.AllRows,
        splits.CalculatedSplit,
        splits.HashSplit,
        splits.PermutationSplit,
        splits.RandomSplit,
        splits.SequentialSplit,
    )
}


def to_plain(value: Any) -> Any:
    """Return dicts, lists, strings and numbers that say what ``value`` is.

    Our own specs become dicts with a ``_target_``. Of storage options the keys
    alone are kept, since a value can be a secret. What cannot be written down (a
    table in memory, a function) becomes a mark that `from_plain` asks for.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    if type(value) is SPECS.get(type(value).__name__):
        return _spec_to_plain(value)
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    module = getattr(value, "__module__", type(value).__module__)
    return {UNSAVED: f"{module}.{name}"}


def _spec_to_plain(spec: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {TARGET: f"lance_lightning.{type(spec).__name__}"}
    if isinstance(spec, sources.SeparateSources):
        plain.update((name, to_plain(item)) for name, item in spec.sources.items())
        return plain
    for name in inspect.signature(type(spec)).parameters:
        value = getattr(spec, name)
        if name == "storage_options":
            value = dict.fromkeys(value) if value else None
        elif name == "uri":
            value = snapshot.strip_secrets(os.fspath(value))
        plain[name] = to_plain(value)
    return plain


def from_plain(value: Any, name: str) -> Any:
    """Return what a plain value stands for; anything else comes back as it is.

    Args:
        value: What the user, Hydra or a checkpoint gave.
        name: The argument's name, for errors.

    Raises:
        ConfigError: A ``_target_`` that is not a spec of this package, arguments
            that it does not take, or something that a checkpoint could not hold.
    """
    value = _without_omegaconf(value)
    if isinstance(value, list):
        return [from_plain(item, name) for item in value]
    if not isinstance(value, Mapping):
        return value
    if UNSAVED in value:
        raise ConfigError(
            f"{name} was {value[UNSAVED]!r}, which a checkpoint cannot hold: pass "
            f"{name}=... again (load_from_checkpoint takes it as a keyword)"
        )
    items = {key: from_plain(item, f"{name}.{key}") for key, item in value.items()}
    if TARGET not in items:
        return items
    target = str(items.pop(TARGET))
    spec = SPECS.get(target.rpartition(".")[2])
    if spec is None or not target.startswith("lance_lightning."):
        listed = ", ".join(sorted(SPECS))
        raise ConfigError(
            f"{name} has the target {target!r}, which is not one of lance_lightning's "
            f"own: {listed}; give the object itself"
        )
    try:
        return spec(**items)
    except TypeError as error:
        raise ConfigError(f"{name}: {error}") from error


def _without_omegaconf(value: Any) -> Any:
    """Return a plain container for Hydra's; nothing is imported for it."""
    if type(value).__module__.startswith("omegaconf"):
        return sys.modules["omegaconf"].OmegaConf.to_container(value, resolve=True)
    return value
