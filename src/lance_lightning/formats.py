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

import copy
import dataclasses
import importlib
import math
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.utils.data import default_collate

from lance_lightning import tensors
from lance_lightning.tensors import Column, Nulls, Numbers, Options
from lance_lightning.types import (
    OUTPUT_FORMATS,
    ConfigError,
    DataError,
    check_one_of,
)

_BY_COLUMN = ("numpy", "torch")
_STACKED = ("torch_col", "torch_row")
_EXTRAS = ("pandas", "polars")  # format, module and extra have one name


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
            ``NAME_lengths``; ``"values_offsets"``, all numbers end to end and
            ``NAME_offsets`` of rows + 1; ``"list"``, a list of one tensor a row.
        dtype: The dtype of the one tensor of torch_row and torch_col; for torch and
            numpy a mapping from column to dtype. Columns of decimals need it. None
            keeps what the schema says.

    Raises:
        ConfigError: A value that is none of these, or not of this format.
    """

    name: str = "torch"
    nulls: Any = "error"
    ragged: Any = "pad"
    dtype: Any = None

    def __post_init__(self) -> None:
        check_one_of("output_format", self.name, OUTPUT_FORMATS)
        for policy in _values(self.nulls, _is_policy(self.nulls)):
            if parse_nulls(policy).policy == "mask" and self.name not in _BY_COLUMN:
                raise ConfigError(
                    f"nulls='mask' is for the formats torch and numpy, not for "
                    f"{self.name!r}: give {{'fill': value}}, or filter the nulls out"
                )
        for policy in _values(self.ragged, not isinstance(self.ragged, Mapping)):
            check_one_of("ragged", policy, tensors.RAGGED_POLICIES)
        self._check_dtype()

    def _check_dtype(self) -> None:
        if self.dtype is None:
            return
        by_column = isinstance(self.dtype, Mapping)
        if self.name not in (_BY_COLUMN if by_column else _STACKED):
            raise ConfigError(
                f"dtype={self.dtype!r} does not fit output_format={self.name!r}: "
                "torch_row and torch_col take one dtype, torch and numpy a mapping "
                "from column to dtype, and the other formats none"
            )
        for dtype in _values(self.dtype, not by_column):
            check_one_of("dtype", dtype, tensors.CAST_DTYPES)

    def check(self, schema: pa.Schema) -> None:
        """Find out from the schema alone whether its columns can be converted.

        Raises:
            ConfigError: An unknown column in an argument, a fill value of another
                type, a package that is not installed.
            DataError: A column whose type the format cannot hold; names the column,
                its type and the remedy.
        """
        _refuse_no_columns(schema)
        whole = {"nulls": _is_policy(self.nulls)}
        for argument in ("nulls", "ragged", "dtype"):
            given = getattr(self, argument)
            if isinstance(given, Mapping) and not whole.get(argument, False):
                _refuse_unknown(argument, given, schema.names)
        if self.name in _STACKED:
            self._plan_stacked(schema)
        elif self.name in _BY_COLUMN:
            tensors.plan_columns(schema, self._options)
        else:
            self._check_arrow(schema)

    def convert(self, batch: pa.RecordBatch) -> Any:
        """Return ``batch``, any number of rows, as a window to be sliced.

        torch and numpy windows share ``batch``'s memory where they can, and may be
        written to: hand over memory that nobody else reads.

        Raises:
            DataError: Values or nulls that the format cannot hold.
        """
        if self.name in _STACKED:
            return self._stack(batch)
        if self.name in _BY_COLUMN:
            columns = tensors.plan_columns(batch.schema, self._options)
            return tensors.convert_columns(columns, batch.columns)
        return self._with_nulls_settled(batch)

    def slice(self, window: Any, start: int, stop: int) -> Any:
        """Return rows ``start`` to ``stop`` of a window as one batch."""
        if isinstance(window, Stacked):
            return window.slice(start, stop)
        if self.name in _BY_COLUMN:
            return tensors.slice_columns(window, start, stop)
        return _FROM_ARROW[self.name](window.slice(start, stop - start))

    def rows(self, window: Any, start: int, stop: int) -> list[dict[str, Any]]:
        """Return rows ``start`` to ``stop`` of a window, one dict a row.

        Values are tensors (0-d where a row has one number) and str for the torch
        formats, numpy's own for numpy and Python's for all others. A list is as long
        as it is in the table.
        """
        if isinstance(window, Stacked):
            return window.rows(start, stop)
        if self.name in _BY_COLUMN:
            return tensors.rows_of_columns(window, start, stop)
        found = without_extensions(window.slice(start, stop - start)).to_pylist()
        return cast("list[dict[str, Any]]", found)

    def num_rows(self, batch: Any) -> int:
        """Return how many rows a batch of this format has."""
        if self.name == "torch_col":
            return int(batch.shape[1])
        size = _collated_size(batch) if self.name == "python" else batch_size_of(batch)
        return size or 0

    def _nulls_of(self, name: str) -> Nulls | None:
        """Return what was said of one column's nulls; None where nothing was."""
        if _is_policy(self.nulls):
            return None if self.nulls == "error" else parse_nulls(self.nulls)
        return parse_nulls(self.nulls[name]) if name in self.nulls else None

    def _options(self, name: str) -> Options:
        ragged, dtype = self.ragged, self.dtype
        return Options(
            target="numpy" if self.name == "numpy" else "torch",
            nulls=self._nulls_of(name) or Nulls(),
            ragged=ragged.get(name, "pad") if isinstance(ragged, Mapping) else ragged,
            dtype=dtype.get(name) if isinstance(dtype, Mapping) else dtype,
        )

    # torch_row and torch_col

    def _plan_stacked(self, schema: pa.Schema) -> dict[str, Column]:
        _refuse_no_columns(schema)
        columns = tensors.plan_columns(schema, self._options)
        dtypes: dict[str, torch.dtype] = {}
        for name, column in columns.items():
            found = _numbers_of(column)
            if found is None or found.number.tensor is None:
                arrow_type = schema.field(name).type
                why = f"{self.name} stacks columns of numbers into one tensor"
                raise tensors.unsupported(name, arrow_type, why)
            dtypes[name] = found.number.tensor
        if len(set(dtypes.values())) == 1:
            return columns
        dtype = _common_dtype(self.name, dtypes)
        return dataclasses.replace(self, dtype=dtype)._plan_stacked(schema)

    def _stack(self, batch: pa.RecordBatch) -> Stacked:
        columns = self._plan_stacked(batch.schema)
        shapes, parts = {}, []
        for (name, column), array in zip(columns.items(), batch.columns, strict=True):
            value = column.convert(array)[""]
            shapes[name] = tuple(value.shape[1:])
            width = math.prod(shapes[name])
            parts.append(tensors.as_numpy(value).reshape(len(array), width))
        by_row = self.name == "torch_row"
        stacked = torch.from_numpy(_join(parts, by_row))
        if value.dtype is torch.bfloat16:
            stacked = stacked.view(torch.bfloat16)
        return Stacked(stacked, shapes, by_row)

    # formats that are made of Arrow batch by batch

    def _check_arrow(self, schema: pa.Schema) -> None:
        if self.name in _EXTRAS:
            require(self.name)
        for field in schema:
            tensors.refuse_blob(field, field.name)
            nulls = self._nulls_of(field.name)
            if nulls is not None and nulls.policy == "fill":
                _check_arrow_fill(field, nulls.value)
            if self.name == "python":
                _refuse_uncollatable(field.name, field.type)
            elif self.name in _EXTRAS:
                _refuse_unmade(self.name, field)

    def _with_nulls_settled(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return ``batch`` with nulls filled, where they are neither kept nor wrong."""
        columns = []
        for field, array in zip(batch.schema, batch.columns, strict=True):
            nulls = self._nulls_of(field.name)
            if nulls is not None and nulls.policy == "fill":
                array = pc.fill_null(array, pa.scalar(nulls.value, field.type))
            elif nulls is not None or self._refuses_null(field.type):
                count = count_nulls(array)
                if count:
                    raise tensors.null_error(field.name, count, len(array))
            if self.name == "python" and _holds_uint64(field.type):
                # Only for its check: Python's integers have no upper end, torch's do.
                tensors.plan_field(field, Options("torch")).convert(array)
            columns.append(array)
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)

    def _refuses_null(self, arrow_type: pa.DataType) -> bool:
        types = pa.types
        whole = types.is_integer(arrow_type) or types.is_boolean(arrow_type)
        return self.name == "python" or (self.name == "pandas" and whole)


# --- arguments ----------------------------------------------------------------------


def parse_nulls(policy: Any) -> Nulls:
    """Return one null policy as a value.

    Raises:
        ConfigError: It is none of the policies.
    """
    if policy in ("error", "mask"):
        return Nulls(policy)
    if isinstance(policy, Mapping) and set(policy) == {"fill"}:
        if policy["fill"] is None:
            raise ConfigError("nulls={'fill': None} would fill null with null")
        return Nulls("fill", policy["fill"])
    raise ConfigError(
        f"nulls must be 'error', 'mask' or {{'fill': value}}, or a mapping from column "
        f"to one of them, got {policy!r}"
    )


def _is_policy(nulls: Any) -> bool:
    """Tell one policy for all columns from a mapping by column.

    ``{"fill": {"fill": 0}}`` is a column of the name "fill".
    """
    if not isinstance(nulls, Mapping):
        return True
    value = nulls.get("fill")
    inner = isinstance(value, Mapping) and set(value) == {"fill"}
    return set(nulls) == {"fill"} and not inner


def _values(argument: Any, whole: bool) -> list[Any]:
    return [argument] if whole else list(argument.values())


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


def require(name: str) -> Any:
    """Import an optional package.

    Raises:
        ConfigError: It is not installed; names the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"output_format={name!r} needs {name}, which cannot be imported ({error}): "
            f"pip install 'lance-lightning[{name}]'"
        ) from error


# --- one tensor of all columns ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stacked:
    """A window of torch_row or torch_col.

    Args:
        tensor: Shape (rows, C), or (C, rows).
        shapes: The shape of one row of each column; their sizes sum to C.
        by_row: The rows come first.
    """

    tensor: torch.Tensor
    shapes: dict[str, tuple[int, ...]]
    by_row: bool

    def slice(self, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start`` to ``stop``, a view."""
        return self.tensor.narrow(0 if self.by_row else 1, start, stop - start)

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return rows ``start`` to ``stop`` as dicts of their columns."""
        found = self.slice(start, stop)
        if not self.by_row:
            found = found.T
        widths = [math.prod(shape) for shape in self.shapes.values()]
        parts = [
            part.reshape(stop - start, *shape).unbind(0)
            for part, shape in zip(
                torch.split(found, widths, 1), self.shapes.values(), strict=True
            )
        ]
        return [
            dict(zip(self.shapes, row, strict=True)) for row in zip(*parts, strict=True)
        ]


def _numbers_of(column: Column) -> Numbers | None:
    while isinstance(column, tensors.Decoded):
        column = column.column
    return column if isinstance(column, Numbers) else None


def _common_dtype(name: str, dtypes: Mapping[str, torch.dtype]) -> str:
    """Return the dtype that holds every column's digits.

    numpy's promotion, but for 64-bit integers beside floats: float64 has 53 bits.
    """
    names = [str(dtype).removeprefix("torch.") for dtype in dtypes.values()]
    common = np.result_type(*(n.replace("bfloat16", "float32") for n in names))
    if common.kind == "f" and "int64" in names:
        listed = ", ".join(f"{c}: {n}" for c, n in zip(dtypes, names, strict=True))
        raise DataError(
            f"output_format={name!r} makes one tensor of all columns, and {common} "
            f"would lose digits of int64 ({listed}): set dtype='float32' or another, "
            "choose columns of one dtype with columns=[...], or output_format='torch'"
        )
    return str(common)


def _join(parts: list[np.ndarray], by_row: bool) -> np.ndarray:
    """Join arrays of shape (rows, width); one alone is not copied."""
    if len(parts) == 1:
        return parts[0] if by_row else parts[0].T
    rows, width = len(parts[0]), sum(part.shape[1] for part in parts)
    # ``out``, since numpy would take the order of memory from the transposed parts.
    if by_row:
        out = np.empty((rows, width), parts[0].dtype)
        return np.concatenate(parts, axis=1, out=out)
    out = np.empty((width, rows), parts[0].dtype)
    return np.concatenate([part.T for part in parts], axis=0, out=out)


# --- formats that are made of Arrow batch by batch ----------------------------------


def _to_polars(batch: pa.RecordBatch) -> Any:
    import polars

    return polars.from_arrow(without_extensions(batch))


def _to_pandas(batch: pa.RecordBatch) -> Any:
    return without_extensions(batch).to_pandas(use_threads=False)


def _to_python(batch: pa.RecordBatch) -> dict[str, Any]:
    rows = without_extensions(batch).to_pylist()
    if not rows:
        return {name: [] for name in batch.schema.names}
    return cast("dict[str, Any]", default_collate(rows))


def _to_python_columns(batch: pa.RecordBatch) -> dict[str, list[Any]]:
    return cast("dict[str, list[Any]]", without_extensions(batch).to_pydict())


def _to_arrow(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


_FROM_ARROW: dict[str, Callable[[pa.RecordBatch], Any]] = {
    "arrow": _to_arrow,
    "pandas": _to_pandas,
    "polars": _to_polars,
    "python": _to_python,
    "python_col": _to_python_columns,
}


def without_extensions(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return ``batch`` with tensors as nested lists and bfloat16 as float32.

    Without metadata too: what pandas left there would make an index of a column.
    """
    columns = [_plain(array) for array in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _plain(array: pa.Array) -> pa.Array:
    arrow_type = array.type
    if isinstance(arrow_type, pa.FixedShapeTensorType):
        return _nested(array, tensors.layout_of(arrow_type))
    if tensors.is_bfloat16(arrow_type):
        wide = tensors.Options("numpy", Nulls("mask"))
        found = tensors.plan_field(pa.field("", arrow_type), wide).convert(array)
        return pa.array(found[""], pa.float32(), mask=~found["_mask"])
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage)
    if pa.types.is_fixed_size_list(arrow_type):
        size = arrow_type.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        plain = _plain(values)
        return array if plain is values else _lists_of(plain, size, array)
    if pa.types.is_struct(arrow_type):
        fields = [array.field(i) for i in range(arrow_type.num_fields)]
        plain_fields = [_plain(field) for field in fields]
        if all(a is b for a, b in zip(fields, plain_fields, strict=True)):
            return array
        names = [arrow_type.field(i).name for i in range(arrow_type.num_fields)]
        return pa.StructArray.from_arrays(plain_fields, names, mask=array.is_null())
    return array


def _nested(array: pa.Array, layout: tensors.Layout) -> pa.Array:
    """Return fixed-shape tensors as fixed-size lists within lists."""
    storage = array.storage
    size = math.prod(layout.shape)
    values = storage.values.slice(storage.offset * size, len(array) * size)
    if layout.axes != tuple(range(len(layout.axes))):
        places = np.arange(len(values)).reshape(len(array), *layout.shape)
        order = places.transpose(0, *(axis + 1 for axis in layout.axes))
        values = values.take(pa.array(order.reshape(-1)))
    values = _plain(values)
    for inner in reversed(layout.row_shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, inner)
    return _lists_of(values, layout.row_shape[0], array)


def _lists_of(values: pa.Array, size: int, like: pa.Array) -> pa.Array:
    mask = like.is_null() if like.null_count else None
    return pa.FixedSizeListArray.from_arrays(values, size, mask=mask)


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
        return count_nulls(array.items)
    return count_nulls(array.flatten()) if hasattr(array, "flatten") else 0


def _holds_uint64(arrow_type: pa.DataType) -> bool:
    return bool(pa.types.is_uint64(tensors.layout_of(arrow_type).leaf))


def _check_arrow_fill(field: pa.Field, value: Any) -> None:
    nested = pa.types.is_nested(field.type) or pa.types.is_dictionary(field.type)
    if nested or isinstance(field.type, pa.BaseExtensionType):
        raise _unfilled(field)
    tensors.check_fill(field.name, field.type, value)
    try:
        pc.fill_null(pa.nulls(1, field.type), pa.scalar(value, field.type))
    except pa.ArrowNotImplementedError:
        raise _unfilled(field) from None


def _unfilled(field: pa.Field) -> DataError:
    return DataError(
        f"nulls of column {field.name!r} ({field.type}) cannot be filled in this "
        "format: choose output_format='torch' or 'numpy', or fill them in SQL, "
        f"columns={{{field.name!r}: 'coalesce({field.name}, ...)'}}"
    )


def _refuse_uncollatable(name: str, arrow_type: pa.DataType) -> None:
    """Raise a `DataError` where torch's default collate would fail."""
    types = pa.types
    if isinstance(arrow_type, pa.FixedShapeTensorType) or types.is_fixed_size_list(
        arrow_type
    ):
        return _refuse_uncollatable(name, arrow_type.value_type)
    if types.is_dictionary(arrow_type):
        return _refuse_uncollatable(name, arrow_type.value_type)
    if types.is_struct(arrow_type):
        for field in arrow_type:
            _refuse_uncollatable(f"{name}.{field.name}", field.type)
        return None
    if tensors.is_bfloat16(arrow_type):
        return None
    if isinstance(arrow_type, pa.BaseExtensionType):
        return _refuse_uncollatable(name, arrow_type.storage_type)
    number = types.is_integer(arrow_type) or types.is_floating(arrow_type)
    if number or types.is_boolean(arrow_type):
        return None
    if tensors.is_text(arrow_type) or tensors.is_bytes(arrow_type):
        return None
    why = "torch's default collate takes no such Python value"
    if types.is_list(arrow_type) or types.is_large_list(arrow_type):
        why = "torch's default collate needs lists of one length"
    raise tensors.unsupported(name, arrow_type, why)


def _refuse_unmade(name: str, field: pa.Field) -> None:
    """Raise a `DataError` where a DataFrame of no rows cannot be made either."""
    why = f"{name} has no such type"
    if name == "polars" and pa.types.is_decimal256(field.type):
        # Found by trying, polars would print a stack trace of Rust.
        raise tensors.unsupported(field.name, field.type, why)
    empty = pa.RecordBatch.from_arrays([pa.nulls(0, field.type)], [field.name])
    try:
        _FROM_ARROW[name](empty)
    except BaseException as error:
        # polars' PanicException is no `Exception`.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        why = f"{name} cannot be made of it ({error})"
        raise tensors.unsupported(field.name, field.type, why) from error


# --- batches of any kind ------------------------------------------------------------

_LEAF_MODULES = frozenset({"PIL", "numpy", "pandas", "polars", "pyarrow"})
_LEAF_TYPES = (str, bytes, bytearray, memoryview, int, float, complex, type(None))


def is_leaf(value: Any) -> bool:
    """Tell whether a value has no tensor in it and goes to no device.

    Text, bytes, numbers, None, and all that belongs to numpy, Arrow, pandas, polars and
    Pillow. None of these is imported for it.
    """
    if isinstance(value, _LEAF_TYPES):
        return True
    owners = (kind.__module__.partition(".")[0] for kind in type(value).__mro__)
    return not _LEAF_MODULES.isdisjoint(owners)


def move(batch: Any, function: Callable[[Any], Any]) -> Any:
    """Return ``batch`` with ``function`` applied to each tensor in it.

    Walks mappings, lists, tuples, named tuples and dataclasses, and makes new ones.
    What has a ``to`` method of its own (a `PackedSequence`, a tokenizer's
    ``BatchEncoding``) goes to ``function`` whole. All else is handed on as it is.
    """
    if is_leaf(batch) or isinstance(batch, type):
        return batch
    if isinstance(batch, torch.Tensor) or callable(getattr(batch, "to", None)):
        return function(batch)
    if isinstance(batch, Mapping):
        moved = {key: move(value, function) for key, value in batch.items()}
        return _like_mapping(batch, moved)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(value, function) for value in batch))
    if isinstance(batch, list) and all(isinstance(v, _LEAF_TYPES) for v in batch):
        return batch  # a window's texts are many
    if isinstance(batch, list | tuple):
        return type(batch)(move(value, function) for value in batch)
    if dataclasses.is_dataclass(batch):
        clone = copy.copy(batch)
        for field in dataclasses.fields(batch):
            value = move(getattr(batch, field.name), function)
            object.__setattr__(clone, field.name, value)  # frozen ones too
        return clone
    return batch


def _like_mapping(batch: Mapping[Any, Any], moved: dict[Any, Any]) -> Any:
    if type(batch) is dict or not isinstance(batch, MutableMapping):
        return moved
    clone = copy.copy(batch)  # keeps, say, a default dict's factory
    clone.update(moved)
    return clone


def batch_size_of(batch: Any) -> int | None:
    """Return the number of rows of a batch, or None where it does not tell.

    Tensors and arrays count along their first axis, which is wrong for a torch_col
    batch (`Format.num_rows` knows better); DataFrames and Arrow their rows; mappings
    and tuples as the first value in them that tells; lists their length, but for a
    list of tensors that is a whole batch: that is one of columns, as from torch's
    default collate.
    """
    if isinstance(batch, Mapping):
        return _mapping_size(batch)
    if isinstance(batch, tuple) or _of_tensors(batch):
        sizes = (batch_size_of(value) for value in batch)
        return next((size for size in sizes if size is not None), None)
    return _plain_size(batch)


def _plain_size(value: Any) -> int | None:
    if isinstance(value, torch.Tensor | np.ndarray):
        return int(value.shape[0]) if value.ndim else None
    if isinstance(value, list):
        return len(value)
    if isinstance(value, _LEAF_TYPES) or not is_leaf(value):
        return None
    rows = getattr(value, "num_rows", None)
    if rows is None and hasattr(value, "__len__"):
        rows = len(value)
    return None if rows is None else int(rows)


def _of_tensors(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], _NESTED)


_NESTED = (torch.Tensor, np.ndarray, list)


def _mapping_size(batch: Mapping[Any, Any]) -> int | None:
    """Return the rows of a mapping by column.

    A list of tensors may be one a row (ragged lists) or one a place (torch's default
    collate of lists), so that every other column is asked first.
    """
    for certain in (True, False):
        for name, value in batch.items():
            if _of_tensors(value) is certain:
                continue
            offsets = batch.get(f"{name}_offsets")
            if offsets is not None and hasattr(offsets, "shape"):
                return max(int(offsets.shape[0]) - 1, 0)
            inner = isinstance(value, Mapping | tuple)
            size = batch_size_of(value) if inner else _plain_size(value)
            if size is not None:
                return size
    return None


def _collated_size(batch: Any) -> int | None:
    """Return the rows of what torch's default collate made: a list is one of places."""
    if isinstance(batch, torch.Tensor):
        return int(batch.shape[0])
    values = list(batch.values()) if isinstance(batch, Mapping) else list(batch)
    if values and isinstance(values[0], str | bytes):
        return len(values)
    sizes = (_collated_size(value) for value in values)
    return next((size for size in sizes if size is not None), None)
