"""Checks of arguments, worded alike everywhere."""

from __future__ import annotations

import importlib
import numbers
import pickle
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from lance_lightning.errors import ConfigError
from lance_lightning.types import TOO_LARGE

LISTED = 40  # names that an error lists before it says how many more there are


def check_int(name: str, value: Any, minimum: int, below: int = TOO_LARGE) -> int:
    """Return ``value`` as Python's own integer, within its bounds.

    Hydra hands on whatever was typed, so a type is checked here as well. numpy's
    integers are taken, as torch takes them.

    Raises:
        ConfigError: It is of another type (a bool too), too small or too large.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or isinstance(value, np.timedelta64):
        raise ConfigError(
            f"{name} must be an integer, got {value!r} ({type(value).__name__})"
        )
    if value < minimum:
        raise ConfigError(f"{name} must be at least {minimum}, got {value}")
    if value >= below:
        power = below.bit_length() - 1
        shown = f"2**{power}" if below == 1 << power else str(below)
        raise ConfigError(f"{name} must be below {shown}, got {value}")
    return int(value)


def check_seed(name: str, value: Any) -> int:
    """Return a seed: 64 bits are used, so that more would be those of another seed.

    Raises:
        ConfigError: It is no integer, or has more bits.
    """
    return check_int(name, value, -(2**63), 2**64)


def check_bool(name: str, value: Any) -> bool:
    """Return Python's own bool, and refuse anything else: the text 'false' is true.

    Raises:
        ConfigError: It is no bool.
    """
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{name} must be true or false, got {value!r}")
    return bool(value)


def quote_names(names: Iterable[Any]) -> str:
    """Return names for an error, as many as stay readable."""
    names = list(names)
    shown = ", ".join(repr(name) for name in names[:LISTED])
    more = len(names) - LISTED
    return (shown or "none") + (f" and {more} more" if more > 0 else "")


def check_one_of(name: str, value: Any, options: Iterable[Any]) -> None:
    """Raise a `ConfigError` that lists the options unless ``value`` is one."""
    options = tuple(options)
    if value not in options:
        shown = ", ".join(repr(option) for option in options)
        raise ConfigError(f"{name} must be one of {shown}, got {value!r}")


def check_importable(name: str, function: Any) -> None:
    """Raise a `ConfigError` unless a spawned worker could load ``function``."""
    main = sys.modules.get("__main__")
    in_main = getattr(function, "__module__", None) == "__main__"
    if in_main and getattr(main, "__file__", None) is None:
        raise ConfigError(
            f"{name} is {_label(function)}, defined in a notebook or an interactive "
            "session; a spawned worker cannot import it from there: move it to a "
            ".py file and import it, or use num_workers=0"
        )
    try:
        pickle.dumps(function)
    except Exception as error:
        raise ConfigError(
            f"{name} is {_label(function)}, which cannot be pickled ({error}), so "
            "spawned workers cannot get it: use a function defined at the top level "
            "of a module, or num_workers=0"
        ) from error


def _label(function: Any) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', '?')}.{name}"


def require(module: str, argument: str, extra: str) -> Any:
    """Import an optional package.

    Args:
        module: What to import.
        argument: What needs it, for the error.
        extra: The extra of this package that brings it.

    Raises:
        ConfigError: It is not installed; names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{argument} needs {module}, which cannot be imported ({error}): "
            f"pip install 'lance-lightning[{extra}]'"
        ) from error
