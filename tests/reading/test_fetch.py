"""Rows read through pieces are the table's rows, whatever was asked for."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_lightning.arrow.unordered import in_order
from lance_lightning.reading import pieces
from lance_lightning.reading.gather import RowGather
from lance_lightning.reading.memory import SHARED_PART_BYTES, BufferPool
from lance_lightning.reading.pieces import (
    are_neighbours,
    pieces_of,
    scan_is_cheaper,
    sort_offsets,
)
from lance_lightning.reading.threads import Ahead, Threads, read_ahead
from lance_lightning.reading.windows import read_windows

ROWS = 200


def wild_table(rows: int) -> pa.Table:
    """Return a column of every layout that rows are moved by, with nulls."""
    ids = np.arange(rows)
    some = ids % 7 == 0
    inner = pa.array(np.where(ids.repeat(3) % 11 == 0, None, ids.repeat(3)), pa.int32())
    lists = pa.FixedSizeListArray.from_arrays(inner, 3)
    nested = pa.FixedSizeListArray.from_arrays(
        pa.FixedSizeListArray.from_arrays(pa.array(np.arange(rows * 4.0)), 2), 2
    )
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(
        np.arange(rows * 6, dtype=np.float32).reshape(rows, 2, 3)
    )
    return pa.table(
        {
            "id": ids,
            "nullable": pa.array(np.where(some, None, ids), pa.int16()),
            "bool": pa.array([None if i % 5 == 0 else i % 2 == 0 for i in ids]),
            "float": ids * 0.5,
            "time": pa.array(ids, pa.timestamp("us")),
            "fixed": pa.array([i.tobytes()[:3] for i in ids], pa.binary(3)),
            "name": [None if i % 9 == 0 else "x" * (i % 13) for i in ids],
            "list": [list(range(i % 4)) for i in ids],
            "struct": [{"a": int(i), "b": str(i)} for i in ids],
            "lists": lists,
            "nested": nested,
            "tensor": tensor,
        }
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Several files, and rows deleted from the middle of them."""
    uri = str(tmp_path_factory.mktemp("wild") / "t.lance")
    lance.write_dataset(wild_table(ROWS + 50), uri, max_rows_per_file=60)
    lance.dataset(uri).delete("id % 5 = 4")
    return lance.dataset(uri)


def read(dataset, offsets, row_bytes=64, columns=None, pool=None):
    offsets, order = sort_offsets(np.asarray(offsets, dtype=np.int64))
    windows = [(offsets, order)]
    (rows,) = read_windows(
        dataset, columns, windows, row_bytes, pool or BufferPool(), Threads()
    )
    rows = in_order(rows)
    rows.validate(full=True)
    return rows


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    offsets=st.lists(st.integers(0, ROWS - 1), max_size=60),
    # 64 bytes: all in one piece. A million and more: a few rows a piece.
    row_bytes=st.sampled_from([1, 64, 1 << 20, 1 << 21, 1 << 23]),
)
def test_rows_come_in_the_order_asked_for(dataset, offsets, row_bytes):
    whole = dataset.to_table()
    expected = [whole.slice(i, 1).to_pylist()[0] for i in offsets]
    assert read(dataset, offsets, row_bytes).to_pylist() == expected


@pytest.mark.parametrize("start", [0, 17, 150])
@pytest.mark.parametrize("count", [0, 1, 50])
@pytest.mark.parametrize("row_bytes", [64, 1 << 20])
def test_neighbours_come_as_they_lie(dataset, start, count, row_bytes):
    expected = dataset.to_table().slice(start, count).to_pylist()
    offsets = np.arange(start, start + count)
    assert read(dataset, offsets, row_bytes).to_pylist() == expected


def test_scans_and_takes_give_the_same_rows(dataset, monkeypatch):
    offsets = np.random.default_rng(0).permutation(ROWS)[:77]
    found = []
    for cheap in (True, False):
        monkeypatch.setattr(pieces, "scan_is_cheaper", lambda *_, cheap=cheap: cheap)
        found.append(read(dataset, offsets, 1 << 20).to_pylist())
    assert found[0] == found[1]
    assert [row["id"] for row in found[0]] == dataset.to_table()["id"].take(
        pa.array(offsets)
    ).to_pylist()


def test_windows_that_are_read_together_stay_apart(dataset):
    asked = [[5, 1, 3], [], [7], list(range(40, 90)), [9, 9], list(range(199, -1, -1))]
    windows = [sort_offsets(np.array(offsets, dtype=np.int64)) for offsets in asked]
    read = read_windows(dataset, ["id"], windows, 1 << 20, BufferPool(), Threads())
    ids = dataset.to_table()["id"].to_pylist()
    expected = [[ids[i] for i in offsets] for offsets in asked]
    assert [rows["id"].to_pylist() for rows in read] == expected


class Slow:
    """A dataset far away; it counts how many takes wait at once."""

    def __init__(self, dataset):
        self.dataset, self.waiting, self.most = dataset, 0, 0
        self.lock = threading.Lock()

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def take(self, *args, **kwargs):
        with self.lock:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
        time.sleep(0.05)
        with self.lock:
            self.waiting -= 1
        return self.dataset.take(*args, **kwargs)


@pytest.mark.parametrize("in_flight", [1, 2, 8])
def test_so_many_pieces_are_in_flight_at_once(dataset, in_flight):
    slow = Slow(dataset)
    windows = [sort_offsets(np.arange(0, ROWS, 5))]
    row_bytes = pieces.PIECE_BYTES // 3
    (rows,) = read_windows(
        slow, ["id"], windows, row_bytes, BufferPool(), Threads(), in_flight
    )
    assert rows["id"].to_pylist() == dataset.to_table()["id"].to_pylist()[::5]
    assert slow.most == in_flight


def test_large_offsets_are_sorted_alike():
    offsets = np.array([2**62, 5, 2**61 + 3, 5, 0])
    found, order = sort_offsets(offsets)
    assert found.tolist() == sorted(offsets.tolist())
    assert offsets[order].tolist() == found.tolist()
    small, order = sort_offsets(offsets % 1000)
    assert small.tolist() == sorted((offsets % 1000).tolist())
    assert (offsets % 1000)[order].tolist() == small.tolist()


def test_renamed_and_computed_columns_are_read(dataset):
    columns = {"twice": "id * 2", "text": "name"}
    rows = read(dataset, [5, 1, 3], columns=columns)
    ids = dataset.to_table()["id"].to_pylist()
    assert rows["twice"].to_pylist() == [ids[i] * 2 for i in (5, 1, 3)]
    assert rows.schema.names == ["twice", "text"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    offsets=st.lists(st.integers(0, 3000), min_size=1, max_size=200),
    row_bytes=st.sampled_from([1, 1000, 100_000, 1 << 20, 1 << 24]),
)
def test_pieces_cover_every_row_once_and_stay_small(offsets, row_bytes):
    sorted_offsets, order = sort_offsets(np.array(offsets))
    places, rows = [], []
    for piece in pieces_of(sorted_offsets, order, row_bytes):
        read = np.asarray(piece.offsets)
        rows += read[slice(None) if piece.rows is None else piece.rows].tolist()
        where = np.arange(len(offsets))[piece.places]
        places += where.tolist()
        small = len(piece.offsets) * row_bytes <= pieces.PIECE_BYTES
        assert small or len(piece.offsets) == 1
    assert sorted(places) == list(range(len(offsets)))
    assert [offsets[place] for place in places] == rows


def test_dense_rows_are_scanned_and_sparse_ones_taken():
    dense = np.arange(0, 100_000, 10)
    sparse = np.arange(0, 100_000_000, 10_000)
    blocks = (np.arange(0, 160_000, 640)[:, None] + np.arange(64)).ravel()
    assert scan_is_cheaper(dense, 520, False)
    assert not scan_is_cheaper(sparse, 520, False)
    assert not scan_is_cheaper(blocks, 520, False)


def test_neighbours_are_told_from_repeats():
    assert are_neighbours(np.array([3, 4, 5]))
    assert not are_neighbours(np.array([3, 3, 5]))
    assert not are_neighbours(np.array([3, 5, 6]))


def test_a_pool_lends_no_memory_that_is_still_looked_at(dataset):
    pool = BufferPool()
    offsets = np.arange(ROWS)[::-1]
    kept, expected = [], []
    for turn in range(4):
        rows = read(dataset, np.roll(offsets, turn), columns=["id", "lists"], pool=pool)
        # A view of a view, in another library, keeps the memory as well.
        kept.append(np.asarray(rows["id"])[3:9])
        expected.append(kept[-1].copy())
        del rows
        gc.collect()
    assert all((a == b).all() for a, b in zip(kept, expected, strict=True))


def test_a_pool_uses_memory_again():
    pool = BufferPool()
    memory, buffer = pool.take(1000)
    address = memory.ctypes.data
    del memory, buffer
    again, _lent = pool.take(1000)
    assert again.ctypes.data == address
    other, _ = pool.take(1000)
    assert other.ctypes.data != address


@pytest.mark.parametrize("type_", ["string", "large_binary", "list"])
def test_a_window_of_variable_width_uses_memory_again(type_):
    pool, addresses = BufferPool(), []
    for size in 100, 90, 100, 10, 100:
        values = pa.array([list(range(size))] * 1000, pa.list_(pa.int8()))
        if type_ != "list":
            values = pa.array(["x" * size] * 1000).cast(type_)
        window = RowGather(1000, pool)
        for start in range(0, 1000, 100):  # more than the first pieces let expect
            piece = values[start : start + 100]
            if start < 200 and type_ != "list":
                piece = pa.array([""] * 100).cast(type_)
            window.put(pa.table({"it": piece}), np.arange(start + 99, start - 1, -1))
        rows = window.finish().batch
        assert rows["it"][500:].equals(values[500:])
        data = rows["it"] if type_ != "list" else rows["it"].values
        addresses.append(data.buffers()[-1].address)
        del rows, data, window
    assert len(set(addresses)) == 1
    assert len(pool.private._free[0]) == 1


@given(st.lists(st.integers(0, 400_000), max_size=200))
def test_a_column_shares_its_memory_with_few_bytes_of_others(sizes):
    parts = BufferPool().parts(sizes)
    assert parts == sorted(parts)
    shared = Counter(parts)
    held = np.bincount(parts, sizes) if sizes else []
    for size, part in zip(sizes, parts, strict=True):
        if len(sizes) <= 64:
            assert shared[part] == 1
        elif size:
            assert held[part] - size <= SHARED_PART_BYTES


def test_a_pool_uses_larger_memory_again_and_drops_smaller():
    pool = BufferPool()
    addresses = []
    for size in (1000, 400, 2000, 1000):
        memory, lent = pool.take(size)
        assert len(memory) == lent.size == size
        addresses.append(memory.ctypes.data)
        del memory, lent
    assert addresses[0] == addresses[1]
    assert addresses[2] == addresses[3]
    assert len(pool._free[0]) == 1


def test_reading_ahead_stops_when_nobody_listens():
    made = []
    ahead = read_ahead(
        lambda i: made.append(i) or i, iter(range(1000)), Threads().pool("test", 2), 2
    )
    assert [next(ahead), next(ahead)] == [0, 1]
    ahead.close()
    assert len(made) <= 4


def test_an_error_on_the_thread_comes_up_where_it_is_read():
    def produce(i):
        if i == 2:
            raise ValueError("row 2")
        return i

    ahead = read_ahead(produce, range(5), Threads().pool("test"))
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="row 2"):
        next(ahead)


def test_one_item_is_made_ahead_and_only_when_told():
    made = []

    def numbers():
        for i in range(4):
            made.append(i)
            yield i

    pool = Threads().pool("test")
    ahead = Ahead(numbers(), pool)
    assert ahead.take() == 0
    pool.submit(len, made).result()  # what was begun before is over
    assert made == [0]
    ahead.begin()
    ahead.begin()
    pool.submit(len, made).result()
    assert made == [0, 1]
    assert [ahead.take() for _ in range(4)] == [1, 2, 3, None]
