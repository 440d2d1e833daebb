"""Only the iterator that the fit loop drives moves the position of a fit."""

from __future__ import annotations

import multiprocessing

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.utilities import CombinedLoader

from lance_lightning import LanceDataModule, RandomSplit, Shuffle
from tests.helpers.looks import (
    BEFORE,
    HOOKS,
    WITHIN,
    Looks,
    Wrapper,
    of_the_hook,
    of_the_loader,
)
from tests.helpers.resuming import BATCH, STEPS, Resumable, Runs, SaveFrom
from tests.helpers.tables import write_table


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    folder = tmp_path_factory.mktemp("position")
    return Runs(folder, write_table(folder / "t.lance", 37, rows_per_file=10))


@pytest.fixture(scope="module")
def unbroken(runs):
    return runs.rows(max_epochs=4)


class StepLooks(Resumable):
    """Looks where a model may."""

    def configure_optimizers(self):
        next(of_the_hook(self.trainer))
        return super().configure_optimizers()

    def training_step(self, batch, batch_idx):
        next(of_the_hook(self.trainer))
        next(of_the_loader(self.trainer))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        next(of_the_loader(self.trainer))
        super().validation_step(batch, batch_idx)


CASES = {
    "plain": {},
    "sanity check": {"num_sanity_val_steps": 2},
    "validate every 4": {"val_check_interval": 4},
    "accumulate": {"accumulate_grad_batches": 3},
    "reload": {"reload_dataloaders_every_n_epochs": 1},
}


def check_looks(runs, folder, done, looks, model=Resumable, **trainer):
    """Resume a run that looks after so many batches; return the rows it looked at."""
    runs = Runs(runs.folder, runs.uri, runs.module, trainer, model, runs.kind)
    plain = Runs(runs.folder, runs.uri, runs.module, trainer, kind=runs.kind)
    unbroken = plain.rows(max_epochs=3)
    saver = SaveFrom(folder, ("on_train_batch_end", "on_train_epoch_end"), done)
    seen = looks()
    assert runs.rows(callbacks=[seen, saver], max_epochs=3) == unbroken
    for saved in saver.saved:
        again = looks()
        rows = runs.rows(saved.path, [again], max_epochs=3)
        assert rows == unbroken[saved.done :], str(saved)
    return seen.seen


@pytest.mark.parametrize(
    ("name", "done"),
    [
        ("plain", {2}),
        *(pytest.param(name, {2, 6}, marks=pytest.mark.slow) for name in CASES),
    ],
)
def test_a_look_from_any_hook_leaves_the_position(runs, tmp_path, name, done):
    seen = check_looks(runs, tmp_path, done, Looks, **CASES[name])
    assert {hook for hook, _, _ in seen} >= set(WITHIN)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("look", [of_the_hook, of_the_loader])
def test_a_look_from_each_hook_leaves_the_position(runs, tmp_path, name, hook, look):
    def looks():
        return Looks((hook,), (look,), batches=2)

    check_looks(runs, tmp_path, None, looks, **CASES[name])


@pytest.mark.parametrize("hook", ["on_train_start", "on_train_epoch_start"])
def test_a_look_at_a_whole_epoch_leaves_the_position(runs, tmp_path, hook):
    def looks():
        return Looks((hook,), batches=None)

    for _, _, rows in check_looks(runs, tmp_path, {1, 6}, looks):
        assert len(set(rows)) == 23


def test_a_look_of_the_model_leaves_the_position(runs, tmp_path):
    check_looks(runs, tmp_path, {2, 6}, lambda: Looks(()), StepLooks)


def test_a_look_reads_the_epoch_at_hand_from_its_first_batch(runs, unbroken, tmp_path):
    looks = Looks(BEFORE[1:] + WITHIN)
    saver = SaveFrom(tmp_path, ("on_train_batch_end",), {8})
    runs.fit(callbacks=[looks, saver], max_epochs=2)
    again = Looks(BEFORE[1:] + WITHIN)
    runs.fit(saver.saved[0].path, [again], max_epochs=3)
    for hook, epoch, rows in looks.seen + again.seen:
        # A restored trainer says only from its first batch on in which epoch it is.
        at = max(epoch, 1) if (hook, epoch, rows) in again.seen else epoch
        assert [rows] == unbroken[at * STEPS], (hook, epoch)
    assert {epoch for _, epoch, _ in again.seen} >= {1, 2}


def test_a_look_before_the_first_batch_of_a_second_fit_leaves_it(runs, unbroken):
    data, model = runs.data(), Resumable()
    trainer = runs.trainer_of([Looks()], max_epochs=2)
    trainer.fit(model, datamodule=data)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model, datamodule=data)
    assert model.seen["train"] == unbroken


def test_a_look_outside_of_a_fit_leaves_the_position(runs, unbroken):
    data, model = runs.data(), Resumable()
    data.setup("fit")
    next(iter(data.train_dataloader()))  # on one rank it would part the ranks
    trainer = runs.trainer_of(max_epochs=2)
    trainer.fit(model, datamodule=data)
    list(data.train_dataloader())
    next(iter(trainer.train_dataloader))
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model, datamodule=data)
    assert model.seen["train"] == unbroken


@pytest.mark.parametrize("steps", [12, 9])
def test_a_look_before_the_checkpoint_of_a_fit_leaves_its_position(
    runs, unbroken, tmp_path, steps
):
    data, path = runs.data(), tmp_path / "last.ckpt"
    trainer = runs.trainer_of(max_epochs=-1, max_steps=steps)
    trainer.fit(Resumable(), datamodule=data)
    looked = iter(data.train_dataloader())
    next(looked), next(looked)
    trainer.save_checkpoint(path)
    assert runs.rows(path, max_epochs=-1, max_steps=24) == unbroken[steps:]


@pytest.mark.parametrize("function", ["validate", "test", "predict"])
def test_a_look_in_evaluation_leaves_the_position(runs, unbroken, function):
    class Evaluates(Resumable):
        def test_step(self, batch, batch_idx):
            next(of_the_hook(self.trainer))
            return batch["id"]

        validation_step = predict_step = test_step

    stages = {"stage_splits": {"test": "val", "predict": "val"}}
    data = runs.data(**stages)
    trainer = runs.trainer_of()
    evaluate = getattr(trainer, function)
    evaluate(Evaluates(), datamodule=data)
    model = Resumable()
    runs.trainer_of(max_epochs=2).fit(model, datamodule=data)
    assert model.seen["train"] == unbroken[:12]


class WatchesTraining(LanceDataModule):
    """Validates on what it trains on."""

    def val_dataloader(self):
        return self.train_dataloader()


class SharesItsLoader(LanceDataModule):
    """Validates with the very loader that it trains with."""

    def val_dataloader(self):
        return self.trainer.train_dataloader


@pytest.mark.parametrize("kind", [WatchesTraining, SharesItsLoader])
@pytest.mark.parametrize("trainer", [{}, {"val_check_interval": 4}])
def test_validation_on_training_rows_leaves_the_position(runs, tmp_path, kind, trainer):
    both = Runs(runs.folder, runs.uri, runs.module, trainer, kind=kind)
    unbroken = runs.rows(max_epochs=3, **trainer)
    saver = SaveFrom(tmp_path, ("on_train_batch_end", "on_validation_end"))
    model = both.fit(callbacks=[saver], max_epochs=2)
    assert model.seen["train"] == unbroken[:12]
    for number, validation in enumerate(model.validations):
        epoch = unbroken[number * STEPS :][:STEPS]
        assert validation == [rows for (rows,) in epoch]
    for saved in saver.saved:
        rows = both.rows(saved.path, max_epochs=3)
        assert rows == unbroken[saved.done :], str(saved)


def test_overfitting_validates_on_its_training_rows(runs):
    both = Runs(runs.folder, runs.uri, {}, {"overfit_batches": 3}, kind=WatchesTraining)
    model = both.fit(callbacks=[Looks()], max_epochs=3)
    first = model.seen["train"][:3]
    assert model.seen["train"] == first * 3
    assert model.validations == [[rows for (rows,) in first]] * 3


@pytest.mark.parametrize(
    "kind",
    [LanceDataModule, pytest.param(SharesItsLoader, marks=pytest.mark.slow)],
)
def test_a_look_takes_no_worker_from_the_run(runs, unbroken, kind):
    class Counts(Looks):
        most = 0

        def on_train_batch_end(self, *args):
            self.most = max(self.most, len(multiprocessing.active_children()))

    hooks = ("on_train_start", "on_train_batch_start", "on_validation_start")
    looks = Counts(hooks, batches=2)
    two = Runs(runs.folder, runs.uri, {"num_workers": 1}, kind=kind)
    model = two.fit(callbacks=[looks], max_epochs=2)
    assert model.seen["train"] == unbroken[:12]
    assert looks.most <= 2  # one of training, one of validation


@pytest.mark.usefixtures("worker_kind")
def test_a_look_at_a_validation_loader_takes_no_worker_from_it(runs):
    class Evaluates(Resumable):
        def validation_step(self, batch, batch_idx):
            self.kept = iter(self.trainer.val_dataloaders)
            next(self.kept)
            super().validation_step(batch, batch_idx)

    plain = runs.fit().validations
    model = Runs(runs.folder, runs.uri, {"num_workers": 1}, {}, Evaluates).fit()
    assert model.validations == plain


class Eager(Wrapper):
    """Asks for its first batch as soon as it is iterated, as GPU prefetchers do."""

    def __iter__(self):
        batches = iter(self.loader)
        ahead = next(batches)

        def rest():
            yield ahead
            yield from batches

        return rest()


@pytest.mark.parametrize(
    ("wrapper", "done"),
    [(Wrapper, 6), pytest.param(Wrapper, 8, marks=pytest.mark.slow), (Eager, 8)],
)
@pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable")
def test_a_look_at_a_loader_round_ours_leaves_the_position(
    runs, tmp_path, wrapper, done
):
    class Wraps(LanceDataModule):
        def train_dataloader(self):
            return wrapper(super().train_dataloader())

    # Lightning warns of a loader without a state; the module keeps it.
    wrapping = Runs(runs.folder, runs.uri, {}, {}, kind=Wraps)
    unbroken = runs.rows(max_epochs=3)
    saver = SaveFrom(tmp_path, ("on_train_batch_end", "on_train_epoch_end"), {done})
    looks = Looks()
    assert wrapping.rows(callbacks=[looks, saver], max_epochs=3) == unbroken
    for saved in saver.saved[-1:]:
        rows = wrapping.rows(saved.path, [Looks()], max_epochs=3)
        assert rows == unbroken[done:], str(saved)


# -- several loaders -------------------------------------------------------------------


class Combines(LanceDataModule):
    """Trains on two splits, the second shorter, in a mode of `CombinedLoader`."""

    mode = ""
    turned = False

    def train_dataloader(self):
        a, b = super().train_dataloader()
        loaders = {"b": b, "a": a} if self.turned else {"a": a, "b": b}
        return CombinedLoader(loaders, self.mode) if self.mode else loaders


class Takes(Resumable):
    """Records what each loader gave."""

    def training_step(self, batch, batch_idx):
        rows = {k: b and b["id"].tolist() for k, b in sorted(batch.items())}
        self.seen["train"].append(rows)
        return self.layer(torch.ones(1, 4)).square().mean()


MODES = ["min_size", "max_size", "max_size_cycle"]


def check_combined(runs, folder, mode, counts, hooks, turned=False, **trainer):
    kind = type("Combines", (Combines,), {"mode": mode, "turned": turned})
    module = {
        "splits": RandomSplit(counts=counts),
        "stage_splits": {"train": ["a", "b"]},
        "sampler": Shuffle(),
    }
    runs = Runs(runs.folder, runs.uri, module, trainer, Takes, kind)
    unbroken = runs.rows(max_epochs=3)
    saver = SaveFrom(folder, hooks)
    looks = Looks(("on_train_start", "on_train_batch_end"), (of_the_hook_of_two,))
    assert runs.rows(callbacks=[looks, saver], max_epochs=3) == unbroken
    for saved in saver.saved:
        rows = runs.rows(saved.path, max_epochs=3)
        assert rows == unbroken[saved.done :], str(saved)
    return unbroken


def of_the_hook_of_two(trainer):
    loaders = trainer.datamodule.train_dataloader()
    next(iter(trainer.train_dataloader["a"]))
    return iter(getattr(loaders, "iterables", loaders)["b"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("turned", [False, True])
def test_a_combined_loader_resumes_in_every_mode(runs, tmp_path, mode, turned):
    counts = {"a": 23, "b": 9, "val": 5}
    unbroken = check_combined(
        runs, tmp_path, mode, counts, ("on_train_batch_end",), turned
    )
    steps = 3 if mode == "min_size" else STEPS
    assert len(unbroken) == 3 * steps
    third = [rows["b"] for rows in unbroken[:steps]][3:4]
    if mode == "max_size":
        assert third == [None]
    elif mode == "max_size_cycle":
        assert len(third[0]) == BATCH


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("counts", [(17, 13), (23, 4), (20, 9)])
@pytest.mark.parametrize(
    "trainer",
    [
        {},
        {"limit_train_batches": 4},
        {"val_check_interval": 3},
        {"accumulate_grad_batches": 2},
    ],
)
def test_a_combined_loader_resumes_from_any_hook(
    runs, tmp_path, mode, turned, counts, trainer
):
    if "val_check_interval" in trainer and counts[1] < 9 and mode == "min_size":
        pytest.skip("an epoch has fewer steps than that")
    named = dict(zip(("a", "b", "val"), (*counts, 5), strict=True))
    hooks = (
        "on_train_batch_end",
        "on_after_backward",
        "on_validation_end",
        "on_train_epoch_end",
    )
    check_combined(runs, tmp_path, mode, named, hooks, turned, **trainer)


def test_lightning_trains_on_no_sequential_combination(runs):
    kind = type("Combines", (Combines,), {"mode": "sequential"})
    module = {
        "splits": RandomSplit(counts={"a": 23, "b": 9, "val": 5}),
        "stage_splits": {"train": ["a", "b"]},
    }
    sequential = Runs(runs.folder, runs.uri, module, {}, Takes, kind)
    with pytest.raises(ValueError, match="sequential"):
        sequential.rows()


# -- finders ---------------------------------------------------------------------------


class Tuned(Resumable):
    lr = 0.1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class FindsInEveryEpoch(LearningRateFinder):
    """Lightning's own example of a finder that runs in mid-fit."""

    def on_fit_start(self, *args):
        pass

    def on_train_epoch_start(self, trainer, module):
        found = len(module.seen["train"])
        self.lr_find(trainer, module)
        del module.seen["train"][found:]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("finder", [LearningRateFinder, FindsInEveryEpoch])
def test_a_finder_within_the_fit_leaves_its_rows(runs, unbroken, finder):
    class Forgets(L.Callback):
        def on_train_start(self, trainer, module):
            if not trainer.fit_loop.epoch_progress.total.ready:
                module.seen["train"].clear()

    finds = finder(num_training_steps=8, early_stop_threshold=None, update_attr=True)
    model = Tuned()
    trainer = runs.trainer_of(
        [finds, Forgets(), Looks(("on_train_epoch_end",))], max_epochs=3
    )
    trainer.fit(model, datamodule=runs.data())
    assert model.seen["train"] == unbroken[:18]
