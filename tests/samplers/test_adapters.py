"""Samplers of torch's, of Lance's and of the user's own order the training rows."""

from __future__ import annotations

import pickle
import random
import threading
from functools import partial

import lance
import lance.sampler
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from lance_lightning import (
    ConfigError,
    LanceDataModule,
    LanceSource,
    PermutationSplit,
    RandomSplit,
    StateError,
)
from tests.helpers.models import Recorder
from tests.helpers.own_samplers import (
    ROWS,
    ByEpoch,
    ByProcess,
    Growing,
    LastFirst,
    Noting,
    SomeRows,
)
from tests.helpers.sampled import ids, module
from tests.helpers.tables import flat, write_table
from tests.helpers.trainers import quiet_trainer
from tests.helpers.worlds import epochs_of_ranks, rank_of


def reversed_rows(dataset):
    return range(len(dataset) - 1, -1, -1)


def frequent_labels(dataset):
    """Weights that come from the rows themselves."""
    labels = [sample["label"] for sample in dataset.__getitems__(range(len(dataset)))]
    weights = [1.0 if label == 2 else 0.0 for label in labels]
    return WeightedRandomSampler(weights, 30)


RANDOM = {
    "RandomSampler": RandomSampler(range(ROWS)),
    "RandomSampler by name": RandomSampler,
    "with replacement": partial(RandomSampler, replacement=True, num_samples=50),
    "with a generator": RandomSampler(
        range(ROWS), generator=torch.Generator().manual_seed(4)
    ),
    "SubsetRandomSampler": SubsetRandomSampler(range(10, 40)),
    "WeightedRandomSampler": WeightedRandomSampler([1.0] * 50 + [0.0] * 53, 60),
    "of the rows": frequent_labels,
    "DistributedSampler": DistributedSampler(range(ROWS), 4, 3),
    "DistributedSampler by name": partial(DistributedSampler, seed=5),
    "BatchSampler": BatchSampler(RandomSampler(range(ROWS)), 8, False),
    "batches of many sizes": Growing(),
    "by epoch": ByEpoch(ROWS),
    "Lance's": SomeRows(),
}
FIXED = {
    "SequentialSampler": (SequentialSampler, list(range(ROWS))),
    "a list": ([5, 3, 3, 99], [5, 3, 3, 99]),
    "a range": (range(50, 90), list(range(50, 90))),
    "a function": (reversed_rows, list(range(ROWS))[::-1]),
    "tensors": (torch.arange(9).flip(0), list(range(9))[::-1]),
    "full scan": (lance.sampler.FullScanSampler(), list(range(ROWS))),
    "fragments": (
        LastFirst(),
        [*range(90, 103), *range(60, 90), *range(30, 60), *range(30)],
    ),
}


# -- what is drawn ----------------------------------------------------------------


@pytest.mark.parametrize("name", FIXED)
def test_rows_come_in_the_order_of_the_sampler(table, name):
    sampler, rows = FIXED[name]
    loader = module(table, sampler).train_dataloader()
    for _ in range(2):
        assert flat(ids(loader)) == rows
    assert len(loader) == -(-len(rows) // 8)


@pytest.mark.parametrize("name", RANDOM)
def test_epochs_and_seeds_differ_and_can_be_repeated(table, name):
    loader = module(table, RANDOM[name]).train_dataloader()
    epochs = [ids(loader) for _ in range(3)]
    assert len({str(epoch) for epoch in epochs}) == 3
    again = module(table, RANDOM[name]).train_dataloader()
    assert [ids(again) for _ in range(3)] == epochs
    if "Distributed" not in name and name != "by epoch":  # of a seed of their own
        other = module(table, RANDOM[name], seed=1).train_dataloader()
        assert ids(other) != epochs[0]


def test_each_sampler_draws_what_it_is_for(table):
    def rows(name):
        return flat(ids(module(table, RANDOM[name]).train_dataloader()))

    for name in ("RandomSampler", "with a generator", "DistributedSampler"):
        assert sorted(rows(name)) == list(range(ROWS))
    assert len(rows("with replacement")) == 50
    assert len(set(rows("with replacement"))) < 50
    assert sorted(rows("SubsetRandomSampler")) == list(range(10, 40))
    assert max(rows("WeightedRandomSampler")) < 50
    assert len(rows("WeightedRandomSampler")) == 60
    assert {row % 3 for row in rows("of the rows")} == {2}
    assert len(set(rows("Lance's"))) == 40


@pytest.mark.parametrize("name", RANDOM)
def test_a_run_resumed_at_any_batch_goes_on_with_the_same_rows(table, name):
    loader = module(table, RANDOM[name]).train_dataloader()
    whole = [ids(loader) for _ in range(2)]
    for stop in (0, 1, len(loader) // 2, len(loader) - 1, len(loader)):
        first = module(table, RANDOM[name]).train_dataloader()
        batches = iter(first)
        for _ in range(stop):
            next(batches)
        again = module(table, RANDOM[name]).train_dataloader()
        again.load_state_dict(first.state_dict())
        rest = [batch["id"].tolist() for batch in again]
        assert rest == (whole[0][stop:] or whole[1])


@pytest.mark.parametrize("name", RANDOM)
def test_global_generators_and_the_sampler_itself_stay_as_they_are(table, name):
    sampler = RANDOM[name]
    generator = getattr(sampler, "generator", None)

    def states():
        own = None if generator is None else generator.get_state().tolist()
        numpy = np.random.get_state()[1].tolist()
        return torch.get_rng_state().tolist(), numpy, random.getstate(), own

    before = states()
    data = module(table, sampler)
    for _ in range(2):
        ids(data.train_dataloader())
    assert states() == before
    assert getattr(sampler, "epoch", 0) == 0


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize("name", ["RandomSampler by name", "BatchSampler", "Lance's"])
def test_workers_draw_the_same(table, name):
    loaders = [
        module(table, RANDOM[name], num_workers=workers).train_dataloader()
        for workers in (0, 2)
    ]
    for _ in range(2):
        assert ids(loaders[0]) == ids(loaders[1])
    loaders[1].close()


def test_two_iterations_at_once_keep_their_epochs(table):
    loader = module(table, RandomSampler).train_dataloader()
    whole = [ids(loader) for _ in range(2)]
    again = module(table, RandomSampler).train_dataloader()
    first, second = iter(again), iter(again)
    mixed = [[next(each)["id"].tolist() for each in (first, second)] for _ in range(13)]
    assert [list(each) for each in zip(*mixed, strict=True)] == whole


def test_an_epoch_is_drawn_once_and_on_the_main_thread(table, monkeypatch):
    monkeypatch.setattr(
        "lance_lightning.loading.sizing.WINDOW_BYTES", 1
    )  # many windows
    # On another thread the seeding would disturb what the main thread draws.
    Noting.threads.clear()
    loader = module(table, Noting()).train_dataloader()
    first, second = iter(loader), iter(loader)
    for _ in range(13):
        next(first), next(second)
    ids(loader)
    assert Noting.threads == [threading.main_thread()] * 3


def test_a_small_pickle_goes_to_a_worker(table):
    data = module(table, RandomSampler)
    reader = data.train_dataloader().reader
    assert len(pickle.dumps(reader)) < 4000


# -- ranks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for name in RANDOM if "atch" not in name and name != "of the rows"]
)
def test_every_world_size_trains_on_the_same_global_batches(table, name):
    options = {"batch_size": None, "global_batch_size": 12}

    def make():
        return module(table, RANDOM[name], **options)

    alone = ids(make().train_dataloader())
    for size in (2, 3, 4):
        ranks = epochs_of_ranks(make, size)
        together = [
            sorted(flat(parts))
            for parts in zip(*(epoch for (epoch,) in ranks), strict=True)
        ]
        last = {*together.pop()}  # a rank without a row of its own repeats one
        assert together == [sorted(batch) for batch in alone[:-1]]
        assert last == set(alone[-1])


@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_have_the_rows_of_their_own_distributed_samplers(tmp_path, shuffle):
    uri = write_table(tmp_path / "t.lance", 96, 30)
    sampler = partial(DistributedSampler, shuffle=shuffle, seed=3)
    ranks = epochs_of_ranks(lambda: module(uri, sampler), 3, epochs=2)
    for rank, epochs in enumerate(ranks):
        theirs = DistributedSampler(range(96), 3, rank, shuffle=shuffle, seed=3)
        for number, epoch in enumerate(epochs):
            theirs.set_epoch(number)
            assert flat(epoch) == list(theirs)


def test_ranks_take_the_samplers_own_batches_in_turn(table, caplog):
    alone = ids(module(table, Growing()).train_dataloader())
    assert [len(batch) for batch in alone] == list(range(1, 14))
    with caplog.at_level("INFO"):
        ranks = epochs_of_ranks(lambda: module(table, Growing()), 3)
    for rank, (epoch,) in enumerate(ranks):
        assert epoch == alone[rank:12:3]
    assert "1 of the sampler's 13 batches are left out" in caplog.text


def test_a_model_trains_on_the_samplers_own_batches(table, tmp_path):
    options = {"stage_splits": {"val": "train"}, "columns": None}
    data = module(table, Growing(), **options)
    model = Recorder()
    quiet_trainer(tmp_path, max_epochs=2).fit(model, datamodule=data)
    assert [len(batch) for batch in model.seen["train"]] == [*range(1, 14)] * 2
    assert flat(model.seen["val"]) == [*range(ROWS)] * 2


# -- splits -----------------------------------------------------------------------


def test_indices_are_of_the_split_and_not_of_the_table(table):
    source = LanceSource(table, filter="id >= 50")
    loader = module(source, [0, 2, 52]).train_dataloader()
    assert ids(loader) == [[50, 52, 102]]


@pytest.mark.parametrize("kind", ["range", "some", "reversed"])
def test_lances_samplers_pass_over_rows_of_other_splits(table, tmp_path, kind):
    offsets = {
        "range": range(20, 70),
        "some": range(1, 103, 2),
        "reversed": range(102, -1, -3),
    }[kind]
    order = lance.dataset(table).take(list(offsets), columns=["_rowid"])
    permutation = order.rename_columns(["row_id"])
    zeros = np.zeros(len(offsets), "uint64")
    permutation = permutation.append_column("split_id", [zeros])
    lance.write_dataset(permutation, tmp_path / "p.lance")
    splits = PermutationSplit(str(tmp_path / "p.lance"), ["train"])
    loader = module(table, LastFirst(), splits=splits).train_dataloader()
    expected = [row for row in FIXED["fragments"][1] if row in set(offsets)]
    assert flat(ids(loader)) == expected


# -- state ------------------------------------------------------------------------


def test_another_order_than_the_checkpoints_shows_both_sides(table):
    state = module(table, [1, 2, 3]).train_dataloader().state_dict()
    with pytest.raises(StateError) as caught:
        module(table, [1, 3, 2]).train_dataloader().load_state_dict(state)
    assert str(caught.value).count("builtins.list") == 2
    other = LanceDataModule(table, batch_size=8).train_dataloader()
    with pytest.raises(StateError, match=r"builtins\.list.*BlockShuffle"):
        other.load_state_dict(state)
    batches = module(table, [[1], [2]]).train_dataloader()
    next(iter(other))
    with pytest.raises(StateError, match=r"BlockShuffle.*builtins\.list"):
        batches.load_state_dict(other.state_dict())


def test_other_ranks_share_batches_from_the_end_of_an_epoch_alone(table):
    loader = module(table, Growing()).train_dataloader()
    end = loader.state_dict()
    next(iter(loader))
    middle = loader.state_dict()
    data = module(table, Growing())
    data.setup("fit")
    with rank_of(0, 2):
        loader = data.train_dataloader()
        loader.load_state_dict(end)
        with pytest.raises(StateError, match="world_size: 1 in the checkpoint, 2 here"):
            loader.load_state_dict(middle)


def test_a_checkpoint_asks_for_the_sampler_again(table, tmp_path):
    options = {"stage_splits": {"val": "train"}, "columns": None}
    data = module(table, RandomSampler, **options)
    trainer = quiet_trainer(tmp_path, max_steps=5, max_epochs=-1)
    trainer.fit(Recorder(), datamodule=data)
    path = tmp_path / "run.ckpt"
    trainer.save_checkpoint(path)
    with pytest.raises(ConfigError, match=r"sampler.*RandomSampler"):
        LanceDataModule.load_from_checkpoint(path)
    again = LanceDataModule.load_from_checkpoint(path, sampler=RandomSampler)
    model = Recorder()
    trainer = quiet_trainer(tmp_path, max_steps=13, max_epochs=-1)
    trainer.fit(model, datamodule=again, ckpt_path=path, weights_only=True)
    whole = ids(module(table, RandomSampler).train_dataloader())
    assert model.seen["train"] == whole[5:]


# -- Hydra ------------------------------------------------------------------------


def test_hydra_makes_the_samplers_by_target(table):
    base = {"_target_": "lance_lightning.LanceDataModule", "_convert_": "all"}
    base |= {"source": table, "columns": ["id"], "batch_size": 8}
    samplers = "torch.utils.data"
    for sampler, rows in [
        ({"_target_": f"{samplers}.RandomSampler", "_partial_": True}, ROWS),
        ({"_target_": f"{samplers}.DistributedSampler", "_partial_": True}, ROWS),
        ({"_target_": f"{samplers}.SubsetRandomSampler", "indices": [3, 4]}, 2),
        (
            {
                "_target_": f"{samplers}.WeightedRandomSampler",
                "weights": [0.5] * ROWS,
                "num_samples": 20,
            },
            20,
        ),
        (
            {
                "_target_": f"{samplers}.BatchSampler",
                "sampler": {
                    "_target_": f"{samplers}.SubsetRandomSampler",
                    "indices": [7, 8, 9],
                },
                "batch_size": 2,
                "drop_last": False,
            },
            3,
        ),
    ]:
        data = instantiate({**base, "sampler": sampler})
        assert len(flat(ids(data.train_dataloader()))) == rows


def test_splits_beside_training_keep_their_order(table):
    splits = RandomSplit({"train": 0.5, "val": 0.5})
    data = module(table, RandomSampler, splits=splits)
    plan = data.plan("val")
    rows = plan.offsets(np.arange(plan.num_rows)).tolist()
    assert flat(ids(data.val_dataloader())) == rows


def test_workers_read_what_the_main_process_drew(table, monkeypatch):
    monkeypatch.setattr(
        "lance_lightning.loading.sizing.WINDOW_BYTES", 1
    )  # a batch a window
    options = {"sampler": ByProcess(ROWS), "batch_size": 10}
    expected = rows_of(LanceDataModule(table, **options))
    data = LanceDataModule(table, num_workers=2, **options)
    assert rows_of(data) == expected
    data.teardown()


def rows_of(data: LanceDataModule) -> list[list[int]]:
    loader = data.train_dataloader()
    return [[i for batch in loader for i in batch["id"].tolist()] for _ in range(2)]


class LoggingMean(Recorder):
    def training_step(self, batch, batch_idx):
        self.log("mean", float(len(batch["id"])), on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self):
        self.mean = float(self.trainer.callback_metrics["mean"])


def test_a_batch_that_the_sampler_made_is_logged_with_its_own_size(table, tmp_path):
    sizes = [[0], list(range(1, 100)), [100, 101]]
    model = LoggingMean()
    data = LanceDataModule(table, sampler=sizes, stage_splits={"val": "train"})
    quiet_trainer(tmp_path, max_epochs=1).fit(model, datamodule=data)
    assert model.mean == pytest.approx((1 + 99 * 99 + 2 * 2) / 102)
