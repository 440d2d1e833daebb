"""Decoders: bytes become images or whatever a function makes of them."""

import io
import shutil
import struct

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from lance_lightning import LanceDataModule, Sequential, Shuffle
from lance_lightning.columns.decoders import decode_image
from lance_lightning.errors import ConfigError, DataError, DecodeError
from lance_lightning.formats.format import Format
from tests.helpers.own_batches import as_it_is

ROWS = 50


def pixels(i, height=6, width=5):
    """Return an image that follows from its number, uint8 of (H, W, 3)."""
    return np.full((height, width, 3), i, np.uint8) + np.arange(3, dtype=np.uint8)


def encoded(array, kind="PNG", **options):
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind, **options)
    return out.getvalue()


def write_images(path, images, kind="binary"):
    ids = pa.array(range(len(images)), pa.int64())
    if kind == "blob":
        field, values = lance.blob_field("image"), lance.blob_array(images)
    else:
        type_ = {"binary": pa.binary(), "large_binary": pa.large_binary()}[kind]
        field, values = pa.field("image", type_), pa.array(images, type_)
    schema = pa.schema([pa.field("id", pa.int64()), field])
    table = pa.Table.from_arrays([ids, values], schema=schema)
    lance.write_dataset(table, str(path), data_storage_version="2.2")
    return str(path)


@pytest.mark.parametrize("kind", ["binary", "large_binary", "blob"])
@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_images_of_one_size_are_stacked(tmp_path, kind, name):
    images = [encoded(pixels(i)) for i in range(ROWS)]
    uri = write_images(tmp_path / "t.lance", images, kind)
    data = LanceDataModule(
        uri, decoders="image", batch_size=16, output_format=name, sampler=Shuffle()
    )
    seen = []
    for batch in data.train_dataloader():
        assert tuple(batch["image"].shape[1:]) == (3, 6, 5)
        assert str(batch["image"].dtype).endswith("uint8")
        for i, image in zip(batch["id"].tolist(), batch["image"], strict=True):
            assert np.array_equal(np.asarray(image), pixels(i).transpose(2, 0, 1))
            seen.append(i)
    assert sorted(seen) == list(range(ROWS))


def test_images_of_many_sizes_are_a_list_in_the_batches_that_have_them(tmp_path):
    images = [encoded(pixels(i, 6, 5 + (i >= 4))) for i in range(8)]
    uri = write_images(tmp_path / "t.lance", images)
    data = LanceDataModule(
        uri, decoders={"image": "image"}, batch_size=3, sampler=Sequential()
    )
    first, second, third = data.train_dataloader()
    assert first["image"].shape == (3, 3, 6, 5)
    assert [tuple(image.shape) for image in second["image"]] == [
        (3, 6, 5),
        (3, 6, 6),
        (3, 6, 6),
    ]
    assert third["image"].shape == (2, 3, 6, 6)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_kinds_of_images_decode_as_pillow_has_them(kind):
    data = encoded(pixels(100, 16, 16), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decode_image(data), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK"])
def test_modes_become_rgb(mode):
    image = Image.fromarray(pixels(100)).convert(mode)
    out = io.BytesIO()
    kind = "TIFF" if mode in ("CMYK", "PA") else "PNG"
    if mode == "PA":
        image = Image.fromarray(pixels(100)).convert("P")
        image.save(out, "PNG", transparency=bytes([0, 128]))
    else:
        image.save(out, kind)
    assert decode_image(out.getvalue()).shape == (3, 6, 5)


def test_more_than_eight_bits_are_refused():
    data = encoded(np.full((4, 4), 60_000, np.uint16))
    with pytest.raises(ValueError, match="more than 8 bits a channel"):
        decode_image(data)


def broken(tmp_path, where=5):
    images = [encoded(pixels(i)) for i in range(20)]
    images[where] = images[where][:30]
    uri = write_images(tmp_path / "t.lance", images)
    dataset = lance.dataset(uri)
    ids = dataset.to_table(columns=["_rowid"])["_rowid"].to_pylist()
    return uri, ids[where]


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_broken_is_named_by_column_and_row_id(tmp_path, workers):
    uri, row_id = broken(tmp_path)
    data = LanceDataModule(
        uri, decoders="image", batch_size=4, num_workers=workers, sampler=Sequential()
    )
    with pytest.raises(DecodeError, match=rf"column 'image': 30 .*ids \[{row_id}\]"):
        list(data.train_dataloader())
    data.teardown()


def test_after_an_arrow_transform_the_error_names_the_batch(tmp_path):
    uri, row_id = broken(tmp_path)
    data = LanceDataModule(
        uri,
        decoders="image",
        batch_size=4,
        arrow_transform=as_it_is,
        sampler=Sequential(),
    )
    with pytest.raises(DecodeError, match=rf"in the batch of row ids \[.*{row_id}"):
        list(data.train_dataloader())


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_nulls_among_images(tmp_path, name):
    images = [encoded(pixels(1)), None, encoded(pixels(3)), None]
    uri = write_images(tmp_path / "t.lance", images)

    def batches(**options):
        data = LanceDataModule(
            uri,
            decoders="image",
            output_format=name,
            sampler=Sequential(),
            **{"batch_size": 4, **options},
        )
        return list(data.train_dataloader())

    with pytest.raises(DataError, match="column 'image' has 2 nulls"):
        batches()
    (batch,) = batches(nulls={"image": "mask"})
    assert batch["image_mask"].tolist() == [True, False, True, False]
    assert batch["image"].shape == (4, 3, 6, 5)
    assert not batch["image"][1].any()
    assert batch["image"][2].any()
    alone = batches(nulls={"image": "mask"}, batch_size=1)[1]
    assert alone["image"].shape == (1, 3, 0, 0)
    (batch,) = batches(nulls={"image": {"fill": encoded(pixels(9))}})
    assert batch["image"][1].tolist() == pixels(9).transpose(2, 0, 1).tolist()


def to_floats(data):
    return np.frombuffer(data, np.float32)


def to_tensor(data):
    return torch.frombuffer(bytearray(data), dtype=torch.float32)


def length(data):
    return {"length": len(data)}


def write_floats(tmp_path, sizes):
    rows = [struct.pack(f"{n}f", *range(n)) for n in sizes]
    return write_images(tmp_path / "t.lance", rows)


@pytest.mark.parametrize("decoder", [to_floats, to_tensor])
@pytest.mark.parametrize(
    ("name", "kind"), [("torch", torch.Tensor), ("numpy", np.ndarray)]
)
def test_a_function_decodes(tmp_path, decoder, name, kind):
    uri = write_floats(tmp_path, [3, 3, 2, 1])
    data = LanceDataModule(
        uri,
        decoders={"image": decoder},
        output_format=name,
        batch_size=2,
        sampler=Sequential(),
    )
    first, second = data.train_dataloader()
    assert isinstance(first["image"], kind)
    assert first["image"].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert all(isinstance(value, kind) for value in second["image"])
    assert [value.tolist() for value in second["image"]] == [[0, 1], [0]]


def test_a_function_may_return_anything(tmp_path):
    uri = write_floats(tmp_path, [3, 1])
    (batch,) = LanceDataModule(
        uri, decoders=length, sampler=Sequential()
    ).train_dataloader()
    assert batch["image"] == [{"length": 12}, {"length": 4}]


def test_decoding_is_a_batch_ahead_and_not_a_window(tmp_path):
    uri = write_images(tmp_path / "t.lance", [encoded(pixels(i)) for i in range(ROWS)])
    calls = []

    def counted(data):
        calls.append(len(data))
        return decode_image(data)

    data = LanceDataModule(
        uri, decoders=counted, batch_size=2, transform=lambda batch: len(calls)
    )
    seen = list(data.train_dataloader())
    assert seen[0] <= 3 * 2
    assert len(calls) == ROWS


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize(
    ("workers", "place"),
    [
        (0, "arrow_transform"),
        (0, "transform"),
        (0, "sample_transform"),
        (1, None),
        (1, "transform"),
    ],
)
def test_images_with_workers_and_transforms(tmp_path, workers, place):
    uri = write_images(tmp_path / "t.lance", [encoded(pixels(i)) for i in range(ROWS)])
    options = {} if place is None else {place: as_it_is}
    data = LanceDataModule(
        uri, decoders="image", num_workers=workers, batch_size=16, **options
    )
    seen = []
    for batch in data.train_dataloader():
        assert batch["image"].shape[1:] == (3, 6, 5)
        assert batch["image"][:, 0, 0, 0].tolist() == batch["id"].tolist()
        seen += batch["id"].tolist()
    data.teardown()
    assert sorted(seen) == list(range(ROWS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoders": "jpeg"}, "decoders must be 'image' or a function of bytes"),
        ({"decoders": {"image": 3}}, "decoders must be 'image' or a function"),
        ({"decoders": "image", "name": "arrow"}, "decoders make tensors or arrays"),
        ({"decoders": "image", "name": "torch_row"}, "decoders make tensors"),
    ],
)
def test_decoders_are_checked_at_construction(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Format(**arguments)


@pytest.mark.parametrize(
    ("decoders", "message"),
    [
        ({"picture": "image"}, "decoders names column 'picture', which is not read"),
        ({"id": "image"}, "decoders names column 'id', whose type is int64"),
    ],
)
def test_columns_to_decode_are_checked_before_a_row_is_read(decoders, message):
    schema = pa.schema({"id": pa.int64(), "image": pa.binary()})
    with pytest.raises(ConfigError, match=message):
        Format(decoders=decoders).check(schema)
    with pytest.raises(ConfigError, match="has nothing to decode"):
        Format(decoders="image").check(pa.schema({"id": pa.int64()}))


def test_a_function_that_workers_cannot_get_is_refused(tmp_path):
    uri = write_floats(tmp_path, [1])
    with pytest.raises(ConfigError, match=r"decoders\['image'\] is .*lambda"):
        LanceDataModule(uri, decoders={"image": lambda data: data}, num_workers=1)


def test_shared_memory_is_held_against_the_decoded_size(tmp_path, monkeypatch):
    images = [encoded(np.zeros((500, 500, 3), np.uint8))] * 32
    uri = write_images(tmp_path / "t.lance", images)
    data = LanceDataModule(uri, decoders="image", batch_size=8, num_workers=2)
    assert data.train_dataloader().reader.sizes.row_bytes < 10_000
    usage = shutil.disk_usage(tmp_path)._replace(free=5 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match=r"shared memory \(5 MB a batch"):
        data.train_dataloader()


def test_hyperparameters_hold_the_decoders_by_name(tmp_path):
    uri = write_floats(tmp_path, [1])
    data = LanceDataModule(uri, decoders={"image": "image"})
    assert data.hparams["decoders"] == {"image": "image"}


def no_value(data: bytes) -> object:
    return None if data == b"bad" else [1.0, 2.0]


def test_a_decoder_that_returns_nothing_is_an_error_with_the_row(tmp_path):
    path = str(tmp_path / "t.lance")
    lance.write_dataset(pa.table({"id": [0, 1, 2], "b": [b"a", b"bad", b"c"]}), path)
    data = LanceDataModule(path, decoders={"b": no_value}, sampler=Sequential())
    with pytest.raises(DecodeError, match=r"returned None.*row ids \[1\]"):
        next(iter(data.train_dataloader()))


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_images_of_sixteen_bits_a_channel_are_refused(colour):
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        whole = name + body
        return (
            struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))
        )

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    head = struct.pack(">IIBBBBB", 1, 1, 16, colour, 0, 0, 0)
    pixel = b"\0" + struct.pack(">H", 1000) * channels
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    png += chunk(b"IDAT", zlib.compress(pixel)) + chunk(b"IEND", b"")
    with pytest.raises(ValueError, match="more than 8 bits"):
        decode_image(png)
