"""What a user's sampler and the ranks' shares give together."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_lightning.errors import ConfigError
from lance_lightning.ordering.world import World
from lance_lightning.samplers.base import (
    Order,
    PlanOrder,
    TrainingSplit,
    training_share,
)
from lance_lightning.samplers.builtin import BlockShuffle, Sequential, Shuffle
from lance_lightning.tables.plan import range_plan

pinned = settings(derandomize=True, deadline=None, max_examples=40)

SAMPLERS = [BlockShuffle(), BlockShuffle(2, 50), Shuffle(), Sequential()]
samplers = st.sampled_from(SAMPLERS)


def order_of(sampler, n, batch, *, seed=0, row_bytes=32 * 1024) -> Order:
    # Large rows, so that small tables are not just shuffled whole.
    split = TrainingSplit(
        plan=range_plan("train", 0, n),
        snapshot=None,
        dataset=None,
        world_size=1,
        global_batch_size=batch,
        seed=seed,
        row_bytes=row_bytes,
    )
    return sampler.order_of(split)


def batches_of_rank(sampler, n, batch, world, *, drop_last=False, seed=0, epoch=0):
    """The rows of each batch of one rank."""
    order = order_of(sampler, n, batch, seed=seed)
    share = training_share(order, batch, world, drop_last)
    rows, counts = share.indices(order, epoch, 0, share.num_batches)
    assert rows.dtype == np.int64
    return np.split(rows, np.cumsum(counts)[:-1])


def global_batches(sampler, n, batch, world_size, **options):
    """The rows of each global batch, as sorted sets."""
    of_ranks = [
        batches_of_rank(sampler, n, batch, World(rank, world_size), **options)
        for rank in range(world_size)
    ]
    return [np.concatenate(parts) for parts in zip(*of_ranks, strict=True)]


def whole_epoch(sampler, n, batch, seed=0, epoch=0):
    return order_of(sampler, n, batch, seed=seed).indices(np.arange(n), epoch)


# --- with the shares ---------------------------------------------------------


@pinned
@given(
    sampler=samplers,
    world_size=st.integers(1, 16),
    batch_size=st.one_of(st.integers(1, 4), st.integers(1, 300)),
    extra=st.integers(0, 5000),
    drop_last=st.booleans(),
    epoch=st.integers(0, 5),
)
def test_all_ranks_together_see_every_row_once(
    sampler, world_size, batch_size, extra, drop_last, epoch
):
    batch = world_size * batch_size
    n = (batch if drop_last else world_size) + extra
    options = {"drop_last": drop_last, "epoch": epoch}
    batches = global_batches(sampler, n, batch, world_size, **options)
    *full, last = batches
    for rows in full:
        assert len(np.unique(rows)) == len(rows) == batch
    rows = np.concatenate([*full, np.unique(last)])  # only the last repeats rows
    assert len(np.unique(rows)) == len(rows) == (n - n % batch if drop_last else n)
    assert rows.min() >= 0
    assert rows.max() < n


@pinned
@given(
    sampler=samplers,
    batch=st.sampled_from([12, 16, 30, 48, 210]),
    extra=st.integers(0, 3000),
    seed=st.integers(),
)
def test_every_world_size_trains_on_the_same_global_batches(
    sampler, batch, extra, seed
):
    n = 16 + extra
    alone = [np.sort(rows) for rows in global_batches(sampler, n, batch, 1, seed=seed)]
    for world_size in range(2, 17):
        if batch % world_size == 0:
            found = global_batches(sampler, n, batch, world_size, seed=seed)
            for rows, expected in zip(found, alone, strict=True):
                assert np.array_equal(np.unique(rows), expected)


@pinned
@given(sampler=samplers, n=st.integers(20, 3000), data=st.data())
def test_an_epoch_continued_from_any_batch_has_the_rows_of_the_whole(sampler, n, data):
    batch, world = 20, World(1, 4)
    order = order_of(sampler, n, batch, seed=1)
    share = training_share(order, batch, world, False)
    first = data.draw(st.integers(0, share.num_batches))
    rows, _ = share.indices(order, 2, first, share.num_batches)
    whole = batches_of_rank(sampler, n, batch, world, seed=1, epoch=2)
    assert rows.tolist() == [row for rows in whole[first:] for row in rows]


@pytest.mark.parametrize("sampler", [BlockShuffle(), BlockShuffle(2, 50), Shuffle()])
def test_seeds_and_epochs_give_other_orders(sampler):
    pairs = [(0, 0), (0, 1), (1, 0), (-1, 0), (10**30, 0)]
    orders = [tuple(whole_epoch(sampler, 2000, 20, *pair)) for pair in pairs]
    assert len(set(orders)) == len(pairs)
    assert tuple(whole_epoch(sampler, 2000, 20, 1, 0)) == orders[2]


def test_a_split_no_larger_than_the_buffer_is_shuffled_whole():
    sampler = BlockShuffle(block_size=64)
    rows = whole_epoch(sampler, 64 * 8 * 20, 20)
    # Blocks would show: neighbours in the table would come in the same few batches.
    assert np.array_equal(rows, whole_epoch(sampler, len(rows), 40))
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 0.05


def test_orders_are_final():
    positions = np.array([0, 1, 2, 4999, 9999])
    orders = [
        order_of(sampler, 10_000, 32, seed=1).indices(positions, 2).tolist()
        for sampler in (BlockShuffle(16, 16 * 32 * 4), Shuffle(), Sequential())
    ]
    assert orders == [
        [9080, 2832, 1500, 827, 7170],
        [2604, 5655, 3638, 7467, 340],
        [0, 1, 2, 4999, 9999],
    ]


def test_each_rank_of_a_sequential_epoch_reads_one_range_of_each_batch():
    for rank in range(4):
        for rows in batches_of_rank(Sequential(), 1010, 80, World(rank, 4)):
            assert np.all(np.diff(rows) == 1)


@pytest.mark.parametrize("n", [20_000, 20_007])
def test_each_rank_of_a_block_shuffle_reads_its_own_share_of_the_blocks(n):
    b, batch, world_size = 16, 64, 4
    sampler, buffer = BlockShuffle(b), b * 8 * batch
    for rank in range(world_size):
        batches = batches_of_rank(sampler, n, batch, World(rank, world_size))
        rows = np.concatenate(batches[: buffer // batch])
        runs = 1 + np.count_nonzero(np.diff(np.sort(rows)) != 1)
        assert runs < 2.2 * len(rows) / b


def test_sequential_hands_out_an_array_of_its_own():
    positions = np.arange(5)
    order_of(Sequential(), 5, 5).indices(positions, 0)[:] = 0
    assert positions.tolist() == [0, 1, 2, 3, 4]


# --- sizes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row_bytes", "global_batch_size", "block_size"),
    [
        (520, 256, 64),
        (0, 256, 256),
        (1, 1, 256),
        (8, 256, 256),
        (512, 32, 128),
        (64 * 1024, 32, 1),
        (10**9, 32, 1),
        (520, 1024, 32),  # 64 would be a buffer of 260 MB
        (520, 2**20, 1),
    ],
)
def test_default_blocks_suit_rows_and_buffers(row_bytes, global_batch_size, block_size):
    found = order_of(BlockShuffle(), 10**9, global_batch_size, row_bytes=row_bytes)
    assert found.block_size == block_size
    assert found.buffer_size == 8 * block_size * global_batch_size


@pinned
@given(
    block_size=st.none() | st.integers(1, 1000),
    buffer_size=st.none() | st.integers(1, 10**7),
    batch=st.integers(1, 5000),
    row_bytes=st.integers(0, 10**7),
)
def test_given_sizes_are_kept_and_buffers_rounded_up(
    block_size, buffer_size, batch, row_bytes
):
    sampler = BlockShuffle(block_size, buffer_size)
    found = order_of(sampler, 100, batch, row_bytes=row_bytes)
    unit = found.block_size * batch
    if block_size is None:
        assert found.block_size in (1, 2, 4, 8, 16, 32, 64, 128, 256)
    else:
        assert found.block_size == block_size
    if buffer_size is None:
        assert found.buffer_size == 8 * unit
    else:
        assert buffer_size <= found.buffer_size < buffer_size + unit
    assert found.buffer_size % unit == 0
    again = BlockShuffle(found.block_size, found.buffer_size)
    assert order_of(again, 100, batch, row_bytes=row_bytes) == found


@pytest.mark.parametrize("size", [0, -1, "abc", 1.5, True])
@pytest.mark.parametrize("name", ["block_size", "buffer_size"])
def test_sizes_that_are_not_positive_integers_are_refused(name, size):
    with pytest.raises(ConfigError, match=f"{name} must be .*{size}"):
        BlockShuffle(**{name: size})


def test_the_order_of_no_rows_is_total():
    nothing = np.empty(0, np.int64)
    for sampler in SAMPLERS:
        rows = order_of(sampler, 0, 4, row_bytes=100).indices(nothing, 0)
        assert len(rows) == 0
    with pytest.raises(ConfigError, match="global_batch_size"):
        order_of(BlockShuffle(), 10, 0)


def test_a_buffer_is_rounded_up_to_fit_the_global_batch():
    assert order_of(BlockShuffle(4, 80), 100, 6).buffer_size == 96


# --- state -------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_orders_are_small_and_pickle(sampler):
    order = order_of(sampler, 1000, 10)
    assert pickle.loads(pickle.dumps(sampler)) == sampler
    assert pickle.loads(pickle.dumps(order)) == order
    assert len(pickle.dumps(order)) < 300


def test_the_state_holds_the_name_and_the_sizes():
    assert order_of(BlockShuffle(), 10**6, 256, row_bytes=520).state() == {
        "sampler": "BlockShuffle",
        "block_size": 64,
        "buffer_size": 131_072,
    }
    assert order_of(Shuffle(), 10, 1).state() == {"sampler": "Shuffle"}
    assert order_of(Sequential(), 10, 1).state() == {"sampler": "Sequential"}


def test_evaluation_has_no_sampler_in_its_state():
    assert PlanOrder(10).state() is None


def test_what_an_order_does_not_say_has_a_default():
    class Reversed(Order):
        rows_per_epoch = 10

        def indices(self, positions, epoch):
            return 9 - positions

    order = Reversed()
    share = training_share(order, 4, World(1, 2), False)
    rows, sizes = share.indices(order, 0, 0, share.num_batches)
    assert (rows.tolist(), sizes.tolist()) == ([8, 6, 4, 2, 0], [2, 2, 1])
    assert order.state() == {"sampler": "Reversed"}
    assert order.fingerprint() == ""
    assert order.left_out(10, 2) is None
    order.prepare(0)
    with pytest.raises(NotImplementedError, match="Reversed makes no batches"):
        order.batches(np.arange(1), 0)
