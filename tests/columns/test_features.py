"""A Hugging Face dataset written by Lance: its features say what the columns become."""

from __future__ import annotations

import io
import json

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch

from lance_lightning import (
    BlockShuffle,
    ConfigError,
    DataError,
    LanceDataModule,
    LanceSource,
    Sequential,
    Shuffle,
)
from lance_lightning.columns.features import class_names, features_of
from lance_lightning.importing.table import import_table

datasets = pytest.importorskip("datasets")
images = pytest.importorskip("PIL.Image")

ROWS = 24


def pixels(i, size=4):
    """Return an image whose every value says which it is."""
    return np.full((size, size, 3), i, np.uint8)


def picture(i, size=4):
    return images.fromarray(pixels(i, size))


def made():
    """Return a dataset with every feature that a table keeps something of."""
    one, many = datasets.Value, datasets.List
    columns = {
        "id": (one("int64"), list(range(ROWS))),
        "image": (datasets.Image(), [picture(i) for i in range(ROWS)]),
        "uneven": (datasets.Image(), [picture(i, 2 + i % 2) for i in range(ROWS)]),
        "prompt": (one("string"), [f"p{i}" for i in range(ROWS)]),
        "label": (
            datasets.ClassLabel(names=["cat", "dog"]),
            [i % 2 for i in range(ROWS)],
        ),
        "grid": (
            datasets.Array2D((2, 3), "float32"),
            [np.full((2, 3), i, np.float32) for i in range(ROWS)],
        ),
        "cube": (
            datasets.Array3D((2, 1, 2), "uint8"),
            [np.full((2, 1, 2), i, np.uint8) for i in range(ROWS)],
        ),
        "open": (
            datasets.Array2D((None, 2), "int64"),
            [np.full((1 + i % 3, 2), i) for i in range(ROWS)],
        ),
        "views": (
            many(datasets.Image()),
            [[picture(i)] * (i % 3) for i in range(ROWS)],
        ),
        "kinds": (
            many(datasets.ClassLabel(names=["x", "y"])),
            [[i % 2] for i in range(ROWS)],
        ),
        "pair": (
            datasets.Translation(["en", "fr"]),
            [{"en": f"e{i}", "fr": f"f{i}"} for i in range(ROWS)],
        ),
        "deep": (
            {"im": datasets.Image(), "of": datasets.ClassLabel(names=["p", "q"])},
            [{"im": picture(i), "of": i % 2} for i in range(ROWS)],
        ),
    }
    return datasets.Dataset.from_dict(
        {name: values for name, (_, values) in columns.items()},
        features=datasets.Features({n: kind for n, (kind, _) in columns.items()}),
    )


@pytest.fixture(scope="module")
def dataset():
    return made()


@pytest.fixture(scope="module")
def uri(dataset, tmp_path_factory):
    """What the documents of Lance do: the dataset as it is, written by Lance."""
    place = str(tmp_path_factory.mktemp("features") / "hf.lance")
    lance.write_dataset(dataset, place)
    return place


def batches(source, tmp_path, **options):
    options = {"sampler": Sequential(), "batch_size": 5, **options}
    data = LanceDataModule(source, cache_dir=tmp_path, **options)
    data.setup("fit")
    return list(data.train_dataloader())


ORDERS = [Sequential(), Shuffle(), BlockShuffle(block_size=2)]


@pytest.mark.parametrize("decoders", ["image", {"image": "image"}])
@pytest.mark.parametrize("sampler", ORDERS, ids=str)
def test_an_image_of_a_hugging_face_dataset_is_decoded(
    uri, tmp_path, decoders, sampler
):
    options = {"columns": ["id", "image", "prompt"], "sampler": sampler}
    seen = []
    for batch in batches(uri, tmp_path, decoders=decoders, **options):
        assert batch["image"].shape == (len(batch["id"]), 3, 4, 4)
        assert batch["image"].dtype == torch.uint8
        ids = batch["id"].tolist()
        assert batch["image"][:, 0, 0, 0].tolist() == ids
        assert batch["prompt"] == [f"p{i}" for i in ids]
        seen += ids
    assert sorted(seen) == list(range(ROWS))


def test_an_image_without_a_decoder_is_its_bytes(uri, tmp_path):
    for form in ("torch", "numpy", "python"):
        (first, *_) = batches(
            uri, tmp_path, columns=["id", "image"], output_format=form
        )
        for at, data in enumerate(first["image"]):
            assert np.asarray(images.open(io.BytesIO(data)))[0, 0, 0] == at


@pytest.mark.parametrize("sampler", ORDERS, ids=str)
def test_every_feature_becomes_what_it_means(uri, tmp_path, sampler):
    for batch in batches(uri, tmp_path, decoders="image", sampler=sampler):
        ids = batch["id"].tolist()
        size = len(ids)
        assert batch["label"].tolist() == [i % 2 for i in ids]
        assert batch["grid"].shape == (size, 2, 3)
        assert batch["grid"][:, 1, 2].tolist() == ids
        assert batch["cube"].shape == (size, 2, 1, 2)
        assert batch["cube"].dtype == torch.uint8
        assert batch["cube"][:, 1, 0, 1].tolist() == ids
        assert batch["open_lengths"].tolist() == [1 + i % 3 for i in ids]
        assert batch["open"].shape == (size, max(1 + i % 3 for i in ids), 2)
        assert batch["open"][:, 0, 1].tolist() == ids
        assert [im.shape for im in batch["uneven"]] == [
            (3, 2 + i % 2, 2 + i % 2) for i in ids
        ]
        assert [im[0, 0, 0].item() for im in batch["uneven"]] == ids
        assert [len(views) for views in batch["views"]] == [i % 3 for i in ids]
        for i, views in zip(ids, batch["views"], strict=True):
            assert all(view.shape == (3, 4, 4) and (view == i).all() for view in views)
        assert batch["pair"] == {
            "en": [f"e{i}" for i in ids],
            "fr": [f"f{i}" for i in ids],
        }
        assert batch["deep"]["im"][:, 0, 0, 0].tolist() == ids
        assert batch["deep"]["of"].tolist() == [i % 2 for i in ids]


def test_lists_of_images_without_a_decoder_are_lists_of_bytes(uri, tmp_path):
    first, *_ = batches(uri, tmp_path, columns=["id", "views"])
    for i, views in zip(first["id"].tolist(), first["views"], strict=True):
        assert len(views) == i % 3
        assert all(isinstance(view, bytes) for view in views)


def test_renamed_features_keep_their_meaning(uri, tmp_path):
    columns = {"g": "grid", "im": "deep.im", "bytes": "image.bytes", "id": "id"}
    first, *_ = batches(
        uri, tmp_path, columns=columns, decoders={"im": "image", "bytes": "image"}
    )
    assert first["g"].shape == (5, 2, 3)
    assert first["im"].shape == first["bytes"].shape == (5, 3, 4, 4)
    rows, *_ = batches(uri, tmp_path, columns=["grid"], output_format="torch_row")
    assert rows.shape == (5, 6)


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize("workers", [2])
def test_workers_decode_what_the_features_say(uri, tmp_path, workers):
    for batch in batches(
        uri,
        tmp_path,
        columns=["id", "image", "grid", "views"],
        decoders="image",
        num_workers=workers,
    ):
        ids = batch["id"].tolist()
        assert batch["image"][:, 0, 0, 0].tolist() == ids
        assert batch["grid"][:, 1, 2].tolist() == ids
        assert [len(views) for views in batch["views"]] == [i % 3 for i in ids]


def test_class_names_are_at_hand(uri, dataset, tmp_path):
    data = LanceDataModule(uri, cache_dir=tmp_path)
    data.setup("fit")
    assert data.class_names("label") == ["cat", "dog"]
    assert data.class_names("kinds") == ["x", "y"]
    assert data.class_names("deep.of") == ["p", "q"]
    for wrong in ("prompt", "nothing"):
        with pytest.raises(ConfigError, match=r"'label', 'kinds', 'deep\.of'"):
            data.class_names(wrong)
    plain = LanceDataModule(pa.table({"label": [0]}), cache_dir=tmp_path)
    with pytest.raises(ConfigError, match="class names: none"):
        plain.class_names("label")


def test_a_hugging_face_dataset_as_the_source_is_the_same(dataset, uri, tmp_path):
    columns = ["id", "image", "grid", "label"]
    written = batches(uri, tmp_path, columns=columns, decoders="image")
    given = batches(dataset, tmp_path, columns=columns, decoders="image")
    for one, other in zip(written, given, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in columns)


def test_an_imported_dataset_is_the_same(dataset, uri, tmp_path):
    # save_to_disk of datasets 5.2 fails at a Translation.
    dataset.remove_columns(["pair"]).save_to_disk(str(tmp_path / "saved"))
    target = tmp_path / "imported.lance"
    import_table(tmp_path / "saved", target)
    columns = ["id", "image", "grid", "cube", "views", "label"]
    written = batches(uri, tmp_path, columns=columns, decoders="image")
    found = batches(target, tmp_path, columns=columns, decoders="image")
    for one, other in zip(written, found, strict=True):
        for name in columns:
            if name == "views":
                assert [len(v) for v in one[name]] == [len(v) for v in other[name]]
            else:
                assert torch.equal(one[name], other[name])
    data = LanceDataModule(target, cache_dir=tmp_path)
    assert data.class_names("label") == ["cat", "dog"]


# -- nulls and paths -----------------------------------------------------------


def encoded(i):
    out = io.BytesIO()
    picture(i).save(out, "PNG")
    return out.getvalue()


FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def files(*values):
    return pa.table({"id": range(len(values)), "image": pa.array(values, FILE)})


def test_a_null_path_is_no_error_and_a_null_image_is(tmp_path):
    paths = files(
        {"bytes": encoded(0), "path": None}, {"bytes": encoded(1), "path": "b"}
    )
    (batch,) = batches(paths, tmp_path, decoders="image")
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 1]
    for nothing in (None, {"bytes": None, "path": None}):
        nulls = files({"bytes": encoded(0), "path": "a"}, nothing)
        with pytest.raises(DataError, match="has 1 nulls") as caught:
            batches(nulls, tmp_path, decoders="image")
        assert "`image`.`bytes` is not null" in str(caught.value)
        lance.write_dataset(nulls, str(tmp_path / "n.lance"), mode="overwrite")
        source = LanceSource(tmp_path / "n.lance", filter="`image`.`bytes` is not null")
        (batch,) = batches(source, tmp_path, decoders="image")
        assert batch["id"].tolist() == [0]
        (batch,) = batches(nulls, tmp_path, decoders="image", nulls={"image": "mask"})
        assert batch["image_mask"].tolist() == [True, False]
        assert batch["image"].shape == (2, 3, 4, 4)
        fill = {"image": {"fill": encoded(7)}}
        (batch,) = batches(nulls, tmp_path, decoders="image", nulls=fill)
        assert batch["image"][:, 0, 0, 0].tolist() == [0, 7]


@pytest.mark.parametrize("output_format", ["torch", "python"])
def test_a_null_path_in_a_struct_is_no_error(tmp_path, output_format):
    rows = [{"image": {"bytes": encoded(i), "path": None}, "n": i} for i in range(2)]
    table = pa.table({"made": pa.array(rows, pa.struct({"image": FILE, "n": "int64"}))})
    (batch,) = batches(table, tmp_path, output_format=output_format)
    assert list(batch["made"]["image"]) == [encoded(0), encoded(1)]
    assert batch["made"]["n"].tolist() == [0, 1]


def test_a_path_without_bytes_names_the_remedy(dataset, tmp_path):
    only = files(
        {"bytes": encoded(0), "path": "a"}, {"bytes": None, "path": "there.png"}
    )
    for options in ({"decoders": "image"}, {"nulls": {"image": "mask"}}, {}):
        with pytest.raises(DataError, match=r"the path 'there.png'.*save_to_disk"):
            batches(only, tmp_path, **options)
    # The remedy, with files that the dataset only points to.
    picture(3).save(tmp_path / "there.png")
    outside = datasets.Dataset.from_dict({"image": [str(tmp_path / "there.png")]})
    outside = outside.cast_column("image", datasets.Image())
    with pytest.raises(DataError, match="a path is not read"):
        batches(outside, tmp_path, decoders="image")
    outside.save_to_disk(str(tmp_path / "folder"))
    import_table(tmp_path / "folder", tmp_path / "target.lance")
    (batch,) = batches(tmp_path / "target.lance", tmp_path, decoders="image")
    assert (batch["image"] == 3).all()


def test_an_image_that_cannot_be_decoded_names_its_row(tmp_path):
    bad = files(*({"bytes": encoded(i), "path": None} for i in range(7)))
    bad = pa.concat_tables([bad, files({"bytes": b"no image", "path": "x"})])
    with pytest.raises(DataError, match=r"'image.bytes': 8 bytes .* row ids \[7\]"):
        batches(bad, tmp_path, decoders="image", batch_size=4)


def test_sound_is_not_taken_for_an_image(tmp_path):
    features = {"sound": {"_type": "Audio"}, "image": {"_type": "Image"}}
    found = files({"bytes": encoded(0), "path": None})
    found = found.append_column(
        "sound", pa.array([{"bytes": b"RIFF", "path": "a"}], FILE)
    )
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    found = found.replace_schema_metadata(said)
    (batch,) = batches(found, tmp_path, decoders="image")
    assert batch["sound"] == [b"RIFF"]
    assert batch["image"].shape == (1, 3, 4, 4)
    (batch,) = batches(found, tmp_path, decoders={"sound": len})
    assert batch["sound"] == [4]


def test_an_array_of_another_shape_than_is_said_is_refused(tmp_path):
    features = {"grid": {"_type": "Array2D", "shape": [2, 2], "dtype": "int64"}}
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    rows = pa.table({"grid": [[[1, 2], [3, 4]], [[1, 2], [3]]]})
    with pytest.raises(DataError, match=r"'grid' is said to hold .* \(2, 2\)"):
        batches(rows.replace_schema_metadata(said), tmp_path)


def test_a_list_of_older_versions_is_understood_and_other_metadata_is_not_ours():
    features = {"a": [{"_type": "ClassLabel", "names": ["n"]}]}
    features["b"] = {"feature": features["a"][0], "_type": "Sequence", "length": -1}
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema({"a": pa.list_(pa.int64())}, said)
    assert class_names(schema, "a") == class_names(schema, "b") == ["n"]
    for other in ("{", "[]", '{"info": {}}', '{"info": {"features": 3}}'):
        assert features_of(pa.schema([], {"huggingface": other})) == {}


def test_the_module_shows_what_the_features_become(uri, tmp_path):
    data = LanceDataModule(
        uri, columns=["image", "grid", "label"], decoders="image", cache_dir=tmp_path
    )
    data.setup("fit")
    data.train_dataloader()
    assert "decoded by image" in repr(data)
    assert "float32 (B, 2, 3)" in repr(data)
