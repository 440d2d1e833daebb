"""Output formats: how a window of Arrow rows becomes batches.

A window is what `Format.convert` returns: many batches' rows, converted once. Each
batch is a slice of it: a view for torch, numpy and Arrow, whose rows belong only to
that batch, so that it may be changed in place. A `Format` plans its columns from the
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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from lance_lightning.arrow import UnorderedRows, is_bytes, refuse_blob
from lance_lightning.checks import check_one_of, require
from lance_lightning.columns import (
    CAST_DTYPES,
    IMAGE,
    ColumnOptions,
    Nulls,
    is_file,
    is_list_of,
    is_other_file,
)
from lance_lightning.errors import ConfigError
from lance_lightning.formats.by_column import BY_COLUMN, ByColumn, LastPlan
from lance_lightning.formats.from_arrow import FromArrow
from lance_lightning.formats.policies import (
    is_policy,
    is_ragged_policy,
    parse_nulls,
    parse_ragged,
    refuse_no_columns,
    refuse_unknown,
    values_of_policy,
)
from lance_lightning.formats.stacked import STACKED, Stacked
from lance_lightning.types import OUTPUT_FORMATS

_NUMBERS = (*BY_COLUMN, *STACKED)


class _Strategy(Protocol):
    """How the batches of some formats are made; `Format` says what each method is."""

    def check(self, schema: pa.Schema) -> None: ...

    def convert(self, rows: pa.RecordBatch | UnorderedRows) -> Any: ...

    def slice(self, window: Any, start: int, stop: int) -> Any: ...

    def rows(self, window: Any, start: int, stop: int) -> list[dict[str, Any]]: ...

    def num_rows(self, batch: Any) -> int: ...


@dataclass(frozen=True, slots=True)
class Format:
    """What the batches are and how Arrow becomes them.

    Args:
        name: The output format.
        nulls: ``"error"``; ``{"fill": value}``; ``"mask"``, only for torch and numpy:
            a bool tensor ``NAME_mask`` of the column's shape, True where a value is.
            One of them for all columns, or a mapping by column; columns that it does
            not name are treated as by default.
        ragged: For torch and numpy, what becomes of lists of unequal length, one for
            all or a mapping by column: ``"pad"``, zeros up to the batch's longest and
            ``NAME_lengths``; ``{"pad": value, "multiple": m}``, the same with another
            value and a width rounded up to a multiple of m; ``"values_offsets"``, all
            numbers end to end and ``NAME_offsets`` of rows + 1; ``"list"``, a list of
            one tensor per row; ``"nested"``, only for torch, a nested tensor.
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
    _plan: LastPlan = dataclasses.field(
        default_factory=LastPlan, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_one_of("output_format", self.name, OUTPUT_FORMATS)
        for policy in values_of_policy(self.nulls, is_policy(self.nulls)):
            if parse_nulls(policy).policy == "mask" and self.name not in BY_COLUMN:
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
        if self.name not in BY_COLUMN:
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
        fits = self.name in BY_COLUMN if by_column else self.name in _NUMBERS
        if self.name in BY_COLUMN and not by_column:
            fits = self.dtype.startswith("float")  # another would cut fractions off
        if not fits:
            raise ConfigError(
                f"dtype={self.dtype!r} does not fit output_format={self.name!r}: "
                "torch and numpy take one of floats, for all columns of floats, or a "
                "mapping from column to dtype; torch_row and torch_col take one dtype; "
                "the other formats take none"
            )

    def check(self, schema: pa.Schema) -> None:
        """Find out, only from the schema, whether its columns can be converted.

        Raises:
            ConfigError: An unknown column in an argument, a fill value of another
                type, a package that is not installed.
            DataError: A column whose type the format cannot hold; names the column,
                its type and the remedy.
        """
        refuse_no_columns(schema)
        for field in schema:
            refuse_blob(field)
        whole = {
            "nulls": is_policy(self.nulls),
            "ragged": is_ragged_policy(self.ragged),
        }
        for argument in ("nulls", "ragged", "dtype", "decoders"):
            given = getattr(self, argument)
            if isinstance(given, Mapping) and not whole.get(argument, False):
                refuse_unknown(argument, given, schema.names)
        if self.decoders is not None:
            self._check_decoded(schema)
        self._strategy.check(schema)

    def convert(self, rows: pa.RecordBatch | UnorderedRows) -> Any:
        """Return rows, any number of them, as a window to be sliced.

        torch and numpy windows share the rows' memory where they can, and may be
        written to: hand over memory that nobody else reads.

        Raises:
            DataError: Values or nulls that the format cannot hold.
        """
        return self._strategy.convert(rows)

    def slice(self, window: Any, start: int, stop: int) -> Any:
        """Return rows ``start`` to ``stop`` of a window as one batch."""
        return self._strategy.slice(window, start, stop)

    def rows(self, window: Any, start: int, stop: int) -> list[dict[str, Any]]:
        """Return rows ``start`` to ``stop`` of a window, one dict per row.

        Values are tensors (0-d where a row has one number) and str for the torch
        formats, numpy's own for numpy and Python's for all others. A list is as long
        as it is in the table.
        """
        return self._strategy.rows(window, start, stop)

    def num_rows(self, batch: Any) -> int:
        """Return how many rows a batch of this format has."""
        return self._strategy.num_rows(batch)

    @property
    def _strategy(self) -> _Strategy:
        """What makes the batches: the one place where the formats part."""
        if self.name in BY_COLUMN:
            return ByColumn(self._options, self._plan)
        if self.name in STACKED:
            return Stacked(self.name, self._options, self._plan)
        return FromArrow(self.name, self._nulls_of)

    def _nulls_of(self, name: str) -> Nulls | None:
        """Return what was said of one column's nulls; None where nothing was."""
        if is_policy(self.nulls):
            return None if self.nulls == "error" else parse_nulls(self.nulls)
        return parse_nulls(self.nulls[name]) if name in self.nulls else None

    def _options(self, name: str) -> ColumnOptions:
        ragged = self.ragged
        dtype, floats = self.dtype, None
        if isinstance(dtype, Mapping):
            dtype = dtype.get(name)
        elif self.name in BY_COLUMN:
            dtype, floats = None, dtype
        if not is_ragged_policy(ragged):
            ragged = ragged.get(name, "pad")
        kind, padding = parse_ragged(ragged)
        return ColumnOptions(
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


def _is_encoded(arrow_type: pa.DataType) -> bool:
    """Tell whether values are bytes, files, or lists of them."""
    if isinstance(arrow_type, pa.BaseExtensionType):
        return _is_encoded(arrow_type.storage_type)
    one = is_bytes(arrow_type) or is_file(arrow_type)
    return one or is_list_of(arrow_type, _is_encoded)
