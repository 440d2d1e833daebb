"""Blob columns: their bytes come with the rows, in every order and format."""

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning import (
    AllRows,
    BlockShuffle,
    LanceDataModule,
    LanceSource,
    Sequential,
    Shuffle,
)
from lance_lightning.errors import DataError
from lance_lightning.tables.blobs import BlobDataset, with_blobs

ROWS = 203
MARK = {"lance-encoding:blob": "true"}


def value(i):
    """Nulls, empty blobs and blobs of many sizes."""
    if i % 7 == 3:
        return None
    return b"" if i % 7 == 4 else bytes([i % 251]) * (i % 97 + 1)


def write_blobs(path, version, values=None):
    values = [value(i) for i in range(ROWS)] if values is None else values
    ids = pa.array(range(len(values)), pa.int64())
    if version == 1:
        field = pa.field("blob", pa.large_binary(), metadata=MARK)
        blobs = pa.array(values, pa.large_binary())
    else:
        field, blobs = lance.blob_field("blob"), lance.blob_array(values)
    schema = pa.schema([pa.field("id", pa.int64()), field])
    table = pa.Table.from_arrays([ids, blobs], schema=schema)
    return lance.write_dataset(
        table,
        str(path),
        max_rows_per_file=60,
        data_storage_version="2.1" if version == 1 else "2.2",
    )


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def dataset(request, tmp_path):
    found = write_blobs(tmp_path / "blobs.lance", request.param)
    found.delete("id in (10, 11, 59)")
    return found


def module(dataset, **options):
    defaults = {"batch_size": 16, "nulls": {"blob": {"fill": b"none"}}}
    return LanceDataModule(LanceSource(dataset.uri), **{**defaults, **options})


@pytest.mark.parametrize("sampler", [Sequential(), Shuffle(), BlockShuffle()], ids=repr)
def test_blobs_stand_beside_their_rows_in_every_order(dataset, sampler):
    data = module(dataset, sampler=sampler)
    seen = {}
    for batch in data.train_dataloader():
        seen.update(zip(batch["id"].tolist(), batch["blob"], strict=True))
    ids = [i for i in range(ROWS) if i not in (10, 11, 59)]
    assert seen == {i: b"none" if value(i) is None else value(i) for i in ids}


@pytest.mark.parametrize("name", ["arrow", "polars", "pandas", "python_col", "numpy"])
def test_blobs_are_bytes_in_every_format(dataset, name):
    nulls = {"blob": "mask"} if name == "numpy" else "error"
    data = module(
        dataset, output_format=name, nulls=nulls, sampler=Shuffle(), batch_size=300
    )
    (batch,) = data.train_dataloader()
    frame = {
        "arrow": lambda: batch.to_pydict(),
        "polars": lambda: batch.to_dict(as_series=False),
        "pandas": lambda: batch.to_dict("list"),
    }.get(name, lambda: batch)()
    ids, blobs = list(frame["id"]), list(frame["blob"])
    nones = [value(i) is None for i in ids]
    if name == "numpy":
        assert frame["blob_mask"].tolist() == [not none for none in nones]
        blobs = [None if none else b for none, b in zip(nones, blobs, strict=True)]
    blobs = [b if isinstance(b, bytes) else None for b in blobs]
    assert blobs == [value(i) for i in ids]


def test_blobs_with_a_filter_a_new_name_and_one_column_alone(dataset):
    source = LanceSource(dataset.uri, filter="id % 2 = 0 and id % 7 <> 3")
    options = {"sampler": Shuffle(), "batch_size": 16, "output_format": "python_col"}
    expected = [
        value(i) for i in range(0, ROWS, 2) if i % 7 != 3 and i not in (10, 11, 59)
    ]
    for columns in (["blob"], {"image": "blob"}, {"image": "blob", "twice": "id * 2"}):
        data = LanceDataModule(source, columns=columns, **options)
        name = "blob" if isinstance(columns, list) else "image"
        found = [b for batch in data.train_dataloader() for b in batch[name]]
        assert sorted(found) == sorted(expected)


@pytest.mark.usefixtures("worker_kind")
def test_blobs_come_from_workers(dataset):
    data = module(dataset, num_workers=1, sampler=Shuffle())
    seen = {}
    for batch in data.train_dataloader():
        seen.update(zip(batch["id"].tolist(), batch["blob"], strict=True))
    data.teardown()
    assert seen == {i: b"none" if value(i) is None else value(i) for i in seen}
    assert len(seen) == ROWS - 3


def test_a_blob_in_a_struct_is_read_by_its_path(tmp_path):
    inner = pa.field("image", pa.large_binary(), metadata=MARK)
    kind = pa.struct([inner, pa.field("k", pa.int64())])
    rows = [{"image": bytes([i]) * i, "k": i} for i in range(9)]
    uri = str(tmp_path / "nested.lance")
    lance.write_dataset(
        pa.table({"info": pa.array(rows, kind)}), uri, data_storage_version="2.1"
    )
    data = LanceDataModule(uri, columns=["info.image", "info.k"], sampler=Shuffle())
    (batch,) = data.train_dataloader()
    assert batch["info.image"] == [bytes([k]) * k for k in batch["info.k"].tolist()]
    with pytest.raises(DataError, match=r"columns=\['info.image', ...\]"):
        LanceDataModule(uri).train_dataloader()


def test_an_expression_of_a_blob_is_refused(dataset):
    data = module(dataset, columns={"blob": "(blob)"})
    with pytest.raises(DataError, match="no expression can use"):
        data.train_dataloader()


def test_windows_are_bounded_by_the_size_of_the_blobs(tmp_path):
    values = [bytes(100_000)] * 64
    dataset = write_blobs(tmp_path / "large.lance", 2, values)
    data = LanceDataModule(dataset.uri, batch_size=4, nulls="error")
    loader = data.train_dataloader()
    assert 100_000 <= loader.reader.sizes.row_bytes < 101_000


def test_takes_repeat_rows_as_asked(dataset):
    reading = with_blobs(dataset, None)
    assert isinstance(reading, BlobDataset)
    found = reading.take(np.array([0, 0, 5, 5, 6]), None)
    assert found["id"].to_pylist() == [0, 0, 5, 5, 6]
    assert found["blob"].to_pylist() == [value(i) for i in (0, 0, 5, 5, 6)]
    empty = reading.scanner(None, limit=0).to_table()
    assert empty.schema == found.schema


def test_a_table_without_blobs_is_read_by_lance_alone(table):
    dataset = lance.dataset(table)
    assert with_blobs(dataset, None) is dataset


def test_blobs_not_asked_for_are_not_read(dataset):
    assert with_blobs(dataset, ["id"]) is dataset
    data = module(dataset, columns=["id"], nulls="error", splits=AllRows("train"))
    assert sum(len(batch["id"]) for batch in data.train_dataloader()) == ROWS - 3
