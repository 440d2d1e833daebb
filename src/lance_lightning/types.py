"""Names, small checks and error classes that every other module shares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

OutputFormat = Literal[
    "arrow",
    "numpy",
    "pandas",
    "polars",
    "python",
    "python_col",
    "torch",
    "torch_col",
    "torch_row",
]
OUTPUT_FORMATS: tuple[str, ...] = get_args(OutputFormat)

Stage = Literal["train", "val", "test", "predict"]
STAGES: tuple[Stage, ...] = get_args(Stage)

ROW_ID = "_rowid"  # Lance's own name for a row's id
LISTED = 40  # names that an error lists before it says how many more there are


class LanceLightningError(Exception):
    """The base class of every error that this package raises itself."""


class ConfigError(LanceLightningError, ValueError):
    """An argument, or a combination of arguments, that cannot work."""


class SourceError(LanceLightningError, ValueError):
    """A table, version, column or filter that cannot be read."""


class DataError(LanceLightningError, ValueError):
    """Values in the table that the output format cannot hold."""


class DecodeError(DataError):
    """Bytes that a decoder could not read.

    Args:
        message: What happened.
        row: The row, counted among those that were converted at once.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


class StateError(LanceLightningError, RuntimeError):
    """A checkpoint that does not belong to this data or this configuration."""


class TransformError(LanceLightningError, RuntimeError):
    """A user's function raised; the message names stage, batch and row ids."""


def check_int(name: str, value: Any, minimum: int) -> int:
    """Return ``value`` when it is an integer of at least ``minimum``.

    Hydra hands on whatever was typed, so a type is checked here as well.

    Raises:
        ConfigError: It is of another type (a bool too) or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(
            f"{name} must be an integer, got {value!r} ({type(value).__name__})"
        )
    if value < minimum:
        raise ConfigError(f"{name} must be at least {minimum}, got {value}")
    return value


def listed(names: Iterable[Any]) -> str:
    """Return names for an error, as many as stay readable."""
    names = list(names)
    shown = ", ".join(repr(name) for name in names[:LISTED])
    more = len(names) - LISTED
    return (shown or "none") + (f" and {more} more" if more > 0 else "")


def check_one_of(name: str, value: Any, options: Iterable[Any]) -> None:
    """Raise a `ConfigError` that lists the options unless ``value`` is one."""
    options = tuple(options)
    if value not in options:
        listed = ", ".join(repr(option) for option in options)
        raise ConfigError(f"{name} must be one of {listed}, got {value!r}")
