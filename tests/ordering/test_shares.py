"""Every rank makes the same steps, and together they see what was promised."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_lightning.errors import ConfigError
from lance_lightning.ordering import EvalShare, TrainShare
from lance_lightning.ordering.world import World

pinned = settings(derandomize=True, deadline=None, max_examples=75)


def train_shards(n, batch, world_size, *, drop_last=False, strided=True):
    """The shares of all ranks; ``batch`` is the global batch size."""
    worlds = [World(rank, world_size) for rank in range(world_size)]
    return [TrainShare(n, batch, world, drop_last, strided) for world in worlds]


def eval_shards(n, batch_size, world_size):
    worlds = [World(rank, world_size) for rank in range(world_size)]
    return [EvalShare(n, batch_size, world) for world in worlds]


def batches_of(shard, first=0):
    """The batches of one rank from ``first`` to the end of the epoch."""
    positions, counts = shard.positions(first, shard.num_batches)
    assert positions.dtype == counts.dtype == np.int64
    assert counts.sum() == len(positions)
    return np.split(positions, np.cumsum(counts)[:-1]) if len(counts) else []


def numbers_of_times(shards, n):
    """How often each position comes over all ranks."""
    everything = np.concatenate([np.concatenate(batches_of(s)) for s in shards])
    return np.bincount(everything, minlength=n)


worlds = st.integers(1, 16)
batch_sizes = st.one_of(st.integers(1, 4), st.integers(1, 300))
extra_rows = st.one_of(st.integers(0, 40), st.integers(0, 5000))
shares = st.booleans()


# --- training ----------------------------------------------------------------


@pinned
@given(world_size=worlds, batch_size=batch_sizes, extra=extra_rows, strided=shares)
def test_ranks_share_every_row_once(world_size, batch_size, extra, strided):
    n, batch = world_size + extra, world_size * batch_size
    shards = train_shards(n, batch, world_size, strided=strided)
    times = numbers_of_times(shards, n)
    at_end = n % batch
    repeated = world_size - at_end if 0 < at_end < world_size else 0
    assert times.min() == 1
    assert times.sum() == n + repeated
    assert np.all(times[: n - at_end] == 1)  # only rows of the last batch come again
    assert {shard.repeated_rows for shard in shards} == {repeated}


@pinned
@given(world_size=worlds, batch_size=batch_sizes, extra=extra_rows, strided=shares)
def test_drop_last_leaves_out_only_what_fills_no_batch(
    world_size, batch_size, extra, strided
):
    batch = world_size * batch_size
    n = batch + extra
    shards = train_shards(n, batch, world_size, drop_last=True, strided=strided)
    times = numbers_of_times(shards, n)
    full = n // batch * batch
    assert np.all(times[:full] == 1)
    assert not times[full:].any()
    for shard in shards:
        assert shard.repeated_rows == 0
        assert shard.last_batch_rows == batch_size
        assert {len(rows) for rows in batches_of(shard)} == {batch_size}


@pinned
@given(
    world_size=worlds,
    batch_size=batch_sizes,
    extra=extra_rows,
    strided=shares,
    drop_last=st.booleans(),
)
def test_ranks_make_the_same_steps_and_none_is_empty(
    world_size, batch_size, extra, strided, drop_last
):
    batch = world_size * batch_size
    n = (batch if drop_last else world_size) + extra
    shards = train_shards(n, batch, world_size, drop_last=drop_last, strided=strided)
    assert {s.num_batches for s in shards} == {
        n // batch if drop_last else -(-n // batch)
    }
    of_ranks = [[len(rows) for rows in batches_of(shard)] for shard in shards]
    for shard, counts in zip(shards, of_ranks, strict=True):
        assert len(counts) == shard.num_batches
        assert set(counts[:-1]) <= {batch_size}
        assert counts[-1] == shard.last_batch_rows
        assert sum(counts) == shard.num_rows_of_rank
        assert list(map(shard.rows_of_batch, range(len(counts)))) == counts
    last = [counts[-1] for counts in of_ranks]
    assert min(last) >= 1
    assert max(last) - min(last) <= 1  # the last batch is shared out evenly


@pinned
@given(batch=st.sampled_from([1, 6, 12, 48, 64, 240]), extra=extra_rows, strided=shares)
def test_global_batches_are_the_same_for_every_world_size(batch, extra, strided):
    sizes = [size for size in range(1, 17) if batch % size == 0]
    n = max(sizes) + extra
    for size in sizes:
        of_ranks = [
            batches_of(s) for s in train_shards(n, batch, size, strided=strided)
        ]
        for t, parts in enumerate(zip(*of_ranks, strict=True)):
            expected = np.arange(t * batch, min((t + 1) * batch, n))
            assert np.array_equal(np.unique(np.concatenate(parts)), expected)


@pinned
@given(
    world_size=worlds,
    batch_size=batch_sizes,
    extra=extra_rows,
    strided=shares,
    data=st.data(),
)
def test_training_from_any_batch_is_the_tail_of_the_whole(
    world_size, batch_size, extra, strided, data
):
    n, batch = world_size + extra, world_size * batch_size
    rank = data.draw(st.integers(0, world_size - 1))
    shard = TrainShare(n, batch, World(rank, world_size), False, strided)
    whole = batches_of(shard)
    first = data.draw(st.integers(0, shard.num_batches))
    last = data.draw(st.integers(first, shard.num_batches))
    for tail, expected in zip(batches_of(shard, first), whole[first:], strict=True):
        assert np.array_equal(tail, expected)
    positions, counts = shard.positions(first, last)
    assert positions.tolist() == [p for rows in whole[first:last] for p in rows]
    assert counts.tolist() == [len(rows) for rows in whole[first:last]]


def test_a_strided_share_is_one_place_of_every_world_size():
    for rank, shard in enumerate(train_shards(1003, 24, 4)):
        assert np.all(np.concatenate(batches_of(shard)) % 4 == rank)


def test_a_contiguous_share_is_one_range_of_each_batch():
    shards = train_shards(47, 20, 4, strided=False)
    batches = [[rows.tolist() for rows in batches_of(shard)] for shard in shards]
    assert [rows[0] for rows in batches[1]] == [5, 25, 41]
    assert [rows[2] for rows in batches] == [[40], [41, 42], [43, 44], [45, 46]]


@pytest.mark.parametrize(
    ("strided", "expected"),
    [
        (True, [[8], [9], [10], [8], [9], [10], [8], [9]]),
        (False, [[8], [9], [8], [8], [9], [9], [8], [10]]),
    ],
)
def test_ranks_without_a_row_in_the_last_batch_repeat_one_of_it(strided, expected):
    shards = train_shards(11, 8, 8, strided=strided)
    assert [batches_of(shard)[1].tolist() for shard in shards] == expected
    assert shards[0].repeated_rows == 5


# --- evaluation --------------------------------------------------------------


@pinned
@given(world_size=worlds, batch_size=batch_sizes, extra=extra_rows)
def test_evaluation_sees_every_row_once_and_in_order(world_size, batch_size, extra):
    n = world_size + extra
    shards = eval_shards(n, batch_size, world_size)
    rows = [np.concatenate(batches_of(shard)) for shard in shards]
    assert np.array_equal(np.concatenate(rows), np.arange(n))
    assert [len(own) for own in rows] == [s.num_rows_of_rank for s in shards]
    assert [int(own[0]) for own in rows] == [
        r * n // world_size for r in range(world_size)
    ]


@pinned
@given(world_size=worlds, batch_size=batch_sizes, extra=extra_rows)
def test_evaluation_steps_are_equal_but_for_batches_of_one(
    world_size, batch_size, extra
):
    n = world_size + extra
    shards = eval_shards(n, batch_size, world_size)
    steps = [shard.num_batches for shard in shards]
    uneven = batch_size == 1 and n % world_size > 0
    assert {shard.uneven for shard in shards} == {uneven}
    assert max(steps) - min(steps) == uneven
    assert max(steps) == -(-max(s.num_rows_of_rank for s in shards) // batch_size)
    for shard in shards:
        counts = [len(rows) for rows in batches_of(shard)]
        assert len(counts) == shard.num_batches
        assert min(counts) >= 1
        assert max(counts) <= batch_size
        assert counts == sorted(counts, reverse=True)  # full ones, then small ones


def test_evaluation_alone_has_the_batches_of_plain_torch():
    (shard,) = eval_shards(10, 4, 1)
    assert [rows.tolist() for rows in batches_of(shard)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]


def test_a_rank_with_too_few_rows_for_its_last_step_keeps_one_back():
    shards = eval_shards(9, 4, 2)  # 4 and 5 rows, so two steps
    assert [[len(rows) for rows in batches_of(s)] for s in shards] == [[3, 1], [4, 1]]


@pinned
@given(world_size=worlds, batch_size=batch_sizes, extra=extra_rows, data=st.data())
def test_evaluation_from_any_batch_is_the_tail_of_the_whole(
    world_size, batch_size, extra, data
):
    rank = data.draw(st.integers(0, world_size - 1))
    shard = EvalShare(world_size + extra, batch_size, World(rank, world_size))
    whole = batches_of(shard)
    first = data.draw(st.integers(0, shard.num_batches))
    last = data.draw(st.integers(first, shard.num_batches))
    positions, counts = shard.positions(first, last)
    assert positions.tolist() == [p for rows in whole[first:last] for p in rows]
    assert counts.tolist() == [len(rows) for rows in whole[first:last]]
    sizes = [shard.rows_of_batch(number) for number in range(first, last)]
    assert sizes == counts.tolist()


# --- both --------------------------------------------------------------------

HUGE = 2**52 + 5


@pytest.mark.parametrize(
    "shard",
    [
        TrainShare(HUGE, 64, World(3, 8), False, True),
        TrainShare(HUGE, 64, World(3, 8), False, False),
        EvalShare(HUGE, 8, World(3, 8)),
    ],
)
def test_batches_of_a_huge_table_cost_what_they_hold(shard):
    # Anything of the size of the split would not fit in memory.
    end = shard.num_batches
    assert shard.num_rows_of_rank in (HUGE // 8, HUGE // 8 + 1)
    for first in (0, end // 2, end - 2):
        positions, counts = shard.positions(first, first + 2)
        assert len(positions) == counts.sum()
        assert 0 <= positions[0] <= positions[-1] < HUGE
    assert [len(part) for part in shard.positions(end, end)] == [0, 0]


@pytest.mark.parametrize("shard", [*train_shards(100, 10, 2), *eval_shards(100, 10, 2)])
def test_shares_are_values_that_pickle(shard):
    assert pickle.loads(pickle.dumps(shard)) == shard
    assert len(pickle.dumps(shard)) < 500


def test_shares_that_cannot_work_are_refused_with_the_remedy():
    refused = [
        (lambda: TrainShare(0, 8, World(), False, True), "no rows"),
        (lambda: EvalShare(0, 8, World()), "no rows"),
        (lambda: TrainShare(3, 8, World(0, 4), False, True), "3 rows for 4 ranks"),
        (lambda: EvalShare(3, 8, World(0, 4)), "at most 3 ranks"),
        (lambda: TrainShare(99, 10, World(0, 4), False, True), "not a multiple of"),
        (lambda: TrainShare(7, 8, World(), True, True), "use drop_last=False"),
        (lambda: TrainShare(7, 0, World(), True, True), "global_batch_size"),
        (lambda: EvalShare(7, "8", World()), "batch_size must be an integer"),
        (lambda: EvalShare(2.0, 8, World()), "num_rows must be an integer"),
    ]
    for make, message in refused:
        with pytest.raises(ConfigError, match=message):
            make()


@pytest.mark.parametrize(
    "shard",
    [TrainShare(100, 10, World(), False, True), EvalShare(100, 10, World())],
)
@pytest.mark.parametrize("batches", [(-1, 2), (3, 2), (0, 11), (11, 11)])
def test_batches_that_are_not_in_the_epoch_are_refused(shard, batches):
    with pytest.raises(ConfigError, match="epoch of 10 batches"):
        shard.positions(*batches)
