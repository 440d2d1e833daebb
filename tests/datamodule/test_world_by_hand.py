"""Rank and world size by hand: processes that know nothing of each other."""

from __future__ import annotations

import pickle

import pytest
from omegaconf import OmegaConf

from lance_lightning import (
    ConfigError,
    LanceDataModule,
    LanceSource,
    ShardedBatches,
    ShardedFragments,
    World,
)
from tests.helpers.models import Recorder
from tests.helpers.tables import flat
from tests.helpers.trainers import quiet_trainer
from tests.helpers.worlds import epochs_of_ranks, rank_of

SAMPLERS = {
    "default": {},
    "fragments": {"sampler": ShardedFragments()},
    "batches": {"sampler": ShardedBatches()},
}


def jobs(table, **options):
    """Return what each of three jobs makes."""
    options = {"batch_size": 8, "stage_splits": {"val": "train"}, **options}
    source = LanceSource(table, version=1)
    return [
        LanceDataModule(source, world=World(rank, 3), **options) for rank in range(3)
    ]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_jobs_read_what_ranks_of_a_process_group_read(table, sampler):
    options = SAMPLERS[sampler]
    expected = epochs_of_ranks(
        lambda: LanceDataModule(table, batch_size=8, **options), 3, epochs=2
    )
    for data, epochs in zip(jobs(table, **options), expected, strict=True):
        loader = data.train_dataloader()
        assert len(loader) == len(epochs[0])
        found = [[batch["id"].tolist() for batch in loader] for _ in range(2)]
        assert found == epochs


def test_jobs_share_every_row(table):
    loaders = [data.train_dataloader() for data in jobs(table)]
    assert len({len(loader) for loader in loaders}) == 1
    train = flat(batch["id"].tolist() for loader in loaders for batch in loader)
    assert sorted(set(train)) == list(range(103))
    loaders = [data.val_dataloader() for data in jobs(table)]
    val = flat(batch["id"].tolist() for loader in loaders for batch in loader)
    assert val == list(range(103))
    streams = [data.iterable_dataset("train", stage="val") for data in jobs(table)]
    rows = flat(batch["id"].tolist() for stream in streams for batch in stream)
    assert sorted(rows) == list(range(103))
    assert [len(data.dataset()) for data in jobs(table)] == [103] * 3


def test_a_trainer_of_one_device_reads_its_jobs_share(table, tmp_path):
    seen = []
    for data in jobs(table, stage_splits={"val": "train", "predict": "train"}):
        model = Recorder()
        trainer = quiet_trainer(tmp_path)
        trainer.fit(model, datamodule=data)
        trainer.predict(model, datamodule=data, return_predictions=False)
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        seen.append(model.seen)
    assert sorted(set(flat(each for s in seen for each in s["train"]))) == list(
        range(103)
    )
    assert flat(each for s in seen for each in s["predict"]) == list(range(103))
    again = LanceDataModule.load_from_checkpoint(tmp_path / "run.ckpt")
    assert "world" not in again.hparams  # it is of one process, not of the run
    assert len(again.train_dataloader()) == 13


def test_a_global_batch_is_that_of_all_jobs(table):
    data = jobs(table, batch_size=None, global_batch_size=24)[1]
    assert data.batch_size == 8
    assert len(data.train_dataloader()) == 5


@pytest.mark.parametrize("world", [World(0, 3), World(1, 2)])
def test_a_world_against_the_process_group_is_refused(table, world):
    data = LanceDataModule(table, world=world)
    data.plan("train")
    with rank_of(0, 2), pytest.raises(ConfigError, match="says rank 0 of 2"):
        data.train_dataloader()


def test_a_world_as_in_the_process_group_is_right(table):
    data = LanceDataModule(table, world=World(1, 2))
    data.plan("train")
    with rank_of(1, 2):
        assert len(data.train_dataloader()) == 2


class Sharing:
    """A trainer of two devices, as far as the module asks."""

    distributed_sampler_kwargs = {"rank": 1, "num_replicas": 2}  # noqa: RUF012


def test_a_world_against_the_trainer_is_refused_in_setup(table):
    data = LanceDataModule(table, world=World(0, 2))
    data.trainer = Sharing()
    with pytest.raises(ConfigError, match="says rank 1 of 2, and the ranks would not"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("world", "message"),
    [
        (3, "world must be World"),
        ({"rank": 1, "world_size": 8}, "world must be World"),
        ({"rank": 8, "size": 8}, "rank must be below the world size"),
        ({"rank": "1", "size": 8}, "rank must be an integer"),
    ],
)
def test_a_world_that_is_none_is_refused(table, world, message):
    with pytest.raises(ConfigError, match=message):
        LanceDataModule(table, world=world)


def test_a_world_comes_from_a_config(table):
    config = OmegaConf.create({"rank": 1, "size": 3})
    data = LanceDataModule(table, world=config)
    assert data.batch_size == 32
    assert len(data.train_dataloader()) == 2
    later = pickle.loads(pickle.dumps(LanceDataModule(table)))
    later.world = {"rank": 1, "size": 3}
    assert len(later.train_dataloader()) == 2
    assert "world" not in later.hparams
