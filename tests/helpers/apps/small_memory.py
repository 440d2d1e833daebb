"""Loaders on a machine with little shared memory; `test_small_memory` runs it.

Args: MB of /dev/shm, then what is loaded. Prints the rows that came in order.
"""

import shutil
import sys
from itertools import islice

import torch

from lance_lightning import AllRows, LanceDataModule

ROWS, BATCH = 320, 16


def images(batch):
    """Return 9.6 MB a batch."""
    return {"id": batch["id"], "image": torch.ones(len(batch["id"]), 3, 224, 224)}


def grown(batch):
    """Return 9.6 MB in later batches only, and there in many values."""
    size = 150_000 if int(batch["id"].max()) >= 200 else 10
    return {"id": batch["id"], "values": [torch.ones(size) for _ in batch["id"]]}


def too_large(batch):
    """Return more than there is in one batch."""
    is_it = bool((batch["id"] == 200).any())
    return {"id": batch["id"], "image": torch.ones((80 << 20) if is_it else 1)}


def module(uri: str, stage: str = "train", **options) -> LanceDataModule:
    return LanceDataModule(
        uri, splits=AllRows(stage), batch_size=BATCH, num_workers=2, **options
    )


def ids_of(loader, kept: list) -> list[int]:
    ids = []
    for batch in loader:
        ids += batch["id"].tolist()
        kept.append(batch)
        del kept[:-kept_batches]
    return ids


def check(found: list[int], loader, first: int = 0) -> None:
    reader = loader.reader
    expected = reader.rows(0, first, len(loader)).row_offsets.tolist()
    assert found == expected, (found, expected)


def main(uri: str, load: str) -> None:
    kept: list = []
    if load == "plain":  # 9.6 MB a batch too
        loader = module(uri, columns=["id", "image"]).train_dataloader()
        check(ids_of(loader, kept), loader)
        return
    functions = {"grown": grown, "too_large": too_large}
    transform = functions.get(load, images)
    loader = module(uri, columns=["id"], transform=transform).train_dataloader()
    if load == "resumed":
        list(islice(loader, 5))
        loader.load_state_dict({**loader.state_dict(), "epoch": 0, "batch": 5})
        check(ids_of(loader, kept), loader, 5)
        return
    check(ids_of(loader, kept), loader)
    if load == "validated":  # while the workers of the first loader live
        other = module(uri, "val", columns=["id"], transform=images)
        assert ids_of(other.val_dataloader(), kept) == list(range(ROWS))
        loader.load_state_dict({**loader.state_dict(), "epoch": 0, "batch": 0})
        check(ids_of(loader, kept), loader)


if __name__ == "__main__":
    kept_batches = 1
    if sys.argv[2] == "kept":
        kept_batches = ROWS
    assert shutil.disk_usage("/dev/shm").total == 64 << 20
    main(sys.argv[1], sys.argv[2])
    print("ok")
