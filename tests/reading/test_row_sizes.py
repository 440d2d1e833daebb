"""Windows are bounded by the bytes that come, for any distribution of row sizes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning import BlockShuffle, LanceDataModule, Sequential, Shuffle
from lance_lightning.errors import ConfigError
from lance_lightning.loading.sizing import WINDOW_BYTES
from lance_lightning.reading.memory import BufferPool
from lance_lightning.reading.row_sizes import RowSizes, largest_value
from lance_lightning.reading.threads import Threads
from tests.helpers.bounds import set_bound
from tests.helpers.row_sizes import BOUND, LARGE, ROWS, column


@pytest.fixture
def small(monkeypatch):
    set_bound(monkeypatch, "SAMPLE_ROWS", 25)
    set_bound(monkeypatch, "WINDOW_BYTES", BOUND)
    set_bound(monkeypatch, "VARIABLE_PIECE_BYTES", BOUND // 4)
    set_bound(monkeypatch, "VARIABLE_PIECE_BYTES", BOUND // 4)
    set_bound(monkeypatch, "FIRST_ROWS", 128)
    set_bound(monkeypatch, "LARGE_BYTES", BOUND)
    set_bound(monkeypatch, "LEAST_ROWS", 4)


def module(tmp_path, kind: str, type_: str, sampler, **options) -> LanceDataModule:
    uri = str(tmp_path / "t.lance")
    rows = {"id": np.arange(ROWS), "it": column(kind, type_)}
    lance.write_dataset(pa.table(rows), uri)
    options = {"output_format": "arrow", **options}
    return LanceDataModule(uri, sampler=sampler, batch_size=8, **options)


@pytest.mark.parametrize("type_", ["text", "list"])
@pytest.mark.parametrize("kind", ["tail", "sorted", "even"])
@pytest.mark.parametrize("sampler", [BlockShuffle(), Shuffle(), Sequential()], ids=str)
def test_windows_are_bounded_by_the_bytes_that_come(
    tmp_path, small, kind, type_, sampler
):
    data = module(tmp_path, kind, type_, sampler)
    check_windows(data.train_dataloader().reader)


def check_windows(reader) -> None:
    requests = list(reader.requests(0, 0, reader.stream.share.num_batches))
    rows = [reader.rows(*request) for request in requests]
    ids, most, batches = [], 0, []
    for window in reader.read_bounded(rows, BufferPool(), Threads()):
        batch = window.data.slice(0, window.data.num_rows)
        most = max(most, batch.nbytes)
        ids += batch["id"].to_pylist()
        batches += window.numbers
    assert most < 2 * BOUND
    assert batches == list(range(ROWS // 8))
    assert ids == np.concatenate([each.row_offsets for each in rows]).tolist()


@pytest.mark.parametrize("kind", ["tail", "sorted", "even"])
@pytest.mark.parametrize("sampler", [Shuffle(), Sequential()], ids=str)
def test_kept_rows_are_bounded_by_the_bytes_that_come(
    tmp_path, small, monkeypatch, kind, sampler
):
    set_bound(monkeypatch, "VARIABLE_PIECE_BYTES", BOUND // 4)
    set_bound(monkeypatch, "CHUNK_BYTES", BOUND)
    kept = {"cache_bytes": 1 << 30, "cache_dir": str(tmp_path / "kept")}
    reader = module(tmp_path, kind, "text", sampler, **kept).train_dataloader().reader
    (path,) = (tmp_path / "kept").rglob("*.arrow")
    batches = list(pa.ipc.open_stream(pa.memory_map(str(path))))
    assert max(batch.nbytes for batch in batches) < 2 * BOUND
    assert sum(map(len, batches)) == ROWS
    # As in a run that finds them: nothing is known but a sample.
    sizes = replace(reader.sizes, row_sizes=RowSizes(reader.sizes.row_bytes))
    reader = replace(reader, sizes=sizes)
    check_windows(reader)
    if kind == "even":
        rows = [reader.rows(0, 0, 500)]
        assert len(list(reader.read_bounded(rows, BufferPool(), Threads()))) == 1


def test_kept_rows_take_no_more_than_they_may(tmp_path, small):
    kept = {"cache_bytes": BOUND, "cache_dir": str(tmp_path / "kept")}
    data = module(tmp_path, "tail", "text", Shuffle(), **kept)
    with pytest.raises(ConfigError, match=f"cache_bytes, {BOUND}"):
        data.train_dataloader()


def test_even_rows_come_in_whole_windows_once_some_were_read(tmp_path, small):
    data = module(tmp_path, "even", "text", Shuffle())
    reader = data.train_dataloader().reader
    rows = [reader.rows(0, 0, 500)]
    for _ in range(2):
        windows = list(reader.read_bounded(rows, BufferPool(), Threads()))
    assert len(windows) == 1


def test_a_window_that_turns_out_too_large_is_cut(tmp_path, small):
    data = module(tmp_path, "tail", "text", Shuffle())
    reader = data.train_dataloader().reader
    # As if all rows so far had been small, but one.
    for length, rows in (LARGE // 10, 1), (1, ROWS):
        reader.sizes.row_sizes.saw(pa.table({"it": ["x" * length] * rows}))
    rows = [reader.rows(0, 0, 500)]
    windows = list(reader.read_bounded(rows, BufferPool(), Threads()))
    assert len(windows) > 1
    sizes = [window.data.slice(0, window.data.num_rows).nbytes for window in windows]
    assert max(sizes) < 2 * BOUND
    assert sum(len(window.sizes) for window in windows) == 500


def test_a_batch_is_never_cut(tmp_path, small):
    sizes = RowSizes(10)
    sizes.saw(pa.table({"it": ["x" * LARGE] * 8}))
    assert sizes.rows_within(10_000, 100) == 1  # and the reader takes a whole batch
    assert sizes.piece_rows(100) == 1


@pytest.mark.parametrize("kind", ["string", "large_string", "binary"])
def test_the_largest_value_is_found_in_a_struct_too(kind):
    texts = pa.array(["a" * 5, "b" * 70, None, "c" * 9]).cast(kind)
    struct = pa.StructArray.from_arrays([pa.array([1, 2, 3, 4]), texts], ["n", "t"])
    inside = pa.StructArray.from_arrays([struct], ["s"])
    for each in texts, struct, inside:
        assert largest_value(pa.chunked_array([each])) == 70
        assert largest_value(pa.chunked_array([each[2:]])) == 9
        assert largest_value(pa.chunked_array([each[:0]])) == 0


# In a process of its own, whose memory it is.
PEAK = """
import sys, threading, time
import lance_lightning.datamodule as made, lance_lightning as LL

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def watch():
    while True:
        most[0] = max(most[0], held())
        time.sleep(0.005)

data = LL.LanceDataModule(sys.argv[1], sampler=LL.BlockShuffle(), batch_size=32)
data.setup("fit")
loader = data.train_dataloader()
before = held()
most = [before]
threading.Thread(target=watch, daemon=True).start()
rows = sum(len(batch["id"]) for batch in loader)
print(rows, most[0] - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["rare", "lognormal", "sorted", "even"])
def test_a_process_holds_two_windows_of_rows_of_any_sizes(tmp_path, kind):
    random = np.random.default_rng(0)
    sizes = np.full(60_000, 20)
    if kind == "rare":
        sizes[377::1000] = 8 << 20
    elif kind == "lognormal":
        sizes = np.minimum(np.exp(random.normal(7, 2.5, 30_000)), 4 << 20).astype(int)
    elif kind == "sorted":
        sizes = np.repeat([100, 40_000], 10_000)
    else:
        sizes = random.integers(500, 4000, 200_000)
    assert sizes.sum() > 4 * WINDOW_BYTES
    uri = str(tmp_path / "t.lance")

    def batches():
        for start in range(0, len(sizes), 500):
            texts = pa.array(["z" * size for size in sizes[start : start + 500]])
            ids = pa.array(range(start, start + len(texts)))
            yield pa.record_batch({"id": ids, "text": texts})

    schema = pa.schema({"id": pa.int64(), "text": pa.string()})
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches()), uri)
    command = [sys.executable, "-c", PEAK, uri]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows, taken = map(int, out.split("\n")[-2].split())
    assert rows >= len(sizes) - 32
    # Two windows, and what it takes to read and hand out a batch: Lance's buffers of a
    # few pieces and what malloc keeps of them.
    assert taken < 2 * WINDOW_BYTES + (130 << 20)
