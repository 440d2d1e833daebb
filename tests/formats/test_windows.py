"""What windows become in each output format."""

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from lance.arrow import bfloat16_array
from torch.utils.data import default_collate

from lance_lightning.arrow.unordered import UnorderedRows, in_order
from lance_lightning.errors import DataError
from lance_lightning.formats.batches import batch_size_of
from lance_lightning.formats.format import Format
from lance_lightning.types import OUTPUT_FORMATS
from tests.helpers.any_schema import batch_of, held, plain, record_batch


def test_python_is_torchs_default_collate():
    table = {
        "i": [1, 2],
        "f": [0.5, 1.5],
        "s": ["a", "b"],
        "v": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        "d": pa.array([{"k": 1}, {"k": 2}]),
        "h": bfloat16_array([0.5, 1.5]),
    }
    found = batch_of(Format("python"), table)
    rows = record_batch({**table, "h": [0.5, 1.5]}).to_pylist()
    expected = default_collate(rows)
    assert plain(found) == plain(expected)
    assert found["i"].dtype == torch.int64
    assert found["f"].dtype == torch.float64
    assert [v.tolist() for v in found["v"]] == [[1.0, 3.0], [2.0, 4.0]]
    assert Format("python").num_rows(found) == 2
    assert Format("python").num_rows({"v": found["v"]}) == 2


def test_python_refuses_uint64_that_torch_cannot_hold():
    table = {"x": pa.array([2**63], pa.uint64())}
    with pytest.raises(DataError, match=f"column 'x' holds {2**63}"):
        batch_of(Format("python"), table)
    assert batch_of(Format("python_col"), table) == {"x": [2**63]}


@pytest.mark.parametrize("name", ["polars", "pandas", "python_col"])
def test_extension_types_are_plain_outside_arrow(name):
    kind = pa.fixed_shape_tensor(pa.int32(), (2, 3), permutation=[1, 0])
    storage = pa.array([list(range(6)), None, [9] * 6], pa.list_(pa.int32(), 6))
    tensor = pa.ExtensionArray.from_storage(kind, storage)
    inner = pa.FixedSizeListArray.from_arrays(bfloat16_array([0.5, 1.5, 2.5] * 2), 2)
    table = {
        "t": tensor,
        "v": inner,
        "s": pa.StructArray.from_arrays(
            [inner], ["w"], mask=pa.array([False, True, False])
        ),
    }
    found = held(name, batch_of(Format(name), table, 0, 2))
    assert found["t"] == [[[0, 3], [1, 4], [2, 5]], None]
    assert found["v"] == [[0.5, 1.5], [2.5, 0.5]]
    first = found["s"][0]["w"]
    assert plain(first) == [0.5, 1.5]
    assert name == "polars" or found["s"][1] is None


@pytest.mark.parametrize("name", ["polars", "python_col"])
def test_lists_of_extension_types_are_plain_outside_arrow(name):
    offsets = pa.array([0, 1, 1, 3, 4], pa.int32())
    mask = pa.array([False, True, False, False])
    values = bfloat16_array([0.5, 1.5, 2.5, 3.5])
    array = pa.ListArray.from_arrays(offsets, values, mask=mask)
    found = held(name, batch_of(Format(name), {"x": array.slice(1)}, 0, 2))
    assert found["x"] == [None, [1.5, 2.5]]


def test_polars_takes_batches_of_null_vectors():
    rows = [[1.0, 2.0], None, [3.0, 4.0], None]
    table = {"x": pa.array(rows, pa.list_(pa.float32(), 2))}
    for start in range(4):
        assert batch_of(Format("polars"), table, start)["x"].to_list() == rows[start:]


def test_pandas_makes_no_index_of_the_tables_metadata():
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index([5, 6], name="key"))
    batch = pa.RecordBatch.from_pandas(frame)
    assert list(batch_of(Format("pandas"), batch).columns) == ["x", "key"]


def test_batches_do_not_share_rows():
    window = Format().convert(record_batch({"x": [1, 2, 3, 4]}))
    first, second = (Format().slice(window, i, i + 2) for i in (0, 2))
    first["x"] += 10
    assert second["x"].tolist() == [3, 4]


def test_ragged_batches_are_as_wide_as_they_are_in_any_window():
    batch = record_batch({"x": [[1], [2, 3, 4], [5, 6]], "y": [[1], [], [2, 2]]})
    format = Format("torch", ragged={"y": "values_offsets"})
    whole = format.slice(format.convert(batch), 0, 1)
    alone = format.slice(format.convert(batch.slice(0, 1)), 0, 1)
    assert list(whole) == ["x", "x_lengths", "y", "y_offsets"]
    assert plain(whole) == plain(alone)
    assert whole["x"].shape == (1, 1)
    found = format.slice(format.convert(batch), 1, 3)
    assert format.num_rows(found) == batch_size_of(found) == 2
    assert batch_size_of({"y": found["y"], "y_offsets": found["y_offsets"]}) == 2


def as_plain(value):
    """Return what `plain` does of any format's batch."""
    if isinstance(value, pd.DataFrame):
        return plain(value.to_dict("list"))
    if isinstance(value, pl.DataFrame):
        return value.to_dicts()
    if isinstance(value, pa.RecordBatch):
        return value.to_pylist()
    if isinstance(value, dict):
        return {name: as_plain(inner) for name, inner in value.items()}
    nested = isinstance(value, torch.Tensor) and value.is_nested
    return plain(list(value.unbind()) if nested else value)


RAGGED = ("pad", "values_offsets", "list", "nested")
LAZY = [
    *(Format(name) for name in OUTPUT_FORMATS),
    *(Format("torch", ragged=ragged, nulls="mask") for ragged in RAGGED),
    *(Format("numpy", ragged=ragged, nulls="mask") for ragged in RAGGED[:3]),
]


@pytest.mark.parametrize(
    "format", LAZY, ids=lambda each: f"{each.name}-{each.ragged}-{each.nulls}"
)
def test_columns_that_lie_as_they_were_read_come_in_order(format):
    rows = range(10)
    columns = {"id": list(rows), "flag": [i % 3 == 0 for i in rows]}
    if not format.name.startswith("torch_"):
        columns["text"] = [str(i) * i for i in rows]
        columns["struct"] = [{"a": i, "b": str(i)} for i in rows]
    if not format.name.startswith("torch_") and format.name != "python":
        columns["list"] = [list(range(i % 4)) for i in rows]
        columns["texts"] = [[str(i)] * (i % 3) for i in rows]
    if format.nulls == "mask":
        columns["list"][3], columns["text"][5] = None, None
        columns["list"][6] = [6, None]
    batch = record_batch(columns)
    order = np.random.default_rng(0).permutation(10)
    as_read = [
        column if name == "id" else column.take(pa.array(np.argsort(order)))
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    others = range(1, len(columns))
    read = pa.record_batch(as_read, batch.schema.names)
    unordered = UnorderedRows(read, others, order)
    assert in_order(unordered) == batch
    for start, stop in ((0, 4), (4, 9), (9, 10)):
        expected, found = (
            format.slice(format.convert(each), start, stop)
            for each in (batch, unordered)
        )
        assert as_plain(found) == as_plain(expected)
        expected, found = (
            format.rows(format.convert(each), start, stop)
            for each in (batch, unordered)
        )
        assert plain(found) == plain(expected)


CONVERTING = """
import threading
import numpy as np, psutil, pyarrow as pa
from lance_lightning.formats import Format

rows = 400_000
wide = pa.array(np.zeros(rows * 16, np.float32))
table = {
    "v": pa.FixedSizeListArray.from_arrays(wide, 16),
    "u": pa.array(np.zeros(rows, np.uint16)),
    "n": pa.array([1, None] * (rows // 2)),
    "b": pa.array(np.zeros(rows, bool)),
    "s": pa.array(["text"] * rows),
}
batch = pa.record_batch(table)

def convert(seen):
    for name in ("torch", "numpy", "torch_row", "torch_col"):
        nulls = {"n": {"fill": 0}}
        dtype = "float32" if "_" in name else None
        format = Format(name, nulls=nulls, dtype=dtype)
        format.convert(batch if dtype is None else batch.select(["v", "u", "n", "b"]))
        seen.append(psutil.Process().num_threads())

seen = []
before = psutil.Process().num_threads()
thread = threading.Thread(target=convert, args=(seen,))
thread.start()
thread.join()
assert max(seen) <= before + 1, (before, seen)
"""


def test_converting_starts_no_threads():
    subprocess.run([sys.executable, "-c", CONVERTING], check=True, timeout=120)
