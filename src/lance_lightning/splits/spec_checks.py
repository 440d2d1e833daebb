"""Checks of names, counts and ratios of splits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from lance_lightning.checks import check_int
from lance_lightning.errors import ConfigError
from lance_lightning.types import TOO_LARGE

_TOO_MANY_SPLITS = 2**16  # of equal size
_SIZES = ("ratios", "counts", "fixed")


# -- checks of the specs -------------------------------------------------------


def check_names(parameter: str, names: Sequence[Any]) -> None:
    """Raise a `ConfigError` unless names are text, not empty and each there once."""
    for name in names:
        if not (isinstance(name, str) and name):
            raise ConfigError(
                f"{parameter} must hold names, as text that is not empty, got {name!r}"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{parameter} must hold each name once, twice: {twice}")


def names_of(parameter: str, names: Any) -> tuple[str, ...]:
    """Return a list of names as a tuple, or raise a `ConfigError`."""
    if isinstance(names, (str, bytes)) or not isinstance(names, Sequence):
        raise ConfigError(f"{parameter} must be a list of names, got {names!r}")
    if not names:
        raise ConfigError(f"{parameter} is empty; give at least one name")
    check_names(parameter, list(names))
    return tuple(names)


def shares(
    parameter: str, shares: Any, check: Callable[[str, Any], Any]
) -> dict[str, Any]:
    """Return the shares without those of None, in their order."""
    if not isinstance(shares, Mapping):
        raise ConfigError(
            f"{parameter} must map split names to shares, such as "
            f"{{'train': ..., 'val': ...}}, got {shares!r}"
        )
    kept = {name: share for name, share in shares.items() if share is not None}
    if not kept:
        raise ConfigError(f"{parameter} leaves no split, got {dict(shares)!r}")
    check_names(parameter, list(kept))
    return {
        name: check(f"{parameter} of {name!r}", share) for name, share in kept.items()
    }


def _check_count(name: str, value: Any, below: int = TOO_LARGE) -> int:
    if value == 0 and not isinstance(value, bool):
        raise ConfigError(f"{name} must be at least 1, got 0; null removes the split")
    return check_int(name, value, 1, below)


def check_weight(name: str, value: Any) -> int:
    """Return a weight, an integer from 0, or raise a `ConfigError`."""
    return _check_count(name, value, 2**64)  # it is their sum that is bounded


def _check_number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(
            f"{name} must be a number, got {value!r} ({type(value).__name__})"
        )
    return float(value)


def _check_ratios(ratios: Mapping[str, Any]) -> None:
    bad = [name for name, share in ratios.items() if not 0 < share <= 1]
    total = math.fsum(ratios.values())
    if not bad and total <= 1 + 1e-9:
        return
    listed = ", ".join(f"{name}={share}" for name, share in ratios.items())
    what = (
        f"the ratios of {', '.join(map(repr, bad))} must be above 0 and at most 1"
        if bad
        else f"the ratios sum to {total:g} and must sum to at most 1"
    )
    raise ConfigError(
        f"{what}: {listed}. Hydra merges mappings, so a default left in place may be "
        "the cause; a share of null removes a split"
    )


def set_sizes(splits: Any) -> None:
    """Check the one that is given of ratios, counts and fixed, and make it plain."""
    given = [name for name in _SIZES if getattr(splits, name) is not None]
    if len(given) != 1:
        found = f"got {' and '.join(given)}" if given else "got none of them"
        raise ConfigError(
            f"{type(splits).__name__} takes one of ratios, counts and fixed, {found}. "
            "Name the splits and their shares, ratios={'train': 0.9, 'val': 0.1} for "
            "one; in Hydra, `ratios: null` takes a default away"
        )
    value = getattr(splits, given[0])
    if given == ["ratios"]:
        value = shares("ratios", value, _check_number)
        _check_ratios(value)
    elif given == ["counts"]:
        value = shares("counts", value, _check_count)
    elif isinstance(value, Real):
        count = check_int("fixed", value, 1, _TOO_MANY_SPLITS)
        value = tuple(f"split_{i}" for i in range(count))
    else:
        value = names_of("fixed", value)
    object.__setattr__(splits, given[0], value)


def names_of_sizes(splits: Any) -> tuple[str, ...]:
    """Return the names of the splits that sizes are given for."""
    return tuple(splits.ratios or splits.counts or splits.fixed)


def pairs(shares: Mapping[str, Any]) -> list[list[Any]]:
    """Return names and shares as a list, for JSON."""
    # A list, as JSON with sorted keys would forget the order of the splits, which
    # decides who gets which rows.
    return [[name, share] for name, share in shares.items()]


def sizes_key(splits: Any) -> dict[str, Any]:
    """Return what tells sizes from others, for JSON."""
    return {
        "ratios": pairs(splits.ratios) if splits.ratios else None,
        "counts": pairs(splits.counts) if splits.counts else None,
        "fixed": list(splits.fixed) if splits.fixed else None,
    }
