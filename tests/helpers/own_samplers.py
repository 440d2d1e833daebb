"""Samplers as users write them; a module of its own, so that workers load little."""

from __future__ import annotations

import os
import random
import threading
from typing import ClassVar

import lance.sampler
import torch
from torch.utils.data import Sampler

ROWS = 103


class ByEpoch(Sampler[int]):
    """Rows from one that `set_epoch` chooses."""

    def __init__(self, rows: int) -> None:
        self.rows, self.epoch = rows, 0

    def __iter__(self):
        return iter([(row + 7 * self.epoch) % self.rows for row in range(self.rows)])

    def __len__(self):
        return self.rows

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class Growing(Sampler[list[int]]):
    """Batches of 1, 2, 3, ... rows, in another order each time."""

    def __iter__(self):
        rows = torch.randperm(ROWS).tolist()
        for size in range(1, 14):
            yield [rows.pop() for _ in range(size)]

    def __len__(self):
        return 13


class Noting(Sampler[int]):
    """Notes on which threads it was drawn from."""

    threads: ClassVar[list[threading.Thread]] = []

    def __iter__(self):
        self.threads.append(threading.current_thread())
        return iter(torch.randperm(ROWS).tolist())


class Shrinking(ByEpoch):
    """Yields one row less in every epoch."""

    def __iter__(self):
        return iter(range(self.rows - self.epoch))


class LastFirst(lance.sampler.FragmentSampler):
    """The fragments, the last one first."""

    def iter_fragments(self, dataset, *args, **kwargs):
        yield from reversed(dataset.get_fragments())


class SomeRows(lance.sampler.Sampler):
    """A sample of the rows, by the global generator."""

    def __call__(self, ds, *args, batch_size=128, columns=None, **kwargs):
        rows = random.sample(range(ds.count_rows()), 40)
        for start in range(0, 40, batch_size):
            yield from ds.take(rows[start : start + batch_size], columns).to_batches()


class AllColumns(lance.sampler.Sampler):
    """Takes no notice of what it is asked for."""

    def __call__(self, ds, *args, **kwargs):
        yield from ds.to_batches()


class OfOneRank(lance.sampler.FragmentSampler):
    """Fragments of a rank that the sampler finds for itself."""

    def iter_fragments(self, dataset, *args, **kwargs):
        yield from dataset.get_fragments()[int(os.environ["RANK"]) :: 2]


class ByProcess:
    """Draws something else in every process, as the order of a set of text does."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __iter__(self):
        order = list(range(self.rows))
        random.Random(os.getpid()).shuffle(order)
        return iter(order)
