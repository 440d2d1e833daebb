"""Lance's sharded samplers: equal steps, no row twice, Lance's own rows."""

from __future__ import annotations

import pickle

import lance
import lance.sampler
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_lightning import (
    ConfigError,
    LanceDataModule,
    LanceSource,
    PermutationSplit,
    RandomSplit,
    ShardedBatches,
    ShardedFragments,
    StateError,
)
from lance_lightning.ordering.world import World
from lance_lightning.samplers.base import TrainingSplit, training_share
from lance_lightning.samplers.sharded import BatchOrder, FragmentOrder
from lance_lightning.tables.plan import range_plan
from tests.helpers.models import Recorder
from tests.helpers.tables import flat, write_table
from tests.helpers.trainers import quiet_trainer
from tests.helpers.worlds import epochs_of_ranks, rank_of

pinned = settings(derandomize=True, deadline=None, max_examples=60)
BOTH = [ShardedFragments, ShardedBatches]


def module(uri, sampler, **options):
    return LanceDataModule(
        uri, sampler=sampler, columns=["id"], **{"batch_size": 8, **options}
    )


def split_of(n, world_size, batch, seed=0, row_bytes=1) -> TrainingSplit:
    return TrainingSplit(
        plan=range_plan("train", 0, n),
        snapshot=None,
        dataset=None,
        world_size=world_size,
        global_batch_size=batch,
        seed=seed,
        row_bytes=row_bytes,
    )


def shares(order, batch, *, drop_last=False, epoch=0):
    """Return the indices of each batch, by rank."""
    found = []
    for rank in range(order.world_size):
        world = World(rank, order.world_size)
        share = training_share(order, batch, world, drop_last)
        rows, counts = share.indices(order, epoch, 0, share.num_batches)
        found.append(np.split(rows, np.cumsum(counts)[:-1]))
    return found


# -- the orders as functions of numbers -----------------------------------------


@pinned
@given(
    world_size=st.integers(1, 6),
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=20),
    batch_size=st.integers(1, 40),
    randomize=st.booleans(),
    drop_last=st.booleans(),
    epoch=st.integers(0, 4),
)
def test_ranks_read_fragments_of_their_own_in_equal_steps(
    world_size, sizes, batch_size, randomize, drop_last, epoch
):
    sizes = sizes * world_size
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    batch = batch_size * world_size
    split = split_of(int(bounds[-1]), world_size, batch)
    order = FragmentOrder(ShardedFragments(randomize), bounds, split)
    if drop_last and order.rows_per_epoch < batch:
        return
    options = {"drop_last": drop_last, "epoch": epoch}
    ranks = shares(order, batch, **options)
    owners = {}
    for rank, batches in enumerate(ranks):
        assert [len(rows) for rows in batches] == [len(rows) for rows in ranks[0]]
        assert all(len(rows) == batch_size for rows in batches[:-1])
        rows = np.concatenate(batches)
        fragments = np.searchsorted(bounds, rows, side="right") - 1
        seen = list(dict.fromkeys(fragments.tolist()))
        for at, fragment in enumerate(seen):
            assert owners.setdefault(fragment, rank) == rank
            own = rows[fragments == fragment]
            assert own.tolist() == list(range(own[0], own[0] + len(own)))
            assert own[0] == bounds[fragment]
            if at < len(seen) - 1:  # only the last is cut
                assert len(own) == sizes[fragment]
        if not randomize:
            assert seen == list(range(rank, len(sizes), world_size))[: len(seen)]
    delivered = sum(len(rows) for batches in ranks for rows in batches)
    assert delivered == order.rows_per_epoch - (
        order.rows_per_epoch % batch if drop_last else 0
    )
    if len(set(sizes)) == 1 and not drop_last:
        assert delivered == sum(sizes)


@pinned
@given(
    world_size=st.integers(1, 6),
    batch_size=st.integers(1, 40),
    extra=st.integers(0, 900),
    randomize=st.booleans(),
    drop_last=st.booleans(),
    epoch=st.integers(0, 4),
)
def test_ranks_read_batches_of_neighbours_and_every_row_once(
    world_size, batch_size, extra, randomize, drop_last, epoch
):
    batch = batch_size * world_size
    n = batch + extra
    order = BatchOrder(ShardedBatches(randomize), split_of(n, world_size, batch))
    ranks = shares(order, batch, drop_last=drop_last, epoch=epoch)
    for batches in ranks:
        assert len(batches) == len(ranks[0])
        for rows in batches:
            assert np.all(np.diff(rows) == 1)
        assert all(rows[0] % batch_size == 0 for rows in batches[: n // batch])
    seen = np.concatenate([rows for batches in ranks for rows in batches])
    if not drop_last and 0 < n % batch < world_size:
        return  # the ranks without a row of their own repeat one
    assert len(np.unique(seen)) == len(seen) == (n - n % batch if drop_last else n)
    assert seen.min() == 0
    assert seen.max() == len(seen) - 1


@pytest.mark.parametrize("spec", BOTH)
def test_a_randomized_order_differs_by_epoch_and_by_either_seed(spec):
    def whole(sampler, seed=0, epoch=0):
        split = split_of(1000, 2, 20, seed)
        if spec is ShardedFragments:
            order = FragmentOrder(sampler, np.arange(0, 1001, 10), split)
        else:
            order = BatchOrder(sampler, split)
        return flat(shares(order, 20, epoch=epoch)[0])

    orders = [
        whole(spec(True)),
        whole(spec(True), epoch=1),
        whole(spec(True), seed=1),
        whole(spec(True, seed=1)),
        whole(spec()),
    ]
    assert len({tuple(map(int, order)) for order in orders}) == 5
    assert whole(spec(), seed=1, epoch=1) == orders[-1]
    assert whole(spec(True, seed=1)) == orders[3]


# -- over tables ------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_rows_are_those_of_lances_fragment_sampler(table, size):
    ranks = epochs_of_ranks(lambda: module(table, ShardedFragments()), size)
    dataset = lance.dataset(table)
    for rank, (epoch,) in enumerate(ranks):
        theirs = lance.sampler.ShardedFragmentSampler(rank, size)
        rows = flat(b["id"].to_pylist() for b in theirs(dataset, columns=["id"]))
        mine = flat(epoch)
        assert mine == rows[: len(mine)]
        assert len(mine) == len(flat(ranks[0][0]))
    assert sum(len(flat(epoch)) for (epoch,) in ranks) == {1: 103, 2: 86, 3: 90}[size]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_batches_are_those_of_lances_batch_sampler(tmp_path, size):
    uri = write_table(tmp_path / "t.lance", 96, 30)
    ranks = epochs_of_ranks(lambda: module(uri, ShardedBatches()), size)
    for rank, (epoch,) in enumerate(ranks):
        theirs = lance.sampler.ShardedBatchSampler(rank, size)
        options = {"batch_size": 8, "columns": ["id"]}
        batches = theirs(lance.dataset(uri), **options)
        assert epoch == [batch["id"].to_pylist() for batch in batches]


@pytest.mark.parametrize("spec", BOTH)
@pytest.mark.parametrize("randomize", [False, True])
def test_a_filter_and_a_split_hold(table, spec, randomize):
    source = LanceSource(table, filter="id % 5 != 0")
    splits = RandomSplit({"train": 0.8, "val": 0.2})

    def make():
        return module(source, spec(randomize), splits=splits)

    ranks = epochs_of_ranks(make, 2, epochs=3)
    data = make()
    plan = data.plan("train")
    allowed = set(plan.offsets(np.arange(plan.num_rows)).tolist())
    for epoch in range(3):
        seen = flat(flat(each[epoch]) for each in ranks)
        assert len(seen) == len(set(seen))
        assert set(seen) <= allowed
        if spec is ShardedBatches:
            assert set(seen) == allowed
        assert len(ranks[0][epoch]) == len(ranks[1][epoch])


def test_deleted_rows_do_not_count(own_table):
    lance.dataset(own_table).delete("id in (0, 31, 32, 33) or id >= 90")
    ranks = epochs_of_ranks(lambda: module(own_table, ShardedFragments()), 3)
    assert [flat(epoch)[0] for (epoch,) in ranks] == [1, 30, 60]
    assert all(len(flat(epoch)) == 27 for (epoch,) in ranks)


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize("spec", BOTH)
def test_workers_repeat_and_drop_nothing(table, spec):
    alone = module(table, spec(True))
    data = module(table, spec(True), num_workers=2)
    loaders = [alone.train_dataloader(), data.train_dataloader()]
    for _ in range(2):
        mine, theirs = ([b["id"].tolist() for b in each] for each in loaders)
        assert mine == theirs
        assert sorted(flat(mine)) == list(range(103))
    loaders[1].close()


@pytest.mark.parametrize("sampler", [ShardedFragments(True), ShardedBatches(True)])
def test_a_run_resumed_at_any_batch_goes_on_with_the_same_rows(table, sampler):
    loader = module(table, sampler).train_dataloader()
    whole = [[b["id"].tolist() for b in loader] for _ in range(2)]
    for stop in range(len(loader) + 1):
        first = module(table, sampler).train_dataloader()
        _ = list(zip(range(stop), first, strict=False)) if stop else None
        again = module(table, sampler).train_dataloader()
        again.load_state_dict(first.state_dict())
        rest = [b["id"].tolist() for b in again]
        assert rest == (whole[0][stop:] or whole[1])


@pytest.mark.parametrize("sampler", [ShardedFragments(), ShardedBatches(True)])
def test_other_ranks_go_on_at_the_end_of_an_epoch_alone(table, sampler):
    options = {"batch_size": None, "global_batch_size": 8}
    data = module(table, sampler, **options)
    loader = data.train_dataloader()
    end = loader.state_dict()
    next(iter(loader))
    middle = loader.state_dict()
    other = module(table, sampler, **options)
    other.setup("fit")
    with rank_of(0, 2):
        loader = other.train_dataloader()
        loader.load_state_dict(end)
        with pytest.raises(StateError, match="world_size: 1 in the checkpoint, 2 here"):
            loader.load_state_dict(middle)


def test_rows_left_out_are_said(table, tmp_path, caplog):
    def lines(sampler, size):
        caplog.clear()
        data = module(table, sampler)
        data.setup("fit")
        with rank_of(0, size), caplog.at_level("INFO"):
            data.train_dataloader()
        return [text for text in caplog.messages if "leaves" in text]

    (said,) = lines(ShardedFragments(), 2)
    assert "leaves 17 of 103 rows out of each epoch, so that 2 ranks" in said
    assert lines(ShardedFragments(), 1) == lines(ShardedBatches(), 2) == []


def test_a_trainer_trains_and_counts_the_steps(table, tmp_path):
    model = Recorder()
    options = {"batch_size": 8, "stage_splits": {"val": "train"}}
    data = LanceDataModule(table, sampler=ShardedFragments(True), **options)
    quiet_trainer(tmp_path, max_epochs=2).fit(model, datamodule=data)
    epochs = [model.seen["train"][:13], model.seen["train"][13:]]
    assert [sorted(flat(epoch)) for epoch in epochs] == [list(range(103))] * 2
    assert epochs[0] != epochs[1]
    assert data.hparams["sampler"]["randomize"] is True


def test_fragments_without_a_row_of_the_split_do_not_count(table):
    source = LanceSource(table, filter="id % 60 >= 30")  # of the second and fourth
    ranks = epochs_of_ranks(lambda: module(source, ShardedFragments()), 2)
    assert [flat(epoch)[:2] for (epoch,) in ranks] == [[30, 31], [90, 91]]


# -- what cannot work -------------------------------------------------------------


def test_fewer_fragments_than_ranks_are_refused(table):
    data = module(table, ShardedFragments())
    data.setup("fit")
    with rank_of(0, 5), pytest.raises(ConfigError, match=r"in 4 fragments.*5 ranks"):
        data.train_dataloader()


def test_a_permutation_of_an_order_of_its_own_is_refused(table, tmp_path):
    ids = lance.dataset(table).to_table(columns=[], with_row_id=True)["_rowid"]
    order = {"row_id": ids.to_numpy()[::-1].astype("uint64")}
    order["split_id"] = np.zeros(103, "uint64")
    lance.write_dataset(pa.table(order), tmp_path / "p.lance")
    splits = PermutationSplit(str(tmp_path / "p.lance"), ["train"])
    with pytest.raises(ConfigError, match="an order of its own"):
        module(table, ShardedFragments(), splits=splits).train_dataloader()
    loader = module(table, ShardedBatches(), splits=splits).train_dataloader()
    assert flat(b["id"].tolist() for b in loader) == list(range(102, -1, -1))


@pytest.mark.parametrize("spec", BOTH)
@pytest.mark.parametrize(
    "options", [{"randomize": "yes"}, {"randomize": 1}, {"seed": "a"}, {"seed": True}]
)
def test_arguments_of_another_type_are_refused(spec, options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigError, match=f"{spec.__name__}: {name} must be .*{value}"):
        spec(**options)


@pytest.mark.parametrize("spec", BOTH)
def test_specs_and_orders_are_small(table, spec):
    data = module(table, spec(True, 7))
    stream = data.train_dataloader().reader.stream
    found = pickle.loads(pickle.dumps(stream.order))
    assert found.state() == {"sampler": spec.__name__, "randomize": True, "seed": 7}
    assert len(pickle.dumps(stream.order)) < 1000
