"""What a module, its loaders and data sets show of themselves."""

import pickle
import shutil

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning import (
    ArrowSource,
    CalculatedSplit,
    LanceDataModule,
    LanceSource,
    SeparateSources,
)
from lance_lightning.formats.format import Format
from lance_lightning.loading.display import MAX_COLUMNS, as_text, columns_become
from lance_lightning.loading.loader import LanceDataLoader
from lance_lightning.loading.map_dataset import LanceMapDataset

ROWS = 100
SECRET = "hunter2-hunter2"
SPLITS = {"train": 0.8, "val": 0.2}


def rows():
    return {
        "id": np.arange(ROWS),
        "<i>text</i>": ["a"] * ROWS,
        "vector": pa.array([[1.0, 2.0]] * ROWS, pa.list_(pa.float64(), 2)),
        "ragged": [[1, 2]] * ROWS,
        "box": [{"left": 1, "name": "x"}] * ROWS,
        "png": [b"x"] * ROWS,
        "maybe": [None] + [1] * (ROWS - 1),
    }


@pytest.fixture
def uri(tmp_path):
    lance.write_dataset(pa.table(rows()), tmp_path / "t.lance")
    return str(tmp_path / "t.lance")


def module(uri, **options):
    source = LanceSource(uri, storage_options={"secret_key": SECRET})
    options = {"splits": SPLITS, "nulls": {"maybe": "mask"}, **options}
    return LanceDataModule(source, dtype="float32", **options)


def lines(shown):
    return {" ".join(line.split()) for line in repr(shown).splitlines()}


BEFORE = {"LanceDataModule", "columns all", "format torch, B rows a batch"}
COLUMNS = {
    "id int64 -> int64 (B,)",
    "<i>text</i> string -> list of str",
    "vector fixed_size_list<item: double>[2] -> float32 (B, 2)",
    "ragged list<item: int64> -> int64 (B, longest), ragged_lengths",
    "box struct<left: int64, name: string> -> dict of left: int64 (B,), name: list"
    " of str",
    "png binary -> list of bytes",
    "maybe int64 -> int64 (B,), maybe_mask",
}


def test_a_module_shows_what_is_known_of_it_at_each_step(uri):
    data = module(uri)
    assert lines(data) >= BEFORE | {f"source {uri}"}
    assert "splits train, val; RandomSplit(" in " ".join(repr(data).split())
    data.setup("fit")
    assert lines(data) >= BEFORE | {f"source {uri}, version 1"}
    loader = data.train_dataloader()
    data.val_dataloader()
    found = lines(data)
    assert found >= COLUMNS | {
        "train 3 of 32 rows per rank",
        "val 1 of 32 rows per rank",
    }
    assert "splits train 80 rows, val 20 rows; " in " ".join(repr(data).split())
    data.teardown("fit")
    assert lines(data) == found
    assert lines(pickle.loads(pickle.dumps(data))) >= BEFORE
    assert lines(loader) >= COLUMNS | {"split train, 80 rows", "LanceDataLoader"}
    assert "batches of an epoch 3 of 32 rows per rank" in lines(loader)


@pytest.mark.parametrize("kind", ["dataset", "iterable_dataset"])
def test_a_data_set_shows_its_split_in_a_worker_too(uri, kind):
    data = getattr(module(uri), kind)("val")
    assert lines(data) >= COLUMNS | {f"source {uri}, version 1", "split val, 20 rows"}
    there = pickle.loads(pickle.dumps(data))
    assert lines(there) >= {f"source {uri}, version 1", "columns all"}


def test_nothing_is_read_to_be_shown(uri):
    data = module(uri)
    data.setup("fit")
    shown = [data, data.train_dataloader(), data.dataset("val")]
    before = [repr(each) for each in shown]
    pickled = [pickle.dumps(data), pickle.dumps(shown[2])]
    shutil.rmtree(uri)
    assert [repr(each) for each in shown] == before
    assert all("version 1" in repr(pickle.loads(each)) for each in pickled)
    assert "version" not in repr(module(uri))


@pytest.mark.parametrize("cls", [LanceDataModule, LanceDataLoader, LanceMapDataset])
def test_what_is_half_made_is_shown_too(cls):
    assert repr(object.__new__(cls)).startswith(f"{cls.__name__}\n  state  cannot be ")
    assert object.__new__(cls)._repr_html_().startswith("<div>")


def test_html_holds_what_is_shown_as_text_and_no_secret(uri):
    data = module(
        uri, splits=CalculatedSplit("cast(id < 5 as bigint)", ["<b>", "train"])
    )
    loader, dataset = data.train_dataloader(), data.dataset("train")
    for shown in (data, loader, dataset):
        text = shown._repr_html_()
        assert "&lt;i&gt;text&lt;/i&gt;" in text
        assert "<i>" not in text
        assert SECRET not in text + repr(shown)
    assert "&lt;b&gt;" in data._repr_html_()
    assert data._repr_html_().count("<table>") == data._repr_html_().count("</table>")


def test_each_source_of_separate_sources_is_shown(uri):
    table = pa.table(rows()).select(["id"])
    data = LanceDataModule(SeparateSources(train=ArrowSource(table), val=table_at(uri)))
    assert lines(data) >= {"train arrow table of 100 rows", f"val {uri}"}
    assert "splits train, val" in lines(data)


def table_at(uri):
    return LanceSource(uri)


@pytest.mark.parametrize(
    ("format", "wanted"),
    [
        ("numpy", {"vector": "float64 (B, 2)", "png": "object (B,)"}),
        ("python_col", {"id": "list of Python values"}),
        ("polars", {"id": "Int64", "vector": "Array(Float64, shape=(2,))"}),
        ("pandas", {"vector": "object"}),
        ("arrow", {}),
        ("python", {}),
    ],
)
def test_columns_become_what_the_format_makes_of_them(format, wanted):
    if format in ("polars", "pandas"):
        pytest.importorskip(format)
    schema = pa.table(rows()).select(["id", "vector", "png"]).schema
    found = columns_become(Format(format), schema)
    for name, stored in zip(schema.names, schema.types, strict=True):
        if name in wanted:
            assert found[name] == f"{stored} -> {wanted[name]}"
        else:
            assert found[name].startswith(str(stored))


@pytest.mark.parametrize(
    ("format", "shape"), [("torch_row", "B, 3"), ("torch_col", "3, B")]
)
def test_one_tensor_is_shown_with_its_shape(format, shape):
    schema = pa.table(rows()).select(["id", "vector"]).schema
    found = columns_become(Format(format, dtype="float32"), schema)
    assert found["together"] == f"one tensor float32 ({shape})"


def test_ragged_columns_show_how_they_are_handed_out():
    schema = pa.schema({"r": pa.list_(pa.int32())})
    for policy, wanted in {
        "pad": "int32 (B, longest), r_lengths",
        "values_offsets": "int32 (N,), r_offsets",
        "list": "list of one value a row",
        "nested": "nested int32 (B, *)",
    }.items():
        found = columns_become(Format("torch", ragged=policy), schema)
        assert found["r"] == f"list<item: int32> -> {wanted}"


def test_many_columns_are_counted():
    schema = pa.schema({f"c{i}": pa.int8() for i in range(4000)})
    found = columns_become(Format("torch"), schema)
    assert len(found) == MAX_COLUMNS + 1
    assert found["..."] == f"{4000 - MAX_COLUMNS} more"


def test_what_cannot_be_converted_is_shown_as_it_is_stored():
    found = columns_become(Format("torch"), pa.schema({"d": pa.decimal128(9, 2)}))
    assert found == {"d": "decimal128(9, 2)"}


def test_text_is_lined_up():
    shown = as_text("X", {"a": "1", "long": "2", "very long": {"b": "3"}})
    assert shown == "X\n  a     1\n  long  2\n  very long\n    b  3"
