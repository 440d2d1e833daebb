"""Lightning's tuner and batch-size finder."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder
from lightning.pytorch.tuner import Tuner

from lance_lightning import LanceDataModule
from tests.helpers.fits import ALL, fit, orders
from tests.helpers.models import Recorder
from tests.helpers.tables import flat
from tests.helpers.trainers import quiet_trainer

pytestmark = pytest.mark.usefixtures("shared_cache")


# -- the batch-size finder ----------------------------------------------------


SIZES = {
    "given": {"batch_size": 4},
    "defaulted": {},
    "global": {"global_batch_size": 4},
}


@pytest.mark.parametrize(
    ("sizes", "mode"),
    [
        (SIZES["given"], "power"),
        pytest.param(SIZES["defaulted"], "power", marks=pytest.mark.slow),
        (SIZES["global"], "binsearch"),
    ],
)
def test_the_tuner_sets_the_batch_size(table, tmp_path, sizes, mode):
    data = LanceDataModule(table, stage_splits={"val": "train"}, **sizes)
    trainer = quiet_trainer(tmp_path, max_epochs=2)
    model = Recorder()
    found = Tuner(trainer).scale_batch_size(
        model, datamodule=data, mode=mode, max_trials=4, steps_per_trial=2, margin=0.0
    )
    assert found == 16
    assert data.batch_size == 16
    assert data.hparams["batch_size"] == 16
    assert data.hparams.get("global_batch_size") is None
    model.seen["train"].clear()
    trainer.fit(model, datamodule=data)
    assert model.seen["train"] == flat(orders(LanceDataModule(table, batch_size=16), 2))


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(SIZES["given"], id="given", marks=pytest.mark.slow),
        pytest.param(SIZES["defaulted"], id="defaulted"),
        pytest.param(SIZES["global"], id="global", marks=pytest.mark.slow),
    ],
)
def test_the_batch_size_finder_sets_the_batch_size(table, tmp_path, sizes):
    finder = BatchSizeFinder(max_trials=3, steps_per_trial=2)
    data = LanceDataModule(table, stage_splits={"val": "train"}, **sizes)
    model = fit(data, tmp_path, callbacks=[finder], max_epochs=2)
    assert finder.optimal_batch_size == data.batch_size == 8
    expected = flat(orders(LanceDataModule(table, batch_size=8), 2))
    assert model.seen["train"][-len(expected) :] == expected


def test_the_tuner_stops_at_the_size_of_the_split(table, tmp_path):
    data = LanceDataModule(table, stage_splits={"val": "train"})
    tuner = Tuner(quiet_trainer(tmp_path))
    assert tuner.scale_batch_size(Recorder(), datamodule=data, init_val=32) == 128


@pytest.mark.parametrize(
    "method",
    [
        "validate",
        pytest.param("test", marks=pytest.mark.slow),
        pytest.param("predict", marks=pytest.mark.slow),
    ],
)
def test_the_tuner_scales_evaluation_too(table, tmp_path, method):
    data = LanceDataModule(table, stage_splits=ALL)
    found = Tuner(quiet_trainer(tmp_path)).scale_batch_size(
        Recorder(), datamodule=data, method=method, max_trials=3, steps_per_trial=1
    )
    assert found == data.batch_size == 8


class ArrowLogger(L.LightningModule):
    """Logs a mean over Arrow batches, whose size Lightning cannot tell."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        ids = torch.tensor(batch["id"].to_pylist(), dtype=torch.float64)
        self.log("mean", ids.mean(), on_step=False, on_epoch=True)
        return self.weight * 1.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_logging_works_while_the_tuner_has_taken_all_callbacks_away(table, tmp_path):
    data = LanceDataModule(table, output_format="arrow")
    trainer = quiet_trainer(tmp_path)
    model = ArrowLogger()
    found = Tuner(trainer).scale_batch_size(
        model, datamodule=data, max_trials=2, steps_per_trial=2
    )
    assert found == 4
    trainer.fit(model, datamodule=data)
    assert trainer.callback_metrics["mean"].item() == pytest.approx(51.0)
