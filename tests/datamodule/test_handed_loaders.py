"""Loaders that are handed to ``fit``, or used inside a user's own model, resume."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tests.datamodule.test_position import Looks, Wrapper
from tests.helpers.resuming import STEPS, Resumable, Runs, SaveFrom
from tests.helpers.tables import write_table

HOOKS = (
    "on_train_start",
    "on_after_backward",
    "on_train_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
)
CASES = {
    "plain": {},
    "limit": {"limit_train_batches": 4},
    "validate every 3": {"limit_train_batches": 5, "val_check_interval": 3},
    "overfit": {"overfit_batches": 3},
    "accumulate": {"accumulate_grad_batches": 3},
    "reload": {"reload_dataloaders_every_n_epochs": 1},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    folder = tmp_path_factory.mktemp("handed")
    return Runs(folder, write_table(folder / "t.lance", 37, rows_per_file=10))


class Loads(Resumable):
    """A model with data of its own."""

    data = None

    def setup(self, stage):
        self.data.setup(stage)

    def train_dataloader(self):
        return self.data.train_dataloader()

    def val_dataloader(self):
        return self.data.val_dataloader()


class Planning(Resumable):
    """Asks for the loaders before Lightning has the state that it loads into them."""

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


def rows(runs, of_model, ckpt=None, callbacks=(), model=Resumable, wrap=None, **more):
    data, trainer = runs.data(), runs.trainer_of(callbacks, **more)
    if of_model:
        model = type("LoadsItself", (Loads, model), {"data": data})()
        trainer.fit(model, ckpt_path=ckpt)
    else:
        model = model()
        data.setup("fit")
        loader = data.train_dataloader()
        loader = loader if wrap is None else wrap(loader)
        trainer.fit(model, loader, data.val_dataloader(), ckpt_path=ckpt)
    return model.seen["train"]


def check(runs, folder, of_model, done, model=Resumable, **trainer):
    unbroken = rows(runs, of_model, model=model, max_epochs=3, **trainer)
    saver, looks = SaveFrom(folder, HOOKS, done), Looks(("on_train_batch_end",), ())
    again = rows(runs, of_model, None, [saver, looks], model, max_epochs=2, **trainer)
    assert again == unbroken[: len(again)]
    assert len({saved.hook for saved in saver.saved}) > 2
    for saved in saver.saved:
        resumed = rows(runs, of_model, saved.path, (), model, max_epochs=3, **trainer)
        assert resumed == unbroken[saved.done :], str(saved)
    return unbroken


@pytest.mark.parametrize("of_model", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_loaders_without_their_module_resume(runs, tmp_path, of_model, name):
    steps = min(CASES[name].get("limit_train_batches", STEPS), STEPS)
    unbroken = check(runs, tmp_path, of_model, {1, steps - 1, steps}, **CASES[name])
    if name == "overfit":
        assert unbroken == unbroken[:3] * 3


@pytest.mark.slow
@pytest.mark.parametrize("of_model", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_loaders_without_their_module_resume_at_every_step(
    runs, tmp_path, of_model, name
):
    check(runs, tmp_path, of_model, None, **CASES[name])


@pytest.mark.parametrize("of_model", [False, True])
def test_a_loader_whose_state_lightning_does_not_load_resumes(runs, tmp_path, of_model):
    check(runs, tmp_path, of_model, {0, 2, 6, 8}, Planning)


def test_a_handed_loader_reads_the_same_rows_as_its_module(runs):
    assert rows(runs, False, max_epochs=2) == runs.rows(max_epochs=2)


@pytest.mark.parametrize("limits", [{"max_epochs": 4}, {"max_steps": 20}])
def test_a_handed_loader_resumes_a_stopped_run_as_its_module_does(
    runs, tmp_path, limits
):
    """With ``max_epochs`` a run that was stopped in mid-epoch begins the next epoch."""
    stop = {"max_epochs": -1, "max_steps": 8}
    limits = {"max_epochs": -1, **limits}
    resumed = []
    for name, fit in (("module", runs.rows), ("handed", partial(rows, runs, False))):
        folder = tmp_path / name
        folder.mkdir()
        saver = SaveFrom(folder, ("on_train_end",))
        fit(None, [saver], **stop)
        resumed.append(fit(saver.saved[0].path, **limits))
    assert resumed[0] == resumed[1]


def test_a_look_at_a_handed_loader_leaves_its_position(runs, tmp_path):
    unbroken = rows(runs, False, max_epochs=3)
    hooks = ("on_train_start", "on_train_epoch_start", "on_train_batch_end")

    def looks():
        return Looks(hooks, (lambda trainer: iter(trainer.train_dataloader),))

    saver = SaveFrom(tmp_path, HOOKS, {2, 6})
    assert rows(runs, False, None, [saver, looks()], max_epochs=3) == unbroken
    for saved in saver.saved:
        resumed = rows(runs, False, saved.path, [looks()], max_epochs=3)
        assert resumed == unbroken[saved.done :], str(saved)


def test_a_module_beside_the_fit_counts_by_itself(runs):
    """A loader that no loop of the trainer reads begins an epoch each time."""
    data = runs.data()
    data.setup("fit")
    beside = data.train_dataloader()

    class Replays(Resumable):
        def on_train_batch_start(self, batch, batch_idx):
            self.seen["test"].append(next(iter(beside))["id"].tolist())

    firsts = runs.fit(model=Replays()).seen["test"]
    epochs = runs.rows(max_epochs=STEPS)[::STEPS]
    assert [[rows] for rows in firsts] == epochs


@pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable")
def test_a_position_that_no_checkpoint_holds_is_a_warning_with_the_remedy(
    runs, tmp_path
):
    saver = SaveFrom(tmp_path, ("on_train_batch_end",), {2})
    rows(runs, False, None, [saver], wrap=Wrapper)
    with pytest.warns(UserWarning, match="set its trainer"):
        rows(runs, False, saver.saved[0].path, wrap=Wrapper)


def test_a_checkpoint_of_other_loaders_is_a_warning(runs, tmp_path):
    saver = SaveFrom(tmp_path, ("on_train_batch_end",), {2})
    unbroken = rows(runs, False, None, [saver])
    checkpoint = torch.load(saver.saved[0].path, weights_only=True)
    del checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.warns(UserWarning, match="holds no data state"):
        assert rows(runs, False, tmp_path / "other.ckpt") == unbroken[2:]
