"""Arrow columns to tensors or arrays, planned from the schema.

A column is planned from its Arrow type and then converted as often as data comes:
planning is the check, so that what cannot be converted is known before a row is
read. Each kind of column is one small class with one function that recognises it,
listed in `_KINDS`.

All work is numpy's and Arrow's on one array at a time, which start no threads: torch
operators would, in the background thread where this runs, take the cores from the
training step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lance_lightning.arrow import nested_type
from lance_lightning.columns.column import (
    Column,
    ColumnOptions,
    Nulls,
    refuse_dtype,
    unsupported,
)
from lance_lightning.columns.converted import convert_columns
from lance_lightning.columns.decoders import plan_decoded, plan_decoded_lists
from lance_lightning.columns.dtypes import refuse_fractions
from lance_lightning.columns.encoded_files import (
    bytes_of_file,
    bytes_of_files,
    is_file,
    is_list_of,
    with_shape,
)
from lance_lightning.columns.features import array_shape, feature_at
from lance_lightning.columns.lists import plan_lists
from lance_lightning.columns.numbers import plan_numbers
from lance_lightning.columns.python_values import plan_objects, plan_texts
from lance_lightning.errors import ConfigError


def plan_columns(
    fields: Iterable[pa.Field],
    options: Callable[[str], ColumnOptions],
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


def plan_field(field: pa.Field, options: ColumnOptions, parent: str = "") -> Column:
    """Return the plan of one field.

    Raises:
        ConfigError: A fill value of another type.
        DataError: A type that cannot be converted.
    """
    return _plan(parent + field.name, field.type, options)


def _plan(name: str, arrow_type: pa.DataType, options: ColumnOptions) -> Column:
    for kind in _KINDS:
        found = kind(name, arrow_type, options)
        if found is not None:
            return found
    raise unsupported(name, arrow_type, f"no {options.target} value of it is defined")


# --- columns that become another kind -----------------------------------------------


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A column that is one of another kind behind a function of its array."""

    decode: Callable[[pa.Array], pa.Array]
    column: Column

    def suffixes(self) -> tuple[str, ...]:
        """Return the suffixes of the other kind."""
        return self.column.suffixes()

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Decode, then convert as the other kind does."""
        return self.column.convert(self.decode(array))


def _array(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> Unwrapped | None:
    """Plan nested lists that are said to be arrays of one shape."""
    shape = array_shape(options.feature)
    if shape is None:
        return None
    storage = getattr(arrow_type, "storage_type", arrow_type)
    plain = replace(options, feature=None)
    column = _plan(name, nested_type(storage, shape), plain)
    return Unwrapped(lambda array: with_shape(name, array, shape), column)


def _file(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> Unwrapped | None:
    """Plan a struct of bytes and path as its bytes."""
    if not is_file(arrow_type):
        return None
    path = f"{name}.bytes"  # what a filter has to name, as the struct is no null
    column = _plan(path, arrow_type.field("bytes").type, options)
    return Unwrapped(lambda array: bytes_of_file(name, array), column)


def _files(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> Unwrapped | None:
    """Plan lists of such structs as lists of bytes."""
    if not is_list_of(arrow_type, is_file):
        return None
    kind = arrow_type.value_type.field("bytes").type
    column = _plan(name, pa.list_(kind), options)
    return Unwrapped(lambda array: bytes_of_files(name, array), column)


def _dictionary(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> Unwrapped | None:
    """Plan a dictionary as what its values are: batches may differ in codes."""
    if not pa.types.is_dictionary(arrow_type):
        return None
    column = _plan(name, arrow_type.value_type, options)
    return Unwrapped(lambda array: array.dictionary_decode(), column)


def _extension(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> Unwrapped | None:
    """Plan an extension of no meaning here (JSON, UUID) as what it is stored as."""
    if not isinstance(arrow_type, pa.BaseExtensionType):
        return None
    column = _plan(name, arrow_type.storage_type, options)
    return Unwrapped(lambda array: array.storage, column)


def _run_ends(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> Unwrapped | None:
    """Plan a run-end encoded column as what its values are."""
    if not pa.types.is_run_end_encoded(arrow_type):
        return None
    column = _plan(name, arrow_type.value_type, options)
    return Unwrapped(pc.run_end_decode, column)


def _decimal(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> Unwrapped | None:
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
    refuse_fractions(name, arrow_type, options.dtype)
    column = _plan(name, pa.float64(), options)
    return Unwrapped(lambda array: array.cast(pa.float64()), column)


# --- structs ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct: a dict of its fields' values, nested as deep as they are."""

    columns: dict[str, Column]

    def suffixes(self) -> tuple[str, ...]:
        """Return the value's suffix: masks are inside it, beside their fields."""
        return ("",)

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Return a dict; a null struct makes all its fields null."""
        return {"": convert_columns(self.columns, array.flatten())}


def _struct(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> Struct | None:
    """Plan a struct field by field."""
    if not pa.types.is_struct(arrow_type):
        return None
    if arrow_type.num_fields == 0:
        raise unsupported(name, arrow_type, "it has no field")
    refuse_dtype(name, arrow_type, options)
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

    def of_field(field: str) -> ColumnOptions:
        own = replace(options, feature=feature_at(options.feature, field))
        if options.nulls.policy != "fill":
            return own
        return replace(own, nulls=Nulls("fill", fills[field]))

    return Struct(plan_columns(fields, of_field, f"{name}."))


_Kind = Callable[[str, pa.DataType, ColumnOptions], Column | None]
_KINDS: tuple[_Kind, ...] = (
    _array,
    plan_numbers,
    plan_decoded,
    plan_decoded_lists,
    _file,
    _files,
    plan_texts,
    _dictionary,
    _decimal,
    _struct,
    plan_lists,
    plan_objects,
    _run_ends,
    _extension,
)
