"""Windows: which batches are read at once."""

from __future__ import annotations

import dataclasses
import sys

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lance.sampler import FullScanSampler
from torch.utils.data import BatchSampler, RandomSampler

from lance_lightning import (
    BlockShuffle,
    LanceDataLoader,
    LanceDataModule,
    PermutationSplit,
    Sequential,
    ShardedBatches,
    ShardedFragments,
    Shuffle,
)
from lance_lightning.columns import planning
from lance_lightning.loading.window_grid import Requests, WindowGrid
from lance_lightning.loading.workers import Workers
from lance_lightning.reading import pieces
from lance_lightning.reading import windows as fetch
from lance_lightning.samplers.sharded import FragmentOrder
from tests.helpers.bounds import set_bound
from tests.helpers.own_samplers import LastFirst
from tests.helpers.tables import write_table
from tests.samplers.test_sharded import split_of


@pytest.fixture
def asked(monkeypatch):
    """Return the offsets of each piece that is read."""
    pieces = []
    read_piece = fetch.read_piece

    def noting(dataset, columns, offsets):
        pieces.append(offsets)
        return read_piece(dataset, columns, offsets)

    monkeypatch.setattr(fetch, "read_piece", noting)
    return pieces


@settings(derandomize=True)
@given(
    size=st.integers(1, 50),
    tail=st.none() | st.integers(0, 60),
    steps=st.integers(0, 300),
    start=st.integers(0, 300),
)
def test_windows_follow_each_other_from_any_batch(size, tail, steps, start):
    grid = WindowGrid(size, tail)
    batch, ends = start, []
    while batch < steps:
        end = min(grid.end(batch), steps)
        assert end > batch
        ends.append(end)
        batch = end
    whole, batch = [], 0
    while batch < steps:
        batch = min(grid.end(batch), steps)
        whole.append(batch)
    # A resumed epoch reads the unbroken one's windows, the first one cut short.
    assert ends == [end for end in whole if end > start]


@settings(derandomize=True, max_examples=300)
@given(
    size=st.integers(1, 20),
    tail=st.none() | st.integers(0, 60),
    start=st.integers(0, 100),
    stop=st.integers(0, 100),
)
def test_the_windows_of_an_epoch_are_worked_out_when_asked_for(size, tail, start, stop):
    grid = WindowGrid(size, tail)
    found = Requests(grid, 7, start, stop)
    batch, expected = start, []
    while batch < stop:
        expected.append((7, batch, min(grid.end(batch), stop)))
        batch = expected[-1][2]
    assert list(found) == expected
    assert len(found) == len(expected)
    assert [found[number] for number in range(len(found))] == expected
    assert found[:2] == expected[:2]
    assert found.most_batches() == max((b - a for _, a, b in expected), default=0)
    with pytest.raises(IndexError):
        found[len(found)]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_of_many_windows_takes_no_memory_before_its_first_batch(
    tmp_path, monkeypatch, workers
):
    uri = write_table(tmp_path / "t.lance", 10)
    # A row comes as often as the sampler likes: a million windows of one batch.
    data = LanceDataModule(uri, columns=["id"], batch_size=1, num_workers=workers)
    made = data.train_dataloader()
    shard = dataclasses.replace(made.reader.stream.share, num_rows=1_000_000)
    stream = dataclasses.replace(made.reader.stream, share=shard)
    sizes = dataclasses.replace(made.reader.sizes, grid=WindowGrid(1))
    many = dataclasses.replace(made.reader, stream=stream, sizes=sizes)
    before = sys.getallocatedblocks()
    loader = LanceDataLoader(many, num_workers=workers)
    answers = []
    monkeypatch.setattr(
        Workers, "answers", lambda self, requests: answers.append(requests) or []
    )
    next(iter(loader), None)
    taken = sys.getallocatedblocks() - before
    assert len(loader) == 1_000_000
    assert [len(each) for each in answers] == [1_000_000] * workers
    assert taken < 100_000  # a list of them takes a million


@pytest.mark.parametrize("sampler", [BlockShuffle(4, 64), Shuffle(), Sequential()])
@pytest.mark.parametrize("window_bytes", [1, 500, 5_000, 1 << 20])
def test_the_size_of_windows_changes_no_row(
    tmp_path, monkeypatch, sampler, window_bytes
):
    uri = write_table(tmp_path / "t.lance", 300, 70)

    def ids():
        data = LanceDataModule(uri, sampler=sampler, batch_size=8, columns=["id"])
        return [batch["id"].tolist() for batch in data.train_dataloader()]

    expected = ids()
    for name in ("WINDOW_BYTES", "PIECE_BYTES", "IN_ORDER_PIECE_BYTES"):
        set_bound(monkeypatch, name, window_bytes)
    assert ids() == expected


def test_a_window_holds_whole_buffers_and_the_last_one_is_whole(tmp_path):
    uri = write_table(tmp_path / "t.lance", 300)
    data = LanceDataModule(
        uri, sampler=BlockShuffle(4, 64), batch_size=8, columns=["id"]
    )
    loader = data.train_dataloader()
    # 300 rows are 4 buffers of 64 rows, 8 batches, and 44 rows more in the last.
    assert loader.reader.sizes.grid == WindowGrid(
        loader.reader.sizes.grid.size - loader.reader.sizes.grid.size % 8, 24
    )
    assert list(loader.reader.windows(0, 38))[-1] == (24, 38)


def test_an_epoch_is_read_in_pieces_and_hardly_a_row_too_many(
    tmp_path, monkeypatch, asked
):
    rows, row_bytes, batch = 40_000, 8 * 66, 64
    table = pa.table(
        {
            "id": np.arange(rows),
            "vector": pa.FixedSizeListArray.from_arrays(np.zeros(rows * 65), 65),
        }
    )
    lance.write_dataset(table, str(tmp_path / "t.lance"))
    set_bound(monkeypatch, "PIECE_BYTES", 1 << 20)
    pieces = rows * row_bytes / (1 << 20)
    for sampler in (BlockShuffle(16, 16 * batch * 4), Sequential()):
        asked.clear()
        data = LanceDataModule(
            str(tmp_path / "t.lance"), batch_size=batch, sampler=sampler
        )
        loader = data.train_dataloader()
        ids = np.concatenate([batch["id"].numpy() for batch in loader])
        assert np.array_equal(np.sort(ids), np.arange(rows))
        windows = len(list(loader.reader.windows(0, len(loader))))
        assert len(asked) <= 2 * pieces + windows
        assert len(asked) < len(loader) / 8
        assert sum(map(len, asked)) <= 1.3 * rows  # scans drop what lies between


@pytest.mark.parametrize("kind", ["vector", "text", "tokens"])
def test_blocks_of_text_and_lists_are_taken_and_not_cut_out_of_scans(
    tmp_path, asked, kind
):
    rows = 30_000
    values = {
        "vector": pa.FixedSizeListArray.from_arrays(np.zeros(rows * 64, "f4"), 64),
        "text": ["x" * 250] * rows,
        "tokens": pa.array([np.zeros(32)] * rows),
    }
    table = pa.table({"id": np.arange(rows), "x": values[kind]})
    lance.write_dataset(table, str(tmp_path / "t.lance"))
    data = LanceDataModule(
        str(tmp_path / "t.lance"), batch_size=64, sampler=BlockShuffle(16, 64 * 150)
    )
    loader = data.train_dataloader()
    list(loader)  # windows are small until some rows were seen
    asked.clear()
    ids = np.concatenate([batch["id"].numpy() for batch in loader])
    assert np.array_equal(np.sort(ids), np.arange(rows))
    # A third of the blocks a window: a scan of all is cheaper where rows are copied.
    assert {isinstance(piece, range) for piece in asked} == {kind == "vector"}


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory):
    """A table of 20 fragments, and a permutation of its rows."""
    rows = 20_000
    vectors = pa.FixedSizeListArray.from_arrays(np.zeros(rows * 32, "f4"), 32)
    uri = str(tmp_path_factory.mktemp("orders") / "t.lance")
    table = pa.table({"id": np.arange(rows), "vector": vectors})
    dataset = lance.write_dataset(table, uri, max_rows_per_file=1000)
    ids = dataset.to_table(columns=[], with_row_id=True)["_rowid"].to_numpy()
    order = {
        "row_id": np.random.default_rng(0).permutation(ids),
        "split_id": np.zeros(rows, "u8"),
    }
    lance.write_dataset(pa.table(order), uri + ".permutation.lance")
    return uri


def few_bytes_in_pieces(monkeypatch):
    for name in ("PIECE_BYTES", "IN_ORDER_PIECE_BYTES"):
        set_bound(monkeypatch, name, 1 << 17)
    set_bound(monkeypatch, "WINDOW_BYTES", 1 << 20)


def train_reader(uri, sampler, **options):
    data = LanceDataModule(uri, sampler=sampler, batch_size=64, **options)
    return data.train_dataloader().reader


def short_name(sampler):
    return repr(sampler).partition(" object at")[0][:60]


IN_TABLE_ORDER = [
    Sequential(),
    ShardedBatches(),
    ShardedFragments(),
    FullScanSampler(),
    list(range(0, 20_000, 2)),
]
ELSEWHERE = [
    Shuffle(),
    ShardedBatches(randomize=True),
    ShardedFragments(randomize=True),
    LastFirst(),
    RandomSampler,
    list(range(20_000))[::-1],
    BatchSampler(list(range(20_000))[::-1], 64, drop_last=False),
]


@pytest.mark.parametrize("sampler", IN_TABLE_ORDER, ids=short_name)
def test_windows_of_rows_in_the_tables_order_are_one_piece(
    shuffled, monkeypatch, sampler
):
    few_bytes_in_pieces(monkeypatch)
    assert train_reader(shuffled, sampler).sizes.grid.size == (1 << 17) // 136 // 64


@pytest.mark.parametrize("sampler", ELSEWHERE, ids=short_name)
def test_windows_of_rows_from_anywhere_are_as_large_as_those_of_shuffle(
    shuffled, monkeypatch, sampler
):
    few_bytes_in_pieces(monkeypatch)
    whole = train_reader(shuffled, Shuffle()).sizes.grid.size
    assert whole == (1 << 20) // 136 // 64
    assert train_reader(shuffled, sampler).sizes.grid.size == whole


def test_windows_of_a_permutation_are_large_in_its_own_order_too(shuffled, monkeypatch):
    few_bytes_in_pieces(monkeypatch)
    splits = PermutationSplit(shuffled + ".permutation.lance", ["train"])
    found = train_reader(shuffled, Sequential(), splits=splits)
    assert found.sizes.grid.size == (1 << 20) // 136 // 64
    data = LanceDataModule(
        shuffled, splits=splits, batch_size=64, stage_splits={"val": "train"}
    )
    assert data.val_dataloader().reader.sizes.grid.size == (1 << 20) // 136 // 64


def test_large_fragments_are_read_in_order_though_their_order_is_random():
    spec, bounds = ShardedFragments(randomize=True), np.array([0, 1000, 2000])
    for world_size in (1, 2):
        small, large = (
            split_of(2000, world_size, 64, row_bytes=b) for b in (100, 10_000)
        )
        assert not FragmentOrder(spec, bounds, small).reads_in_table_order
        assert FragmentOrder(spec, bounds, large).reads_in_table_order
    one, two = (split_of(2000, ranks, 64, row_bytes=100) for ranks in (1, 2))
    assert FragmentOrder(ShardedFragments(), bounds, one).reads_in_table_order
    # Every other fragment is another rank's.
    assert not FragmentOrder(ShardedFragments(), bounds, two).reads_in_table_order


def test_windows_in_order_are_one_piece_each(tmp_path, asked):
    rows, row_bytes = 40_000, 8 + 4 * 126
    vectors = pa.FixedSizeListArray.from_arrays(np.zeros(rows * 126, "f4"), 126)
    table = pa.table({"id": np.arange(rows), "vector": vectors})
    lance.write_dataset(table, str(tmp_path / "t.lance"))
    data = LanceDataModule(
        str(tmp_path / "t.lance"), batch_size=64, sampler=Sequential()
    )
    loader = data.train_dataloader()
    ids = np.concatenate([batch["id"].numpy() for batch in loader])
    assert np.array_equal(ids, np.arange(rows))
    window = pieces.IN_ORDER_PIECE_BYTES // row_bytes // 64 * 64
    assert [len(piece) for piece in asked] == [window, window, rows - 2 * window]


COLUMNS, WIDE_ROWS = 900, 1000


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A table of many columns: every call costs as much as a thousand rows."""
    uri = str(tmp_path_factory.mktemp("wide") / "t.lance")
    columns = {f"c{i}": np.arange(WIDE_ROWS) + i for i in range(COLUMNS)}
    lance.write_dataset(pa.table(columns), uri)
    return uri


@pytest.mark.parametrize("few", [None, 800])
@pytest.mark.parametrize("sampler", [BlockShuffle(), Shuffle(), Sequential()])
def test_many_columns_are_read_in_few_calls(wide, asked, sampler, few):
    columns = None if few is None else [f"c{i}" for i in range(few)]
    data = LanceDataModule(wide, sampler=sampler, columns=columns, batch_size=100)
    batches = list(data.train_dataloader())
    assert len(asked) == 1
    first = np.concatenate([batch["c0"] for batch in batches])
    assert np.array_equal(np.sort(first), np.arange(WIDE_ROWS))
    for batch in batches:
        assert np.array_equal(batch["c0"] + 799, batch["c799"])


def test_all_columns_by_name_are_asked_for_as_all(wide):
    snapshot = LanceDataModule(wide).snapshot()
    names = snapshot.schema.names
    assert snapshot.lance_columns(names) is None
    assert snapshot.lance_columns(names[::-1]) == names[::-1]
    assert snapshot.lance_columns(names, with_row_id=True) == [*names, "_rowid"]


@pytest.mark.parametrize(
    "names", [["c5", "c3"], ["c5", "_rowid", "_rowoffset"], ["c1"]]
)
def test_the_schema_of_names_is_the_one_that_lance_gives(wide, names):
    snapshot = LanceDataModule(wide).snapshot()
    expected = snapshot.open().scanner(columns=names).projected_schema
    assert snapshot.projected_schema(names).equals(expected, check_metadata=True)


def test_many_columns_by_name_are_not_scanned(wide, monkeypatch):
    dataset = lance.dataset(wide)
    names = dataset.schema.names[:100]
    expected = dataset.to_table(columns=names).slice(20, 30)

    def planned(*args, **kwargs):
        raise AssertionError("each name would be planned")

    monkeypatch.setattr(lance.LanceDataset, "scanner", planned)
    assert fetch.read_piece(dataset, names, range(20, 50)).equals(expected)


def test_the_format_is_planned_once(wide, monkeypatch):
    planned = []
    plan = planning.plan_columns

    def counted(*args):
        planned.append(1)
        return plan(*args)

    set_bound(monkeypatch, "plan_columns", counted)
    data = LanceDataModule(wide, sampler=Sequential(), batch_size=100)
    assert len(list(data.train_dataloader())) == 10
    assert len(planned) == 1
