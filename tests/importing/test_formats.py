"""`lance-lightning import`: every format, types kept."""

import datetime as dt
import decimal
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from lance_lightning import LanceDataModule
from lance_lightning.errors import ConfigError, DataError, SourceError
from lance_lightning.importing.detect import open_input
from lance_lightning.importing.table import import_table
from tests.helpers.imports import imported, write_tar
from tests.helpers.tables import make_table


def typed(rows=50):
    """Return a table of many types, with nulls in every column but the id."""
    ids = list(range(rows))

    def with_nulls(values, kind):
        return pa.array([None if i % 7 == 3 else values(i) for i in ids], kind)

    day = dt.datetime(2013, 1, 1, tzinfo=dt.timezone.utc)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "small": with_nulls(lambda i: i % 100, pa.int8()),
            "half": with_nulls(lambda i: np.float16(i), pa.float16()),
            "name": with_nulls(str, pa.string()),
            "long": with_nulls(str, pa.large_string()),
            "bytes": with_nulls(lambda i: bytes([i]), pa.binary()),
            "flag": with_nulls(lambda i: i % 2 == 0, pa.bool_()),
            "time": with_nulls(
                lambda i: day + dt.timedelta(hours=i), pa.timestamp("us", tz="UTC")
            ),
            "date": with_nulls(lambda i: day.date(), pa.date32()),
            "price": with_nulls(decimal.Decimal, pa.decimal128(12, 2)),
            "list": with_nulls(lambda i: [i] * (i % 4), pa.list_(pa.int32())),
            "vector": with_nulls(lambda i: [i, i], pa.list_(pa.float32(), 2)),
            "struct": with_nulls(
                lambda i: {"a": i}, pa.struct([pa.field("a", pa.int16())])
            ),
            "kind": with_nulls(lambda i: "xyz"[i % 3], pa.string()).dictionary_encode(),
        }
    )


# -- formats -------------------------------------------------------------------


def test_parquet_keeps_types_and_rows(tmp_path):
    table = typed()
    if int(pa.__version__.partition(".")[0]) < 26:
        # It does not write and read back a list of fixed size that is null.
        table = table.drop_columns("vector")
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=7)
    dataset = imported(tmp_path / "rows.parquet", tmp_path)
    assert dataset.schema.types == table.schema.types
    assert dataset.to_table().to_pylist() == table.to_pylist()


def test_a_folder_of_parquet_is_one_table_in_the_order_of_names(tmp_path):
    source = tmp_path / "in"
    for name, rows in {"a": (0, 30), "b": (30, 31), "c": (31, 103)}.items():
        part = make_table(rows[1] - rows[0], start=rows[0])
        if name == "b":  # another width, and a column less
            part = part.drop_columns("name").set_column(
                1, "label", part["label"].cast("int32")
            )
        (source / f"half={name}").mkdir(parents=True)
        pq.write_table(part, source / f"half={name}" / "rows.parquet")
    (source / "_SUCCESS").write_text("")
    found = imported(source, tmp_path).to_table()
    assert found["half"].to_pylist() == ["a"] * 30 + ["b"] + ["c"] * 72
    expected = make_table(103).to_pylist()
    expected[30]["name"] = None
    assert found.drop_columns("half").to_pylist() == expected


@pytest.mark.parametrize("kind", ["file", "stream", "feather"])
def test_arrow_keeps_types_and_rows(tmp_path, kind):
    table = typed().cast(
        typed().schema.set(1, pa.field("small", pa.int64()))
    )  # and a null of each
    path = tmp_path / ("rows.feather" if kind == "feather" else "rows.arrow")
    if kind == "feather":
        feather.write_feather(table.drop_columns("half"), path, chunksize=8)
        table = table.drop_columns("half")
    else:
        new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with new(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=8)
    dataset = imported(path, tmp_path, "--rows-per-file", "20")
    assert dataset.schema.types == table.schema.types
    assert dataset.to_table().to_pylist() == table.to_pylist()
    assert [part.count_rows() for part in dataset.get_fragments()] == [20, 20, 10]


def test_csv_takes_its_types_from_the_text(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "1.csv").write_text("id,name,price,day\n0,a,,2013-01-01\n1,,2,\n")
    (source / "2.csv").write_text("id,name,price,day\n2,c,2.5,2013-01-03\n")
    dataset = imported(source, tmp_path)
    types = dict(zip(dataset.schema.names, dataset.schema.types, strict=True))
    expected = {
        "id": "int64",
        "name": "string",
        "price": "double",
        "day": "date32[day]",
    }
    assert {name: str(kind) for name, kind in types.items()} == expected
    rows = dataset.to_table().to_pylist()
    assert [row["id"] for row in rows] == [0, 1, 2]
    assert [row["price"] for row in rows] == [None, 2.0, 2.5]
    assert rows[2]["day"] == dt.date(2013, 1, 3)


def test_json_lines_keep_lists_and_structs(tmp_path):
    rows = [
        {"id": i, "text": f"é{i}", "tags": ["x"] * (i % 3), "at": {"x": i / 2}}
        for i in range(40)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert imported(path, tmp_path).to_table().to_pylist() == rows


def test_image_folders_give_bytes_paths_and_classes(tmp_path):
    source = tmp_path / "in"
    files = {
        f"{name}/{i}.png": bytes([i]) * (i + 1)
        for name in ("dog", "cat")
        for i in range(5)
    }
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (source / "labels.csv").write_text("not an image")
    dataset = imported(source, tmp_path, "--rows-per-file", "4")
    assert [str(kind) for kind in dataset.schema.types] == [
        *("binary", "string", "int64", "string")
    ]
    rows = dataset.to_table().to_pylist()
    assert {row["path"]: row["image"] for row in rows} == files
    assert [row["path"] for row in rows] == sorted(files)
    assert {(row["class_name"], row["label"]) for row in rows} == {
        ("cat", 0),
        ("dog", 1),
    }
    assert all(row["path"].startswith(row["class_name"] + "/") for row in rows)


def test_an_image_folder_without_classes_has_no_labels(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.JPG").write_bytes(b"a")
    assert imported(source, tmp_path).to_table().to_pylist() == [
        {"image": b"a", "path": "a.JPG"}
    ]
    (source / "dog").mkdir()
    (source / "dog" / "b.jpg").write_bytes(b"b")
    with pytest.raises(SourceError, match=r"'a.JPG' lies beside the folders dog"):
        open_input(source)


def test_webdataset_gives_a_row_a_sample(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for shard, ending in enumerate(["tar", "tar.gz"]):
        samples = []
        for i in range(shard * 10, shard * 10 + 10):
            samples.append((f"train/{i:03}.jpg", bytes([i])))
            samples.append((f"train/{i:03}.cls", str(i % 3).encode()))
            if i % 2:
                samples.append((f"train/{i:03}.seg.png", b"s"))
            samples.append((f"train/{i:03}.json", json.dumps({"i": i}).encode()))
        write_tar(source / f"{shard}.{ending}", samples)
    dataset = imported(source, tmp_path, "--rows-per-file", "7")
    assert dataset.to_table().to_pylist() == [
        {
            "__key__": f"train/{i:03}",
            "cls": i % 3,
            "jpg": bytes([i]),
            "json": json.dumps({"i": i}),
            "seg_png": b"s" if i % 2 else None,
        }
        for i in range(20)
    ]
    assert dataset.schema.field("cls").type == pa.int64()
    assert dataset.schema.field("json").type == pa.string()


def test_a_class_that_is_no_number_names_the_file(tmp_path):
    write_tar(tmp_path / "a.tar", [("1.cls", b"3"), ("2.cls", b"dog")])
    with pytest.raises(DataError, match=r"2\.cls in .*a\.tar holds b'dog'"):
        import_table(tmp_path / "a.tar", tmp_path / "a.lance")
    assert not (tmp_path / "a.lance").exists()


@pytest.fixture
def saved(tmp_path):
    """A dataset of Hugging Face on disk, shuffled, and its rows."""
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    rows = [
        {
            "id": i,
            "label": i % 2,
            "text": f"row {i}",
            "grid": [[i, i + 1], [i + 2, i + 3]],
            "picture": image.new("RGB", (2, 2), (i, 0, 0)),
        }
        for i in range(30)
    ]
    features = datasets.Features(
        {
            "id": datasets.Value("int32"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "text": datasets.Value("string"),
            "grid": datasets.Array2D((2, 2), "float32"),
            "picture": datasets.Image(),
        }
    )
    found = datasets.Dataset.from_list(rows, features=features).shuffle(seed=1)
    found.save_to_disk(tmp_path / "hf", num_shards=3)
    return tmp_path / "hf", found


def test_hugging_face_on_disk_keeps_rows_and_order(tmp_path, saved):
    source, expected = saved
    dataset = imported(source, tmp_path, "--rows-per-file", "8")
    found = dataset.to_table()
    assert found["id"].to_pylist() == expected["id"][:]
    assert found["text"].to_pylist() == expected["text"][:]
    assert found["grid"].to_pylist() == expected["grid"][:]
    types = {name: str(dataset.schema.field(name).type) for name in found.column_names}
    assert types["id"] == "int32"
    grid = dataset.schema.field("grid").type
    assert (grid.list_size, grid.value_type.list_size) == (2, 2)
    assert types["picture"] == "binary"
    from PIL import Image

    first = Image.open(io.BytesIO(found["picture"][0].as_py()))
    assert first.getpixel((0, 0)) == (found["id"][0].as_py(), 0, 0)


def test_hugging_face_splits_are_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"a": [1]})
    both = datasets.DatasetDict({"train": rows, "test": rows})
    both.save_to_disk(tmp_path / "hf")
    with pytest.raises(ConfigError, match=r"splits train, test.*hf/train'"):
        open_input(tmp_path / "hf")
    assert open_input(tmp_path / "hf" / "train").num_rows == 1


def test_an_empty_table_keeps_its_types(tmp_path):
    pq.write_table(typed().slice(0, 0), tmp_path / "none.parquet")
    dataset = imported(tmp_path / "none.parquet", tmp_path)
    assert dataset.count_rows() == 0
    assert dataset.schema.types == typed().schema.types


def test_what_is_imported_can_be_trained_on(tmp_path):
    pq.write_table(make_table(103), tmp_path / "rows.parquet")
    imported(tmp_path / "rows.parquet", tmp_path)
    data = LanceDataModule(tmp_path / "out" / "rows.lance", batch_size=10)
    data.setup("fit")
    ids = np.concatenate([batch["id"] for batch in data.train_dataloader()])
    assert sorted(ids) == list(range(103))


def write_source(folder, kind):
    """Write 23 rows in several files, groups or shards."""
    folder.mkdir()
    table = pa.table({"id": range(23), "name": [f"n{i}" for i in range(23)]})
    halves = {"a": table.slice(0, 9), "b": table.slice(9)}
    for name, half in halves.items():
        rows = half.to_pylist()
        if kind == "parquet":
            pq.write_table(half, folder / f"{name}.parquet", row_group_size=4)
        elif kind == "csv":
            csv.write_csv(half, folder / f"{name}.csv")
        elif kind == "json":
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(lines)
        elif kind == "arrow":
            with pa.ipc.new_stream(folder / f"{name}.arrow", half.schema) as writer:
                writer.write_table(half, max_chunksize=4)
        elif kind == "images":
            (folder / name).mkdir()
            for row in rows:
                (folder / name / f"{row['id']:02}.png").write_bytes(b"x")
        else:
            samples = [
                (f"{row['id']:02}.{x}", b"1") for row in rows for x in ("cls", "a")
            ]
            write_tar(folder / f"{name}.tar", samples)


@pytest.mark.parametrize(
    "kind", ["arrow", "csv", "huggingface", "images", "json", "parquet", "webdataset"]
)
def test_an_input_can_begin_at_any_row(tmp_path, kind):
    if kind == "huggingface":
        datasets = pytest.importorskip("datasets")
        rows = datasets.Dataset.from_dict({"id": range(23)}).shuffle(seed=0)
        rows.save_to_disk(tmp_path / "in", num_shards=2)
    else:
        write_source(tmp_path / "in", kind)
    found = open_input(tmp_path / "in")
    assert found.num_rows in (23, None)

    def rows_after(skip):
        return [row for batch in found.batches(skip) for row in batch.to_pylist()]

    whole = rows_after(0)
    assert len({json.dumps(row, default=str) for row in whole}) == 23
    for skip in range(25):
        assert rows_after(skip) == whole[skip:]
    assert all(batch.schema == found.schema for batch in found.batches(3))
