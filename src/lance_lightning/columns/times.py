"""Dates and times that Python, pandas or polars would not hold as they are.

Arrow counts them in 64 bits from 1970; Python's stop at the years 1 and 9999. What is
beyond becomes an overflow there, or another time in silence: a time of day of 24:00:00
becomes 0:00, and nanoseconds are cut to microseconds.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from lance_lightning.errors import DataError

Library = Literal["Python", "pandas", "polars"]

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = 86_400
_FIRST, _LAST = -719_162, 2_932_896  # the days of Python's first and last date
_LONGEST = 999_999_999  # the days of Python's longest timedelta
_INT64 = 2**63


def refuse_times(name: str, array: pa.Array, library: Library) -> None:
    """Raise a `DataError` where a library would not hold a column's times.

    Args:
        name: The column, for the error.
        array: Its values, of any type.
        library: Whose values are made of it.
    """
    for leaf, inside in _leaves(array, False):
        # A struct is a dict of Python's own values in pandas too.
        own: Library = "Python" if inside and library == "pandas" else library
        low, high, step = _bounds(leaf.type, own)
        values = leaf.drop_null().view(_INTEGERS[leaf.type.bit_width]).to_numpy()
        wrong = (values < low) | (values > high)
        if step > 1:
            wrong |= values % step != 0
        if wrong.any():
            raise DataError(
                f"column {name!r} holds {values[wrong][0]} as {leaf.type}, which "
                f"{own} cannot hold as it is: choose output_format='arrow' or 'numpy', "
                "which keep the number, or leave it out with columns=[...] or a filter"
            )


_INTEGERS = {32: pa.int32(), 64: pa.int64()}


def _leaves(array: pa.Array, inside: bool) -> Iterator[tuple[pa.Array, bool]]:
    """Yield the arrays of times in a column, and whether they are in structs."""
    types, kind = pa.types, array.type
    if isinstance(array, pa.ExtensionArray):
        yield from _leaves(array.storage, inside)
    elif types.is_temporal(kind):
        if not types.is_interval(kind):
            yield array, inside
    elif types.is_dictionary(kind):
        if _has_times(kind.value_type):
            yield from _leaves(array.dictionary_decode(), inside)
    elif not _has_times(kind):
        return
    elif types.is_struct(kind):
        for part in array.flatten():
            yield from _leaves(part, True)
    elif types.is_map(kind):
        # ``keys`` and ``items`` know nothing of the slice that ``array`` is.
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        for part in (array.keys, array.items):
            yield from _leaves(part.slice(first, last - first), True)
    elif types.is_run_end_encoded(kind):
        yield from _leaves(pc.run_end_decode(array), inside)
    elif hasattr(array, "flatten"):
        yield from _leaves(array.flatten(), inside)


def _has_times(kind: pa.DataType) -> bool:
    """Tell whether values of a type hold times, as deep as it goes."""
    if isinstance(kind, pa.BaseExtensionType):
        return _has_times(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _has_times(kind.value_type)
    if pa.types.is_nested(kind):
        return any(_has_times(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_temporal(kind))


def _bounds(kind: pa.DataType, library: Library) -> tuple[int, int, int]:
    """Return the lowest and highest number of a type, and what divides it."""
    types = pa.types
    if types.is_date(kind):
        per_day = 1 if types.is_date32(kind) else _DAY * 1000
        if library == "polars":
            return -_INT64, _INT64 - 1, 1
        return _FIRST * per_day, _LAST * per_day, per_day
    second = _PER_SECOND[kind.unit]
    if types.is_time(kind):
        step = 1000 if kind.unit == "ns" and library != "polars" else 1
        return 0, _DAY * second - 1, step
    if library == "polars":  # which has no unit of seconds
        most = (_INT64 - 1) // (1000 if kind.unit == "s" else 1)
        return -most, most, 1
    zone = _DAY * second if _has_hours(kind) else 0  # what a zone's hours may add
    if library == "pandas" or kind.unit == "ns":
        # The lowest number is how pandas writes a null.
        most = _INT64 - 1 - zone
        return -most, most, _step_of_nanoseconds(kind.unit, library)
    if types.is_duration(kind):
        day = _DAY * second
        return max(-_LONGEST * day, -_INT64), min(_LONGEST * day, _INT64 - 1), 1
    first = _FIRST * _DAY * second + zone
    return first, (_LAST + 1) * _DAY * second - 1 - zone, 1


def _has_hours(kind: pa.DataType) -> bool:
    """Tell whether times are shown some hours earlier or later than they are kept."""
    return pa.types.is_timestamp(kind) and kind.tz not in (None, "UTC")


def _step_of_nanoseconds(unit: str, library: Library) -> int:
    """Return 1000 where nanoseconds would be lost: only pandas has them."""
    lost = unit == "ns" and library == "Python" and not _has_pandas()
    return 1000 if lost else 1


def _has_pandas() -> bool:
    return importlib.util.find_spec("pandas") is not None
