"""Loaders of several ranks in one process: their numbers come from a fake group."""

from __future__ import annotations

from contextlib import contextmanager

import torch.distributed as dist


@contextmanager
def rank_of(rank: int, size: int):
    """Let ``torch.distributed`` say that this process is a rank of so many."""
    options = {"rank": rank, "world_size": size, "store": dist.HashStore()}
    dist.init_process_group("fake", **options)
    try:
        yield
    finally:
        dist.destroy_process_group()


def epochs_of_ranks(make, size: int, epochs: int = 1) -> list[list[list[list[int]]]]:
    """Return the ids of each batch, by rank and epoch.

    Args:
        make: Returns a new data module.
        size: The number of ranks.
        epochs: How many epochs.
    """
    found = []
    for rank in range(size):
        data = make()
        data.setup("fit")  # asks rank 0 for the version, and there is none
        with rank_of(rank, size):
            loader = data.train_dataloader()
            found.append([[b["id"].tolist() for b in loader] for _ in range(epochs)])
            assert all(len(loader) == len(each) for each in found[-1])
    return found
