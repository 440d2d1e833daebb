"""A resumed run sees the rows that the unbroken run would have seen, in that order."""

from __future__ import annotations

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from tests.helpers.resume_cases import (
    LIMITS,
    QUICK,
    TWO_LOADERS,
    Case,
    Planning,
    dropped_by_lightning,
)
from tests.helpers.resuming import STEPS, Resumable, Runs, SaveFrom


class Fetching(Resumable):
    """Takes its batches out of the iterator itself."""

    def training_step(self, dataloader_iter):
        batch, _, _ = next(dataloader_iter)
        return super().training_step(batch, 0)


class Cutting(Resumable):
    """Cuts every epoch short."""

    def on_train_batch_start(self, batch, batch_idx):
        return -1 if batch_idx == 3 else None


ACCUMULATE = {"accumulate_grad_batches": 3}


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
