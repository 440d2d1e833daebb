"""Every column type: how it is made, its values, and what refuses it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import torch
from lance.arrow import EncodedImageType, FixedShapeImageTensorType, bfloat16_array

from lance_lightning import (
    LanceDataModule,
    Shuffle,
)
from lance_lightning.types import OUTPUT_FORMATS

ROWS = 41
BATCH = 8
DAY = datetime.date(2020, 1, 1)
NOON = datetime.datetime(2020, 1, 1, 12)
SECOND = datetime.timedelta(seconds=1)


def tensor_values(i):
    return [float(6 * i + k) for k in range(6)]


def fixed_shape(rows, permutation=None):
    kind = pa.fixed_shape_tensor(pa.float32(), (2, 3), permutation=permutation)
    storage = pa.array(rows, pa.list_(pa.float32(), 6))
    return pa.ExtensionArray.from_storage(kind, storage)


@dataclass(frozen=True)
class Case:
    """A type, a value of it for a row, and what the formats make of it.

    Args:
        make: Arrow's array of rows.
        value: The row's value, from its id.
        torch: What a row of the torch batch holds as Python values.
        dtype: The tensor's; None where it is a list.
        refused: Formats that refuse the column.
    """

    make: Any
    value: Any
    torch: Any = None
    dtype: torch.dtype | None = None
    refused: tuple[str, ...] = ()
    options: Any = None


STACKED = ("torch_row", "torch_col")
NO_STACK = STACKED
NO_COLLATE = (*STACKED, "python")
CASES: dict[str, Case] = {}


def case(name, arrow_type, value, *, dtype=None, refused=(), torch_value=None, **rest):
    make = arrow_type
    if isinstance(arrow_type, pa.DataType):

        def make(rows):
            return pa.array(rows, arrow_type)

    CASES[name] = Case(make, value, torch_value or value, dtype, refused, **rest)


for name in ("int8", "int16", "int32", "int64", "uint8"):
    case(name, getattr(pa, name)(), lambda i: i, dtype=getattr(torch, name))
case("uint16", pa.uint16(), lambda i: 65_000 + i, dtype=torch.int32)
case("uint32", pa.uint32(), lambda i: 2**32 - 1 - i, dtype=torch.int64)
case("uint64", pa.uint64(), lambda i: 2**63 - 1 - i, dtype=torch.int64)
for name in ("float16", "float32", "float64"):
    case(name, getattr(pa, name)(), lambda i: i + 0.5, dtype=getattr(torch, name))
case(
    "bfloat16",
    lambda rows: bfloat16_array(rows),
    lambda i: float(i),
    dtype=torch.bfloat16,
)
case("bool", pa.bool_(), lambda i: i % 3 == 0, dtype=torch.bool)
case("string", pa.string(), lambda i: f"é{i}", refused=NO_STACK)
case("large_string", pa.large_string(), lambda i: "x" * i, refused=NO_STACK)
case("binary", pa.binary(), lambda i: bytes([i]) * i, refused=NO_STACK)
case("large_binary", pa.large_binary(), lambda i: bytes([i, 0]), refused=NO_STACK)
case("fixed_binary", pa.binary(2), lambda i: bytes([i, 0]), refused=NO_STACK)
case(
    "dictionary",
    lambda rows: pa.array(rows).dictionary_encode(),
    lambda i: "abc"[i % 3],
    refused=NO_STACK,
)
case(
    "dictionary_of_ints",
    lambda rows: pa.array(rows, pa.int32()).dictionary_encode(),
    lambda i: i % 3,
    dtype=torch.int32,
)
case(
    "timestamp",
    pa.timestamp("us"),
    lambda i: NOON + i * SECOND,
    dtype=torch.int64,
    torch_value=lambda i: 1_577_880_000_000_000 + i * 1_000_000,
    refused=("python",),
)
case(
    "timestamp_zone",
    pa.timestamp("s", "UTC"),
    lambda i: (NOON + i * SECOND).replace(tzinfo=datetime.timezone.utc),
    dtype=torch.int64,
    torch_value=lambda i: 1_577_880_000 + i,
    refused=("python",),
)
for name in ("date32", "date64"):
    case(
        name,
        getattr(pa, name)(),
        lambda i: DAY + i * datetime.timedelta(days=1),
        dtype=torch.int64,
        torch_value=(
            (lambda i: 18_262 + i)
            if name == "date32"
            else (lambda i: (18_262 + i) * 86_400_000)
        ),
        refused=("python",),
    )
case(
    "time32",
    pa.time32("s"),
    lambda i: datetime.time(0, 0, i),
    dtype=torch.int64,
    torch_value=lambda i: i,
    refused=("python",),
)
case(
    "time64",
    pa.time64("us"),
    lambda i: datetime.time(0, 0, i),
    dtype=torch.int64,
    torch_value=lambda i: i * 1_000_000,
    refused=("python",),
)
case(
    "duration",
    pa.duration("ms"),
    lambda i: i * SECOND,
    dtype=torch.int64,
    torch_value=lambda i: i * 1000,
    refused=("python",),
)
case(
    "decimal",
    pa.decimal128(6, 2),
    lambda i: Decimal(i) + Decimal("0.25"),
    refused=("torch", "numpy", "python", *STACKED),
)
case(
    "decimal_as_float",
    pa.decimal128(6, 2),
    lambda i: Decimal(i) + Decimal("0.25"),
    dtype=torch.float64,
    torch_value=lambda i: i + 0.25,
    refused=("python",),
    options={"dtype": "float64"},
)
case(
    "fixed_list",
    pa.list_(pa.float32(), 3),
    lambda i: [i, i + 0.5, -i],
    dtype=torch.float32,
)
case(
    "fixed_list_nested",
    pa.list_(pa.list_(pa.int16(), 2), 2),
    lambda i: [[i, 1], [2, -i]],
    dtype=torch.int16,
)
case(
    "fixed_list_of_bools",
    pa.list_(pa.bool_(), 3),
    lambda i: [i % 2 == 0, True, i % 5 == 0],
    dtype=torch.bool,
)
case(
    "fixed_shape_tensor",
    fixed_shape,
    tensor_values,
    dtype=torch.float32,
    torch_value=lambda i: np.reshape(tensor_values(i), (2, 3)).tolist(),
)
case(
    "image_tensor",
    lambda rows: pa.ExtensionArray.from_storage(
        FixedShapeImageTensorType(pa.uint8(), (2, 1, 3)),
        pa.array(rows, pa.list_(pa.uint8(), 6)),
    ),
    lambda i: [i + k for k in range(6)],
    dtype=torch.uint8,
    torch_value=lambda i: [[[i, i + 1, i + 2]], [[i + 3, i + 4, i + 5]]],
)
case(
    "encoded_image",
    lambda rows: pa.ExtensionArray.from_storage(
        EncodedImageType(), pa.array(rows, pa.binary())
    ),
    lambda i: bytes([i]) * 3,
    refused=NO_STACK,
)
for name, list_of in (("list", pa.list_), ("large_list", pa.large_list)):
    case(
        name,
        list_of(pa.int32()),
        lambda i: list(range(i % 4)),
        refused=NO_COLLATE,
        options={"ragged": "list"},
    )
case(
    "list_of_vectors",
    pa.list_(pa.list_(pa.float32(), 2)),
    lambda i: [[i, k] for k in range(i % 3)],
    refused=NO_COLLATE,
    options={"ragged": "list"},
)
case(
    "list_of_strings",
    pa.list_(pa.string()),
    lambda i: [str(k) for k in range(i % 3)],
    refused=NO_COLLATE,
)
case(
    "list_of_lists",
    pa.list_(pa.list_(pa.int64())),
    lambda i: [list(range(k)) for k in range(i % 3)],
    refused=NO_COLLATE,
)
case(
    "list_of_structs",
    pa.list_(pa.struct({"k": pa.int64(), "s": pa.string()})),
    lambda i: [{"k": k, "s": str(i)} for k in range(i % 3)],
    refused=NO_COLLATE,
)
case(
    "map",
    pa.map_(pa.string(), pa.int64()),
    lambda i: [(str(k), k) for k in range(i % 3)],
    refused=NO_COLLATE,
)
case(
    "struct",
    pa.struct({"n": pa.int64(), "s": pa.string(), "v": pa.list_(pa.float32(), 2)}),
    lambda i: {"n": i, "s": str(i), "v": [i, -i]},
    refused=NO_STACK,
)
case(
    "struct_in_struct",
    pa.struct({"inner": pa.struct({"n": pa.int16()})}),
    lambda i: {"inner": {"n": i}},
    refused=NO_STACK,
)
case(
    "null",
    pa.null(),
    lambda i: None,
    refused=("torch", "numpy", "python", *STACKED),
)
case(
    "blob_v1",
    lambda rows: pa.array(rows, pa.large_binary()),
    lambda i: bytes([i]) * i,
    refused=NO_STACK,
)
case("blob_v2", lance.blob_array, lambda i: bytes([i]) * i, refused=NO_STACK)
case(
    "json",
    lambda rows: pa.ExtensionArray.from_storage(pa.json_(), pa.array(rows)),
    lambda i: f'{{"i":{i}}}',
    refused=NO_STACK,
)
case(
    "uuid",
    lambda rows: pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array(rows, pa.binary(16))
    ),
    lambda i: bytes([i]) * 16,
    refused=NO_STACK,
)

SHAPED = ("fixed_shape_tensor", "image_tensor")  # Arrow's own lists of these are flat
STORED = {"blob_v1": {"lance-encoding:blob": "true"}}


def column(name):
    """Return a case's field and array."""
    array = CASES[name].make([CASES[name].value(i) for i in range(ROWS)])
    field = pa.field(name, array.type, metadata=STORED.get(name))
    if name == "blob_v2":
        field = lance.blob_field(name)
    return field, array


def write(path, names, rows_per_file=17):
    """Write the id, each of the cases and return the URI."""
    columns = [column(name) for name in names]
    schema = pa.schema([pa.field("id", pa.int64()), *(field for field, _ in columns)])
    arrays = [pa.array(range(ROWS), pa.int64()), *(array for _, array in columns)]
    # Maps need 2.2, and the older kind of blobs is not written there.
    version = "2.1" if "blob_v1" in names else "2.2"
    table = pa.Table.from_arrays(arrays, schema=schema)
    lance.write_dataset(
        table, str(path), max_rows_per_file=rows_per_file, data_storage_version=version
    )
    return str(path)


def batches(uri, name, output_format, **options):
    given = dict(CASES[name].options or {})
    dtype = given.pop("dtype", None)
    if dtype is not None and output_format in ("torch", "numpy"):
        options["dtype"] = {name: dtype}
    elif dtype is not None and output_format in STACKED:
        options["dtype"] = dtype
    stacked = output_format in STACKED
    data = LanceDataModule(
        uri,
        columns=[name] if stacked else ["id", name],
        sampler=Shuffle(),
        output_format=output_format,
        batch_size=BATCH,
        **given,
        **options,
    )
    seen = list(data.train_dataloader())
    data.teardown()
    return seen


def plain(value):
    """Return tensors, arrays and their containers as Python lists and dicts."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def rows_of(value):
    """Return the rows of a batch's column: a struct is a dict of columns."""
    if not isinstance(value, dict):
        return plain(value)
    parts = {key: rows_of(inner) for key, inner in value.items()}
    return [
        dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)
    ]


def by_id(ids, rows):
    return dict(zip(plain(ids), rows, strict=True))


READ = [
    (name, output_format)
    for name, found in CASES.items()
    for output_format in OUTPUT_FORMATS
    if output_format not in found.refused
]
REFUSED = [
    (name, output_format)
    for name, found in CASES.items()
    for output_format in found.refused
]
