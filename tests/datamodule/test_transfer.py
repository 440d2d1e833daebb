"""Batches on their way to the device."""

from __future__ import annotations

import warnings
from collections import namedtuple

import lance
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from lance_lightning import LanceDataModule
from tests.helpers.fits import ALL, ROWS, Sample, fit, fit_only
from tests.helpers.models import Recorder
from tests.helpers.tables import flat
from tests.helpers.trainers import quiet_trainer

pytestmark = pytest.mark.usefixtures("shared_cache")


# -- moving to the device -----------------------------------------------------


Pair = namedtuple("Pair", ["x", "text"])


class Movable:
    """Moves itself, as a tokenizer's BatchEncoding does."""

    def __init__(self, device="cpu") -> None:
        self.device = device

    def to(self, device, **options):
        return Movable(str(device))


def test_tensors_are_moved_out_of_any_nesting(table):
    data = LanceDataModule(table)
    there = torch.device("meta")
    x = torch.zeros(2)
    batch = {
        "list": [x, (x, {"deep": x})],
        "pair": Pair(x, "text"),
        "sample": Sample(x, x),
        "own": Movable(),
    }
    moved = data.transfer_batch_to_device(batch, there, 0)
    assert moved["list"][0].device == there
    assert moved["list"][1][0].device == there
    assert moved["list"][1][1]["deep"].device == there
    assert isinstance(moved["pair"], Pair)
    assert moved["pair"].x.device == there
    assert moved["pair"].text == "text"
    assert isinstance(moved["sample"], Sample)
    assert moved["sample"].x.device == moved["sample"].y.device == there
    assert moved["own"].device == "meta"
    assert x.device.type == "cpu"
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    assert data.transfer_batch_to_device(packed, there, 0).data.device == there


@pytest.mark.parametrize(
    "leaf",
    [
        b"bytes",
        "text",
        pa.record_batch({"id": [1]}),
        pa.table({"id": [1]}),
        pa.array([1]),
        pl.DataFrame({"id": [1]}),
        pd.DataFrame({"id": [1]}),
        np.arange(3),
        None,
        3,
    ],
    ids=lambda leaf: type(leaf).__name__,
)
def test_what_holds_no_tensor_is_handed_on_as_it_is(table, leaf):
    data = LanceDataModule(table)
    batch = {"leaf": leaf, "x": torch.zeros(2)}
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved["leaf"] is leaf
    assert data.transfer_batch_to_device(leaf, torch.device("meta"), 0) is leaf


class Counted(bytes):
    """Bytes that count who walks them."""

    walked = 0

    def __iter__(self):
        Counted.walked += 1
        return super().__iter__()

    def __getitem__(self, at):
        Counted.walked += 1
        return super().__getitem__(at)


def test_bytes_are_not_walked_on_the_way_to_the_device(table, tmp_path):
    # Lightning alone looks at each byte: 32 values of 50 KB take 1.7 seconds.
    values = [Counted(50_000) for _ in range(32)]
    batch = {"image": values, "x": torch.zeros(32)}
    Counted.walked = 0
    moved = LanceDataModule(table).transfer_batch_to_device(
        batch, torch.device("meta"), 0
    )
    assert Counted.walked == 0
    assert moved["image"] is values

    def add_images(found):
        return {**found, "image": [Counted(50_000) for _ in found["id"]]}

    fit_only(LanceDataModule(table, transform=add_images), tmp_path)
    assert Counted.walked == 0


def test_a_models_own_transfer_is_used(table, tmp_path):
    class Own(Recorder):
        moved = 0

        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            Own.moved += 1
            return super().transfer_batch_to_device(batch, device, dataloader_idx)

    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    model, trainer = Own(), quiet_trainer(tmp_path)
    # That the model's is used is what Lightning tells, of any data module.
    with pytest.warns(UserWarning, match="implementation from `LightningModule`"):
        trainer.fit(model, datamodule=data)
    assert Own.moved == 26
    assert sorted(flat(model.seen["train"])) == list(range(ROWS))
    fit(data, tmp_path)  # and the next model's is not
    assert Own.moved == 26


def test_many_small_fragments_are_a_warning_with_the_remedy(tmp_path):
    for rows, told in ((100, True), (99, False)):  # a row each
        path = str(tmp_path / f"{rows}.lance")
        table = pa.table({"id": range(rows)})
        lance.write_dataset(table, path, max_rows_per_file=1)
        data = LanceDataModule(path, batch_size=10)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data.train_dataloader()
        said = [str(one.message) for one in caught if "fragments" in str(one.message)]
        assert len(said) == told
        if told:
            assert "100 fragments" in said[0]
            assert "compact_files()" in said[0]
