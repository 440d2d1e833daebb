"""What is kept of a batch keeps about its own column alive, not its window."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning import AllRows, BlockShuffle, LanceDataModule
from tests.helpers.bounds import set_bound

ROWS = 6000
WIDTH = 16_384  # bytes of an image: 98 MB in all
MB = 1 << 20


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("kept") / "t.lance")

    def batches():
        for start in range(0, ROWS, 500):
            ids = np.arange(start, start + 500)
            pixels = np.repeat((ids % 251).astype(np.uint8), WIDTH)
            image = pa.FixedSizeListArray.from_arrays(pa.array(pixels), WIDTH)
            names = pa.array([f"row {i}" for i in ids])
            yield pa.record_batch(
                {"image": image, "label": ids, "flag": ids % 2 == 0, "name": names}
            )

    first = next(batches())
    reader = pa.RecordBatchReader.from_batches(first.schema, batches())
    lance.write_dataset(reader, path)
    return path


def resident() -> int:
    """Return the bytes of memory that are held, free ones of malloc's left out."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def shared_mapped() -> int:
    """Return the bytes of torch's shared memory that this process has mapped."""
    found = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5)
        if "/torch_" in name:
            start, stop = (int(each, 16) for each in span.split("-"))
            found += stop - start
    return found


def module(uri: str, monkeypatch, **options) -> LanceDataModule:
    for bound in ("WINDOW_BYTES", "PIECE_BYTES", "IN_ORDER_PIECE_BYTES"):
        set_bound(monkeypatch, bound, 8 * MB)
    return LanceDataModule(uri, batch_size=100, **options)


def column(batch, name: str):
    return batch.column(name) if isinstance(batch, pa.RecordBatch) else batch[name]


@pytest.mark.parametrize("output_format", ["torch", "numpy", "arrow", "polars"])
@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_a_kept_label_keeps_only_its_column(uri, monkeypatch, output_format, stage):
    split = AllRows("train" if stage == "fit" else "val")
    columns = ["image", "label"] if output_format == "torch" else None
    data = module(
        uri, monkeypatch, splits=split, output_format=output_format, columns=columns
    )
    data.setup(stage)
    loader = data.train_dataloader() if stage == "fit" else data.val_dataloader()
    for _ in loader:  # the pools are full
        pass
    before = resident()
    kept = [
        [column(batch, name) for name in (columns or ["label", "flag", "name"])[-3:]]
        if columns is None
        else column(batch, "label")
        for batch in loader
    ]
    assert resident() - before < 40 * MB
    labels = [rows if columns else rows[0] for rows in kept]
    found = np.concatenate([np.asarray(each) for each in labels])
    assert np.array_equal(np.sort(found), np.arange(ROWS))


def test_a_kept_label_keeps_no_image_in_shared_memory(uri, monkeypatch):
    data = module(uri, monkeypatch, sampler=BlockShuffle(), num_workers=1)
    kept = [batch["label"] for batch in data.train_dataloader()]
    gc.collect()
    try:
        assert shared_mapped() < 40 * MB
        assert np.array_equal(np.sort(np.concatenate(kept)), np.arange(ROWS))
    finally:
        data.teardown()
