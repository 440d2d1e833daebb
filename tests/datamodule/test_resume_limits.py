"""Resuming where the trainer's count alone does not say how far the data is."""

from __future__ import annotations

import warnings

import pytest
import torch
from lightning.pytorch.tuner import Tuner

from lance_lightning import StateError
from tests.helpers.resume_cases import LIMITS
from tests.helpers.resuming import STEPS, Resumable, Runs, SaveFrom


@pytest.mark.parametrize("limit", ["epochs", "steps"])
@pytest.mark.parametrize(
    ("module", "trainer", "steps"),
    [
        ({"batch_size": 6}, {}, 4),
        ({"batch_size": 3}, {}, 8),
        ({}, {"limit_train_batches": 4}, 4),
        ({"batch_size": 3}, {"limit_train_batches": 5}, 5),
    ],
)
def test_the_end_of_an_epoch_goes_on_with_other_steps(
    runs, tmp_path, limit, module, trainer, steps
):
    limits = LIMITS[limit]
    saver = SaveFrom(
        tmp_path, ("on_train_epoch_end", "on_validation_end"), done={6, 12}
    )
    runs.fit(callbacks=[saver], **limits)
    unbroken = runs.rows(module=module, max_epochs=9, **trainer)
    assert len(unbroken) == 9 * steps
    for saved in saver.saved:
        rows = runs.rows(saved.path, module=module, **limits, **trainer)
        epochs = saved.done // STEPS
        assert rows == unbroken[epochs * steps :][: len(rows)], str(saved)
        if limit == "epochs":
            assert len(rows) == (3 - epochs) * steps
        else:
            assert len(rows) == 16 - saved.done


def test_the_middle_of_an_epoch_asks_for_the_same_global_batch(runs, tmp_path):
    saver = SaveFrom(tmp_path, ("on_train_batch_end",), done={8})
    runs.fit(callbacks=[saver], max_epochs=2)
    (saved,) = saver.saved
    with pytest.raises(StateError) as caught:
        runs.fit(saved.path, module={"batch_size": 6}, max_epochs=2)
    said = str(caught.value)
    assert "batch 2 of 4 rows over all ranks" in said
    assert "a global batch has 6 rows" in said
    assert "set global_batch_size=4" in said
    assert "at the end of an epoch" in said


def test_the_middle_of_an_epoch_asks_for_the_same_steps(runs, tmp_path):
    saver = SaveFrom(tmp_path, ("on_train_batch_end",), done={8})
    runs.fit(callbacks=[saver], max_epochs=2)
    (saved,) = saver.saved
    with pytest.raises(StateError) as caught:
        runs.fit(saved.path, max_epochs=2, limit_train_batches=5)
    said = str(caught.value)
    assert "batch 2 of an epoch of 6 steps, and here an epoch has 5" in said
    assert "limit_train_batches" in said


def test_a_second_fit_goes_on_with_the_next_epoch(runs):
    unbroken = runs.rows(max_epochs=5)
    data, model = runs.data(), Resumable()
    trainer = runs.trainer_of(max_epochs=2)
    trainer.fit(model, datamodule=data)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model, datamodule=data)
    assert model.seen["train"] == unbroken[:24]
    # Another trainer counts from 0 and the module goes on.
    runs.trainer_of(max_epochs=1).fit(model, datamodule=data)
    assert model.seen["train"] == unbroken


def test_a_second_fit_with_another_module_begins_at_the_first_epoch(runs):
    unbroken = runs.rows(max_epochs=2)
    model = Resumable()
    trainer = runs.trainer_of(max_epochs=1)
    trainer.fit(model, datamodule=runs.data())
    trainer.fit_loop.max_epochs = 3
    trainer.fit(model, datamodule=runs.data())
    assert model.seen["train"] == unbroken[:6] + unbroken


def test_a_second_fit_can_be_resumed(runs, tmp_path):
    model, data = Resumable(), runs.data()
    saver = SaveFrom(tmp_path, ("on_train_batch_end", "on_train_epoch_end"))
    trainer = runs.trainer_of([saver], max_epochs=-1, max_steps=9)
    trainer.fit(model, datamodule=data)
    trainer.fit_loop.epoch_loop.max_steps = 20
    trainer.fit(model, datamodule=data)
    unbroken = runs.rows(max_epochs=5)
    # The first fit stopped in mid-epoch; every fit begins an epoch.
    assert model.seen["train"] == unbroken[:9] + unbroken[12:23]
    for saved in saver.saved:
        if saved.done > 9:
            rows = runs.rows(saved.path, max_epochs=-1, max_steps=20)
            assert rows == model.seen["train"][saved.done :], str(saved)


def test_evaluation_after_a_stop_leaves_the_position(runs, tmp_path):
    unbroken = runs.rows(max_epochs=3)
    model, data = Resumable(), runs.data()
    trainer = runs.trainer_of(max_epochs=-1, max_steps=8)
    trainer.fit(model, datamodule=data)
    trainer.validate(model, datamodule=data, verbose=False)
    trainer.save_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    assert runs.rows(tmp_path / "x.ckpt", max_epochs=-1, max_steps=18) == unbroken[8:]


def test_overfitting_goes_on_with_its_batches(runs, tmp_path):
    runs = Runs(runs.folder, runs.uri, {}, {"overfit_batches": 3})
    unbroken = runs.rows(max_epochs=4)
    assert unbroken == unbroken[:3] * 4
    saver = SaveFrom(tmp_path, ("on_train_batch_end", "on_train_epoch_end"))
    runs.fit(callbacks=[saver], max_epochs=2)
    for saved in saver.saved:
        assert runs.rows(saved.path, max_epochs=4) == unbroken[saved.done :], str(saved)


def test_a_fit_after_the_learning_rate_finder_begins_at_the_beginning(runs):
    class Tuned(Resumable):
        lr = 0.1

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    model, data = Tuned(), runs.data()
    trainer = runs.trainer_of(max_epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the finder itself
        Tuner(trainer).lr_find(
            model, datamodule=data, num_training=8, early_stop_threshold=None
        )
    assert len(model.seen["train"]) >= 8
    model.seen["train"].clear()
    trainer.fit(model, datamodule=data)
    assert model.seen["train"] == runs.rows(max_epochs=2)
