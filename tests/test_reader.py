"""Windows: which batches are read at once."""

from __future__ import annotations

import pytest
from conftest import write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_lightning import BlockShuffle, LanceDataModule, Sequential, Shuffle, reader
from lance_lightning.reader import WindowGrid


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
