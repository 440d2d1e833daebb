"""What this package raises itself.

::

    LanceLightningError
    ├── ConfigError (ValueError)       an argument, or several together
    ├── SourceError (ValueError)       a table, version, column or filter
    ├── DataError (ValueError)         values that the output format cannot hold
    │   ├── DecodeError                bytes that a decoder could not read
    │   └── NullError                  nulls
    ├── StateError (RuntimeError)      a checkpoint of other data or settings
    ├── TransformError (RuntimeError)  a user's function raised
    └── WorkerError (RuntimeError)     a worker process ended by itself
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


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
    """A worker process that ended by itself, could not start or could not continue."""


def is_panic(error: BaseException) -> bool:
    """Tell whether Rust code stopped at a fault of its own, as at a damaged file.

    pyo3 raises it as a ``pyo3_runtime.PanicException``, which is no `Exception` and
    cannot be imported.
    """
    return type(error).__name__ == "PanicException"
