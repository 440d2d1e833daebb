"""Output formats: how a window of Arrow rows becomes batches.

A window is what `Format.convert` returns: many batches' rows, converted once. Each
batch is a slice of it: a view for torch, numpy and Arrow, whose rows belong to that
batch alone, so that it may be changed in place. A `Format` plans its columns from the
schema, so `Format.check` finds before a row is read whatever cannot work.

| format | a batch | nulls, where nothing else is said |
|---|---|---|
| torch | dict of tensors (rows, *shape); lists of str and bytes; dicts | error |
| torch_row, torch_col | one tensor, (rows, C) or (C, rows) | error |
| numpy | dict of arrays; text as object arrays | error |
| python | torch's default collate of dicts of Python values | error |
| pandas | `DataFrame` of numpy's dtypes | error for ints and bools, else kept |
| arrow, polars | `pyarrow.RecordBatch`, `polars.DataFrame` | kept |
| python_col | dict of lists of Python values | kept |

numpy's ints and bools cannot hold null: pandas would make floats or objects of them in
those batches that have one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from lance_lightning.arrow import Unordered, is_bytes, ordered, refuse_blob
from lance_lightning.checks import check_one_of, require
from lance_lightning.columns import (
    CAST_DTYPES,
    IMAGE,
    Column,
    NullCount,
    Nulls,
    Options,
    as_numpy,
    convert_columns,
    count_nulls,
    is_file,
    is_list_of,
    is_other_file,
    nulls_error,
    plan_columns,
    plan_field,
    refuse_nanoseconds,
    rows_of_columns,
    slice_columns,
    unsupported,
    with_bytes_of_files,
)
from lance_lightning.errors import ConfigError
from lance_lightning.formats.batches import batch_size_of, collated_size
from lance_lightning.formats.from_arrow import (
    FROM_ARROW,
    check_arrow_fill,
    holds_uint64,
    refuse_uncollatable,
    refuse_unmade,
    to_rows,
)
from lance_lightning.formats.policies import (
    is_policy,
    is_ragged_policy,
    parse_nulls,
    parse_ragged,
    values_of_policy,
)
from lance_lightning.formats.stacked import Stacked, common_dtype, join, numbers_of
from lance_lightning.types import OUTPUT_FORMATS

_BY_COLUMN = ("numpy", "torch")
_STACKED = ("torch_col", "torch_row")
_NUMBERS = (*_BY_COLUMN, *_STACKED)
_EXTRAS = ("pandas", "polars")  # format, module and extra have one name


class _LastPlan:
    """The plan of the last schema: every window of a loader has the same."""

    def __init__(self) -> None:
        self._last: tuple[pa.Schema, dict[str, Column]] | None = None

    def of(
        self, schema: pa.Schema, plan: Callable[[pa.Schema], dict[str, Column]]
    ) -> dict[str, Column]:
        """Return the plan of a schema, made if it is another than the last."""
        last = self._last
        if last is None or last[0] != schema:
            last = self._last = schema, plan(schema)
        return last[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"_last": None}  # plans hold functions, which no worker can get


@dataclass(frozen=True, slots=True)
class Format:
    """What the batches are and how Arrow becomes them.

    Args:
        name: The output format.
        nulls: ``"error"``; ``{"fill": value}``; ``"mask"``, for torch and numpy alone:
            a bool tensor ``NAME_mask`` of the column's shape, True where a value is.
            One of them for all columns, or a mapping by column; columns that it does
            not name are treated as by default.
        ragged: For torch and numpy, what becomes of lists of unequal length, one for
            all or a mapping by column: ``"pad"``, zeros up to the batch's longest and
            ``NAME_lengths``; ``{"pad": value, "multiple": m}``, the same with another
            value and a width rounded up to a multiple of m; ``"values_offsets"``, all
            numbers end to end and ``NAME_offsets`` of rows + 1; ``"list"``, a list of
            one tensor a row; ``"nested"``, for torch alone, a nested tensor.
        dtype: The dtype of the one tensor of torch_row and torch_col. For torch and
            numpy the dtype of all columns of floats (also inside lists and structs),
            or a mapping from column to dtype, which columns of decimals need. Values
            are rounded to it; those that it cannot hold are an error. None keeps what
            the schema says.
        decoders: For torch and numpy, what becomes of columns of bytes: ``"image"``
            makes uint8 (3, H, W) of an encoded image, a function makes of a row's
            bytes what it returns. One for all columns of bytes, or a mapping by
            column. None leaves bytes as they are.
        features: What a Hugging Face dataset says that columns are, by column.

    Raises:
        ConfigError: A value that is none of these, or not of this format.
    """

    name: str = "torch"
    nulls: Any = "error"
    ragged: Any = "pad"
    dtype: Any = None
    decoders: Any = None
    features: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    _plan: _LastPlan = dataclasses.field(
        default_factory=_LastPlan, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_one_of("output_format", self.name, OUTPUT_FORMATS)
        for policy in values_of_policy(self.nulls, is_policy(self.nulls)):
            if parse_nulls(policy).policy == "mask" and self.name not in _BY_COLUMN:
                raise ConfigError(
                    f"nulls='mask' is for the formats torch and numpy, not for "
                    f"{self.name!r}: give {{'fill': value}}, or filter the nulls out"
                )
        for policy in values_of_policy(self.ragged, is_ragged_policy(self.ragged)):
            kind, _ = parse_ragged(policy)
            if kind == "nested" and self.name == "numpy":
                raise ConfigError(
                    "ragged='nested' makes torch's nested tensors, which numpy has "
                    "not: give 'values_offsets', or output_format='torch'"
                )
        self._check_dtype()
        self._check_decoders()

    def _check_decoders(self) -> None:
        if self.decoders is None:
            return
        if self.name not in _BY_COLUMN:
            raise ConfigError(
                f"decoders make tensors or arrays, which output_format={self.name!r} "
                "has none of: choose output_format='torch' or 'numpy', or leave "
                "decoders out and decode the bytes in a transform"
            )
        for decoder in values_of_policy(
            self.decoders, not isinstance(self.decoders, Mapping)
        ):
            if decoder is not None and decoder != IMAGE and not callable(decoder):
                raise ConfigError(
                    f"decoders must be {IMAGE!r} or a function of bytes, or a mapping "
                    f"from column to one of them, got {decoder!r}"
                )

    def _check_decoded(self, schema: pa.Schema) -> None:
        """Raise unless what is to be decoded is bytes, and can be."""
        by_column = isinstance(self.decoders, Mapping)
        given = self.decoders if by_column else {}
        for name in [name for name, decoder in given.items() if decoder is not None]:
            arrow_type = schema.field(name).type
            if not _is_encoded(arrow_type):
                raise ConfigError(
                    f"decoders names column {name!r}, whose type is {arrow_type}: only "
                    "columns of bytes can be decoded, and structs of bytes and path"
                )
        if not by_column and not any(map(_is_encoded, schema.types)):
            raise ConfigError(
                f"decoders={self.decoders!r} has nothing to decode: none of the "
                f"columns {', '.join(schema.names)} is bytes"
            )
        if IMAGE in values_of_policy(self.decoders, not by_column):
            require("PIL", "decoders='image'", "images")

    def _check_dtype(self) -> None:
        if self.dtype is None:
            return
        by_column = isinstance(self.dtype, Mapping)
        for dtype in values_of_policy(self.dtype, not by_column):
            check_one_of("dtype", dtype, CAST_DTYPES)
        fits = self.name in _BY_COLUMN if by_column else self.name in _NUMBERS
        if self.name in _BY_COLUMN and not by_column:
            fits = self.dtype.startswith("float")  # another would cut fractions off
        if not fits:
            raise ConfigError(
                f"dtype={self.dtype!r} does not fit output_format={self.name!r}: "
                "torch and numpy take one of floats, for all columns of floats, or a "
                "mapping from column to dtype; torch_row and torch_col take one dtype; "
                "the other formats take none"
            )

    def check(self, schema: pa.Schema) -> None:
        """Find out from the schema alone whether its columns can be converted.

        Raises:
            ConfigError: An unknown column in an argument, a fill value of another
                type, a package that is not installed.
            DataError: A column whose type the format cannot hold; names the column,
                its type and the remedy.
        """
        _refuse_no_columns(schema)
        for field in schema:
            refuse_blob(field)
        whole = {
            "nulls": is_policy(self.nulls),
            "ragged": is_ragged_policy(self.ragged),
        }
        for argument in ("nulls", "ragged", "dtype", "decoders"):
            given = getattr(self, argument)
            if isinstance(given, Mapping) and not whole.get(argument, False):
                _refuse_unknown(argument, given, schema.names)
        if self.decoders is not None:
            self._check_decoded(schema)
        if self.name in _STACKED:
            self._plan.of(schema, self._plan_stacked)
        elif self.name in _BY_COLUMN:
            self._plan.of(schema, self._plan_by_column)
        else:
            self._check_arrow(schema)

    def convert(self, rows: pa.RecordBatch | Unordered) -> Any:
        """Return rows, any number of them, as a window to be sliced.

        torch and numpy windows share the rows' memory where they can, and may be
        written to: hand over memory that nobody else reads.

        Raises:
            DataError: Values or nulls that the format cannot hold.
        """
        if self.name in _STACKED:
            return self._stack(ordered(rows))
        if self.name in _BY_COLUMN:
            columns = self._plan.of(rows.schema, self._plan_by_column)
            if isinstance(rows, Unordered):
                arrays = rows.batch.columns
                return convert_columns(columns, arrays, rows.others, rows.order)
            return convert_columns(columns, rows.columns)
        if isinstance(rows, Unordered):
            settled = self._with_nulls_settled(rows.batch)
            return dataclasses.replace(rows, batch=settled)
        return self._with_nulls_settled(rows)

    def slice(self, window: Any, start: int, stop: int) -> Any:
        """Return rows ``start`` to ``stop`` of a window as one batch."""
        if isinstance(window, Stacked):
            return window.slice(start, stop)
        if self.name in _BY_COLUMN:
            return slice_columns(window, start, stop)
        return FROM_ARROW[self.name](window.slice(start, stop - start))

    def rows(self, window: Any, start: int, stop: int) -> list[dict[str, Any]]:
        """Return rows ``start`` to ``stop`` of a window, one dict a row.

        Values are tensors (0-d where a row has one number) and str for the torch
        formats, numpy's own for numpy and Python's for all others. A list is as long
        as it is in the table.
        """
        if isinstance(window, Stacked):
            return window.rows(start, stop)
        if self.name in _BY_COLUMN:
            return rows_of_columns(window, start, stop)
        return to_rows(window.slice(start, stop - start))

    def num_rows(self, batch: Any) -> int:
        """Return how many rows a batch of this format has."""
        if self.name == "torch_col":
            return int(batch.shape[1])
        size = collated_size(batch) if self.name == "python" else batch_size_of(batch)
        return size or 0

    def _nulls_of(self, name: str) -> Nulls | None:
        """Return what was said of one column's nulls; None where nothing was."""
        if is_policy(self.nulls):
            return None if self.nulls == "error" else parse_nulls(self.nulls)
        return parse_nulls(self.nulls[name]) if name in self.nulls else None

    def _plan_by_column(self, schema: pa.Schema) -> dict[str, Column]:
        return plan_columns(schema, self._options)

    def _options(self, name: str) -> Options:
        ragged = self.ragged
        dtype, floats = self.dtype, None
        if isinstance(dtype, Mapping):
            dtype = dtype.get(name)
        elif self.name in _BY_COLUMN:
            dtype, floats = None, dtype
        if not is_ragged_policy(ragged):
            ragged = ragged.get(name, "pad")
        kind, padding = parse_ragged(ragged)
        return Options(
            target="numpy" if self.name == "numpy" else "torch",
            nulls=self._nulls_of(name) or Nulls(),
            ragged=kind,
            padding=padding,
            dtype=dtype,
            floats=floats,
            decoder=self.decoder_of(name),
            feature=self.features.get(name),
        )

    def decoder_of(self, name: str) -> Any:
        """Return what decodes a column; None where nothing does."""
        if isinstance(self.decoders, Mapping):
            return self.decoders.get(name)
        other = self.decoders == IMAGE and is_other_file(self.features.get(name))
        return None if other else self.decoders

    # torch_row and torch_col

    def _plan_stacked(self, schema: pa.Schema) -> dict[str, Column]:
        _refuse_no_columns(schema)
        columns = plan_columns(schema, self._options)
        dtypes: dict[str, torch.dtype] = {}
        for name, column in columns.items():
            found = numbers_of(column)
            if found is None or found.number.tensor is None:
                arrow_type = schema.field(name).type
                why = f"{self.name} stacks columns of numbers into one tensor"
                raise unsupported(name, arrow_type, why)
            dtypes[name] = found.number.tensor
        if len(set(dtypes.values())) == 1:
            return columns
        dtype = common_dtype(self.name, dtypes)
        return dataclasses.replace(self, dtype=dtype)._plan_stacked(schema)

    def _stack(self, batch: pa.RecordBatch) -> Stacked:
        columns = self._plan.of(batch.schema, self._plan_stacked)
        shapes, parts = {}, []
        values = convert_columns(columns, batch.columns)
        for name, array in zip(columns, batch.columns, strict=True):
            value = values[name]
            shapes[name] = tuple(value.shape[1:])
            width = math.prod(shapes[name])
            parts.append(as_numpy(value).reshape(len(array), width))
        by_row = self.name == "torch_row"
        stacked = torch.from_numpy(join(parts, by_row))
        if value.dtype is torch.bfloat16:
            stacked = stacked.view(torch.bfloat16)
        return Stacked(stacked, shapes, by_row)

    # formats that are made of Arrow batch by batch

    def _check_arrow(self, schema: pa.Schema) -> None:
        if self.name in _EXTRAS:
            require(self.name, f"output_format={self.name!r}", self.name)
        for field in schema:
            nulls = self._nulls_of(field.name)
            if nulls is not None and nulls.policy == "fill":
                check_arrow_fill(field, nulls.value)
            if self.name == "python":
                refuse_uncollatable(field.name, field.type)
            elif self.name == "python_col":
                refuse_nanoseconds(field.name, field.type)
            elif self.name in _EXTRAS:
                refuse_unmade(self.name, field)

    def _with_nulls_settled(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return ``batch`` with nulls filled, where they are neither kept nor wrong."""
        columns, missing, fields = [], [], []
        for field, array in zip(batch.schema, batch.columns, strict=True):
            if self.name == "python":
                array = with_bytes_of_files(field.name, array)
                if array.type != field.type:
                    field = pa.field(field.name, array.type)
            nulls = self._nulls_of(field.name)
            if nulls is not None and nulls.policy == "fill":
                array = pc.fill_null(array, pa.scalar(nulls.value, field.type))
            elif nulls is not None or self._refuses_null(field.type):
                missing += _nulls_in(field.name, array)
            elif self.name == "pandas":
                leaf, count = _leaves(array)
                if self._refuses_null(leaf):
                    inside = not array.null_count
                    counted = NullCount(field.name, count, len(array), inside)
                    missing += [counted] if count else []
            if self.name == "python" and holds_uint64(field.type):
                # Only for its check: Python's integers have no upper end, torch's do.
                plan_field(field, Options("torch")).convert(array)
            columns.append(array)
            fields.append(field)
        if missing:
            raise nulls_error(missing)
        schema = pa.schema(fields, batch.schema.metadata)
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _refuses_null(self, arrow_type: pa.DataType) -> bool:
        types = pa.types
        whole = types.is_integer(arrow_type) or types.is_boolean(arrow_type)
        return self.name == "python" or (self.name == "pandas" and whole)


def _nulls_in(name: str, array: pa.Array) -> list[NullCount]:
    """Return the nulls of a column; of a struct those of each field, for a filter."""
    if pa.types.is_struct(array.type) and array.type.num_fields:
        found = []
        for field, part in zip(array.type, array.flatten(), strict=True):
            found += _nulls_in(f"{name}.{field.name}", part)
        return found
    count = count_nulls(array)
    inside = not array.null_count
    return [NullCount(name, count, len(array), inside)] if count else []


def _leaves(array: pa.Array) -> tuple[pa.DataType, int]:
    """Return what lists hold, and the nulls among it; pandas counts a null row too."""
    types, count = pa.types, 0
    while (
        types.is_list(array.type)
        or types.is_large_list(array.type)
        or types.is_fixed_size_list(array.type)
    ):
        # A null row of a fixed size is that many nulls to numpy, another is none.
        count += array.null_count if types.is_fixed_size_list(array.type) else 0
        array = array.flatten()
    return array.type, count + array.null_count


def _refuse_no_columns(schema: pa.Schema) -> None:
    if len(schema) == 0:
        raise ConfigError("no column is left to read: name some in columns=[...]")


def _refuse_unknown(argument: str, given: Mapping[str, Any], names: list[str]) -> None:
    for name in given:
        if name not in names:
            raise ConfigError(
                f"{argument} names column {name!r}, which is not read; the columns "
                f"are {', '.join(names)}"
            )


def _is_encoded(arrow_type: pa.DataType) -> bool:
    """Tell whether values are bytes, files, or lists of them."""
    if isinstance(arrow_type, pa.BaseExtensionType):
        return _is_encoded(arrow_type.storage_type)
    one = is_bytes(arrow_type) or is_file(arrow_type)
    return one or is_list_of(arrow_type, _is_encoded)
