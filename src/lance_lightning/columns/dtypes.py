"""Shapes and dtypes of columns of numbers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lance_lightning.arrow import is_bfloat16
from lance_lightning.columns.column import ColumnOptions
from lance_lightning.errors import ConfigError

_IMAGE_TENSOR = "lance.arrow.fixed_shape_image_tensor"  # Lance's own of a shape


@dataclass(frozen=True, slots=True)
class RowShape:
    """Where the numbers of a column are stored.

    Args:
        leaf: The type of one number.
        shape: The shape of one row in memory.
        axes: The order in which the axes of a row are handed out.
    """

    leaf: pa.DataType
    shape: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()

    def inside(self, shape: Sequence[int], axes: Sequence[int]) -> RowShape:
        """Return this layout as the element of rows of ``shape``."""
        own = (axis + len(shape) for axis in self.axes)
        return RowShape(self.leaf, (*shape, *self.shape), (*axes, *own))

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row as it is handed out."""
        return tuple(self.shape[axis] for axis in self.axes)


def row_shape_of(arrow_type: pa.DataType) -> RowShape:
    """Unwrap fixed-size lists and fixed-shape tensors down to their leaf type."""
    if pa.types.is_fixed_size_list(arrow_type):
        return row_shape_of(arrow_type.value_type).inside([arrow_type.list_size], [0])
    if getattr(arrow_type, "extension_name", None) == _IMAGE_TENSOR:
        shape = arrow_type.shape
        return row_shape_of(arrow_type.storage_type.value_type).inside(
            shape, range(len(shape))
        )
    if isinstance(arrow_type, pa.FixedShapeTensorType):
        shape = arrow_type.shape
        axes = arrow_type.permutation or range(len(shape))
        return row_shape_of(arrow_type.value_type).inside(shape, axes)
    return RowShape(arrow_type)


@dataclass(frozen=True, slots=True)
class NumberTypes:
    """The dtypes of a number on its way.

    Args:
        stored: numpy's dtype for Arrow's memory.
        given: The dtype of what comes out. bfloat16, which numpy lacks, is int16.
        tensor: The tensor's dtype; None for numpy.
        bfloat16: The memory holds bfloat16.
    """

    stored: np.dtype[Any]
    given: np.dtype[Any]
    tensor: torch.dtype | None
    bfloat16: bool = False


def stored_dtype(leaf: pa.DataType) -> np.dtype[Any] | None:
    """Return numpy's dtype for the memory of ``leaf``; None where it has none."""
    if isinstance(leaf, pa.BaseExtensionType):  # those of Lance have no hash
        return np.dtype(np.int16) if is_bfloat16(leaf) else None
    return plain_dtype(leaf)


@functools.lru_cache(maxsize=64)  # of thousands of columns, few types differ
def plain_dtype(leaf: pa.DataType) -> np.dtype[Any] | None:
    """Return the same for a type of Arrow's own."""
    types = pa.types
    if types.is_boolean(leaf):
        return np.dtype(np.bool_)
    # Not with to_pandas_dtype: before pyarrow 26 it needs pandas.
    for is_kind, kind in (
        (types.is_signed_integer, "int"),
        (types.is_unsigned_integer, "uint"),
        (types.is_floating, "float"),
    ):
        if is_kind(leaf):
            return np.dtype(f"{kind}{leaf.bit_width}")
    if types.is_temporal(leaf) and not types.is_interval(leaf):
        return np.dtype(f"int{leaf.bit_width}")
    return None


def _numpy_temporal(leaf: pa.DataType) -> np.dtype[Any]:
    """Return numpy's dtype for a date, time or span; a time of day has none."""
    if pa.types.is_timestamp(leaf):
        return np.dtype(f"datetime64[{leaf.unit}]")
    if pa.types.is_duration(leaf):
        return np.dtype(f"timedelta64[{leaf.unit}]")
    if pa.types.is_date(leaf):
        unit = "D" if pa.types.is_date32(leaf) else "ms"
        return np.dtype(f"datetime64[{unit}]")
    return np.dtype(np.int64)


def number_types_of(leaf: pa.DataType, options: ColumnOptions) -> NumberTypes | None:
    """Return the dtypes of ``leaf`` on its way; None where it is no number."""
    stored = stored_dtype(leaf)
    if stored is None:
        return None
    bfloat16 = is_bfloat16(leaf)
    chosen = options.dtype
    if chosen is None and (bfloat16 or pa.types.is_floating(leaf)):
        chosen = options.floats
    if chosen is not None:
        given = np.dtype(chosen)
    elif bfloat16:
        given = np.dtype(np.int16 if options.target == "torch" else np.float32)
    elif pa.types.is_temporal(leaf):
        given = np.dtype(np.int64)
        if options.target == "numpy":
            given = _numpy_temporal(leaf)
    elif options.target == "torch" and stored.kind == "u" and stored.itemsize > 1:
        # torch lacks most operators on the wide unsigned integers.
        given = np.dtype(np.int32 if stored.itemsize == 2 else np.int64)
    else:
        given = stored
    if options.target == "numpy":
        return NumberTypes(stored, given, None, bfloat16)
    tensor = getattr(torch, given.name)
    if bfloat16 and chosen is None:
        tensor = torch.bfloat16
    return NumberTypes(stored, given, tensor, bfloat16)


def refuse_fractions(name: str, leaf: pa.DataType, dtype: str) -> None:
    """Raise a `ConfigError` where an integer dtype would cut the fractions."""
    types = pa.types
    has = is_bfloat16(leaf) or types.is_floating(leaf) or types.is_decimal(leaf)
    if has and not dtype.startswith("float"):
        raise ConfigError(
            f"dtype={dtype!r} would cut the fractions of column {name!r} ({leaf}): "
            "choose a float dtype, or round it in SQL"
        )
