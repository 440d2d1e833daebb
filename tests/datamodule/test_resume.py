"""A resumed run sees the rows that the unbroken run would have seen, in that order."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace

import lightning as L
import pyarrow as pa
import pytest
import torch
from conftest import write_table
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.tuner import Tuner
from resuming import BATCH, STEPS, Resumable, Runs, SaveFrom

from lance_lightning import LanceDataModule, RandomSplit, StateError
from lance_lightning.loading.clock import EpochClock
from lance_lightning.loading.loader import LanceDataLoader
from lance_lightning.loading.sizing import window_grid
from lance_lightning.loading.stream import Stream
from lance_lightning.ordering.shares import TrainShare
from lance_lightning.ordering.world import World
from lance_lightning.samplers.builtin import BlockShuffleOrder
from lance_lightning.tables.plan import range_plan

TWO_LOADERS = {
    "stage_splits": {"train": ["a", "b"]},
    "splits": RandomSplit(counts={"a": 23, "b": 9, "val": 5}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    folder = tmp_path_factory.mktemp("resume")
    return Runs(folder, write_table(folder / "t.lance", 37, rows_per_file=10))


class Planning(Resumable):
    """Asks how many steps there will be, before the loops are restored."""

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


class Fetching(Resumable):
    """Takes its batches out of the iterator itself."""

    def training_step(self, dataloader_iter):
        batch, _, _ = next(dataloader_iter)
        return super().training_step(batch, 0)


class Cutting(Resumable):
    """Cuts every epoch short."""

    def on_train_batch_start(self, batch, batch_idx):
        return -1 if batch_idx == 3 else None


@dataclass(frozen=True)
class Case:
    """A configuration, and how far it runs.

    Args:
        epochs: Epochs of the run that is broken off; None ends it by ``steps``.
        steps: Optimizer steps of it.
        trainer: More arguments of the trainer.
        module: Arguments of the data module.
        model: The class of the model.
        epoch: Steps of an epoch.
    """

    epochs: int | None = None
    steps: int | None = None
    trainer: dict = field(default_factory=dict)
    module: dict = field(default_factory=dict)
    model: type[Resumable] = Resumable
    epoch: int = STEPS

    def limits(self, more: bool) -> dict:
        """Return where a run ends; the unbroken one goes on after the broken one."""
        if self.epochs is None:
            return {"max_epochs": -1, "max_steps": self.steps + more * self.steps // 2}
        return {"max_epochs": self.epochs + more}


LIMITS = {"epochs": {"max_epochs": 3}, "steps": {"max_epochs": -1, "max_steps": 16}}
ACCUMULATE = {"accumulate_grad_batches": 3}
QUICK = {
    "epochs": Case(2),
    "steps": Case(None, 10),
    "validate every 4, steps": Case(None, 10, {"val_check_interval": 4}),
    "limit, steps": Case(None, 6, {"limit_train_batches": 4}, epoch=4),
    "two loaders": Case(2, None, {}, TWO_LOADERS),
    "planning": Case(2, model=Planning),
}
SLOW = {
    "accumulate": Case(2, None, ACCUMULATE),
    "accumulate, steps": Case(None, 3, ACCUMULATE),
    "validate twice": Case(2, None, {"val_check_interval": 0.5}),
    "validate every 4": Case(2, None, {"val_check_interval": 4}),
    "limit": Case(2, None, {"limit_train_batches": 4}, epoch=4),
    "reload": Case(2, None, {"reload_dataloaders_every_n_epochs": 1}),
    "two loaders, steps": Case(None, 10, {}, TWO_LOADERS),
    "planning, steps": Case(None, 10, model=Planning),
    "accumulate 4, steps": Case(None, 5, {"accumulate_grad_batches": 4}),
    "accumulate, validate twice": Case(
        3, None, ACCUMULATE | {"val_check_interval": 0.5}
    ),
    "accumulate, validate every 4, steps": Case(
        None, 5, ACCUMULATE | {"val_check_interval": 4}
    ),
    "validate twice, steps": Case(None, 15, {"val_check_interval": 0.5}),
    "validate every 4 across epochs": Case(
        3, None, {"val_check_interval": 4, "check_val_every_n_epoch": None}
    ),
    "validate every 4 across epochs, steps": Case(
        None, 15, {"val_check_interval": 4, "check_val_every_n_epoch": None}
    ),
    "validate every other epoch": Case(4, None, {"check_val_every_n_epoch": 2}),
    "validate never": Case(3, None, {"limit_val_batches": 0}),
    "validate never, steps": Case(None, 15, {"limit_val_batches": 0}),
    "limit share": Case(
        3, None, {"limit_train_batches": 0.7, "val_check_interval": 0.5}, epoch=4
    ),
    "limit, validate every 3, steps": Case(
        None, 11, {"limit_train_batches": 4, "val_check_interval": 3}, epoch=4
    ),
    "reload, steps": Case(None, 15, {"reload_dataloaders_every_n_epochs": 1}),
    "reload every other epoch, validate every 4": Case(
        3, None, {"reload_dataloaders_every_n_epochs": 2, "val_check_interval": 4}
    ),
    "two loaders, limit": Case(
        3, None, {"limit_train_batches": 4}, TWO_LOADERS, epoch=4
    ),
    "two loaders, validate twice": Case(
        3, None, {"val_check_interval": 0.5}, TWO_LOADERS
    ),
    "two loaders, validate every 4, steps": Case(
        None, 15, {"val_check_interval": 4}, TWO_LOADERS
    ),
    "planning, validate every 4, steps": Case(
        None, 15, {"val_check_interval": 4}, model=Planning
    ),
    "own fetching": Case(3, model=Fetching),
    "own fetching, steps": Case(None, 15, model=Fetching),
    "sanity check": Case(2, None, {"num_sanity_val_steps": 2}),
    "drop last": Case(2, None, {}, {"drop_last": True}, epoch=5),
}


def dropped_by_lightning(case: Case, hook: str, done: int) -> int:
    """Return the batches by which Lightning itself makes the resumed run shorter.

    A checkpoint of ``on_train_epoch_start`` counts the epoch that begins but not its
    batches, and the loop leaves it at once. ``max_steps`` hides this: the loop goes on
    until it has them. (There a checkpoint at the end of an epoch opens that epoch
    again, Lightning's issues 19617 and 19403, but no row may be lost in it.)
    """
    if case.epochs is None or hook != "on_train_epoch_start" or done == 0:
        return 0
    return case.epoch


def check_every_checkpoint(runs: Runs, case: Case, folder, done) -> int:
    """Break a run off at every checkpoint, go on from each, and compare the rows.

    Returns:
        How many runs were resumed.
    """
    runs = Runs(runs.folder, runs.uri, case.module, case.trainer, case.model)
    unbroken = runs.rows(**case.limits(more=True))
    if done is not None:
        done = {*done, len(runs.rows(**case.limits(more=False)))}
    saver = SaveFrom(folder, done=done)
    broken = runs.fit(callbacks=[saver], **case.limits(more=False))
    assert broken.seen["train"] == unbroken[: len(broken.seen["train"])]
    assert len(unbroken) > len(broken.seen["train"])
    for saved in saver.saved:
        resumed = runs.fit(saved.path, **case.limits(more=True))
        rows = resumed.seen["train"]
        assert rows == unbroken[saved.done :][: len(rows)], str(saved)
        dropped = dropped_by_lightning(case, saved.hook, saved.done)
        assert len(rows) == len(unbroken) - saved.done - dropped, str(saved)
        for validation in resumed.validations:
            if len(validation) != case.trainer.get("num_sanity_val_steps"):
                # One that was broken off is run again whole.
                assert validation == broken.validations[-1], str(saved)
    return len(saver.saved)


@pytest.mark.parametrize("name", QUICK)
def test_a_run_goes_on_from_a_checkpoint_of_any_hook(runs, tmp_path, name):
    # Before the last batch of an epoch, at its end, and at the end of the run.
    case = QUICK[name]
    done = {case.epoch - 1, case.epoch}
    if name in ("epochs", "steps"):
        done |= {0, 8}
    assert check_every_checkpoint(runs, case, tmp_path, done) > 12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*dataloader_iter")
@pytest.mark.parametrize("name", QUICK | SLOW)
def test_a_run_goes_on_from_every_hook_at_every_step(runs, tmp_path, name):
    assert check_every_checkpoint(runs, (QUICK | SLOW)[name], tmp_path, None) > 50


@pytest.mark.parametrize(
    "name", ["epochs", "validate every 4, steps", "limit, steps", "two loaders"]
)
def test_a_resumed_run_goes_on_again(runs, tmp_path, name):
    case = QUICK[name]
    runs = Runs(runs.folder, runs.uri, case.module, case.trainer, case.model)
    unbroken = runs.rows(max_epochs=8)
    at = {case.epoch - 1, case.epoch}
    first = SaveFrom(tmp_path, ("on_after_backward", "on_train_epoch_end"), at)
    runs.fit(callbacks=[first], **case.limits(more=False))
    hooks = (
        "on_fit_start",
        "on_train_start",
        "on_train_batch_end",
        "on_train_epoch_end",
    )
    for stopped in first.saved:
        folder = tmp_path / stopped.path.stem
        folder.mkdir()
        second = SaveFrom(folder, hooks, at | {0, 1})
        runs.fit(stopped.path, [second], **case.limits(more=True))
        for saved in second.saved:
            # Lightning can take such a run for longer than it is: a step that was
            # broken off stays ready for ever, and then it counts an epoch's batches
            # one short. No more than the epoch's may come of it.
            rows = runs.rows(saved.path, **case.limits(more=True))
            done = stopped.done + saved.done
            assert rows
            assert rows == unbroken[done:][: len(rows)], f"{stopped}, then {saved}"


def test_a_sanity_check_of_a_resumed_run_leaves_the_position(runs, tmp_path):
    unbroken = runs.rows(max_epochs=3)
    first = SaveFrom(tmp_path, ("on_train_epoch_end",), {6})
    runs.fit(callbacks=[first], max_epochs=1)
    # The loaders are not there yet.
    second = SaveFrom(tmp_path, ("on_sanity_check_end",))
    runs.fit(first.saved[0].path, [second], max_epochs=2, num_sanity_val_steps=1)
    assert second.saved
    assert runs.rows(second.saved[0].path, max_epochs=3) == unbroken[6:]


def test_a_run_goes_on_under_the_other_limit(runs, tmp_path):
    unbroken = runs.rows(max_epochs=5)
    by_steps = {"max_epochs": -1, "max_steps": 24}
    stopped = {"max_epochs": -1, "max_steps": 14}
    for save, resume in (({"max_epochs": 3}, by_steps), (stopped, {"max_epochs": 5})):
        saver = SaveFrom(tmp_path, done={6, 14})
        runs.fit(callbacks=[saver], **save)
        for saved in saver.saved:
            rows = runs.rows(saved.path, **resume)
            # Stopped by max_steps in mid-epoch, and resumed without: Lightning has
            # left the epoch and begins the next one.
            left = saved.done == 14 and saved.hook in (
                "on_train_epoch_end",
                "on_train_end",
            )
            done = 18 if left else saved.done
            assert rows
            assert rows == unbroken[done:][: len(rows)], str(saved)


class Stopping(Resumable):
    """Stops the trainer after nine batches, in the middle of the second epoch."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.trainer.should_stop = len(self.seen["train"]) == 9


@pytest.mark.parametrize(("limit", "goes_on_at"), [("epochs", 12), ("steps", 9)])
def test_a_run_that_was_stopped_early_goes_on(runs, tmp_path, limit, goes_on_at):
    limits = LIMITS[limit]
    unbroken = runs.rows(max_epochs=4)
    saver = SaveFrom(tmp_path, ("on_train_epoch_end", "on_train_end"), done={9})
    assert len(runs.rows(callbacks=[saver], model=Stopping(), **limits)) == 9
    for saved in saver.saved:
        rows = runs.rows(saved.path, **limits)
        assert len(rows) >= STEPS
        assert rows == unbroken[goes_on_at:][: len(rows)]


@pytest.mark.parametrize("limit", ["epochs", "steps"])
@pytest.mark.parametrize("module", [{}, TWO_LOADERS], ids=["one", "two"])
def test_a_run_whose_epochs_were_cut_short_goes_on(runs, tmp_path, limit, module):
    runs = Runs(runs.folder, runs.uri, module, {}, Cutting)
    unbroken = runs.rows(**LIMITS[limit])
    assert unbroken[3:6] == Runs(runs.folder, runs.uri, module).rows(max_epochs=2)[6:9]
    saver = SaveFrom(tmp_path, done={2, 3, 4})
    runs.fit(callbacks=[saver], max_epochs=2)
    for saved in saver.saved:
        rows = runs.rows(saved.path, **LIMITS[limit])
        if saved.hook == "on_train_batch_end" and saved.done > 3:
            # From the cut on, Lightning takes such a checkpoint for one batch earlier
            # (the batch that was cut counts as ready, but not as started), so this
            # model cuts one batch later; the rows go on where they were.
            assert rows[:2] == unbroken[4:6]
            assert rows[3:] == unbroken[6 : 3 + len(rows)]
        else:
            assert rows == unbroken[saved.done :][: len(rows)], str(saved)


SAVING = {"enable_checkpointing": True}


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")
def test_checkpoints_of_lightnings_own_callback_go_on(runs, tmp_path):
    unbroken = runs.rows(max_epochs=4)
    options = {"save_top_k": -1, "filename": "{step}", "auto_insert_metric_name": False}
    for name, when, done in (
        ("steps", {"every_n_train_steps": 4}, [4, 8, 12, 16]),
        ("epochs", {"every_n_epochs": 1}, [6, 12, 18]),
        ("epoch-ends", {"save_on_train_epoch_end": True}, [6, 12, 18]),
    ):
        saver = ModelCheckpoint(tmp_path / name, **options, **when)
        runs.fit(callbacks=[saver], **SAVING, max_epochs=3)
        found = sorted(
            (tmp_path / name).glob("*.ckpt"), key=lambda path: int(path.stem)
        )
        assert [int(path.stem) for path in found] == done
        for path in found:
            again = ModelCheckpoint(tmp_path / f"{name} {path.stem}", **options, **when)
            rows = runs.rows(path, [again], **SAVING, max_epochs=4)
            assert rows == unbroken[int(path.stem) :]


class Failing(Resumable):
    """Raises in the step of the ninth batch, or in a validation."""

    def __init__(self, validation: bool) -> None:
        super().__init__()
        self.validation = validation

    def training_step(self, batch, batch_idx):
        if not self.validation and len(self.seen["train"]) == 8:
            raise ArithmeticError("the step failed")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        if self.validation and len(self.validations) == 2 and batch_idx == 1:
            raise ArithmeticError("the validation failed")
        super().validation_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:.*without a model:UserWarning")
@pytest.mark.filterwarnings("ignore:.*is set, but there is no last:UserWarning")
@pytest.mark.parametrize(("validation", "done"), [(False, 8), (True, 12)])
def test_a_run_goes_on_after_an_exception(runs, tmp_path, validation, done):
    unbroken = runs.fit(max_epochs=4)
    saver = OnExceptionCheckpoint(tmp_path)
    with pytest.raises(ArithmeticError):
        runs.fit(None, [saver], None, Failing(validation), **SAVING, max_epochs=4)
    resumed = runs.fit(saver.ckpt_path, max_epochs=4)
    assert resumed.seen["train"] == unbroken.seen["train"][done:]
    if validation:
        # Lightning finishes a validation whose step had raised: it runs as many
        # batches as were left, where it runs other interrupted ones again whole.
        assert len(resumed.validations.pop(0)) == 1
    assert resumed.validations == unbroken.validations[-len(resumed.validations) :]
    assert len(resumed.validations) == 3 - validation


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (0, 1),
        (1, 0),
        pytest.param(0, 2, marks=pytest.mark.slow),
        pytest.param(2, 0, marks=pytest.mark.slow),
    ],
)
def test_another_worker_count_goes_on(runs, tmp_path, before, after):
    unbroken = runs.rows(max_epochs=3)
    saver = SaveFrom(tmp_path, ("on_train_batch_end",), done={8})
    runs.fit(callbacks=[saver], module={"num_workers": before}, max_epochs=2)
    (saved,) = saver.saved
    rows = runs.rows(saved.path, module={"num_workers": after}, max_epochs=3)
    assert rows == unbroken[8:]


# -- what the trainer's count alone does not say ---------------------------------------


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


# -- a checkpoint without our state ----------------------------------------------------


class Renamed(LanceDataModule):
    """Lightning keys a data module's state by the name of its class."""


@pytest.mark.parametrize("limit", ["epochs", "steps"])
@pytest.mark.parametrize("module", [{}, TWO_LOADERS], ids=["one", "two"])
def test_without_our_state_the_trainers_count_is_the_position(
    runs, tmp_path, limit, module
):
    runs = Runs(runs.folder, runs.uri, module)
    unbroken = runs.rows(**LIMITS[limit])
    saver = SaveFrom(tmp_path, done={2, 6})
    runs.fit(callbacks=[saver], max_epochs=1)
    for saved in saver.saved:
        checkpoint = torch.load(saved.path, weights_only=True)
        checkpoint["Renamed"] = checkpoint.pop("LanceDataModule")
        torch.save(checkpoint, saved.path)
        with pytest.warns(UserWarning, match="holds no data state of LanceDataModule"):
            rows = runs.rows(saved.path, **LIMITS[limit])
        dropped = dropped_by_lightning(QUICK[limit], saved.hook, saved.done)
        assert len(rows) == len(unbroken) - saved.done - dropped
        assert rows == unbroken[saved.done :][: len(rows)], str(saved)


def test_another_loaders_state_is_left_alone(runs, tmp_path):
    class Rows(torch.utils.data.DataLoader):
        def state_dict(self):
            return {"rows": 3}

        def load_state_dict(self, state):
            raise AssertionError

    class Other(L.LightningDataModule):
        def train_dataloader(self):
            rows = [{"id": i, "vector": torch.zeros(4)} for i in range(24)]
            return Rows(rows, batch_size=BATCH)

    saver = SaveFrom(tmp_path, ("on_train_batch_end",), done={8})
    trainer = runs.trainer_of([saver], max_epochs=2)
    with pytest.warns(UserWarning, match="does not have many workers|validation_step"):
        trainer.fit(Resumable(), datamodule=Other())
    unbroken = runs.rows(max_epochs=3)
    with pytest.warns(UserWarning, match="holds no data state"):
        assert runs.rows(saver.saved[0].path, max_epochs=3) == unbroken[8:]


# -- the state -------------------------------------------------------------------------


def leaves(value):
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def test_the_state_is_small_and_plain(runs, tmp_path):
    saver = SaveFrom(tmp_path)
    runs.fit(callbacks=[saver], max_epochs=2)
    for saved in saver.saved:
        state = saved.state()  # loaded with weights_only=True
        kinds = {type(leaf) for leaf in leaves(state)}
        assert kinds <= {int, str, bool, type(None)}
        torch.save(state, tmp_path / "state.pt")
        assert (tmp_path / "state.pt").stat().st_size < 4096
        loader = torch.load(saved.path, weights_only=True)["loops"]["fit_loop"]
        assert {type(leaf) for leaf in leaves(loader)} <= {int, bool, str, type(None)}


def test_a_place_far_into_an_epoch_is_found_by_its_windows_alone(runs):
    counted: list[int] = []

    class Counting(BlockShuffleOrder):
        def indices(self, positions, epoch):
            counted.append(len(positions))
            return super().indices(positions, epoch)

    class Table:
        """A table of a billion rows in which each row holds its own offset."""

        is_local, uri, storage_options = True, "billion.lance", None

        def open(self):
            return self

        def describe(self):
            return "a table of a billion rows"

        def take(self, offsets, columns):
            return pa.table({"id": offsets})

    rows, batch, at = 1_000_000_000, 256, 1_000_000
    order = Counting(rows, 0, 64, 64 * batch * 8, batch)
    shard = TrainShare(rows, batch, World(), drop_last=False, strided=True)
    stream = Stream(range_plan("train", 0, rows), shard, order, seed=0)
    made = runs.data(columns=["id"]).train_dataloader().reader
    grid = window_grid(stream, 1 << 16)
    sizes = replace(made.sizes, row_bytes=1 << 16, grid=grid)
    reader = replace(made, snapshot=Table(), stream=stream, sizes=sizes)
    loader = LanceDataLoader(reader, clock=EpochClock())
    loader.load_state_dict({**loader.state_dict(), "epoch": 3, "batch": at})
    batches = iter(loader)
    first = next(batches)["id"].tolist()
    batches.close()
    assert first == stream.row_offsets(3, at, at + 1)[0].tolist()
    assert len(set(first)) == batch
    assert 0 < sum(counted) < 100 * batch  # its window, and those read ahead


def test_the_next_fit_of_a_module_that_was_resumed_is_whole(runs, tmp_path):
    saver = SaveFrom(tmp_path, ("on_train_batch_end",), {8})
    runs.fit(callbacks=[saver], max_epochs=2)
    (saved,) = saver.saved
    data = runs.data()
    trainer = runs.trainer_of(max_epochs=2)
    trainer.fit(runs.model(), datamodule=data, ckpt_path=saved.path)
    again = runs.model()
    runs.trainer_of(max_epochs=4).fit(again, datamodule=data)
    assert len(again.seen["train"]) == 4 * STEPS
