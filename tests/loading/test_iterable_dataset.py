"""A split as an iterable data set: sharded by itself, every row once, resumable."""

from __future__ import annotations

import pickle
import warnings

import lightning as L
import pytest
import torch
from torch.utils.data import ChainDataset, DataLoader, IterableDataset

from lance_lightning import (
    ConfigError,
    LanceDataModule,
    LanceIterableDataset,
    RandomSplit,
    Sequential,
    Shuffle,
    StateError,
)
from lance_lightning.ordering.world import World
from lance_lightning.types import OUTPUT_FORMATS
from tests.helpers.own_batches import add_noise
from tests.helpers.tables import flat

ROWS = list(range(103))


def made(table, **options):
    defaults = {"columns": ["id", "vector"], "batch_size": 8, "seed": 3}
    return LanceDataModule(table, **{**defaults, **options})


def ids(batches) -> list[list[int]]:
    return [batch["id"].tolist() for batch in batches]


def spawned(dataset, workers=2, **options) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="spawn",
        **options,
    )


def test_it_yields_the_batches_of_the_loader(table):
    data = made(table)
    dataset = data.iterable_dataset("train")
    assert isinstance(dataset, IterableDataset)
    assert isinstance(dataset, LanceIterableDataset)
    assert len(dataset) == 13
    loader = data.train_dataloader()
    for epoch in range(3):
        dataset.set_epoch(epoch)
        found = ids(dataset)
        assert found == ids(loader)
        assert sorted(flat(found)) == ROWS


@pytest.mark.parametrize("stage", ["val", "test", "predict"])
def test_evaluation_is_in_order(table, stage):
    data = made(table, splits=RandomSplit({"train": 0.5, stage: 0.5}))
    found = ids(data.iterable_dataset(stage))
    assert found == ids(getattr(data, f"{stage}_dataloader")())
    assert flat(found) == sorted(flat(found))


def test_a_split_that_serves_no_stage_needs_one(table):
    data = made(table, splits=RandomSplit({"train": 0.5, "rest": 0.5}))
    with pytest.raises(ConfigError, match=r"'rest' serves no stage.*stage=\"train\""):
        data.iterable_dataset("rest")
    in_order = flat(ids(data.iterable_dataset("rest", stage="predict")))
    shuffled = flat(ids(data.iterable_dataset("rest", stage="train")))
    assert in_order == sorted(shuffled) != shuffled
    with pytest.raises(ConfigError, match="stage must be one of"):
        data.iterable_dataset("train", stage="fit")


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_ranks_share_the_rows(table, size):
    data = made(table, batch_size=None, global_batch_size=12)
    parts = [
        ids(data.iterable_dataset(world=World(rank, size))) for rank in range(size)
    ]
    assert len({len(part) for part in parts}) == 1
    assert sorted(flat(flat(parts))) == ROWS
    whole = ids(data.iterable_dataset(world=World()))
    for step, batch in enumerate(whole):
        assert sorted(batch) == sorted(flat(part[step] for part in parts))


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("stage", ["train", "val"])
def test_workers_share_the_batches_in_the_loaders_order(table, workers, stage):
    """As a DataLoader takes turns with its workers, without starting any."""
    data = made(table, splits=RandomSplit({"train": 0.8, "val": 0.2}), batch_size=3)
    dataset = data.iterable_dataset(stage)
    expected = ids(dataset)
    shares = [ids(dataset._from(share(w), workers)) for w in range(workers)]
    found = [
        shares[number % workers][number // workers] for number in range(len(expected))
    ]
    assert found == expected
    assert sum(map(len, shares)) == len(expected)


def share(worker: int):
    from lance_lightning.loading.iterable_dataset import Position

    return Position(0, worker)


def test_spawned_workers_give_the_batches_of_none(table):
    data = made(table, transform=add_noise)
    dataset, alone = data.iterable_dataset(), data.iterable_dataset()
    loader = spawned(dataset, persistent_workers=True)
    assert len(loader) == 13
    for epoch in (0, 1, 4):  # the workers stay, and get the epoch
        dataset.set_epoch(epoch)
        alone.set_epoch(epoch)
        found, expected = list(loader), list(alone)
        assert ids(found) == ids(expected)
        for mine, other in zip(found, expected, strict=True):
            assert torch.equal(mine["noise"], other["noise"])
            assert mine["numpy"] == other["numpy"]
        assert {batch["worker"] for batch in found} == {0, 1}
        assert sorted(flat(ids(found))) == ROWS


def test_its_pickle_is_small(table):
    dataset = made(table).iterable_dataset()
    assert len(pickle.dumps(dataset)) < 8192
    copy = pickle.loads(pickle.dumps(dataset))
    assert ids(copy) == ids(dataset)


def test_data_sets_are_chained(table):
    data = made(table, splits=RandomSplit({"train": 0.5, "val": 0.5}))
    chained = ChainDataset(
        [data.iterable_dataset("train"), data.iterable_dataset("val")]
    )
    loader = DataLoader(chained, batch_size=None)
    found = ids(loader)
    assert sorted(flat(found)) == ROWS
    assert len(chained) == len(loader) == len(found)


def test_fabric_takes_a_plain_loader_of_it(table):
    fabric = L.Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    dataset = made(table).iterable_dataset("train")
    loader = fabric.setup_dataloaders(DataLoader(dataset, batch_size=None))
    epochs = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        epochs.append(flat(ids(loader)))
    assert sorted(epochs[0]) == sorted(epochs[1]) == ROWS
    assert epochs[0] != epochs[1]


@pytest.mark.filterwarnings("ignore:epoch 0 is read once more")
@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_every_format_has_samples(table, output_format):
    columns = ["id"] if output_format.startswith("torch_") else ["id", "name"]
    data = made(table, columns=columns, output_format=output_format)
    dataset = data.iterable_dataset(batched=False)
    assert len(dataset) == 103
    samples = list(dataset)
    assert sorted(int(sample["id"]) for sample in samples) == ROWS


def test_samples_are_collated_by_a_plain_loader(table):
    data = made(table)
    loader = DataLoader(data.iterable_dataset(batched=False), batch_size=10)
    batches = list(loader)
    assert len(loader) == len(batches) == 11
    assert flat(ids(batches)) == flat(ids(data.iterable_dataset()))
    assert batches[0]["vector"].shape == (10, 4)


def test_samples_of_a_stage_with_functions_are_refused(table):
    data = made(table, transform=add_noise)
    with pytest.raises(ConfigError, match=r"batched=False.*transform"):
        data.iterable_dataset(batched=False)


@pytest.mark.parametrize("sampler", [None, Shuffle(), Sequential()])
def test_it_resumes_at_every_batch(table, sampler):
    options = {} if sampler is None else {"sampler": sampler}
    dataset = made(table, **options).iterable_dataset()
    expected = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        expected += ids(dataset)
    for stop in range(len(expected)):
        first = made(table, **options).iterable_dataset()
        taken = take(first, stop)
        state = first.state_dict()
        assert pickle.loads(pickle.dumps(state)) == state
        resumed = made(table, **options).iterable_dataset()
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        rest = []
        for epoch in range(state["epoch"], 2):
            resumed.set_epoch(epoch)
            rest += ids(resumed)
        assert taken + rest == expected, stop


def take(dataset, count):
    """Return the first batches, from epoch 0 on."""
    taken: list = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        batches = iter(dataset)
        while len(taken) < count and (batch := next(batches, None)) is not None:
            taken.append(batch["id"].tolist())
        if len(taken) == count:
            break
    return taken


def test_samples_resume_at_every_sample(table):
    data = made(table, sampler=Shuffle())
    expected = [int(s["id"]) for s in data.iterable_dataset(batched=False)]
    for stop in range(0, 103, 5):
        first = data.iterable_dataset(batched=False)
        rows = iter(first)
        taken = [int(next(rows)["id"]) for _ in range(stop)]
        resumed = data.iterable_dataset(batched=False)
        resumed.load_state_dict(first.state_dict())
        assert taken + [int(sample["id"]) for sample in resumed] == expected


@pytest.mark.slow
def test_a_restored_position_is_continued_by_workers(table):
    dataset = made(table).iterable_dataset()
    state = {**dataset.state_dict(), "batch": 5}
    restored = made(table).iterable_dataset()
    restored.load_state_dict(state)
    loader = spawned(restored)
    assert ids(loader) == ids(dataset)[5:]
    restored.set_epoch(1)
    dataset.set_epoch(1)
    assert ids(loader) == ids(dataset)  # from its first batch


def test_a_worker_continues_its_own_state(table):
    """What torchdata's StatefulDataLoader asks of the copies in its workers."""
    dataset = made(table).iterable_dataset()
    state = {**dataset.state_dict(), "batch": 4, "worker": [0, 2]}
    dataset.load_state_dict(state)
    with pytest.raises(StateError, match=r"worker 0 of 2, and this is worker 0 of 1"):
        iter(dataset)


def test_other_rows_are_refused(table):
    data = made(table)
    state = data.iterable_dataset().state_dict()
    with pytest.raises(StateError, match="seed"):
        made(table, seed=4).iterable_dataset().load_state_dict(state)
    with pytest.raises(StateError, match="batched"):
        data.iterable_dataset(batched=False).load_state_dict(state)
    with pytest.raises(ConfigError, match="batch must be"):
        data.iterable_dataset().load_state_dict({**state, "batch": -1})


def test_reading_an_epoch_twice_in_training_warns(table):
    dataset = made(table).iterable_dataset()
    first = ids(dataset)
    with pytest.warns(UserWarning, match=r"epoch 0 is read once more.*set_epoch"):
        assert ids(dataset) == first
    dataset.set_epoch(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ids(dataset) != first
        val = made(table, splits=RandomSplit({"train": 0.5, "val": 0.5}))
        again = val.iterable_dataset("val")
        assert ids(again) == ids(again)


def test_a_sampler_that_draws_is_read_by_one_process(table):
    sampler = torch.utils.data.RandomSampler(range(103))
    dataset = made(table, sampler=sampler).iterable_dataset()
    assert sorted(flat(ids(dataset))) == ROWS
    with pytest.raises(ConfigError, match="num_workers=0") as caught:
        list(spawned(dataset, workers=1))
    caught.value.with_traceback(None)
    del caught  # it holds the worker, which the garbage collector would wait for


def test_an_early_break_leaves_no_thread_behind(table):
    dataset = made(table).iterable_dataset()
    for _ in dataset:
        break
    dataset.set_epoch(1)
    assert sorted(flat(ids(dataset))) == ROWS
