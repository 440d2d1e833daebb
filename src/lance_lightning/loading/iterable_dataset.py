"""A split as a torch ``IterableDataset``, sharded over ranks and workers by itself."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from lance_lightning.checks import check_int
from lance_lightning.errors import ConfigError, StateError
from lance_lightning.forks import refuse_fork
from lance_lightning.loading.batch_reader import BatchReader
from lance_lightning.loading.display import html_of, text_of
from lance_lightning.loading.loader import check_order, state_of
from lance_lightning.loading.state import STATE_VERSION, IterableState
from lance_lightning.loading.stream import Window
from lance_lightning.reading import Ahead, BufferPool, Threads, read_ahead


@dataclass(frozen=True, slots=True)
class Position:
    """Where an iteration is.

    Args:
        epoch: From 0.
        batch: The next batch.
        samples: Of that batch, how many samples were handed out.
        worker: The worker and the number of workers it was counted by; None where
            one process reads the whole share of the rank.
    """

    epoch: int
    batch: int
    samples: int = 0
    worker: tuple[int, int] | None = None


Request = tuple[int, int, int, int]  # epoch, first batch, last excluded, stride


class LanceIterableDataset(IterableDataset[Any]):
    """The batches, or the samples, of a split: what torch calls iterable-style.

    For code that wants an ``IterableDataset``: ``DataLoader(dataset,
    batch_size=None)``, ``ChainDataset``, Fabric, Accelerate, Hugging Face's
    ``Trainer``. Each rank yields its own share, and within a rank worker w of W yields
    the batches w, w + W, ..., so that a ``DataLoader`` hands out the same batches in
    the same order with any number of workers, each row once.

    Each ``iter()`` reads the epoch that `set_epoch` named, 0 at first, as with torch's
    ``DistributedSampler``. Its pickle is a few KB. `LanceDataModule.iterable_dataset`
    makes it.

    Args:
        reader: What to read.
        batched: Whether to yield batches as the module's loaders do; False yields one
            sample at a time, a dict of what the output format has for a row.

    Raises:
        ConfigError: Samples are asked for of a reader whose functions make batches.
    """

    def __init__(self, reader: BatchReader, *, batched: bool = True) -> None:
        if not batched and reader.transforms:
            raise ConfigError(
                "iterable_dataset(batched=False) yields rows as they are stored, and "
                f"the stage {reader.stage!r} has functions that take or make a batch "
                f"({', '.join(name for name, _ in reader.transforms.given())}), which "
                "would not run: leave batched out, or make a module without them and "
                "run them where the samples are collated"
            )
        self._reader = reader
        self._batched = batched
        # Shared, so that persistent workers get the epoch that is set here: it, and
        # the one that was begun last.
        self._epochs = torch.tensor([0, -1])
        self._epochs.share_memory_()  # type: ignore[no-untyped-call]
        self._at = Position(0, 0)
        self._restored: Position | None = None
        self._pool = BufferPool()
        self._threads = Threads()

    def __len__(self) -> int:
        """Return the batches of an epoch on this rank, or its rows where unbatched."""
        share = self._reader.stream.share
        return share.num_batches if self._batched else share.num_rows_of_rank

    def __repr__(self) -> str:
        return text_of(self, lambda: self._reader.facts())

    def _repr_html_(self) -> str:
        return html_of(self, lambda: self._reader.facts())

    @property
    def epoch(self) -> int:
        """The epoch that the next ``iter()`` reads, from 0."""
        return int(self._epochs[0])

    def set_epoch(self, epoch: int) -> None:
        """Let the next ``iter()`` be of this epoch, in running workers too."""
        self._epochs[0] = check_int("epoch", epoch, 0)

    def __iter__(self) -> Iterator[Any]:
        """Read the epoch that was set, from the restored position where there is one.

        Raises:
            ConfigError: This process was forked, or is one of several workers and the
                sampler's epochs have to be drawn in one process.
        """
        refuse_fork()
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        stream = self._reader.stream
        if info is not None and stream.order.draws:
            raise ConfigError(
                "the sampler draws an epoch whole, in one process, so workers of a "
                "DataLoader of your own cannot share it: use num_workers=0 there, or "
                "the module's own loaders, which draw it for their workers"
            )
        epoch = self.epoch
        restored, self._restored = self._restored, None
        if restored is None or restored.epoch != epoch:
            self._note_epoch(epoch, worker)
            restored = Position(epoch, 0)
        mine = None if info is None else (worker, workers)
        if restored.worker is None:  # of the whole rank: batch and those after it
            samples = restored.samples if worker == 0 else 0
            self._at = Position(epoch, restored.batch + worker, samples, mine)
        elif restored.worker == mine:
            self._at = restored
        else:
            raise StateError(
                f"the state was saved in worker {restored.worker[0]} of "
                f"{restored.worker[1]}, and this is worker {worker} of {workers}: "
                "resume with the same number of workers"
            )
        return self._from(self._at, workers)

    def _note_epoch(self, epoch: int, worker: int) -> None:
        """Warn where training reads an epoch for the second time."""
        if worker or not self._reader.stream.share.is_training:
            return
        if int(self._epochs[1]) == epoch:
            warnings.warn(
                f"epoch {epoch} is read once more, in the same order: call "
                "set_epoch(epoch) on the dataset before each epoch",
                stacklevel=3,
            )
        self._epochs[1] = epoch

    def _from(self, at: Position, stride: int) -> Generator[Any, None, None]:
        number, skipped = at.batch, at.samples
        with contextlib.closing(self._batches(at.epoch, number, stride)) as batches:
            for batch in batches:
                if self._batched:
                    self._at = replace(at, batch=number + stride)
                    yield batch
                else:
                    for done, sample in enumerate(batch[skipped:], skipped + 1):
                        self._at = replace(at, batch=number, samples=done)
                        yield sample
                    skipped = 0
                number += stride
        self._at = replace(at, batch=number, samples=0)

    def _batches(
        self, epoch: int, first: int, stride: int
    ) -> Generator[Any, None, None]:
        """Yield the batches ``first``, ``first + stride``, ..., read ahead."""
        self._reader.stream.begin(epoch)
        requests = self._requests(epoch, first, stride)
        ahead = Ahead(self._windows(requests), self._threads.pool("windows"))
        with contextlib.closing(ahead):
            while (window := ahead.take()) is not None:
                ahead.begin()
                if self._batched:
                    yield from self._reader.batches(window)
                else:
                    yield from self._samples(window)
                window = None

    def _requests(self, epoch: int, first: int, stride: int) -> Iterator[Request]:
        """Yield what to read at once: as many of its batches as without workers."""
        windows = self._reader.windows(first, self._reader.stream.share.num_batches)
        while group := list(itertools.islice(windows, stride)):
            start, last = group[0][0], group[-1][1]
            mine = start + (first - start) % stride
            if mine < last:
                yield epoch, mine, last, stride

    def _windows(self, requests: Iterator[Request]) -> Iterator[Window]:
        rows = read_ahead(
            lambda request: self._reader.rows(*request),
            requests,
            self._threads.pool("order"),
        )
        for window in self._reader.read_bounded(rows, self._pool, self._threads):
            yield from map(self._reader.convert, self._reader.parts(window))

    def _samples(self, window: Window) -> Iterator[list[Any]]:
        start = 0
        for size in window.sizes:
            yield self._reader.format.rows(window.data, start, start + size)
            start += size

    def state_dict(self) -> dict[str, Any]:
        """Return where the iteration in this process is: small and plain.

        It is that of the last batch (or sample) that was handed out here. A
        ``DataLoader`` with workers iterates over copies, so this object does not move;
        torchdata's ``StatefulDataLoader`` asks those copies.
        """
        at = self._at
        if at.epoch != self.epoch:
            at = Position(self.epoch, 0)
        elif at.batch >= self._reader.stream.share.num_batches and at.worker is None:
            at = Position(at.epoch + 1, 0)
        state = IterableState(
            loader=replace(
                state_of(self._reader.stream, at.epoch, at.batch),
                state_version=STATE_VERSION,
            ),
            samples=at.samples,
            worker=at.worker,
            batched=self._batched,
        )
        return state.to_plain()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next ``iter()`` continue where `state_dict` stopped.

        Raises:
            StateError: The state belongs to other rows, another order, or samples
                where this yields batches.
        """
        saved = IterableState.from_plain(state)
        check_order(self._reader.stream, saved.loader)
        if saved.batched != self._batched:
            raise StateError(
                f"the state was saved with batched={saved.batched}, and here it is "
                f"{self._batched}: make the dataset as it was"
            )
        self._at = self._restored = Position(
            check_int("epoch", saved.loader.epoch, 0),
            check_int("batch", saved.loader.batch, 0),
            check_int("samples", saved.samples, 0),
            saved.worker,
        )
        self._epochs[0] = self._at.epoch
