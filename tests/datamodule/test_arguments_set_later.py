"""An argument that is set as an attribute counts and is saved, or is refused."""

from __future__ import annotations

import copy
import pickle

import pytest

from lance_lightning import (
    ConfigError,
    LanceDataModule,
    RandomSplit,
    Sequential,
    SequentialSplit,
    Shuffle,
)
from tests.helpers.models import Recorder
from tests.helpers.trainers import quiet_trainer

COUNTS = SequentialSplit(counts={"train": 60, "val": 43})


def with_type(batch):
    return type(batch).__name__, batch


# Every argument but batch sizes, with another value than the default.
SET = {
    "splits": COUNTS,
    "sampler": Sequential(),
    "columns": {"id": "id", "twice": "label * 2"},
    "output_format": "numpy",
    "eval_batch_size": 3,
    "drop_last": True,
    "num_workers": 0,
    "seed": 7,
    "with_row_id": True,
    "cache_bytes": 1 << 20,
    "stage_splits": {"val": "train"},
    "nulls": "mask",
    "ragged": "list",
    "transform": with_type,
    "sample_transform": len,
    "collate_fn": list,
    "arrow_transform": {"train": lambda batch: batch.slice(0, 2)},
    "dataloader_kwargs": {"pin_memory": False},
}


def looked_at(data) -> str:
    """Return all that a module gives, as text."""
    found = [list(data.train_dataloader())]
    if data._config.stage_splits["val"]:
        found.append(list(data.val_dataloader()))
    return repr((found, data.split_names, data.batch_size))


def module(table, **options):
    return LanceDataModule(**{"source": table, "batch_size": 5, **options})


@pytest.mark.parametrize("name", SET)
def test_what_is_set_counts_as_if_it_had_been_given(table, name):
    given, later = module(table, **{name: SET[name]}), module(table)
    setattr(later, name, SET[name])
    assert later.hparams == given.hparams
    assert getattr(later, name) == SET[name]
    if name == "sample_transform":
        given.collate_fn = later.collate_fn = list
    assert looked_at(later) == looked_at(given)


@pytest.mark.parametrize("name", [*SET, "global_batch_size", "source"])
def test_what_is_set_among_the_hyperparameters_counts_too(table, name):
    value = {**SET, "global_batch_size": 6, "source": str(table)}[name]
    given = module(table, **{name: value, "batch_size": None})
    later = LanceDataModule(table)
    later.hparams[name] = value
    assert later.hparams == given.hparams
    other = LanceDataModule(table)
    other.hparams.update({name: value})
    assert other.hparams == given.hparams
    if name not in ("transform", "collate_fn", "sample_transform"):
        assert looked_at(later) == looked_at(other) == looked_at(given)


def test_a_batch_size_of_the_hyperparameters_is_trained_with(table, tmp_path):
    data = LanceDataModule(table, batch_size=8, columns=["id", "vector"])
    data.hparams.batch_size = 9
    assert data.batch_size == 9
    model = Recorder()
    data.stage_splits = {"val": "train"}
    quiet_trainer(tmp_path).fit(model, datamodule=data)
    assert len(model.seen["train"][0]) == 9


def test_sizes_of_batches_and_workers_may_change_at_any_time(table):
    data = LanceDataModule(table, stage_splits={"val": "train"})
    data.train_dataloader()
    data.eval_batch_size = 7
    assert len(next(iter(data.val_dataloader()))["id"]) == 7
    data.global_batch_size = 12
    assert (data.batch_size, data.hparams["global_batch_size"]) == (12, 12)
    assert "batch_size" not in data.hparams
    data.batch_size = 4
    assert len(next(iter(data.train_dataloader()))["id"]) == 4
    assert data.hparams["global_batch_size"] is None
    assert data.hparams["batch_size"] == 4


@pytest.mark.parametrize(
    "name", sorted(set(SET) - {"eval_batch_size", "num_workers"} | {"source"})
)
def test_what_the_loaders_were_made_with_cannot_be_set(table, name):
    data = module(table)
    data.train_dataloader()
    before = dict(data.hparams)
    value = {**SET, "source": "other.lance"}[name]
    for target in (data, data.hparams):
        with pytest.raises(ConfigError, match=f"{name} cannot be set to .* new data"):
            setattr(target, name, value)
    assert dict(data.hparams) == before
    setattr(data, name, data._given[name])  # the same changes nothing


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", "x", "seed must be an integer"),
        ("columns", [], "columns must hold at least one"),
        ("batch_size", 0, "batch_size must be at least 1"),
        ("stage_splits", {"val": "nowhere"}, "nowhere"),
        ("output_format", "xml", "output_format"),
    ],
)
def test_what_cannot_work_is_refused_and_changes_nothing(table, name, value, message):
    data = module(table)
    before, shown = dict(data.hparams), repr(vars(data)["_config"])
    for target in (data, data.hparams):
        with pytest.raises(ConfigError, match=message):
            setattr(target, name, value)
    assert (dict(data.hparams), repr(data._config)) == (before, shown)


def test_a_run_with_what_was_set_resumes_from_its_checkpoint(table, tmp_path):
    data = LanceDataModule(table, stage_splits={"val": "train"})
    data.seed, data.sampler, data.columns = 7, Shuffle(), ["id", "vector"]
    data.batch_size = 8
    whole = Recorder()
    trainer = quiet_trainer(tmp_path)
    trainer.fit(whole, datamodule=data)
    checkpoint = tmp_path / "run.ckpt"
    trainer.save_checkpoint(checkpoint)
    again = LanceDataModule.load_from_checkpoint(checkpoint, weights_only=True)
    assert (again.seed, again.sampler, again.batch_size) == (7, Shuffle(), 8)
    resumed = Recorder()
    trainer = quiet_trainer(tmp_path, max_epochs=2)
    trainer.fit(resumed, datamodule=again, ckpt_path=checkpoint)
    other = module(table, seed=7, sampler=Shuffle(), batch_size=8)
    loader = other.train_dataloader()
    epochs = [[batch["id"].tolist() for batch in loader] for _ in range(2)]
    assert whole.seen["train"] + resumed.seen["train"] == epochs[0] + epochs[1]


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy])
def test_a_copy_is_set_by_itself(table, copied):
    data = module(table)
    again = copied(data)
    again.hparams.seed = 5
    again.batch_size = 9
    assert (again.seed, again.hparams["seed"], again.batch_size) == (5, 5, 9)
    assert (data.seed, data.hparams["seed"], data.batch_size) == (0, 0, 5)
    pickled = pickle.loads(pickle.dumps(again))
    pickled.hparams.seed = 6
    assert (pickled.seed, again.seed) == (6, 5)


class Own(LanceDataModule):
    """A subclass with attributes and methods named as arguments are."""

    def __init__(self, uri, extra=1):
        self.columns = ["id"]
        self.batch_size = 3
        super().__init__(
            uri,
            columns=self.columns,
            batch_size=self.batch_size,
            transform=self.transform,
        )
        self.save_hyperparameters()

    def transform(self, batch):
        return batch["id"]


def test_a_subclass_may_name_its_own_as_arguments_are(table):
    data = Own(table)
    assert dict(data.hparams) == {"uri": table, "extra": 1}
    assert len(next(iter(data.train_dataloader()))) == 3
    data.hparams.extra = 2
    assert data.hparams["extra"] == 2


def test_other_splits_are_of_the_table_as_it_was_pinned_anew(table):
    data = module(table)
    assert data.plan("train").num_rows == 103
    data.splits = COUNTS
    assert data.plan("train").num_rows == 60
    assert data.splits == COUNTS != RandomSplit(fixed=2)
