"""Arrow column to tensor or array: dtype and shape follow the schema alone.

A column is planned from its Arrow type and then converted as often as data comes:
planning is the check, so that what cannot be converted is known before a row is
read. Each kind of column is one small class with one function that recognises it,
listed in `_KINDS`.

Numbers are not copied where their memory can be used as it is. The tensor then *is*
Arrow's memory, and writable: give these functions memory that nobody else reads (the
reader's fresh windows), not a table that is still in use.

All work is numpy's and Arrow's on one array at a time, which start no threads: torch
operators would, in the background thread where this runs, take the cores from the
training step.
"""

from __future__ import annotations

import datetime
import itertools
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch.utils.dlpack import from_dlpack

from lance_lightning.types import ConfigError, DataError

Target = Literal["torch", "numpy"]
RAGGED_POLICIES = ("pad", "values_offsets", "list")
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
BLOB_KEY = b"lance-encoding:blob"  # Lance's own mark in a field's metadata


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
class Options:
    """How one column is converted.

    Args:
        target: What numbers become: tensors or numpy arrays.
        nulls: What becomes of nulls.
        ragged: What becomes of lists of unequal length, one of `RAGGED_POLICIES`.
        dtype: One of `CAST_DTYPES`, or None for the dtype of the schema.
    """

    target: Target
    nulls: Nulls = Nulls()
    ragged: str = "pad"
    dtype: str | None = None


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


def plan_columns(
    fields: Iterable[pa.Field],
    options: Callable[[str], Options],
    parent: str = "",
) -> dict[str, Column]:
    """Return the plan of each field, by name.

    Raises:
        ConfigError: A fill value of another type, or a name that comes twice
            (``x_mask`` is a column and ``x`` has a mask).
        DataError: A type that cannot be converted; names the column and the remedy.
    """
    columns: dict[str, Column] = {}
    for field in fields:
        columns[field.name] = plan_field(field, options(field.name), parent)
    taken = set(columns)
    for name, column in columns.items():
        for suffix in column.suffixes():
            if suffix and name + suffix in taken:
                raise ConfigError(
                    f"column {parent + name!r} also gives {name + suffix!r}, which is "
                    "a column of its own: rename one with columns={'new': 'old'}"
                )
            taken.add(name + suffix)
    return columns


def plan_field(field: pa.Field, options: Options, parent: str = "") -> Column:
    """Return the plan of one field.

    Raises:
        ConfigError: A fill value of another type.
        DataError: A type that cannot be converted.
    """
    name = parent + field.name
    refuse_blob(field, name)
    return _plan(name, field.type, options)


def _plan(name: str, arrow_type: pa.DataType, options: Options) -> Column:
    for kind in _KINDS:
        found = kind(name, arrow_type, options)
        if found is not None:
            return found
    raise unsupported(name, arrow_type, f"no {options.target} value of it is defined")


def unsupported(name: str, arrow_type: pa.DataType, why: str) -> DataError:
    """Return the error of a column that a format cannot hold, with the remedies."""
    return DataError(
        f"column {name!r} has type {arrow_type}, and {why}: leave it out with "
        f"columns=[...], choose another format such as output_format='arrow', or cast "
        f"it in SQL, columns={{{name!r}: 'cast({name} as ...)'}}"
    )


def refuse_blob(field: pa.Field, name: str) -> None:
    """Raise a `DataError` where ``field`` is a blob, which is stored apart."""
    marked = (field.metadata or {}).get(BLOB_KEY) == b"true"
    extension = getattr(field.type, "extension_name", "")
    if marked or extension.startswith("lance.blob"):
        raise DataError(
            f"column {name!r} is a blob column: its bytes lie apart from the rows and "
            "are not read yet; leave it out with columns=[...]"
        )


# --- numbers: any shape that is the same in every row -------------------------------


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the numbers of a column lie.

    Args:
        leaf: The type of one number.
        shape: The shape of one row in memory.
        axes: The order in which the axes of a row are handed out.
    """

    leaf: pa.DataType
    shape: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()

    def inside(self, shape: Sequence[int], axes: Sequence[int]) -> Layout:
        """Return this layout as the element of rows of ``shape``."""
        own = (axis + len(shape) for axis in self.axes)
        return Layout(self.leaf, (*shape, *self.shape), (*axes, *own))

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row as it is handed out."""
        return tuple(self.shape[axis] for axis in self.axes)


def layout_of(arrow_type: pa.DataType) -> Layout:
    """Unwrap fixed-size lists and fixed-shape tensors down to their leaf type."""
    if pa.types.is_fixed_size_list(arrow_type):
        return layout_of(arrow_type.value_type).inside([arrow_type.list_size], [0])
    if isinstance(arrow_type, pa.FixedShapeTensorType):
        shape = arrow_type.shape
        axes = arrow_type.permutation or range(len(shape))
        return layout_of(arrow_type.value_type).inside(shape, axes)
    return Layout(arrow_type)


@dataclass(frozen=True, slots=True)
class Number:
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


def is_bfloat16(arrow_type: pa.DataType) -> bool:
    """Tell whether this is Lance's bfloat16, an extension of two bytes."""
    return getattr(arrow_type, "extension_name", None) == "lance.bfloat16"


def _stored_dtype(leaf: pa.DataType) -> np.dtype[Any] | None:
    """Return numpy's dtype for the memory of ``leaf``; None where it has none."""
    types = pa.types
    if is_bfloat16(leaf):
        return np.dtype(np.int16)
    if types.is_boolean(leaf) or types.is_integer(leaf) or types.is_floating(leaf):
        dtype: np.dtype[Any] = np.dtype(leaf.to_pandas_dtype())
        return dtype
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


def number_of(leaf: pa.DataType, options: Options) -> Number | None:
    """Return the dtypes of ``leaf`` on its way; None where it is no number."""
    stored = _stored_dtype(leaf)
    if stored is None:
        return None
    bfloat16 = is_bfloat16(leaf)
    if options.dtype is not None:
        given = np.dtype(options.dtype)
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
        return Number(stored, given, None, bfloat16)
    tensor = getattr(torch, given.name)
    if bfloat16 and options.dtype is None:
        tensor = torch.bfloat16
    return Number(stored, given, tensor, bfloat16)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column of numbers: one a row, or the same shape in every row."""

    name: str
    layout: Layout
    number: Number
    options: Options
    fill: Any = 0  # as it is stored

    def suffixes(self) -> tuple[str, ...]:
        """Return the value's suffix, and the mask's where one was asked for."""
        return ("", "_mask") if self.options.nulls.policy == "mask" else ("",)

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Return a value of shape (rows, *row shape), and its mask."""
        leaves, valid = _leaves(array)
        values = _read(leaves, self.number.stored)
        if valid is not None and valid.size:
            self._refuse_nulls(valid, len(array))
            values = np.where(valid, values, np.asarray(self.fill, values.dtype))
        out = {"": self._finish(self._arrange(self._cast(values), len(array)))}
        if self.options.nulls.policy == "mask":
            if valid is None:
                valid = np.ones(len(values), np.bool_)
            mask = self._arrange(valid, len(array))
            out["_mask"] = from_numpy(mask, self.options.target)
        return out

    def _refuse_nulls(self, valid: np.ndarray, rows: int) -> None:
        if self.options.nulls.policy == "error":
            whole = valid.reshape(rows, -1).all(axis=1)
            raise null_error(self.name, int(rows - whole.sum()), rows)

    def _cast(self, values: np.ndarray) -> np.ndarray:
        given = self.number.given
        if self.number.bfloat16 and given != np.int16:
            values = _widen_bfloat16(values)
        if given.kind in "mM":
            return values.astype(np.int64, copy=False).view(given)
        return cast(self.name, values, given)

    def _arrange(self, values: np.ndarray, rows: int) -> np.ndarray:
        """Shape the flat numbers into rows, without a copy."""
        values = values.reshape(rows, *self.layout.shape)
        axes = self.layout.axes
        if axes == tuple(range(len(axes))):
            return values
        return values.transpose(0, *(axis + 1 for axis in axes))

    def _finish(self, values: np.ndarray) -> Any:
        found = from_numpy(values, self.options.target)
        return found.view(torch.bfloat16) if self._as_bfloat16 else found

    @property
    def _as_bfloat16(self) -> bool:
        return self.number.tensor is torch.bfloat16


def _numbers(name: str, arrow_type: pa.DataType, options: Options) -> Numbers | None:
    """Plan a column of numbers."""
    layout = layout_of(arrow_type)
    number = number_of(layout.leaf, options)
    if number is None:
        return None
    if options.dtype is not None:
        _refuse_fractions(name, layout.leaf, options.dtype)
    column = Numbers(name, layout, number, options)
    if options.nulls.policy != "fill":
        return column
    fill = _stored_fill(name, layout.leaf, number.stored, options.nulls.value)
    try:
        column._cast(np.full(1, fill, number.stored))
    except DataError as error:
        raise ConfigError(
            f"nulls fills column {name!r} with {options.nulls.value!r}, which its "
            f"output cannot hold: {error}"
        ) from error
    return replace(column, fill=fill)


def _refuse_fractions(name: str, leaf: pa.DataType, dtype: str) -> None:
    types = pa.types
    has = is_bfloat16(leaf) or types.is_floating(leaf) or types.is_decimal(leaf)
    if has and not dtype.startswith("float"):
        raise ConfigError(
            f"dtype={dtype!r} would cut the fractions of column {name!r} ({leaf}): "
            "choose a float dtype, or round it in SQL"
        )


def _refuse_dtype(name: str, arrow_type: pa.DataType, options: Options) -> None:
    if options.dtype is not None:
        raise ConfigError(
            f"dtype makes column {name!r} {options.dtype}, but its type is "
            f"{arrow_type}: only columns of numbers can be cast"
        )


def _leaves(array: pa.Array) -> tuple[pa.Array, np.ndarray | None]:
    """Unwrap ``array`` to its flat numbers.

    Returns:
        The numbers, one array whatever the nesting, and which of them are valid: a
        null row makes all its numbers invalid. None where all are.
    """
    valid: np.ndarray | None = None
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if array.null_count:
            here = array.is_valid().to_numpy(zero_copy_only=False)
            valid = here if valid is None else valid & here
        if not pa.types.is_fixed_size_list(array.type):
            return array, valid
        size = array.type.list_size
        if valid is not None:
            valid = np.repeat(valid, size)
        # Neither ``values`` nor its length knows of the slice that ``array`` is, and
        # ``flatten`` would leave out the numbers under a null.
        array = array.values.slice(array.offset * size, len(array) * size)


def _read(leaves: pa.Array, stored: np.dtype[Any]) -> np.ndarray:
    """Return the memory of flat numbers as a writable array, nulls left as they are.

    Not copied but for bools, which Arrow packs into bits.
    """
    data = leaves.buffers()[-1]
    if len(leaves) == 0 or data is None:
        return np.zeros(len(leaves), stored)
    if stored.kind == "b":
        bits = _without_nulls(leaves, pa.bool_(), data)
        array: np.ndarray = bits.to_numpy(zero_copy_only=False)
        return array
    plain = _without_nulls(leaves, _INTEGERS[stored.itemsize], data)
    # DLPack: from_numpy would call the memory read-only and warn.
    return from_dlpack(plain).numpy().view(stored)


_INTEGERS = {1: pa.int8(), 2: pa.int16(), 4: pa.int32(), 8: pa.int64()}


def _without_nulls(leaves: pa.Array, plain: pa.DataType, data: pa.Buffer) -> pa.Array:
    return pa.Array.from_buffers(
        plain, len(leaves), [None, data], null_count=0, offset=leaves.offset
    )


def _widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return bfloat16 as float32: the same bits, and 16 more of zero."""
    return (bits.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def cast(name: str, values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return ``values`` as ``dtype``; a view where the width stays the same.

    Raises:
        DataError: A value beyond the range of ``dtype``.
    """
    if values.dtype == dtype:
        return values
    if dtype.kind in "iu" and not np.can_cast(values.dtype, dtype):
        _check_range(name, values, dtype)
        if values.itemsize == dtype.itemsize:
            return values.view(dtype)
    try:
        with np.errstate(over="raise"):
            return values.astype(dtype)
    except FloatingPointError:
        raise DataError(
            f"column {name!r} holds values beyond {dtype.name}, which would become "
            "infinite: choose a wider dtype, or scale the column in SQL"
        ) from None


def _check_range(name: str, values: np.ndarray, dtype: np.dtype[Any]) -> None:
    limits = np.iinfo(dtype)
    if not len(values):
        return
    for found in (int(values.max()), int(values.min())):
        if not limits.min <= found <= limits.max:
            raise DataError(
                f"column {name!r} holds {found}, outside {dtype.name} "
                f"({limits.min} to {limits.max}), and would wrap around: choose "
                "output_format='numpy' or 'arrow', which keep the column's own type, "
                f"or cast it in SQL, columns={{{name!r}: 'cast({name} as ...)'}}"
            )


def from_numpy(values: np.ndarray, target: Target) -> Any:
    """Return ``values`` as the target's own kind, without a copy."""
    return torch.from_numpy(values) if target == "torch" else values


def null_error(name: str, count: int, total: int) -> DataError:
    """Return the error of ``count`` nulls among ``total`` values."""
    column = name.partition(".")[0]  # a policy is a whole column's
    return DataError(
        f"column {name!r} has {count} nulls among the {total} values read at once, and "
        f"the output cannot hold null: set nulls={{{column!r}: {{'fill': value}}}} or, "
        f"for torch and numpy, nulls={{{column!r}: 'mask'}}, or leave them out with "
        f"filter='{name} is not null'"
    )


# --- fill values --------------------------------------------------------------------


def check_fill(name: str, arrow_type: pa.DataType, value: Any) -> None:
    """Raise a `ConfigError` unless ``value`` can stand for a null of ``arrow_type``.

    Stricter than Arrow, which makes 1 of 1.5 for an integer.
    """
    if is_bfloat16(arrow_type):
        arrow_type = pa.float32()
    fits = isinstance(value, _accepted(arrow_type))
    if isinstance(value, bool | np.bool_) and not pa.types.is_boolean(arrow_type):
        fits = False
    if fits:
        try:
            made = pa.array([_arrow_value(arrow_type, value)], arrow_type)
            fits = made.null_count == 0 and not _overflowed(arrow_type, value, made)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            fits = False
    if not fits:
        raise ConfigError(
            f"nulls fills column {name!r} with {value!r} ({type(value).__name__}), "
            f"which is no value of its type, {arrow_type}: give one, and where columns "
            f"differ name each, nulls={{{name!r}: {{'fill': value}}}}"
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


def _arrow_value(arrow_type: pa.DataType, value: Any) -> Any:
    if pa.types.is_float16(arrow_type):
        with np.errstate(over="ignore"):  # found by `_overflowed`
            return np.float16(value)  # what older Arrow asks for
    return float(value) if pa.types.is_floating(arrow_type) else value


def _overflowed(arrow_type: pa.DataType, value: Any, made: pa.Array) -> bool:
    if not pa.types.is_floating(arrow_type):
        return False
    return bool(np.isinf(float(made[0].as_py())) and not np.isinf(float(value)))


def _stored_fill(
    name: str, leaf: pa.DataType, stored: np.dtype[Any], value: Any
) -> Any:
    """Return ``value`` as the column stores it."""
    check_fill(name, leaf, value)
    if is_bfloat16(leaf):
        made = torch.tensor(float(value), dtype=torch.bfloat16)
        return made.view(torch.int16).item()
    return _read(pa.array([_arrow_value(leaf, value)], leaf), stored)[0]


# --- text and bytes -----------------------------------------------------------------


def is_text(arrow_type: pa.DataType) -> bool:
    """Tell whether values of this type are `str`."""
    types = pa.types
    return bool(
        types.is_string(arrow_type)
        or types.is_large_string(arrow_type)
        or types.is_string_view(arrow_type)
    )


def is_bytes(arrow_type: pa.DataType) -> bool:
    """Tell whether values of this type are `bytes`."""
    types = pa.types
    return bool(
        types.is_binary(arrow_type)
        or types.is_large_binary(arrow_type)
        or types.is_binary_view(arrow_type)
        or types.is_fixed_size_binary(arrow_type)
    )


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of str or bytes: a list for torch, an object array for numpy."""

    name: str
    empty: str | bytes  # in the place of a null under a mask
    options: Options

    def suffixes(self) -> tuple[str, ...]:
        """Return the value's suffix, and the mask's where one was asked for."""
        return ("", "_mask") if self.options.nulls.policy == "mask" else ("",)

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Return one str or bytes a row, and a mask of shape (rows,)."""
        nulls = self.options.nulls
        values = array.to_numpy(zero_copy_only=False)
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        if array.null_count:
            if nulls.policy == "error":
                raise null_error(self.name, array.null_count, len(array))
            values[~valid] = nulls.value if nulls.policy == "fill" else self.empty
        out: dict[str, Any] = {"": values}
        if self.options.target == "torch":
            out[""] = values.tolist()
        if nulls.policy == "mask":
            out["_mask"] = from_numpy(valid, self.options.target)
        return out


def _texts(name: str, arrow_type: pa.DataType, options: Options) -> Texts | None:
    """Plan a column of str or bytes."""
    if not (is_text(arrow_type) or is_bytes(arrow_type)):
        return None
    _refuse_dtype(name, arrow_type, options)
    if options.nulls.policy == "fill":
        check_fill(name, arrow_type, options.nulls.value)
    return Texts(name, "" if is_text(arrow_type) else b"", options)


# --- columns that become another kind -----------------------------------------------


@dataclass(frozen=True, slots=True)
class Decoded:
    """A column that is one of another kind behind a function of its array."""

    decode: Callable[[pa.Array], pa.Array]
    column: Column

    def suffixes(self) -> tuple[str, ...]:
        """Return the suffixes of the other kind."""
        return self.column.suffixes()

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Decode, then convert as the other kind does."""
        return self.column.convert(self.decode(array))


def _dictionary(name: str, arrow_type: pa.DataType, options: Options) -> Decoded | None:
    """Plan a dictionary as what its values are: batches may differ in codes."""
    if not pa.types.is_dictionary(arrow_type):
        return None
    column = _plan(name, arrow_type.value_type, options)
    return Decoded(lambda array: array.dictionary_decode(), column)


def _extension(name: str, arrow_type: pa.DataType, options: Options) -> Decoded | None:
    """Plan an extension of no meaning here (JSON, UUID) as what it is stored as."""
    if not isinstance(arrow_type, pa.BaseExtensionType):
        return None
    column = _plan(name, arrow_type.storage_type, options)
    return Decoded(lambda array: array.storage, column)


def _decimal(name: str, arrow_type: pa.DataType, options: Options) -> Decoded | None:
    """Plan a decimal as floats, when told: float64 holds about 16 digits."""
    if not pa.types.is_decimal(arrow_type):
        return None
    if options.dtype is None:
        raise unsupported(
            name,
            arrow_type,
            "floats would lose digits of it unless dtype (by column, such as "
            f"{{{name!r}: 'float64'}}) says that they may",
        )
    _refuse_fractions(name, arrow_type, options.dtype)
    column = _plan(name, pa.float64(), options)
    return Decoded(lambda array: array.cast(pa.float64()), column)


# --- structs ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct: a dict of its fields' values, nested as deep as they are."""

    columns: dict[str, Column]

    def suffixes(self) -> tuple[str, ...]:
        """Return the value's suffix: masks lie inside it, beside their fields."""
        return ("",)

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Return a dict; a null struct makes all its fields null."""
        return {"": convert_columns(self.columns, array.flatten())}


def _struct(name: str, arrow_type: pa.DataType, options: Options) -> Struct | None:
    """Plan a struct field by field."""
    if not pa.types.is_struct(arrow_type):
        return None
    if arrow_type.num_fields == 0:
        raise unsupported(name, arrow_type, "it has no field")
    _refuse_dtype(name, arrow_type, options)
    fields = [arrow_type.field(i) for i in range(arrow_type.num_fields)]
    names = [field.name for field in fields]
    fills = options.nulls.value
    if options.nulls.policy == "fill" and (
        not isinstance(fills, Mapping) or set(fills) != set(names)
    ):
        raise ConfigError(
            f"nulls fills column {name!r} with {fills!r}, but it is a struct: give a "
            f"value for each of its fields, {', '.join(names)}"
        )

    def of_field(field: str) -> Options:
        if options.nulls.policy != "fill":
            return options
        return replace(options, nulls=Nulls("fill", fills[field]))

    return Struct(plan_columns(fields, of_field, f"{name}."))


def convert_columns(
    columns: Mapping[str, Column], arrays: Iterable[pa.Array]
) -> dict[str, Any]:
    """Return the window value of each column, masks beside their columns."""
    return {
        name + suffix: value
        for (name, column), array in zip(columns.items(), arrays, strict=True)
        for suffix, value in column.convert(array).items()
    }


# --- lists of unequal length --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ragged:
    """The lists of a window, from which each batch takes its own.

    Padding belongs to the batch: a batch is as wide as its own longest list, whatever
    window it came in.

    Args:
        values: All numbers end to end, shape (numbers, *row shape).
        offsets: Where each row's numbers begin and the last one's end, int64, shape
            (rows + 1,).
        policy: One of `RAGGED_POLICIES`.
        mask: Which numbers are valid, of the shape of ``values``; or None.
    """

    values: Any
    offsets: Any
    policy: str
    mask: Any = None

    def batch(self, start: int, stop: int) -> dict[str, Any]:
        """Return the value of rows ``start`` to ``stop``, by suffix."""
        offsets = self.offsets[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        parts = {"": self.values}
        if self.mask is not None:
            parts["_mask"] = self.mask
        if self.policy == "list":
            return {s: _split(v, offsets) for s, v in parts.items()}
        if self.policy == "values_offsets":
            flat = {s: v[first:last] for s, v in parts.items()}
            return {**flat, "_offsets": _minus(offsets, first)}
        lengths = np.diff(as_numpy(offsets))
        padded = {s: _pad(v[first:last], lengths) for s, v in parts.items()}
        return {**padded, "_lengths": _like(self.offsets, lengths)}

    def rows(self, start: int, stop: int) -> dict[str, list[Any]]:
        """Return each row's own numbers, by suffix: views, not padded."""
        offsets = self.offsets[start : stop + 1]
        out = {"": _split(self.values, offsets)}
        if self.mask is not None:
            out["_mask"] = _split(self.mask, offsets)
        return out


def as_numpy(value: Any) -> np.ndarray:
    """Return a tensor or array as an array, without a copy; bfloat16 as int16."""
    if isinstance(value, np.ndarray):
        return value
    if value.dtype is torch.bfloat16:
        value = value.view(torch.int16)
    array: np.ndarray = value.numpy()
    return array


def _like(value: Any, array: np.ndarray) -> Any:
    """Return ``array`` as what ``value`` is, a tensor or an array."""
    if isinstance(value, np.ndarray):
        return array
    found = torch.from_numpy(array)
    return found.view(torch.bfloat16) if value.dtype is torch.bfloat16 else found


def _minus(offsets: Any, first: int) -> Any:
    return _like(offsets, as_numpy(offsets) - first)


def _split(values: Any, offsets: Any) -> list[Any]:
    bounds = as_numpy(offsets).tolist()
    return [values[a:b] for a, b in itertools.pairwise(bounds)]


def _pad(values: Any, lengths: np.ndarray) -> Any:
    """Return rows as wide as the longest, zeros after the end of each."""
    flat = as_numpy(values)
    width = int(lengths.max(initial=0))
    out = np.zeros((len(lengths), width, *flat.shape[1:]), flat.dtype)
    out[np.arange(width) < lengths[:, None]] = flat
    return _like(values, out)


@dataclass(frozen=True, slots=True)
class Lists:
    """A column of lists of numbers."""

    name: str
    numbers: Column
    options: Options

    def suffixes(self) -> tuple[str, ...]:
        """Return the suffixes of a batch under the ragged policy."""
        extra = {"pad": ("_lengths",), "values_offsets": ("_offsets",), "list": ()}
        return (*self.numbers.suffixes(), *extra[self.options.ragged])

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Return a `Ragged`. A null list is one of no numbers, unless an error."""
        if array.null_count and self.options.nulls.policy == "error":
            raise null_error(self.name, array.null_count, len(array))
        lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        offsets = np.zeros(len(array) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        parts = self.numbers.convert(array.flatten())  # what lies under nulls left out
        offsets = from_numpy(offsets, self.options.target)
        ragged = self.options.ragged
        return {"": Ragged(parts[""], offsets, ragged, parts.get("_mask"))}


def _lists(name: str, arrow_type: pa.DataType, options: Options) -> Lists | None:
    """Plan a column of lists of numbers; lists of anything else are not defined."""
    types = pa.types
    if not (types.is_list(arrow_type) or types.is_large_list(arrow_type)):
        return None
    numbers_of = _numbers(name, arrow_type.value_type, options)
    return None if numbers_of is None else Lists(name, numbers_of, options)


_Kind = Callable[[str, pa.DataType, Options], Column | None]
_KINDS: tuple[_Kind, ...] = (
    _numbers,
    _texts,
    _dictionary,
    _decimal,
    _struct,
    _lists,
    _extension,
)


# --- windows ------------------------------------------------------------------------


def slice_columns(window: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Return rows ``start`` to ``stop`` of a converted window: views, no copies."""
    batch: dict[str, Any] = {}
    for name, value in window.items():
        if isinstance(value, Ragged):
            found = value.batch(start, stop)
            batch.update({name + suffix: part for suffix, part in found.items()})
        elif isinstance(value, dict):
            batch[name] = slice_columns(value, start, stop)
        else:
            batch[name] = value[start:stop]
    return batch


def rows_of_columns(
    window: Mapping[str, Any], start: int, stop: int
) -> list[dict[str, Any]]:
    """Return rows ``start`` to ``stop`` of a converted window, one dict a row."""
    columns: dict[str, Sequence[Any]] = {}
    for name, value in window.items():
        if isinstance(value, Ragged):
            found = value.rows(start, stop)
            columns.update({name + suffix: part for suffix, part in found.items()})
        elif isinstance(value, dict):
            columns[name] = rows_of_columns(value, start, stop)
        elif isinstance(value, torch.Tensor):
            columns[name] = value[start:stop].unbind(0)
        else:
            columns[name] = list(value[start:stop])
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]
