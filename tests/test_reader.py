"""Windows: which batches are read at once."""

from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa
import pytest
from conftest import write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_lightning import (
    BlockShuffle,
    LanceDataModule,
    Sequential,
    Shuffle,
    fetch,
    reader,
)
from lance_lightning.reader import WindowGrid


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
    monkeypatch.setattr(reader, "WINDOW_BYTES", window_bytes)
    monkeypatch.setattr(reader, "PIECE_BYTES", window_bytes)
    monkeypatch.setattr(reader, "IN_ORDER_PIECE_BYTES", window_bytes)
    assert ids() == expected


def test_a_window_holds_whole_buffers_and_the_last_one_is_whole(tmp_path):
    uri = write_table(tmp_path / "t.lance", 300)
    data = LanceDataModule(
        uri, sampler=BlockShuffle(4, 64), batch_size=8, columns=["id"]
    )
    loader = data.train_dataloader()
    # 300 rows are 4 buffers of 64 rows, 8 batches, and 44 rows more in the last.
    assert loader.reader.grid == WindowGrid(
        loader.reader.grid.size - loader.reader.grid.size % 8, 24
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
    for module in (fetch, reader):
        monkeypatch.setattr(module, "PIECE_BYTES", 1 << 20)
    pieces = rows * row_bytes / fetch.PIECE_BYTES
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
    ids = np.concatenate([batch["id"].numpy() for batch in loader])
    assert np.array_equal(np.sort(ids), np.arange(rows))
    # A third of the blocks a window: a scan of all is cheaper where rows are copied.
    assert {isinstance(piece, range) for piece in asked} == {kind == "vector"}


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
    window = fetch.IN_ORDER_PIECE_BYTES // row_bytes // 64 * 64
    assert [len(piece) for piece in asked] == [window, window, rows - 2 * window]
