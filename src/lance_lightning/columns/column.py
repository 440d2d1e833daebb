"""What a column's conversion is: its options, its protocol and its errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import torch

from lance_lightning.arrow import sql_name
from lance_lightning.errors import ConfigError, DataError, NullError

Target = Literal["torch", "numpy"]
RAGGED_POLICIES = ("pad", "values_offsets", "list", "nested")
CAST_DTYPES = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
)


@dataclass(frozen=True, slots=True)
class Nulls:
    """What becomes of a column's nulls.

    Args:
        policy: ``"error"``; ``"fill"`` with ``value``; or ``"mask"``, a bool tensor of
            the column's shape beside it, True where a value is.
        value: What replaces a null; a mapping by field for a struct.
    """

    policy: Literal["error", "fill", "mask"] = "error"
    value: Any = None


@dataclass(frozen=True, slots=True)
class Padding:
    """How lists are padded.

    Args:
        value: What is written after the end of each list; None is zero.
        multiple: The width is the batch's longest list, rounded up to a multiple
            of this.
    """

    value: Any = None
    multiple: int = 1


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """How one column is converted.

    Args:
        target: What numbers become: tensors or numpy arrays.
        nulls: What becomes of nulls.
        ragged: What becomes of lists of unequal length, one of `RAGGED_POLICIES`.
        padding: How they are padded under the policy ``"pad"``.
        dtype: One of `CAST_DTYPES`, or None for the dtype of the schema.
        floats: The same, but only for columns of floats that have no ``dtype``.
        decoder: What a column of bytes is decoded by: ``"image"``, or a function of
            bytes. None leaves them as they are.
        feature: What a Hugging Face dataset says that the column is, if anything.
    """

    target: Target
    nulls: Nulls = Nulls()
    ragged: str = "pad"
    padding: Padding = Padding()
    dtype: str | None = None
    floats: str | None = None
    decoder: Any = None
    feature: Any = None


class Column(Protocol):
    """One planned column.

    What it converts to is a mapping from a suffix of the column's name to a value:
    ``""`` for the value itself, ``"_mask"`` for what goes beside it.
    """

    def suffixes(self) -> tuple[str, ...]:
        """Return the suffixes of what a batch of this column holds."""

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Return the window values of ``array``, by suffix.

        Raises:
            DataError: Values or nulls that the target cannot hold.
        """


@dataclass(frozen=True, slots=True)
class MaskedColumn:
    """What columns share whose batch holds one value and, if asked for, its mask."""

    name: str
    options: ColumnOptions

    def suffixes(self) -> tuple[str, ...]:
        """Return the value's suffix, and the mask's where one was asked for."""
        return ("", "_mask") if self.options.nulls.policy == "mask" else ("",)

    def refuse_nulls(self, array: pa.Array) -> None:
        """Raise a `NullError` where rows are null and nothing was said of nulls."""
        if array.null_count and self.options.nulls.policy == "error":
            raise null_error(self.name, array.null_count, len(array))

    def with_mask(self, value: Any, array: pa.Array) -> dict[str, Any]:
        """Return a converted value and, if asked for, a mask of shape (rows,)."""
        out = {"": value}
        if self.options.nulls.policy == "mask":
            valid = array.is_valid().to_numpy(zero_copy_only=False)
            out["_mask"] = from_numpy(valid, self.options.target)
        return out


def unsupported(name: str, arrow_type: pa.DataType, why: str) -> DataError:
    """Return the error of a column that a format cannot hold, with the remedies."""
    return DataError(
        f"column {name!r} has type {arrow_type}, and {why}: leave it out with "
        f"columns=[...], choose another format such as output_format='arrow', or cast "
        f"it in SQL, columns={{{name!r}: {f'cast({sql_name(name)} as ...)'!r}}}"
    )


def refuse_dtype(name: str, arrow_type: pa.DataType, options: ColumnOptions) -> None:
    """Raise a `ConfigError` where a dtype is asked for and the column has none."""
    if options.dtype is not None:
        raise ConfigError(
            f"dtype makes column {name!r} {options.dtype}, but its type is "
            f"{arrow_type}: only columns of numbers can be cast"
        )


def refuse_nanoseconds(name: str, arrow_type: pa.DataType) -> None:
    """Raise a `DataError` where Python values need pandas, and there is none.

    Python's own times end at microseconds: Arrow gives nanoseconds as pandas' with
    pandas installed, and without it fails at the first value that is not whole.
    """
    if _has_nanoseconds(arrow_type) and find_spec("pandas") is None:
        why = (
            "Python's own times hold no nanoseconds, as pandas' do (pip install "
            "'lance-lightning[pandas]')"
        )
        raise unsupported(name, arrow_type, why)


def _has_nanoseconds(arrow_type: pa.DataType) -> bool:
    if isinstance(arrow_type, pa.BaseExtensionType):
        return _has_nanoseconds(arrow_type.storage_type)
    if pa.types.is_map(arrow_type):
        parts = [arrow_type.key_type, arrow_type.item_type]
    elif pa.types.is_struct(arrow_type):
        parts = [field.type for field in arrow_type]
    else:
        value_type = getattr(arrow_type, "value_type", None)
        if value_type is None:
            return getattr(arrow_type, "unit", None) == "ns"
        parts = [value_type]
    return any(_has_nanoseconds(part) for part in parts)


@dataclass(frozen=True, slots=True)
class NullCount:
    """The nulls of one column.

    Args:
        name: The column, a field of a struct with dots.
        count: How many there are.
        total: Among how many values.
        inside: Whether they are in lists, where no filter reaches them.
    """

    name: str
    count: int
    total: int
    inside: bool = False

    def __str__(self) -> str:
        inside = " inside lists" if self.inside else ""
        return (
            f"column {self.name!r} has {self.count} nulls{inside} among the "
            f"{self.total} values read at once"
        )


def null_error(name: str, count: int, total: int, inside: bool = False) -> NullError:
    """Return the error of ``count`` nulls among ``total`` values."""
    return nulls_error([NullCount(name, count, total, inside)])


def nulls_error(
    found: Sequence[NullCount], sql_of: Callable[[str], str] = sql_name
) -> NullError:
    """Return the error of the nulls of all columns that have some.

    Args:
        found: The columns.
        sql_of: Returns how a filter names a column.
    """
    # A policy is a whole column's, a struct's too.
    policies = dict.fromkeys(each.name.partition(".")[0] for each in found)
    fills = ", ".join(f"{name!r}: {{'fill': value}}" for name in policies)
    masks = ", ".join(f"{name!r}: 'mask'" for name in policies)
    message = (
        f"{', '.join(map(str, found))}, and the output cannot hold null: set "
        f"nulls={{{fills}}} or, for torch and numpy, nulls={{{masks}}}"
    )
    rows = [f"{sql_of(each.name)} is not null" for each in found if not each.inside]
    if rows:
        message += (
            ", or leave such rows out where they come from, LanceSource(uri, "
            f"filter=...), with filter={' and '.join(rows)!r}"
        )
    return NullError(message, found)


def count_nulls(array: pa.Array) -> int:
    """Return how many nulls a column has, or where it has none, those inside it."""
    if isinstance(array, pa.ExtensionArray):
        return count_nulls(array.storage)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.null_count or not pa.types.is_nested(array.type):
        return int(array.null_count)
    if pa.types.is_struct(array.type):
        return sum(count_nulls(field) for field in array.flatten())
    if pa.types.is_map(array.type):
        # ``items`` knows nothing of the slice that ``array`` is.
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return count_nulls(array.items.slice(first, last - first))
    return count_nulls(array.flatten()) if hasattr(array, "flatten") else 0


# --- arrays and tensors -------------------------------------------------------------


def from_numpy(values: np.ndarray, target: Target) -> Any:
    """Return ``values`` as the target's own kind, without a copy."""
    return torch.from_numpy(values) if target == "torch" else values


def as_numpy(value: Any) -> np.ndarray:
    """Return a tensor or array as an array, without a copy; bfloat16 as int16."""
    if isinstance(value, np.ndarray):
        return value
    if value.dtype is torch.bfloat16:
        value = value.view(torch.int16)
    array: np.ndarray = value.numpy()
    return array


def as_same_kind(value: Any, array: np.ndarray) -> Any:
    """Return ``array`` as what ``value`` is, a tensor or an array."""
    if isinstance(value, np.ndarray):
        return array
    found = torch.from_numpy(array)
    return found.view(torch.bfloat16) if value.dtype is torch.bfloat16 else found
