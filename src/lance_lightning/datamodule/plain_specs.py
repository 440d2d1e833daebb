"""Specs as plain dicts and back: what hyperparameters hold, what Hydra leaves."""

from __future__ import annotations

import inspect
import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np

from lance_lightning import samplers, sources, splits
from lance_lightning.errors import ConfigError
from lance_lightning.tables import strip_secrets

TARGET = "_target_"
HYDRAS_OWN = ("_convert_", "_recursive_")  # keys for instantiate, beside a _target_
UNSAVED = "_unsaved_"  # the mark of what a checkpoint cannot hold: {UNSAVED: what}

SPECS: dict[str, type[Any]] = {
    spec.__name__: spec
    for spec in (
        samplers.BlockShuffle,
        samplers.Sequential,
        samplers.ShardedBatches,
        samplers.ShardedFragments,
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

SPLITS = (splits.Splits,)
SAMPLERS = (samplers.Sampler,)

# Short names, those of the Hydra groups' options.
NAMES: dict[str, dict[str, type[Any]]] = {
    "splits": {
        "all": splits.AllRows,
        "calculated": splits.CalculatedSplit,
        "hash": splits.HashSplit,
        "permutation": splits.PermutationSplit,
        "random": splits.RandomSplit,
        "sequential": splits.SequentialSplit,
    },
    "sampler": {
        "block_shuffle": samplers.BlockShuffle,
        "sequential": samplers.Sequential,
        "sharded_batches": samplers.ShardedBatches,
        "sharded_fragments": samplers.ShardedFragments,
        "shuffle": samplers.Shuffle,
    },
}


def named(argument: str, value: Any) -> Any:
    """Return the spec that a short form stands for; anything else as it is.

    Args:
        argument: ``"splits"`` or ``"sampler"``.
        value: A short name, for the spec with its defaults; for splits also a mapping
            from split to its share, which is a `RandomSplit`.

    Raises:
        ConfigError: The spec of that name has no defaults, or the shares are wrong.
    """
    if isinstance(value, str) and value in NAMES[argument]:
        kind = NAMES[argument][value]
        try:
            return kind()
        except (TypeError, ConfigError) as error:
            raise ConfigError(
                f"{_must_be(argument, SPLITS if argument == 'splits' else SAMPLERS)}, "
                f"got {value!r}: that is {kind.__name__} with its defaults, and it has "
                f"none ({error})"
            ) from error
    if argument == "splits" and _is_shares(value):
        return splits.RandomSplit(value)
    return value


def _is_shares(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(share is None or isinstance(share, Real) for share in value.values())
    )


def spec_of(name: str, value: Any, *kinds: type[Any]) -> Any:
    """Return a spec that is of one of the kinds that an argument takes.

    Raises:
        ConfigError: It is none of them: a string, say, or a dict without a
            ``_target_``.
    """
    if isinstance(value, kinds) and not isinstance(value, type):
        return value
    raise ConfigError(f"{_must_be(name, kinds)}, got {value!r}")


def _must_be(name: str, kinds: tuple[type[Any], ...]) -> str:
    names = [each for each, spec in SPECS.items() if set(kinds) & set(spec.__mro__)]
    short = ", ".join(map(repr, NAMES[name]))
    shares = ", a mapping from split to share" if name == "splits" else ""
    return (
        f"{name} must be one of {', '.join(names)}, such as {name}={names[0]}(...), or "
        f"a mapping with a _target_{shares}, or one of the short names {short}"
    )


def to_plain(value: Any) -> Any:
    """Return dicts, lists, strings and numbers that say what ``value`` is.

    Our own specs become dicts with a ``_target_``. Of storage options only the keys
    are kept and of a URI what is no secret. What cannot be written down (these,
    a table in memory, a function) becomes a mark that `check_saved` asks for.
    """
    value = _without_omegaconf(value)
    if isinstance(value, sources.TableSource):
        value = value.source
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float | str):
        return _plain_scalar(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return plain_dict(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    if type(value) is SPECS.get(type(value).__name__):
        return _spec_to_plain(value)
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    module = getattr(value, "__module__", type(value).__module__)
    return {UNSAVED: f"{module}.{name}"}


def plain_dict(values: Any) -> dict[str, Any]:
    """Return a mapping, or a namespace of arguments, as `to_plain` has it."""
    values = _without_omegaconf(values)
    if isinstance(values, Namespace):
        values = vars(values)
    plain = {str(name): to_plain(item) for name, item in values.items()}
    options = plain.get("storage_options")
    if isinstance(options, dict):
        plain["storage_options"] = {name: {UNSAVED: "a secret"} for name in options}
    return plain


def _plain_scalar(value: int | float | str) -> Any:
    """Return exactly Python's own kind of it.

    An enum's member is text and numpy's float64 a float, and neither can be loaded
    with ``weights_only=True``.
    """
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    text = str.__str__(value)
    shown = strip_secrets(text)
    # A scheme at the start: a SQL expression may well hold a URI.
    if shown != text and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return {UNSAVED: shown}
    return text


def _spec_to_plain(spec: Any) -> dict[str, Any]:
    if isinstance(spec, sources.SeparateSources):
        arguments = dict(spec.sources)
    else:
        names = inspect.signature(type(spec)).parameters
        arguments = {name: getattr(spec, name) for name in names}
    return {TARGET: f"lance_lightning.{type(spec).__name__}", **plain_dict(arguments)}


def check_saved(given: Mapping[str, Any]) -> None:
    """Ask for the arguments that a checkpoint could not hold.

    Raises:
        ConfigError: There are some; all of them are named.
    """
    found = {name: list(_unsaved(value, name)) for name, value in given.items()}
    again = [name for name, unsaved in found.items() if unsaved]
    if again:
        listed = ", ".join(text for unsaved in found.values() for text in unsaved)
        raise ConfigError(
            f"a checkpoint cannot hold {listed}: give {', '.join(again)} again, as "
            f"LanceDataModule.load_from_checkpoint(path, {again[0]}=...) does"
        )


def _unsaved(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for at, item in enumerate(value):
            yield from _unsaved(item, f"{path}[{at}]")
    elif isinstance(value, dict) and UNSAVED in value:
        yield f"{path} ({value[UNSAVED]})"
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _unsaved(item, f"{path}.{name}")


def from_plain(value: Any, name: str) -> Any:
    """Return what a plain value stands for; anything else comes back as it is.

    Args:
        value: What the user, Hydra or a checkpoint gave.
        name: The argument's name, for errors.

    Raises:
        ConfigError: A ``_target_`` that is not a spec of this package, or arguments
            that it does not take.
    """
    value = _without_omegaconf(value)
    if isinstance(value, list | tuple):
        return [from_plain(item, name) for item in value]
    if not isinstance(value, Mapping):
        return value
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
    for key in HYDRAS_OWN:
        items.pop(key, None)
    try:
        return spec(**items)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"{name}: {error}") from error


def _without_omegaconf(value: Any) -> Any:
    """Return a plain container for Hydra's; nothing is imported for it."""
    if type(value).__module__.startswith("omegaconf"):
        omegaconf = sys.modules["omegaconf"].OmegaConf
        return omegaconf.to_container(value, resolve=True, throw_on_missing=True)
    return value
