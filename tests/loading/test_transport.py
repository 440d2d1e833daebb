"""Windows cross from workers in shared memory, which is used again but never early."""

from __future__ import annotations

import gc
import os

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning import LanceDataModule, Sequential, Shuffle
from lance_lightning.arrow.unordered import in_order
from lance_lightning.loading.held_blocks import MOST_HELD, Held
from lance_lightning.loading.shared_memory import PackedBatch, pack
from lance_lightning.loading.shared_pool import SharedPool
from lance_lightning.reading.memory import BufferPool
from lance_lightning.reading.pieces import sort_offsets
from lance_lightning.reading.threads import Threads
from lance_lightning.reading.windows import read_windows
from tests.helpers.bounds import set_bound

ROWS = 3000


def columns(rows: int) -> dict[str, pa.Array]:
    ids = np.arange(rows)
    vector = np.arange(rows * 6, dtype=np.float32)
    return {
        "id": pa.array(ids),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vector), 6),
        "text": pa.array([f"row {i}" * (i % 7) for i in ids]),
        "maybe": pa.array([None if i % 3 else int(i) for i in ids]),
        "flag": pa.array(ids % 2 == 0),
    }


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("transport") / "t.lance"
    lance.write_dataset(pa.table(columns(ROWS)), str(path))
    return str(path)


def received(packed: PackedBatch) -> PackedBatch:
    rebuild, arguments = packed.__reduce__()
    return rebuild(*arguments)


def read(uri: str, pool: SharedPool, offsets: np.ndarray, names) -> pa.RecordBatch:
    windows = [sort_offsets(offsets)]
    (batch,) = read_windows(lance.dataset(uri), names, windows, 64, pool, Threads())
    return in_order(batch)


@pytest.mark.parametrize(
    "names",
    [["id"], ["id", "vector"], ["text"], ["maybe", "flag"], list(columns(1))],
    ids=" ".join,
)
@pytest.mark.parametrize("rows", [0, 1, 900])
def test_a_batch_crosses_as_it_was(uri, names, rows):
    offsets = np.random.default_rng(0).permutation(ROWS)[:rows]
    batch = read(uri, SharedPool(), offsets, names)
    expected = lance.dataset(uri).to_table(columns=names).take(offsets)
    crossed = received(pack(batch, SharedPool())).unpack(BufferPool(), Held())
    assert crossed.to_pylist() == batch.to_pylist() == expected.to_pylist()
    assert crossed.schema == batch.schema


def test_rows_of_fixed_width_cross_without_a_copy(uri):
    pool = SharedPool()
    batch = read(uri, pool, np.array([5, 3, 8]), ["id", "vector"])
    crossed = received(pack(batch, pool)).unpack(BufferPool(), Held())
    for one, other in zip(batch.columns, crossed.columns, strict=True):
        assert one.buffers()[-1].address == other.buffers()[-1].address


def test_memory_is_used_again_once_nobody_holds_it(uri):
    pool = SharedPool()
    offsets = np.arange(100)[::-1]

    def address(batch: pa.RecordBatch) -> int:
        return batch.column("id").buffers()[-1].address

    batch = read(uri, pool, offsets, ["id", "text"])
    first = address(batch)
    packed = pack(batch, pool)
    del batch
    # The worker has dropped it, but it is on its way.
    assert address(read(uri, pool, offsets, ["id", "text"])) != first
    kept = received(packed).unpack(BufferPool(), Held()).slice(90)
    del packed
    gc.collect()
    assert address(read(uri, pool, offsets, ["id", "text"])) != first
    assert kept.column("id").to_pylist() == list(range(9, -1, -1))
    del kept
    gc.collect()
    assert address(read(uri, pool, offsets, ["id", "text"])) == first


def test_labels_kept_beside_text_take_a_bounded_number_of_descriptors(uri):
    pool, private, held = SharedPool(), BufferPool(), Held()
    before = len(os.listdir("/proc/self/fd"))
    kept = []
    for start in range(0, 60 * 50, 50):
        offsets = np.arange(start, start + 50)[::-1]
        packed = pack(read(uri, pool, offsets, ["id", "text"]), pool)
        kept.append(received(packed).unpack(private, held).column("id"))
    ids = np.concatenate([np.asarray(each)[::-1] for each in kept])
    assert np.array_equal(ids, np.arange(60 * 50))
    gc.collect()
    # The pool keeps some to use again; every column has had one of its own in both
    # processes, which are one here.
    blocks = [block for blocks in pool._blocks.values() for block in blocks]
    assert len(os.listdir("/proc/self/fd")) - before <= len(blocks) + MOST_HELD
    assert held.count == MOST_HELD // 2  # small ones leave room
    del kept
    gc.collect()
    assert held.count == 0


@pytest.mark.parametrize(
    ("output_format", "sampler"),
    [
        ("torch", Shuffle()),
        pytest.param("arrow", Sequential(), marks=pytest.mark.slow),
    ],
)
def test_batches_that_are_kept_are_never_written_over(
    uri, output_format, sampler, monkeypatch
):
    for bound in ("WINDOW_BYTES", "VARIABLE_PIECE_BYTES"):  # many windows
        set_bound(monkeypatch, bound, 10_000)
    data = LanceDataModule(
        uri,
        columns=["id", "vector", "text"],
        output_format=output_format,
        batch_size=50,
        num_workers=1,
        sampler=sampler,
    )
    loader = data.train_dataloader()
    assert len(list(loader.reader.windows(0, len(loader)))) > 10
    next(iter(loader))  # an epoch that is left early
    kept = [batch for _ in range(4) for batch in loader]
    ids = np.concatenate([np.asarray(batch["id"]) for batch in kept])
    assert np.array_equal(np.bincount(ids), [4] * ROWS)
    for batch in kept:
        ids = np.asarray(batch["id"])
        vector = batch["vector"]
        first = [
            row[0].as_py() if output_format == "arrow" else row[0] for row in vector
        ]
        assert np.array_equal(np.asarray(first), ids * 6)
        assert [str(text) for text in batch["text"]] == [
            f"row {i}" * (i % 7) for i in ids
        ]
    data.teardown()
