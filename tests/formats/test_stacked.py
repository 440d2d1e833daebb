"""torch_row and torch_col: all columns in one tensor."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from lance.arrow import bfloat16_array

from lance_lightning.errors import ConfigError, DataError
from lance_lightning.formats.format import Format
from tests.helpers.any_schema import STACKED, batch_of, record_batch


def test_one_column_is_stacked_without_a_copy():
    vectors = pa.array(np.arange(24, dtype=np.float32))
    table = {"x": pa.FixedSizeListArray.from_arrays(vectors, 4)}
    for name, shape in (("torch_row", (3, 4)), ("torch_col", (4, 3))):
        found = batch_of(Format(name), table, 2, 5)
        assert found.shape == shape
        assert found.data_ptr() == vectors.buffers()[1].address + 2 * 4 * 4
    scalars = pa.array(np.arange(10))
    found = batch_of(Format("torch_col"), {"x": scalars}, 3, 5)
    assert found.tolist() == [[3, 4]]
    assert found.data_ptr() == scalars.buffers()[1].address + 3 * 8


def test_rows_or_columns_of_a_stacked_batch_are_contiguous():
    vectors = pa.array([[0.0] * 2] * 3, pa.list_(pa.float64(), 2))
    for table in (
        {"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]},
        {"v": vectors, "w": vectors},
    ):
        assert batch_of(Format("torch_row"), table, 1, 3).is_contiguous()
        assert batch_of(Format("torch_col"), table, 1, 3).stride(1) == 1


DIGITS = [
    ((pa.int64(), pa.float32()), "int64"),
    ((pa.int64(), pa.float64()), "int64"),
    ((pa.uint64(), pa.float64()), "int64"),
    ((pa.int8(), pa.float16(), pa.int64()), "int64"),
]
KEPT = [
    ((pa.int32(), pa.float32()), torch.float64),
    ((pa.int16(), pa.float32()), torch.float32),
    ((pa.float16(), pa.float32()), torch.float32),
    ((pa.uint8(), pa.int8()), torch.int16),
    ((pa.uint16(), pa.bool_()), torch.int32),
    ((pa.int64(), pa.bool_()), torch.int64),
    ((pa.uint64(), pa.int64()), torch.int64),
    ((pa.bool_(), pa.bool_()), torch.bool),
]


@pytest.mark.parametrize("name", STACKED)
@pytest.mark.parametrize("types", [types for types, _ in DIGITS], ids=str)
def test_a_mix_that_would_lose_digits_is_refused_at_check(name, types):
    schema = pa.schema([pa.field(f"c{i}", t) for i, t in enumerate(types)])
    with pytest.raises(DataError, match=r"lose digits of int64 \(c0: ") as caught:
        Format(name).check(schema)
    assert all(f"c{i}: " in str(caught.value) for i in range(len(types)))
    Format(name, dtype="float32").check(schema)


@pytest.mark.parametrize("name", STACKED)
@pytest.mark.parametrize(("types", "dtype"), KEPT, ids=str)
def test_a_mix_that_keeps_its_digits_is_widened(name, types, dtype):
    table = {f"c{i}": pa.array([1, 0]).cast(t) for i, t in enumerate(types)}
    found = batch_of(Format(name), table)
    assert found.dtype == dtype
    assert sorted(found.flatten().tolist()) == [0] * len(types) + [1] * len(types)


def test_a_dtype_settles_the_mix():
    table = {"id": [2**24 + 1, 1], "x": pa.array([0.5, 1.5], pa.float32())}
    found = batch_of(Format("torch_row", dtype="float64"), table)
    assert found.dtype == torch.float64
    assert found.tolist() == [[2**24 + 1, 0.5], [1, 1.5]]
    with pytest.raises(ConfigError, match="cut the fractions of column 'x'"):
        batch_of(Format("torch_row", dtype="int64"), table)


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_one_dtype_of_floats_is_that_of_all_floats_and_of_nothing_else(name):
    table = {
        "id": pa.array([2**53 + 1, 1]),
        "small": pa.array([7, 1], pa.uint8()),
        "flag": [True, False],
        "when": pa.array([1, 2], pa.timestamp("s")),
        "text": ["a", "b"],
        "half": pa.array(np.array([0.5, 1.5], np.float16)),
        "double": [0.1, 2.5],
        "vector": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64(), 2)),
        "ragged": [[0.1], [0.2, 0.3]],
        "parts": [{"x": 0.1, "n": 2**53 + 1}, {"x": 0.2, "n": 3}],
    }
    format = Format(name, dtype="float32")
    found, kept = batch_of(format, table), batch_of(Format(name), table)
    floats = {"half", "double", "vector", "ragged"}
    for column in floats:
        assert str(found[column].dtype).endswith("float32")
        np.testing.assert_allclose(found[column], kept[column], rtol=1e-6)
    assert str(found["parts"]["x"].dtype).endswith("float32")
    assert found["parts"]["n"].tolist() == [2**53 + 1, 3]
    for column in set(kept) - floats - {"parts"}:
        assert getattr(found[column], "dtype", None) == getattr(
            kept[column], "dtype", None
        )
        assert list(found[column]) == list(kept[column])
    (row,) = format.rows(format.convert(record_batch(table)), 0, 1)
    assert row["double"].dtype == found["double"].dtype
    with pytest.raises(DataError, match=r"'x' holds .*float16.*infinite"):
        batch_of(Format(name, dtype="float16"), {"x": [1e6]})


def test_a_float_dtype_of_all_columns_widens_bfloat16():
    batch = record_batch({"x": bfloat16_array([0.5, 1.5])})
    assert batch_of(Format("torch"), batch)["x"].dtype == torch.bfloat16
    found = batch_of(Format("torch", dtype="float32"), batch)["x"]
    assert found.dtype == torch.float32
    assert found.tolist() == [0.5, 1.5]


def test_bfloat16_is_stacked():
    table = {"a": bfloat16_array([1.5, 2.5]), "b": bfloat16_array([3.5, 4.5])}
    found = batch_of(Format("torch_row"), table)
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [[1.5, 3.5], [2.5, 4.5]]
    mixed = {**table, "c": pa.array([1, 2], pa.int16())}
    assert batch_of(Format("torch_col"), mixed).dtype == torch.float32


@pytest.mark.parametrize("name", STACKED)
@pytest.mark.parametrize(
    "arrow_type",
    [pa.string(), pa.struct({"a": pa.int8()}), pa.list_(pa.int8())],
    ids=str,
)
def test_only_numbers_are_stacked(name, arrow_type):
    schema = pa.schema({"x": pa.int64(), "y": arrow_type})
    with pytest.raises(DataError, match=r"column 'y' has type .* stacks columns of"):
        Format(name).check(schema)


def test_stacked_nulls():
    table = {"a": pa.array([1, None, 3]), "b": [4, 5, 6]}
    with pytest.raises(DataError, match="column 'a' has 1 nulls"):
        batch_of(Format("torch_row"), table)
    filled = Format("torch_row", nulls={"a": {"fill": 9}})
    assert batch_of(filled, table).tolist() == [[1, 4], [9, 5], [3, 6]]
