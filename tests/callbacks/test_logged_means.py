"""The mean that self.log gives is the mean over rows."""

from __future__ import annotations

import warnings

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch.utils.data import DataLoader

from lance_lightning import LanceDataModule, Sequential
from lance_lightning.callbacks.batch_size import LogBatchSize
from lance_lightning.types import OUTPUT_FORMATS
from tests.helpers.fits import ALL, PARTS, Sample
from tests.helpers.trainers import quiet_trainer

pytestmark = pytest.mark.usefixtures("shared_cache")


# -- the mean that self.log gives ---------------------------------------------


def ids_of(batch, output_format: str) -> torch.Tensor:
    if output_format == "torch_row":
        return batch[:, 0].double()
    if output_format == "torch_col":
        return batch[0].double()
    ids = batch["id"]
    if output_format == "arrow":
        ids = ids.to_pylist()
    return torch.tensor(list(ids), dtype=torch.float64)


class MeanLogger(L.LightningModule):
    """Logs the mean id of each batch; the mean over rows is 51."""

    def __init__(self, ids=ids_of, output_format="torch") -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.ids = ids
        self.format = output_format

    def log_mean(self, name, batch):
        mean = self.ids(batch, self.format).mean()
        self.log(name, mean, on_step=False, on_epoch=True)

    def training_step(self, batch, batch_idx):
        self.log_mean("train", batch)
        return self.weight * 1.0

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log_mean("val", batch)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.log_mean("test", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def means(model, data, tmp_path) -> dict[str, float]:
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model, datamodule=data)
    found = {name: value.item() for name, value in trainer.callback_metrics.items()}
    (tested,) = trainer.test(model, datamodule=data, verbose=False)
    return {**found, **tested}


EVERY_STAGE = dict.fromkeys(("train", "val", "test"), pytest.approx(51.0))


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_a_logged_mean_is_the_mean_over_rows(table, tmp_path, output_format):
    columns = ["id", "label", "vector", "name"]
    if output_format in ("torch_row", "torch_col"):
        columns = columns[:2]
    data = LanceDataModule(
        table,
        columns=columns,
        output_format=output_format,
        batch_size=40,  # 23 rows are left for the last batch
        sampler=Sequential(),
        stage_splits=ALL,
    )
    model = MeanLogger(output_format=output_format)
    assert means(model, data, tmp_path) == EVERY_STAGE


class Opaque:
    """A batch that does not tell its size."""

    def __init__(self, ids) -> None:
        self.ids = ids


def as_pair(batch):
    return batch["vector"], batch["id"]


def as_dataclass(batch):
    return Sample(batch["vector"], batch["id"])


def as_opaque(batch):
    return Opaque(batch["id"])


def same(batch):
    return batch


def doubled_columns(batch):
    return torch.cat([batch, batch])


def even(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.filter(pc.equal(pc.bit_wise_and(batch["id"], 1), 0))


TRANSFORMED = {
    "dict": ({"transform": same}, lambda b, _: b["id"].double()),
    "tuple": ({"transform": as_pair}, lambda b, _: b[1].double()),
    "dataclass": ({"transform": as_dataclass}, lambda b, _: b.y.double()),
    "opaque": ({"transform": as_opaque}, lambda b, _: b.ids.double()),
    "collate": (
        {"collate_fn": list},
        lambda b, _: torch.stack([row["id"] for row in b]).double(),
    ),
    "torch_col": (
        {
            "transform": doubled_columns,
            "output_format": "torch_col",
            "columns": ["id", "label"],
        },
        lambda b, _: b[0].double(),
    ),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_a_logged_mean_is_right_with_the_users_transform(table, tmp_path, name):
    functions, ids = TRANSFORMED[name]
    data = LanceDataModule(
        table, batch_size=40, sampler=Sequential(), stage_splits=ALL, **functions
    )
    assert means(MeanLogger(ids), data, tmp_path) == EVERY_STAGE


def test_a_transform_of_one_stage_leaves_the_others_mean_alone(table, tmp_path):
    data = LanceDataModule(
        table,
        batch_size=40,
        sampler=Sequential(),
        stage_splits=ALL,
        columns=["id", "label"],
        output_format="torch_col",
        transform={"train": same},
    )
    model = MeanLogger(output_format="torch_col")
    assert means(model, data, tmp_path) == EVERY_STAGE


def test_rows_that_a_transform_drops_do_not_weigh(table, tmp_path):
    data = LanceDataModule(
        table,
        batch_size=40,
        sampler=Sequential(),
        stage_splits=ALL,
        arrow_transform=even,
    )
    found = means(MeanLogger(), data, tmp_path)
    assert found == EVERY_STAGE  # the mean of 0, 2, ..., 102


def test_several_loaders_weigh_each_with_its_own_rows(table, tmp_path):
    data = LanceDataModule(
        table,
        splits=PARTS,
        batch_size=10,
        stage_splits={"val": ["val", "predict"], "train": ["predict", "train"]},
        sampler=Sequential(),
    )
    model = MeanLogger(lambda b, _: (b[0] if isinstance(b, list) else b)["id"].double())
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model, datamodule=data)
    found = {name: value.item() for name, value in trainer.callback_metrics.items()}
    # Of the 7 steps 4 have the first ten rows of "predict", 3 the other seven.
    weighed = (4 * 10 * 90.5 + 3 * 7 * 99.0) / (4 * 10 + 3 * 7)
    assert found["train"] == pytest.approx(weighed)
    assert found["val/dataloader_idx_0"] == pytest.approx(73.0)
    assert found["val/dataloader_idx_1"] == pytest.approx(94.0)


def test_a_size_that_the_model_gives_wins(table, tmp_path):
    class Own(MeanLogger):
        def log_mean(self, name, batch):
            mean = self.ids(batch, "torch").mean()
            self.log(name, mean, on_step=False, on_epoch=True, batch_size=1)

    data = LanceDataModule(table, batch_size=40, sampler=Sequential(), stage_splits=ALL)
    unweighted = np.mean([19.5, 59.5, 91.0])
    assert means(Own(), data, tmp_path) == dict.fromkeys(
        ("train", "val", "test"), pytest.approx(unweighted)
    )


def test_loaders_of_others_are_left_to_lightning(table, tmp_path):
    data = LanceDataModule(
        table, output_format="torch_col", columns=["id", "label"], stage_splits=ALL
    )
    trainer = quiet_trainer(tmp_path)
    trainer.fit(MeanLogger(output_format="torch_col"), datamodule=data)
    rows = [{"id": torch.tensor(i)} for i in range(10)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        loader = DataLoader(rows, batch_size=4)
        (found,) = trainer.test(MeanLogger(), dataloaders=loader, verbose=False)
    assert found["test"] == pytest.approx(4.5)
    assert sum(isinstance(each, LogBatchSize) for each in trainer.callbacks) == 1
