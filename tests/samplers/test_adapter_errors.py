"""Samplers of others that cannot work, and what is taken for one."""

from __future__ import annotations

import lance
import lance.sampler
import lancedb
import pytest
from torch.utils.data import (
    SubsetRandomSampler,
)

import lance_lightning
from lance_lightning import (
    ConfigError,
    LanceDataModule,
    LanceDBSource,
    ShardedFragments,
)
from tests.helpers.lancedb_server import serving
from tests.helpers.own_samplers import (
    ROWS,
    AllColumns,
    LastFirst,
    Shrinking,
)
from tests.helpers.sampled import ids, module
from tests.helpers.tables import flat, make_table
from tests.helpers.worlds import rank_of

WRONG = {
    "an index beyond the split": (
        SubsetRandomSampler([103]),
        r"index 103, and the split has 103 rows, 0 to 102",
    ),
    "a negative index": ([0, -1], "index -1"),
    "text": (["a"], "yields 'a', which is no index"),
    "fractions": ([0.5], r"yields 0\.5, which is no index"),
    "nothing": ([], "yields nothing for the split 'train'"),
    "an empty batch": ([[1], []], "a batch without a row"),
    "no sampler": (len, "returned 103, which yields no indices"),
    "Lance's of ranks": (
        lance.sampler.ShardedFragmentSampler(1, 2),
        r"sampler=ShardedFragments\(randomize",
    ),
    "Lance's batches of ranks": (
        lance.sampler.ShardedBatchSampler(1, 2),
        r"sampler=ShardedBatches\(randomize",
    ),
    "an iterator": (iter([1, 2]), "can be read once"),
    "other columns": (AllColumns(), "asked for the column '_rowoffset'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_said(table, name):
    sampler, said = WRONG[name]
    with pytest.raises(ConfigError, match=said):
        module(table, sampler).train_dataloader()


def test_an_epoch_shorter_than_the_first_is_said(table):
    loader = module(table, Shrinking(20)).train_dataloader()
    assert len(flat(ids(loader))) == 20
    with pytest.raises(ConfigError, match="19 rows in epoch 1 and 20 in epoch 0"):
        next(iter(loader))


def test_fewer_batches_than_ranks_are_said(table):
    data = module(table, [[1, 2], [3]])
    data.setup("fit")
    with rank_of(0, 3), pytest.raises(ConfigError, match="2 batches for 3 ranks"):
        data.train_dataloader()


def test_a_sampler_that_workers_cannot_get_is_said(table):
    sampler = SubsetRandomSampler([1])
    sampler.hook = lambda: None
    with pytest.raises(ConfigError, match=r"SubsetRandomSampler.*cannot be pickled"):
        module(table, sampler, num_workers=1).train_dataloader()


@pytest.mark.parametrize("sampler", [LastFirst(), ShardedFragments()])
def test_samplers_of_lances_files_refuse_a_remote_table(tmp_path, sampler, monkeypatch):
    monkeypatch.setenv("LANCEDB_API_KEY", "key")
    lancedb.connect(tmp_path).create_table("rows", make_table(9))
    with serving(tmp_path, "key") as server:
        source = LanceDBSource("db://rows", "rows", host_override=server.url)
        with pytest.raises(ConfigError, match="is a remote table"):
            module(source, sampler).train_dataloader()
        loader = module(source, [8, 3]).train_dataloader()
        assert ids(loader) == [[8, 3]]


# -- what counts as a spec ------------------------------------------------------------


class Named:
    """A sampler of a user's, with attributes that our own samplers have too."""

    state = "fresh"
    strided = buffer_size = begin = set_epoch = None
    split_names = ("train",)

    def __iter__(self):
        return iter(range(ROWS - 1, -1, -1))

    def __len__(self):
        return ROWS

    def resolve(self):
        return self

    def describe(self):
        return "mine"


@pytest.mark.parametrize("given", [Named(), lambda dataset: Named()])
def test_a_sampler_is_not_taken_for_ours_by_the_name_of_an_attribute(table, given):
    data = LanceDataModule(table, sampler=given)
    found = [row for batch in data.train_dataloader() for row in batch["id"].tolist()]
    assert found == list(range(ROWS - 1, -1, -1))


def test_splits_and_sources_are_not_known_by_the_name_of_an_attribute(table):
    with pytest.raises(ConfigError, match=r"splits must be one of .*CalculatedSplit"):
        LanceDataModule(table, splits=Named())
    with pytest.raises(ConfigError, match=r"source must be .*got Named"):
        LanceDataModule(Named())
    for cls in (lance_lightning.Shuffle, lance_lightning.ShardedBatches):
        with pytest.raises(ConfigError, match="sampler must be one of"):
            LanceDataModule(table, sampler=cls)
