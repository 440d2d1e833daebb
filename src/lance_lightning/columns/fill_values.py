"""Values that replace a null: whether one fits its column."""

from __future__ import annotations

import datetime
import numbers
from typing import Any

import numpy as np
import pyarrow as pa

from lance_lightning.arrow import is_bfloat16, is_bytes, is_text
from lance_lightning.errors import ConfigError


def check_fill(
    name: str, arrow_type: pa.DataType, value: Any, doing: str = "nulls fills"
) -> None:
    """Raise a `ConfigError` unless a column of ``arrow_type`` can hold ``value``.

    Stricter than Arrow, which makes 1 of 1.5 for an integer.
    """
    if is_bfloat16(arrow_type):
        arrow_type = pa.float32()
    fits = isinstance(value, _accepted(arrow_type))
    if isinstance(value, bool | np.bool_) and not pa.types.is_boolean(arrow_type):
        fits = False
    if fits:
        try:
            made = pa.array([arrow_value(arrow_type, value)], arrow_type)
            fits = made.null_count == 0 and not _overflowed(arrow_type, value, made)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            fits = False
    if not fits:
        raise ConfigError(
            f"{doing} column {name!r} with {value!r} ({type(value).__name__}), which "
            f"is no value of its type, {arrow_type}: give one, and where columns "
            f"differ name each, {doing.split()[0]}={{{name!r}: ...}}"
        )


def _accepted(arrow_type: pa.DataType) -> tuple[type, ...]:
    types = pa.types
    if types.is_boolean(arrow_type):
        return (bool, np.bool_)
    if types.is_integer(arrow_type):
        return (numbers.Integral,)
    if types.is_floating(arrow_type):
        return (numbers.Real,)
    if types.is_temporal(arrow_type):
        span = (datetime.date, datetime.time, datetime.timedelta)
        return (numbers.Integral, np.datetime64, np.timedelta64, *span)
    if is_text(arrow_type):
        return (str,)
    if is_bytes(arrow_type):
        return (bytes,)
    return (object,)


def arrow_value(arrow_type: pa.DataType, value: Any) -> Any:
    """Return a fill value as Arrow takes it for this type."""
    if pa.types.is_float16(arrow_type):
        with np.errstate(over="ignore"):  # found by `_overflowed`
            return np.float16(value)  # what older Arrow asks for
    return float(value) if pa.types.is_floating(arrow_type) else value


def _overflowed(arrow_type: pa.DataType, value: Any, made: pa.Array) -> bool:
    if not pa.types.is_floating(arrow_type):
        return False
    return bool(np.isinf(float(made[0].as_py())) and not np.isinf(float(value)))
