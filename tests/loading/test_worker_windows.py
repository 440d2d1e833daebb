"""Workers' windows are bounded by the bytes that come; the order of rows stays."""

from __future__ import annotations

import dataclasses

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning import BlockShuffle, LanceDataModule, Sequential, Shuffle
from lance_lightning.loading.batch_reader import BatchReader
from lance_lightning.loading.loader import LanceDataLoader
from lance_lightning.loading.window_grid import WindowGrid
from lance_lightning.loading.window_requests import WindowRequests
from lance_lightning.loading.workers import Workers
from lance_lightning.reading.row_sizes import Seen
from tests.helpers.bounds import set_bound
from tests.helpers.own_batches import as_it_is
from tests.reading.test_row_sizes import BOUND, ROWS, column

BATCHES = ROWS // 8
WINDOW = BATCHES // 2
SMALL = Seen(ROWS, ROWS, 1)  # as if all rows so far had been small


@pytest.fixture(autouse=True)
def small(monkeypatch):
    set_bound(monkeypatch, "SAMPLE_ROWS", 25)
    set_bound(monkeypatch, "WINDOW_BYTES", BOUND)
    set_bound(monkeypatch, "WINDOW_BYTES", BOUND)
    set_bound(monkeypatch, "FIRST_ROWS", 128)


def reader_of(tmp_path, kind: str, sampler=None, **options) -> BatchReader:
    uri = str(tmp_path / "t.lance")
    rows = {"id": np.arange(ROWS), "it": column(kind, "text")}
    lance.write_dataset(pa.table(rows), uri)
    sampler = sampler or Shuffle()
    options = {"output_format": "arrow", **options}
    data = LanceDataModule(uri, sampler=sampler, batch_size=8, **options)
    reader = data.train_dataloader().reader
    # Small pieces, since workers know nothing of the patched bounds.
    sizes = dataclasses.replace(reader.sizes, grid=WindowGrid(WINDOW), piece_rows=8)
    return dataclasses.replace(reader, sizes=sizes)


def read(reader: BatchReader, workers: Workers, first: int = 0) -> tuple[list, list]:
    """Return the ids that workers send, and the bytes of each answer."""
    ids: list[int] = []
    sizes = []
    for answer in workers.answers(reader.requests(0, first, BATCHES)):
        if reader.cuts_batches:
            batches = list(answer)
            sizes.append(sum(batch.nbytes for batch in batches))
        else:
            batches = list(reader.batches(answer))
            sizes.append(answer.data.nbytes)
        for batch in batches:
            ids += batch["id"].to_pylist()
        del answer, batches
    return ids, sizes


def check(reader: BatchReader, num_workers: int, monkeypatch) -> int:
    """Compare two epochs, the second from its middle, and return the passes begun."""
    begun = []
    begin = Workers._begin

    def counted(workers):
        begun.append(1)
        return begin(workers)

    monkeypatch.setattr(Workers, "_begin", counted)
    expected = reader.rows(0, 0, BATCHES).row_offsets.tolist()
    loader = LanceDataLoader(reader, num_workers=num_workers)
    workers = loader._workers
    assert workers._num_workers == num_workers
    try:
        for first in (0, 137):
            ids, sizes = read(reader, workers, first)
            assert ids == expected[8 * first :]
            assert max(sizes) < 2 * BOUND
    finally:
        loader.close()
    return len(begun)


@pytest.mark.usefixtures("worker_kind")
def test_windows_of_workers_are_bounded_by_the_bytes_that_come(tmp_path, monkeypatch):
    reader = reader_of(tmp_path, "tail")
    reader.sizes.row_sizes.learn(SMALL)
    assert check(reader, 2, monkeypatch) > 2  # a window was cut by the worker


@pytest.mark.slow
@pytest.mark.parametrize("is_misled", [False, True])
@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("kind", ["tail", "sorted", "even"])
@pytest.mark.parametrize("sampler", [BlockShuffle(), Shuffle(), Sequential()], ids=str)
def test_any_sizes_come_in_order_from_workers(
    tmp_path, monkeypatch, kind, sampler, num_workers, is_misled
):
    reader = reader_of(tmp_path, kind, sampler)
    if is_misled:
        reader.sizes.row_sizes.learn(SMALL)
    check(reader, num_workers, monkeypatch)


@pytest.mark.slow
def test_batches_that_workers_cut_come_in_order(tmp_path, monkeypatch):
    reader = reader_of(tmp_path, "sorted", Sequential(), arrow_transform=as_it_is)
    assert reader.cuts_batches
    reader.sizes.row_sizes.learn(SMALL)
    assert check(reader, 2, monkeypatch) > 2


def test_workers_are_asked_for_few_rows_at_first_then_for_whole_windows(tmp_path):
    reader = reader_of(tmp_path, "even")
    requests = WindowRequests(reader, BOUND)
    windows = reader.requests(0, 3, BATCHES)
    for answered, most in (False, 16), (True, WINDOW):
        requests.begin(windows)
        asked = list(requests)
        assert max(last - first for _, first, last in asked) <= most
        ends = [(first, last) for _, first, last in asked]
        assert [b for pair in ends for b in range(*pair)] == list(range(3, BATCHES))
        if answered:
            assert asked == list(windows)
        requests.answered(SMALL)


def test_workers_are_asked_for_whole_windows_of_rows_of_fixed_width(tmp_path):
    reader = reader_of(tmp_path, "tail", columns=["id"])
    assert reader.sizes.row_sizes is None
    requests = WindowRequests(reader, 1)
    requests.begin(reader.requests(0, 3, BATCHES))
    assert list(requests) == list(reader.requests(0, 3, BATCHES))
