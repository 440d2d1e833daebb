"""`LanceDataLoader`: a sized iterable of batches that can start at any batch."""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from lance_lightning.checks import check_int
from lance_lightning.formats import page_locked
from lance_lightning.loading.batch_reader import BatchReader
from lance_lightning.loading.clock import EpochClock, Start
from lance_lightning.loading.display import Facts, html_of, text_of
from lance_lightning.loading.lightning_view import BatchSizeHolder, SplitRows
from lance_lightning.loading.loader_iterator import Batches, LoaderIterator, no_batches
from lance_lightning.loading.state import STATE_VERSION, LoaderState
from lance_lightning.loading.stream import Stream, Window
from lance_lightning.loading.torch_options import check_dataloader_kwargs
from lance_lightning.loading.window_grid import Requests
from lance_lightning.loading.workers import Workers
from lance_lightning.reading import Ahead, BufferPool, Threads, read_ahead

# The window before goes when its last batch does, and Lightning looks a batch ahead:
# read on only then, or three windows take up memory.
STILL_HELD = 3


def _never() -> bool:  # no lambda: what holds a loader is pickled
    return False


def state_of(
    stream: Stream, epoch: int, batch: int, steps: int | None = None
) -> LoaderState:
    """Return a position with what decides the order of the rows.

    Args:
        stream: What a loader reads.
        epoch: The epoch.
        batch: Its next batch.
        steps: Steps of the trainer's epoch, where a trainer has one.
    """
    share, order = stream.share, stream.order
    by_rank = order.depends_on_ranks or order.batches_per_epoch is not None
    return LoaderState(
        epoch=epoch,
        batch=batch,
        steps=steps,
        split=stream.plan.name,
        plan=stream.plan.digest,
        num_rows=stream.plan.num_rows,
        seed=stream.seed,
        sampler=order.state(),
        global_batch_size=share.global_batch_size,
        drop_last=share.drop_last,
        world_size=share.world.size if by_rank else None,
    )


def check_order(stream: Stream, saved: LoaderState) -> None:
    """Raise a `StateError` when a saved position means nothing in a stream."""
    saved.check_order(state_of(stream, saved.epoch, saved.batch))


class LanceDataLoader:
    """Batches of one split for this replica, an epoch at each ``iter()``.

    It is sized and holds a torch ``DataLoader`` when there are workers, but is
    not one itself: Lightning then leaves it alone. `LanceDataModule` makes it.

    Args:
        reader: What to read.
        num_workers: Spawned worker processes; 0 reads ahead on a thread.
        dataloader_kwargs: Options handed on to torch's ``DataLoader``. With no
            workers only ``pin_memory`` has a meaning.
        clock: Counts the epochs of a training loader; None for evaluation,
            where every epoch is the same.
        start: Called when an iteration begins, with this loader and the iterator; it
            says where. None begins the clock's next epoch.
        is_restored: Whether another restores the clock from its own state.

    Raises:
        ConfigError: Options that cannot work, a function of the user's that
            workers cannot get, or too little shared memory for the workers.
    """

    def __init__(
        self,
        reader: BatchReader,
        *,
        num_workers: int = 0,
        dataloader_kwargs: Mapping[str, Any] | None = None,
        clock: EpochClock | None = None,
        start: Callable[[LanceDataLoader, LoaderIterator], Start] | None = None,
        is_restored: Callable[[], bool] = _never,
    ) -> None:
        self._reader = reader
        num_workers = check_int("num_workers", num_workers, 0)
        self._kwargs = check_dataloader_kwargs(dataloader_kwargs or {})
        self._clock = clock
        self._start = start
        self._is_restored = is_restored
        self._iteration = 0
        self._pool = BufferPool()
        self._threads = Threads()
        self.dataset = SplitRows(reader.stream.plan.num_rows)
        self.batch_sampler: Any = BatchSizeHolder(self.batch_size)
        self._workers: Workers | None = None
        if num_workers:
            options = {**self._kwargs, "pin_memory": self._pins}
            self._workers = Workers(reader, num_workers, options)
            # Not left to the garbage collector: see Workers.
            weakref.finalize(self, self._workers.close)

    @property
    def batch_size(self) -> int:
        """Rows per rank per step."""
        return self._reader.stream.share.batch_size

    @property
    def clock(self) -> EpochClock | None:
        """What counts a training loader's epochs."""
        return self._clock

    @property
    def reader(self) -> BatchReader:
        """What this loader reads; it is what a worker gets."""
        return self._reader

    def __len__(self) -> int:
        """Return the steps of an epoch, the same on every rank."""
        return self._reader.stream.share.num_batches

    def __repr__(self) -> str:
        return text_of(self, self._facts)

    def _repr_html_(self) -> str:
        return html_of(self, self._facts)

    def _facts(self) -> Facts:
        batches = f"{len(self)} of {self.batch_size} rows per rank"
        return {**self._reader.facts(), "batches of an epoch": batches}

    def __iter__(self) -> Iterator[Any]:
        """Begin the next epoch; nothing is read before the first batch is asked for."""
        return LoaderIterator(self._begin)

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be of this epoch, from its first batch."""
        if self._clock is not None:
            self._clock.set(check_int("epoch", epoch, 0))

    def state_dict(self) -> dict[str, Any]:
        """Return the position: small, plain, the same on every rank."""
        position = (0, 0) if self._clock is None else self._clock.position(len(self))
        state = state_of(self._reader.stream, *position)
        return dataclasses.replace(state, state_version=STATE_VERSION).to_plain()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration resume at the position that `state_dict` returned.

        Under a trainer the data module has done so from its own state: Lightning
        leaves that of loaders out of some resumes, and it may be another loader's.

        Raises:
            StateError: The state belongs to other rows, another order or, in the
                middle of an epoch, another global batch size.
        """
        if self._is_restored():
            return
        saved = LoaderState.from_plain(state)
        check_order(self._reader.stream, saved)
        if self._clock is not None:
            self._clock.restore(saved.epoch, saved.batch)

    def describe(self) -> dict[str, Any]:
        """Return what decides the order of the rows, in plain Python."""
        return state_of(self._reader.stream, 0, 0).order()

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise a `StateError` when a state's position means nothing here."""
        check_order(self._reader.stream, LoaderState.within(state))

    def close(self) -> None:
        """Stop the workers; the next iteration starts them again."""
        self._iteration += 1
        if self._workers is not None:
            self._workers.close()

    def _begin(self, iterator: LoaderIterator) -> Batches:
        if self._start is not None:
            start = self._start(self, iterator)
        elif self._clock is not None:
            start = self._clock.begin(len(self))
        else:
            start = Start(0, 0, len(self))
        if start.first >= start.last:
            return no_batches()
        self._reader.stream.begin(start.epoch)
        requests = self._reader.requests(start.epoch, start.first, start.last)
        if start.in_process:
            # Memory and threads of its own: the other iteration uses the loader's.
            batches = self._from_thread(requests, BufferPool(), Threads())
        elif self._workers is None:
            batches = self._from_thread(requests, self._pool, self._threads)
        else:
            batches = self._served(requests)
        return self._counted(batches) if start.moves else batches

    def _counted(self, batches: Batches) -> Batches:
        for batch in batches:
            if self._clock is not None:
                self._clock.tick()
            yield batch
            batch = None

    def _served(self, requests: Requests) -> Batches:
        """Yield batches of the workers, as long as no later iteration has them."""
        self._iteration += 1
        iteration = self._iteration
        for batch in self._from_workers(requests):
            yield batch
            batch = None
            if iteration != self._iteration:
                raise RuntimeError(
                    "this iterator is over: its loader was closed or began another "
                    "epoch meanwhile, and the workers serve one iteration at a time"
                )

    def _from_thread(
        self, requests: Requests, pool: BufferPool, threads: Threads
    ) -> Batches:
        pins = self._pins_batches
        windows = self._windows(requests, pool, threads)
        ahead = Ahead(windows, threads.pool("windows"))
        with contextlib.closing(ahead):
            while (window := ahead.take()) is not None:
                begin = min(STILL_HELD, len(window.sizes) // 8)
                batches = enumerate(self._reader.batches(window))
                window = None
                for number, batch in batches:
                    if number == begin:
                        ahead.begin()
                    yield page_locked(batch) if pins else batch
                    batch = None

    def _windows(
        self, requests: Requests, pool: BufferPool, threads: Threads
    ) -> Iterator[Window]:
        # The order of one window is worked out while the one before it is read.
        rows = read_ahead(
            lambda request: self._reader.rows(*request),
            requests,
            threads.pool("order"),
        )
        for window in self._reader.read_bounded(rows, pool, threads):
            for part in map(self._reader.convert, self._reader.parts(window)):
                if self._pins and not self._pins_batches:
                    part = dataclasses.replace(part, data=page_locked(part.data))
                yield part

    @property
    def _pins(self) -> bool:
        wanted = bool(self._kwargs.get("pin_memory", False))
        return wanted and torch.accelerator.is_available()

    @property
    def _pins_batches(self) -> bool:
        """Whether to page-lock each batch, not the window: functions make new ones."""
        return self._pins and bool(self._reader.transforms)

    def _from_workers(self, requests: Requests) -> Iterator[Any]:
        assert self._workers is not None
        for answer in self._workers.answers(requests):
            if self._reader.cuts_batches:
                yield from answer
            else:
                yield from self._reader.batches(self._reader.convert(answer))
