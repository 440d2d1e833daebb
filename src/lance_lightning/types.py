"""Names, small checks and error classes that every other module shares."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = np.ndarray[Any, Any]
Ints = NDArray[np.int64]

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
ROW_OFFSET = "_rowoffset"  # Lance's own name for a row's place in the scan
TOO_LARGE = 2**63  # rows are counted in 64 bits, as Arrow and torch count them
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


class NullError(DataError):
    """Nulls that the output format cannot hold.

    Args:
        message: Which columns have them, and the remedies.
        found: The same as `column.NullCount`s.
    """

    def __init__(self, message: str, found: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.found = tuple(found)


class StateError(LanceLightningError, RuntimeError):
    """A checkpoint that does not belong to this data or this configuration."""


class TransformError(LanceLightningError, RuntimeError):
    """A user's function raised; the message names stage, batch and row ids.

    Args:
        message: What happened.
        row_offsets: The first rows that the function got.
    """

    def __init__(self, message: str, row_offsets: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.row_offsets = tuple(row_offsets)


class WorkerError(LanceLightningError, RuntimeError):
    """A worker process that ended by itself, could not start or could not go on."""


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


def is_panic(error: BaseException) -> bool:
    """Tell whether Rust code stopped at a fault of its own, as at a damaged file.

    pyo3 raises it as a ``pyo3_runtime.PanicException``, which is no `Exception` and
    cannot be imported.
    """
    return type(error).__name__ == "PanicException"
