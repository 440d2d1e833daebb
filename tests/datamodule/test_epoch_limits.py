"""How much of an epoch Lightning's options take, with the real Trainer."""

from __future__ import annotations

import warnings

import lightning as L
import pytest

from lance_lightning import BlockShuffle, LanceDataModule, Sequential
from tests.helpers.fits import ALL, ROWS, fit, fit_only, orders
from tests.helpers.models import Recorder
from tests.helpers.tables import flat
from tests.helpers.trainers import quiet_trainer

pytestmark = pytest.mark.usefixtures("shared_cache")


# -- how much of an epoch -----------------------------------------------------


@pytest.mark.parametrize("sampler", [BlockShuffle(), Sequential()])
@pytest.mark.parametrize("overfit", [3, 0.25])
def test_overfitting_trains_on_the_same_rows_in_every_epoch(
    table, tmp_path, sampler, overfit
):
    def data():
        return LanceDataModule(
            table, sampler=sampler, batch_size=8, stage_splits={"val": "train"}
        )

    model = fit(data(), tmp_path, overfit_batches=overfit, max_epochs=3)
    first = orders(data(), 1)[0][:3]
    assert model.seen["train"] == first * 3
    assert flat(model.seen["val"]) == list(range(24)) * 3


def test_a_fit_after_overfitting_is_shuffled_again(table, tmp_path):
    data = LanceDataModule(table, batch_size=8, stage_splits={"val": "train"})
    fit(data, tmp_path, overfit_batches=2, max_epochs=2)
    seen = fit(data, tmp_path, max_epochs=2).seen["train"]
    assert sorted(flat(seen[:13])) == sorted(flat(seen[13:])) == list(range(ROWS))
    assert seen[:13] != seen[13:]


@pytest.mark.parametrize(("limit", "steps"), [(3, 3), (0.5, 6), (1, 1), (100, 13)])
def test_a_limit_takes_the_first_batches_of_each_epoch(table, tmp_path, limit, steps):
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    names = ("train", "val", "test", "predict")
    options = {f"limit_{name}_batches": limit for name in names}
    trainer = quiet_trainer(tmp_path, max_epochs=2, **options)
    model = Recorder()
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    trainer.predict(model, datamodule=data)
    whole = orders(LanceDataModule(table, batch_size=8), 2)
    assert model.seen["train"] == whole[0][:steps] + whole[1][:steps]
    rows = min(ROWS, steps * 8)
    assert flat(model.seen["val"]) == list(range(rows)) * 2
    assert flat(model.seen["test"]) == list(range(rows))
    assert flat(model.seen["predict"]) == list(range(rows))


@pytest.mark.parametrize(("interval", "times"), [(0.25, 4), (5, 2), (1.0, 1)])
def test_validation_runs_whole_within_an_epoch(table, tmp_path, interval, times):
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    model = fit(data, tmp_path, val_check_interval=interval)
    assert flat(model.seen["val"]) == list(range(ROWS)) * times
    assert sorted(flat(model.seen["train"])) == list(range(ROWS))


def test_validation_can_count_steps_over_epochs(table, tmp_path):
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    model = fit(
        data,
        tmp_path,
        val_check_interval=10,
        check_val_every_n_epoch=None,
        max_epochs=2,
    )
    assert flat(model.seen["val"]) == list(range(ROWS)) * 2
    assert model.seen["train"] == flat(orders(LanceDataModule(table, batch_size=8), 2))


def test_a_fast_dev_run_takes_one_batch_of_each(table, tmp_path):
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    model = fit(data, tmp_path, fast_dev_run=True)
    assert model.seen["val"] == [list(range(8))]
    assert model.seen["train"] == orders(LanceDataModule(table, batch_size=8), 1)[0][:1]


def test_the_sanity_check_costs_no_row(table, tmp_path):
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    model = fit(data, tmp_path, num_sanity_val_steps=2)
    assert flat(model.seen["val"]) == [*range(16), *range(ROWS)]
    assert model.seen["train"] == orders(LanceDataModule(table, batch_size=8), 1)[0]


@pytest.mark.parametrize("every", [1, 2])
def test_reloaded_loaders_go_on_with_the_next_epoch(table, tmp_path, every):
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    model = fit(data, tmp_path, reload_dataloaders_every_n_epochs=every, max_epochs=4)
    assert model.seen["train"] == flat(orders(LanceDataModule(table, batch_size=8), 4))
    assert flat(model.seen["val"]) == list(range(ROWS)) * 4


def test_gradients_can_be_accumulated(table, tmp_path):
    data = LanceDataModule(table, batch_size=8)
    model = fit_only(data, tmp_path, accumulate_grad_batches=4, max_epochs=2)
    assert model.seen["train"] == flat(orders(LanceDataModule(table, batch_size=8), 2))


def test_a_model_may_fetch_its_batches_itself(table, tmp_path):
    class Fetches(Recorder):
        validation_step = L.LightningModule.validation_step

        def training_step(self, dataloader_iter):
            batch, _, _ = next(dataloader_iter)
            loss = self.step(batch, "train")
            self.log("loss", loss, on_epoch=True, batch_size=len(batch["id"]))
            return loss

    model = Fetches()
    data = LanceDataModule(table, batch_size=8)
    trainer = quiet_trainer(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*dataloader_iter.*")
        trainer.fit(model, datamodule=data)
    assert model.seen["train"] == orders(LanceDataModule(table, batch_size=8), 1)[0]
