"""Every column type through a data module, in all formats: held, or refused clearly.

Values are compared with what Arrow says of the table, `to_pylist`.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch
from lance.arrow import EncodedImageType, FixedShapeImageTensorType, bfloat16_array
from own_batches import as_it_is
from torch.utils.data import default_collate

from lance_lightning import (
    ConfigError,
    DataError,
    LanceDataModule,
    Sequential,
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


@pytest.fixture(scope="module")
def uris(tmp_path_factory):
    """Tables of one case each, written when first asked for."""
    made = {}

    def uri(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = write(folder / "table.lance", [name])
        return made[name]

    return uri


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


@pytest.mark.parametrize(("name", "output_format"), REFUSED)
def test_a_type_that_a_format_lacks_is_refused_before_a_row_is_read(
    uris, name, output_format
):
    with pytest.raises((ConfigError, DataError), match=f"column '{name}'.*type"):
        batches(uris(name), name, output_format)


@pytest.mark.parametrize("name", [name for name, kind in READ if kind == "torch"])
def test_torch_batches(uris, name):
    found = CASES[name]
    seen = {}
    for batch in batches(uris(name), name, "torch"):
        assert set(batch) == {"id", name}
        if found.dtype is not None:
            assert batch[name].dtype == found.dtype
        seen |= by_id(batch["id"], rows_of(batch[name]))
    assert seen == {i: found.torch(i) for i in range(ROWS)}


@pytest.mark.parametrize("name", [name for name, kind in READ if kind == "numpy"])
def test_numpy_batches(uris, name):
    found, seen = CASES[name], {}
    for batch in batches(uris(name), name, "numpy"):
        values = batch[name]
        if getattr(values, "dtype", np.dtype(object)).kind in "mM":
            values = values.astype(np.int64)
        seen |= by_id(batch["id"], rows_of(values))
    assert seen == {i: found.torch(i) for i in range(ROWS)}


@pytest.mark.parametrize(
    ("name", "output_format"), [case for case in READ if case[1] in STACKED]
)
def test_stacked_batches(uris, name, output_format):
    found, rows = CASES[name], []
    for batch in batches(uris(name), name, output_format):
        assert batch.dtype == found.dtype
        rows += (batch if output_format == "torch_row" else batch.T).tolist()
    expected = [np.ravel(found.torch(i)).tolist() for i in range(ROWS)]
    assert sorted(rows) == sorted(expected)


def arrow_rows(name, batch):
    """Return the rows of an Arrow batch's column, extensions as Python knows them."""
    array = batch[name]
    if name == "bfloat16":
        return np.frombuffer(
            b"".join(b"\0\0" + bytes(v) for v in array.storage.to_pylist()), np.float32
        ).tolist()
    if name in ("uuid", "encoded_image"):
        return array.storage.to_pylist()
    return array.to_pylist()


def polars_rows(name, batch):
    """Return the rows of a polars column, whose versions have maps differently."""
    rows = [plain(row) for row in batch[name].to_list()]
    if name == "map":
        rows = [
            list(row.items())
            if isinstance(row, dict)
            else [(pair["key"], pair["value"]) for pair in row]
            for row in rows
        ]
    return [row.date() for row in rows] if name == "date64" else rows


def pandas_rows(name, batch):
    """Return the rows of a pandas column, which has its own times."""
    rows = [plain(row) for row in batch[name]]
    if name.startswith("timestamp"):
        return [row.to_pydatetime() for row in rows]
    return [row.to_pytimedelta() for row in rows] if name == "duration" else rows


ROWS_OF = {
    "arrow": arrow_rows,
    "pandas": pandas_rows,
    "polars": polars_rows,
    "python_col": lambda name, batch: batch[name],
}


@pytest.mark.parametrize(
    ("name", "output_format"), [case for case in READ if case[1] in ROWS_OF]
)
def test_frames_and_arrow_batches(uris, name, output_format):
    seen = {}
    for batch in batches(uris(name), name, output_format):
        rows = ROWS_OF[output_format](name, batch)
        if name in SHAPED:
            rows = [np.ravel(row).tolist() for row in rows]
        seen |= by_id(id_list(batch), rows)
    assert seen == {i: CASES[name].value(i) for i in range(ROWS)}


def id_list(batch):
    ids = batch["id"]
    return ids.to_pylist() if isinstance(ids, pa.Array) else list(ids)


@pytest.mark.parametrize("name", [name for name, kind in READ if kind == "python"])
def test_python_batches_are_torchs_default_collate(uris, name):
    seen = batches(uris(name), name, "python")
    for batch in seen:
        ids = batch["id"].tolist()
        if name in SHAPED:
            expected = [CASES[name].torch(i) for i in ids]
        else:
            expected = [CASES[name].value(i) for i in ids]
        assert plain(batch[name]) == plain(default_collate(expected))
    assert sum(len(batch["id"]) for batch in seen) == ROWS


# --- nulls --------------------------------------------------------------------------

NULLABLE = [
    name
    for name, kind in READ
    if kind == "torch" and name not in (*SHAPED, "uuid", "json", "encoded_image")
]


def with_nulls(folder, name):
    """Write a table whose rows 3 and 20 are null."""
    rows = [None if i in (3, 20) else CASES[name].value(i) for i in range(ROWS)]
    array = CASES[name].make(rows)
    field = pa.field(name, array.type, metadata=STORED.get(name))
    if name == "blob_v2":
        field = lance.blob_field(name)
    schema = pa.schema([pa.field("id", pa.int64()), field])
    table = pa.Table.from_arrays([pa.array(range(ROWS)), array], schema=schema)
    version = "2.1" if name == "blob_v1" else "2.2"
    uri = str(folder / "nulls.lance")
    lance.write_dataset(table, uri, data_storage_version=version)
    return uri


def masks_of(batch, name):
    """Return which rows are valid: of a struct those whose fields all are."""
    if isinstance(batch[name], dict):
        inner = batch[name]
        names = [key for key in inner if f"{key}_mask" in inner or key == "inner"]
        masks = [masks_of(inner, key) for key in names]
        return [all(row) for row in zip(*masks, strict=True)]
    mask = batch[f"{name}_mask"]
    if isinstance(mask, list):  # one a list; a null list is one of no numbers
        return None
    return [bool(np.all(row)) for row in plain(mask)]


@pytest.mark.parametrize("name", NULLABLE)
def test_nulls_of_every_type(tmp_path, name):
    uri = with_nulls(tmp_path, name)
    kept = {}
    for batch in batches(uri, name, "arrow"):
        kept |= by_id(batch["id"].to_pylist(), batch[name].is_null().to_pylist())
    assert [i for i, null in kept.items() if null] == sorted(
        {3, 20}, key=list(kept).index
    )
    for output_format in ("torch", "numpy"):
        with pytest.raises(DataError, match=f"column '{name}.* nulls"):
            batches(uri, name, output_format)
        for batch in batches(uri, name, output_format, nulls={name: "mask"}):
            ids, valid = plain(batch["id"]), masks_of(batch, name)
            if valid is None:
                lengths = [len(mask) for mask in batch[f"{name}_mask"]]
                values = [CASES[name].value(i) for i in ids]
                assert lengths == [
                    0 if i in (3, 20) else len(v)
                    for i, v in zip(ids, values, strict=True)
                ]
            else:
                assert valid == [i not in (3, 20) for i in ids]
            if CASES[name].dtype is not None and output_format == "torch":
                assert batch[name].dtype == CASES[name].dtype


# --- one table of all types ---------------------------------------------------------

WIDE = [name for name, kind in READ if kind == "torch" and name != "blob_v1"]


def all_of(uri, output_format, **options):
    extra = {}
    if output_format == "torch":
        ragged = ("list", "large_list", "list_of_vectors")
        extra = {
            "dtype": {"decimal_as_float": "float64"},
            "ragged": dict.fromkeys(ragged, "list"),
        }
    data = LanceDataModule(
        uri, output_format=output_format, batch_size=BATCH, **extra, **options
    )
    found = list(data.train_dataloader())
    data.teardown()
    return found


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return write(tmp_path_factory.mktemp("wide") / "table.lance", WIDE)


def test_all_types_stand_in_one_batch(wide):
    seen = {name: {} for name in WIDE}
    for batch in all_of(wide, "torch"):
        for name in WIDE:
            seen[name] |= by_id(batch["id"], rows_of(batch[name]))
    for name in WIDE:
        assert seen[name] == {i: CASES[name].torch(i) for i in range(ROWS)}


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize(
    ("output_format", "options"),
    [
        ("torch", {"num_workers": 1}),
        ("torch", {"num_workers": 1, "transform": as_it_is}),
        ("torch", {"arrow_transform": as_it_is}),
        ("arrow", {"num_workers": 1}),
    ],
    ids=["worker", "transform in a worker", "arrow_transform", "arrow from a worker"],
)
def test_all_types_are_the_same_from_a_worker_and_a_transform(
    wide, output_format, options
):
    expected = all_of(wide, output_format)
    found = all_of(wide, output_format, **options)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        if output_format == "arrow":
            assert ours.equals(theirs)
            continue
        assert list(ours) == list(theirs)
        for name in ours:
            assert plain(ours[name]) == plain(theirs[name])
            kinds = (getattr(ours[name], "dtype", None), type(ours[name]))
            assert kinds == (getattr(theirs[name], "dtype", None), type(theirs[name]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"transform": as_it_is}], ids=["", "transform"]
)
@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_every_format_of_all_its_types_is_the_same_from_a_worker(
    wide, output_format, options
):
    readable = {name for name, kind in READ if kind == output_format}
    names = [name for name in WIDE if name in readable and name != "decimal_as_float"]
    given = {"columns": [*([] if output_format in STACKED else ["id"]), *names]}
    if output_format in STACKED:
        given["dtype"] = "float64"
    for ragged in ("pad", "values_offsets") if output_format == "torch" else ("pad",):
        given["ragged"] = ragged
        expected, found = (
            [
                batch
                for data in [
                    LanceDataModule(
                        wide,
                        output_format=output_format,
                        batch_size=BATCH,
                        num_workers=workers,
                        sampler=Shuffle(),
                        **given,
                        **(options if workers else {}),
                    )
                ]
                for batch in data.train_dataloader()
            ]
            for workers in (0, 1)
        )
        assert len(names) > 10
        assert len(found) == len(expected) > 2
        for ours, theirs in zip(found, expected, strict=True):
            assert type(ours) is type(theirs)
            if output_format in ("arrow", "polars"):
                assert ours.equals(theirs)
                continue
            if output_format == "pandas":
                assert list(ours.dtypes) == list(theirs.dtypes)
                ours, theirs = ours.to_dict("list"), theirs.to_dict("list")
            assert repr(plain(ours)) == repr(plain(theirs))  # NaN equals NaN


@pytest.mark.parametrize("sampler", [Sequential(), Shuffle()], ids=repr)
@pytest.mark.parametrize("name", ["int64", "fixed_list", "list", "struct", "bool"])
def test_one_column_under_two_names_is_two_tensors(tmp_path, sampler, name):
    # One file: rows out of several are copied anyway.
    data = LanceDataModule(
        write(tmp_path / "table.lance", [name], ROWS),
        columns={"a": name, "b": name},
        sampler=sampler,
        ragged="values_offsets",
    )
    (batch, *_) = data.train_dataloader()
    assert plain(batch["a"]) == plain(batch["b"])
    before = plain(batch["b"])
    changed = batch["a"]["n"] if name == "struct" else batch["a"]
    changed.logical_not_()
    assert plain(batch["a"]) != before
    assert plain(batch["b"]) == before


def test_lances_own_types_are_known_without_importing_them(tmp_path):
    """A worker, and a script, import no more of Lance than this package does."""
    uri = write(tmp_path / "table.lance", ["bfloat16"])
    script = f"""
import sys
from lance_lightning import LanceDataModule
(batch, *_) = LanceDataModule({uri!r}, columns=["bfloat16"]).train_dataloader()
assert str(batch["bfloat16"].dtype) == "torch.bfloat16", batch
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
