"""The orders are bijections, uniform, mixed, and will never change."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_lightning.ordering import permutations as order
from lance_lightning.ordering.block_shuffle import block_shuffle
from lance_lightning.ordering.permutations import key, keyed, shuffle
from tests.helpers.bounds import set_bound

pinned = settings(derandomize=True, deadline=None, max_examples=60)


def block_shuffled(n, b, k, g, seed=0, epoch=0, positions=None):
    if positions is None:
        positions = np.arange(n)
    sizes = {"block_size": b, "buffer_size": b * k * g, "global_batch_size": g}
    return block_shuffle(positions, n, seed, epoch, **sizes)


def is_bijection(rows, n):
    return rows.dtype == np.int64 and np.array_equal(np.sort(rows), np.arange(n))


def chi_square_z(table):
    """How many standard deviations a table of equal expectations is off.

    The Wilson-Hilferty approximation; rows and columns both have fixed sums.
    """
    expected = table.sum() / table.size
    freedom = (len(table) - 1) ** 2
    ratio = ((table - expected) ** 2).sum() / expected / freedom
    return (ratio ** (1 / 3) - 1 + 2 / (9 * freedom)) / np.sqrt(2 / (9 * freedom))


def position_index_counts(n, orders):
    """Count how often each position has each index; ``orders`` is (keys, n)."""
    cells = np.arange(n) * n + orders
    return np.bincount(cells.ravel(), minlength=n * n).reshape(n, n)


def keyed_orders(n, keys):
    """The orders of ``n`` under each key, shape (keys, n)."""
    x = np.tile(np.arange(n), len(keys))
    return keyed(x, n, np.repeat(keys, n)).reshape(len(keys), n)


# --- golden values: a checkpoint depends on them -----------------------------


def test_keys_are_final():
    assert [int(key(*parts)) for parts in ((), (0,), (1, 2), (2, 1), (-1, 3))] == [
        0,
        16294208416658607535,
        13608149317741381227,
        16171810823986729605,
        209967342931450243,
    ]


def test_permutations_are_final():
    assert keyed(np.arange(7), 7, key(0)).tolist() == [5, 0, 1, 3, 6, 2, 4]
    big = 2**62 - 57
    assert keyed([0, 1, big - 1], big, key(5, 6)).tolist() == [
        255049302647961145,
        1487485579578240783,
        4417161023924598998,
    ]


def test_shuffle_is_final():
    assert shuffle(np.arange(10), 10, 0, 0).tolist() == [5, 4, 7, 3, 6, 2, 1, 0, 8, 9]
    positions = np.array([0, 1, 2, 999_999])
    assert shuffle(positions, 10**6, 7, 3).tolist() == [855904, 128348, 68264, 584491]


def test_block_shuffle_is_final():
    assert block_shuffled(10, 4, 2, 2).tolist() == [3, 4, 8, 1, 0, 2, 6, 9, 5, 7]
    expected = [1, 11, 4, 9, 0, 12, 3, 10, 13, 2, 8, 5, 6, 14, 15, 16, 7]
    assert block_shuffled(17, 2, 2, 2, 1, 2).tolist() == expected
    positions = np.array([0, 1, 131_072, 786_431, 786_432, 999_999])
    assert block_shuffled(10**6, 64, 8, 256, 7, 3, positions).tolist() == [
        977450,
        612404,
        19860,
        842197,
        798695,
        600783,
    ]
    positions = np.array([0, 1, 10**10 - 1])
    assert block_shuffled(10**10, 64, 8, 256, 7, 3, positions).tolist() == [
        3961978565,
        1997922319,
        8874565723,
    ]


# --- keys --------------------------------------------------------------------


def test_a_key_of_arrays_holds_the_keys_of_its_numbers():
    parts = np.array([-1, 0, 1, 2**62])
    assert key(3, parts, -4).tolist() == [int(key(3, int(p), -4)) for p in parts]
    assert key(parts[:, None], parts).shape == (4, 4)
    assert key(np.int64(-1)) == key(np.uint64(2**64 - 1)) == key(2**64 - 1) == key(-1)


def test_keys_differ_for_every_part_and_its_place():
    keys = key(np.arange(300)[:, None], np.arange(-150, 150))
    assert len(np.unique(keys)) == keys.size
    assert key(0) != key(0, 0) != key(0, 0, 0)


GAMMA = 0x9E3779B97F4A7C15
SPLITMIX64 = [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_key_is_one_step_of_splitmix64():
    # The published outputs of the generator from the state 1234567.
    states = [1234567 + i * GAMMA for i in range(3)]
    assert [int(key(state)) for state in states] == SPLITMIX64


# --- the permutation without a table -----------------------------------------


@pytest.mark.parametrize("n", [*range(1, 70), 127, 128, 129, 1000, 4097, 20_011])
def test_keyed_is_a_bijection(n):
    assert is_bijection(keyed(np.arange(n), n, key(n)), n)


def keyed_in_words(x, n, state):
    """The same permutation for one position, in Python's integers."""
    bits = (n - 1).bit_length()
    numbers = [int(key(state + i * GAMMA)) for i in range(12)]
    while True:
        for a, b in zip(numbers[::2], numbers[1::2], strict=True):
            x = (x * (a | 1) + b) % 2**bits
            x ^= x >> (bits + 1) // 2
        if x < n:
            return x


@pinned
@given(n=st.integers(1, 2**62), at=st.integers(0, 2**70), state=st.integers(0))
def test_keyed_follows_its_formula(n, at, state):
    state %= 2**64
    (row,) = keyed([at % n], n, np.uint64(state))
    assert row == keyed_in_words(at % n, n, state)


@pytest.mark.parametrize("n", [2**k + d for k in (30, 31, 32, 33) for d in (-1, 0, 1)])
@pytest.mark.parametrize("one_key", [True, False])
def test_keyed_is_the_same_in_32_and_in_64_bits(n, one_key):
    # 40 positions, of which many walk where n is just above a power of two.
    at = [0, 1, n // 2, n - 1, *range(2, n, n // 36)]
    keys = [key(7, 0 if one_key else p) for p in at]
    rows = keyed(at, n, keys[0] if one_key else np.array(keys))
    expected = [keyed_in_words(p, n, int(own)) for p, own in zip(at, keys, strict=True)]
    assert rows.tolist() == expected


@pytest.mark.parametrize("n", [2**31, 2**31 + 1, 10**10, 2**53 + 1, 2**61 + 1, 2**62])
def test_keyed_stays_in_range_and_meets_no_index_twice_at_any_size(n):
    ends = np.concatenate([np.arange(20_000), np.arange(n - 20_000, n)])
    rows = keyed(ends, n, key(1))
    assert rows.min() >= 0
    assert rows.max() < n
    assert len(np.unique(rows)) == len(rows)
    assert abs(rows.mean() / n - 0.5) < 0.01


def test_each_position_may_have_its_own_size_and_key():
    rng = np.random.default_rng(0)
    n = rng.choice([1, 2, 3, 64, 1000, 2**53 + 3, 2**62], 40_000)
    x = rng.integers(0, n)
    keys = key(rng.integers(0, 50, len(n)))
    rows = keyed(x, n, keys)
    for size in np.unique(n):
        of_size = n == size
        assert np.array_equal(
            rows[of_size], keyed(x[of_size], int(size), keys[of_size])
        )
    for some_key in np.unique(keys):
        of_key = keys == some_key
        assert np.array_equal(rows[of_key], keyed(x[of_key], n[of_key], some_key))


@pytest.mark.parametrize(
    ("n", "keys"), [(3, 5_000), (5, 10_000), (7, 10_000), (100, 10_000), (1000, 2_000)]
)
@pytest.mark.parametrize("varied", ["seed", "epoch"])
def test_keyed_is_uniform_over_keys(n, keys, varied):
    parts = (np.arange(keys), 3) if varied == "seed" else (3, np.arange(keys))
    orders = keyed_orders(n, key(*parts))
    assert abs(chi_square_z(position_index_counts(n, orders))) < 4


@pytest.mark.parametrize(("n", "most"), [(3, 0.03), (9, 0.05), (12, 0.05), (17, 0.05)])
def test_keyed_is_off_by_little_at_the_smallest_sizes(n, most):
    # With millions of keys: 1.5 % at n = 3, 2.8 % at 9, 2 % at 12, within noise at 17.
    keys = 100_000
    counts = position_index_counts(n, keyed_orders(n, key(0, np.arange(keys))))
    assert np.abs(counts / (keys / n) - 1).max() < most


# --- full shuffle ------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 3, 1000, 3001])
def test_shuffle_is_a_bijection(n):
    assert is_bijection(shuffle(np.arange(n), n, 5, 6), n)


@pytest.mark.parametrize("varied", ["seed", "epoch"])
def test_shuffle_is_uniform_over_seeds_and_epochs(varied):
    n, x = 20, np.arange(20)
    orders = [
        shuffle(x, n, *((i, 1) if varied == "seed" else (1, i))) for i in range(1000)
    ]
    assert abs(chi_square_z(position_index_counts(n, np.array(orders)))) < 4


# --- block shuffle -----------------------------------------------------------


def block_shuffle_in_words(p, n, b, k, batch, seed, epoch):
    """The same order for one position, formula by formula, in Python's integers."""

    def permuted(x, n, *parts):
        return int(keyed([x], n, key(*parts))[0])

    buffer, streams = b * k * batch, k * batch
    if n <= buffer:
        return permuted(p, n, 1, seed, epoch)
    last = n // buffer - 1
    g = min(p // buffer, last)
    u = p - g * buffer
    m = n - last * buffer if g == last else buffer
    j, q = divmod(u, streams)
    a, c = divmod(q, batch)
    if j < m // streams:
        a = permuted(a, k, 2, seed, epoch, p - a * batch)
    s = a * batch + c
    x = g * buffer + s * (m // streams) + min(s, m % streams)
    length = (m - s + streams - 1) // streams
    x += permuted(j, length, 3, seed, epoch, g * streams + s)
    whole = n // b
    turn = int(key(5, seed, epoch)) * n >> 64
    q, i = divmod(x, b)
    q = permuted(q, whole, 4, seed, epoch) if q < whole else whole
    return (q * b + i + turn) % n


block_cases = {
    "n": st.integers(0, 3000),
    "b": st.integers(1, 20),
    "k": st.integers(1, 8),
    "g": st.integers(1, 40),
    "seed": st.integers(),
    "epoch": st.integers(0, 1000),
}


@pinned
@given(**block_cases)
def test_block_shuffle_is_a_bijection(n, b, k, g, seed, epoch):
    assert is_bijection(block_shuffled(n, b, k, g, seed, epoch), n)


@pinned
@given(**block_cases, at=st.lists(st.integers(0, 2**40), max_size=5))
def test_block_shuffle_follows_its_formula_at_any_positions(
    n, b, k, g, seed, epoch, at
):
    positions = np.array([p % n for p in at] if n else [], np.int64)
    rows = block_shuffled(n, b, k, g, seed, epoch, positions)
    expected = [
        block_shuffle_in_words(int(p), n, b, k, g, seed, epoch) for p in positions
    ]
    assert rows.tolist() == expected


@pytest.fixture
def tables(monkeypatch):
    """Whether permutations were made as a table or for each position, by call."""
    found = []

    def permute(y, *rest):
        found.append(y.ndim == 2)
        return in_place(y, *rest)

    in_place = order.permute
    set_bound(monkeypatch, "permute", permute)
    return found


WINDOWS = {
    # first position, count and distance of neighbours, for batches of 32
    "aligned": (1024, 1024, 1),
    "anywhere": (777, 1500, 1),
    "a rank of 8": (1024 + 5, 1024, 8),
    "a rank of 32": (31, 500, 32),
    "another distance": (100, 800, 3),
    "backwards": (3000, 1000, -1),
    "end": (-1200, 1200, 1),
    "one": (2000, 1, 1),
}


@pytest.mark.parametrize("n", [20_000, 20_001, 20_480, 2**31, 2**31 + 1, 10**10])
@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_has_the_rows_of_its_positions(n, window, tables):
    first, count, step = WINDOWS[window]
    positions = (first % n + np.arange(count) * step) % n
    rows = block_shuffled(n, 16, 8, 32, 3, 4, positions)
    assert any(tables) or window in ("one", "another distance")
    some = np.random.default_rng(0).choice(count, min(count, 40), replace=False)
    expected = [
        block_shuffle_in_words(int(p), n, 16, 8, 32, 3, 4) for p in positions[some]
    ]
    assert rows[some].tolist() == expected
    # For each position by itself, since they are far from each other.
    tables.clear()
    ends = np.concatenate([positions[some], [0, n // 2, n - 1]])
    alone = block_shuffled(n, 16, 8, 32, 3, 4, ends)
    assert alone[:-3].tolist() == expected
    assert not any(tables)


# In a process of its own: tracemalloc before Python 3.12.9 crashes where another thread
# takes memory at the same time, as Lance's do (python/cpython#128679).
PEAK_OF_AN_ORDER = """
import sys, tracemalloc
import numpy as np
from lance_lightning.ordering import block_shuffle

n = 10**10
positions = np.arange(512, n, 1024)[:100_000]
if sys.argv[1] == "random":
    positions = np.random.default_rng(0).integers(0, n, 100_000)
tracemalloc.start()
sizes = {"block_size": 64, "buffer_size": 2**27, "global_batch_size": 2**18}
block_shuffle(positions, n, 0, 0, **sizes)
print(tracemalloc.get_traced_memory()[1], positions.nbytes)
"""


@pytest.mark.parametrize("spread", ["random", "a rank of 1,024"])
def test_an_order_takes_the_memory_of_its_positions(spread):
    command = [sys.executable, "-c", PEAK_OF_AN_ORDER, spread]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak, of_positions = map(int, out.split())
    assert of_positions == 800_000
    assert peak < 10 * of_positions


@pytest.mark.parametrize("n", [10**10, 2**62])
def test_block_shuffle_finds_any_position_of_a_huge_table(n):
    edges = [0, 1, 131_071, 131_072, n // 2, n - 200_000, n - 131_072, n - 1]
    rows = block_shuffled(n, 64, 8, 256, 3, 4, np.array(edges))
    expected = [block_shuffle_in_words(p, n, 64, 8, 256, 3, 4) for p in edges]
    assert rows.tolist() == expected
    assert all(0 <= row < n for row in expected)


def test_positions_far_apart_and_in_any_order_get_the_rows_of_the_whole():
    n = 50_000  # several chunks
    whole = block_shuffled(n, 16, 8, 32)
    at = np.random.default_rng(0).integers(0, n, 30_000)
    assert np.array_equal(block_shuffled(n, 16, 8, 32, positions=at), whole[at])


def batch_mean_statistics(rows, batch):
    """Spread of batch means, over a full shuffle's, and their autocorrelation."""
    n = len(rows)
    means = rows[: n // batch * batch].reshape(-1, batch).mean(1)
    off = means - means.mean()
    lags = (1, 2, 4, 8)
    correlations = [(off[lag:] * off[:-lag]).mean() / off.var() for lag in lags]
    return [means.std() / (n / np.sqrt(12 * batch)), *correlations]


def mixing(k):
    """The mean statistics of four orders of a table sorted by the column."""
    n, b, batch = 100_000, 16, 64
    orders = [block_shuffled(n, b, k, batch, seed) for seed in range(4)]
    return np.mean([batch_mean_statistics(rows, batch) for rows in orders], axis=0)


def test_batches_of_a_sorted_table_mix_as_in_a_full_shuffle():
    spread, *correlations = mixing(k=8)
    assert 0.9 < spread < 1.1
    assert max(np.abs(correlations[:3])) < 0.1
    assert abs(correlations[3]) < 0.2  # about 0.1: some blocks come again by then
    # Eight streams do that: a single one has the same spread and hides it.
    spread, *correlations = mixing(k=1)
    assert 0.8 < spread < 1.2
    assert correlations[0] > 0.8


@pytest.mark.parametrize("world_size", [2, 4, 8])
@pytest.mark.parametrize("n", [100_000, 100_005])
def test_each_rank_reads_whole_blocks_of_its_own(n, world_size):
    b, k, batch = 16, 8, 64
    buffer = b * k * batch
    rows = block_shuffled(n, b, k, batch)
    borders = np.arange(1, n // buffer) * buffer  # the last takes what is left
    for rank in range(world_size):
        runs = 0
        for in_buffer in np.split(rows, borders):
            own = np.sort(in_buffer[rank::world_size])
            runs += 1 + np.count_nonzero(np.diff(own) != 1)
        # Streams of the last buffer, which takes what is left, are cut otherwise.
        assert runs < 1.3 * (n / b / world_size)


@pytest.mark.parametrize("n", [0, 1, 5, 1000, 1005])
@pytest.mark.parametrize("beyond", [0, 1, 30, 10**6])
def test_positions_beyond_the_rows_are_refused(n, beyond):
    positions = np.array([*range(n), n + beyond])
    with pytest.raises(IndexError, match="is not in an order"):
        shuffle(positions, n, 0, 0)
    with pytest.raises(IndexError, match="is not in an order"):
        block_shuffled(n, 4, 2, 8, positions=positions)
    with pytest.raises(IndexError, match="is not in an order"):
        keyed([-1], 2**62, key(0))


# --- seeds, epochs, side effects ---------------------------------------------

ORDERS = {
    "shuffle": lambda seed, epoch: shuffle(np.arange(40_000), 40_000, seed, epoch),
    "blocks": lambda seed, epoch: block_shuffled(40_000, 4, 8, 16, seed, epoch),
    "whole": lambda seed, epoch: block_shuffled(40_000, 64, 8, 256, seed, epoch),
}


@pytest.mark.parametrize("order", ORDERS)
def test_seeds_and_epochs_give_unrelated_orders(order):
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (-1, 0), (2**63, 0), (10**30, 0)]
    orders = np.array([ORDERS[order](*pair) for pair in pairs])
    # Both are ranks, so this is their rank correlation; blocks of 4 move together.
    correlations = np.corrcoef(orders)[np.triu_indices(len(pairs), 1)]
    assert np.abs(correlations).max() < 4 / np.sqrt(40_000 / 4)
    assert np.array_equal(ORDERS[order](0, 1), orders[1])


def test_orders_of_one_seed_share_nothing():
    first, *others = (order(0, 0) for order in ORDERS.values())
    for other in others:
        assert np.mean(first == other) < 0.001


def test_orders_leave_global_generators_and_their_arguments_alone():
    before = np.random.get_state()[1].copy()
    positions = np.arange(1000)
    positions.flags.writeable = False
    shuffle(positions, 1000, 0, 0)
    block_shuffled(1000, 2, 2, 4, positions=positions)
    assert np.array_equal(before, np.random.get_state()[1])
