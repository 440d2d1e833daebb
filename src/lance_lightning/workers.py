"""Spawned worker processes: what they get, what they send, and how they end."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lance_lightning.fetch import Threads
from lance_lightning.gather import BufferPool, Pool
from lance_lightning.grid import Request
from lance_lightning.layout import ordered
from lance_lightning.reader import Reader, Rows, Window
from lance_lightning.transport import SharedPool, pack
from lance_lightning.types import ConfigError, TransformError

SHARED_MEMORY = "/dev/shm"
NO_OFFSETS = np.empty(0, dtype=np.int64)


class Workers:
    """The workers of one loader: started once, whatever the number of epochs.

    They have to be stopped by `close`. torch's iterator stops its workers when it
    is deleted, but where the garbage collector does that, it has closed the pipes
    to them before: the main process then waits forever, or its workers that are
    still starting fail. So nothing else may hold the iterator, no suspended
    generator either.

    Args:
        reader: What the workers read.
        num_workers: How many; no more are started than there are windows.
        options: For torch's ``DataLoader``.

    Raises:
        ConfigError: A function of the user's that workers cannot get, or too
            little shared memory.
    """

    def __init__(
        self, reader: Reader, num_workers: int, options: Mapping[str, Any]
    ) -> None:
        reader.transforms.check_picklable()
        self._reader = reader
        windows = reader.requests(0, 0, reader.stream.shard.num_batches)
        self._num_workers = min(num_workers, max(1, len(windows)))
        self._options = dict(options)
        # What a sampler of others draws is drawn here alone: in another process it
        # could draw something else.
        draws = hasattr(reader.stream.sampler, "begin")
        self._requests = _Requests(reader if draws else None)
        self._dataloader: DataLoader[Any] | None = None
        self._pool = BufferPool()
        self._answers: Iterator[Any] | None = None
        self._check_shared_memory(windows.most_batches())

    def answers(self, requests: Sequence[Request]) -> Iterator[Any]:
        """Yield what the workers make of each request, in order.

        That is a list of batches where the workers cut them, else the `Window` as it
        was read.
        """
        if self._dataloader is None:
            self._dataloader = self._start()
        self._requests.pending = requests
        self._answers = mine = iter(self._dataloader)
        number = id(mine)
        del mine
        for request in requests:
            if self._answers is None or id(self._answers) != number:
                return
            answer = next(self._answers)
            if self._reader.cuts_batches:
                yield answer
            else:
                sizes, packed = answer
                epoch, first, _ = request
                # Only the user's functions ask for offsets; they ran in the worker.
                yield Window(packed.unpack(self._pool), epoch, first, sizes, NO_OFFSETS)
            del answer  # its memory serves the next window

    def close(self) -> None:
        """Stop the workers; the next request starts them again."""
        self._answers = None
        self._dataloader = None

    def _start(self) -> DataLoader[Any]:
        options: dict[str, Any] = {
            "persistent_workers": True,
            # Without one, torch draws from its global generator at every epoch.
            "generator": torch.Generator(),
            **self._options,
            "multiprocessing_context": "spawn",
        }
        return DataLoader(
            _Windows(self._reader),
            batch_size=None,
            sampler=self._requests,
            num_workers=self._num_workers,
            collate_fn=_as_it_is,
            **options,
        )

    def _check_shared_memory(self, batches: int) -> None:
        """Hold what the workers can take against what there is.

        Shared memory that runs out kills a worker with a bus error; a plain
        container has 64 MB of it.
        """
        try:
            free = shutil.disk_usage(SHARED_MEMORY).free
        except OSError:  # not Linux
            return
        shard = self._reader.stream.shard
        rows = -(-shard.num_rows_of_rank // max(1, shard.num_batches))
        window = batches * rows * self._reader.sent_row_bytes()
        ahead = self._options.get("prefetch_factor") or 2
        # One more is in use, and the one before it may not be gone yet; what is text
        # differs from window to window, and blocks are rounded up.
        need = window * (ahead * self._num_workers + 2) * 5 // 4
        if need > free:
            mb = 1 << 20
            raise ConfigError(
                f"{self._num_workers} workers can hold {need // mb} MB of rows in "
                f"shared memory ({window // mb} MB a window, {ahead} windows ahead "
                f"each), and {SHARED_MEMORY} has {free // mb} MB free: give the "
                "container more (docker run --shm-size=8g), or use num_workers=0, "
                "fewer workers or fewer columns"
            )


class _Requests:
    """The windows of the current epoch: what torch's sampler hands to the workers.

    Args:
        reader: What works out the rows of a window here; None leaves it to the worker.
    """

    def __init__(self, reader: Reader | None) -> None:
        self.pending: Sequence[Request] = ()
        self._reader = reader

    def __iter__(self) -> Iterator[Request | Rows]:
        if self._reader is None:
            return iter(self.pending)
        return (self._reader.rows(*request) for request in self.pending)

    def __len__(self) -> int:
        return len(self.pending)


class _Windows(Dataset[Any]):
    """What a worker holds: it answers a request with one window."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._threads = Threads()
        self._sent = False  # whether a batch was
        self._pool: Pool = BufferPool() if reader.cuts_batches else SharedPool()

    def __getitem__(self, request: Request | Rows) -> Any:
        rows = request
        if not isinstance(rows, Rows):
            rows = self._reader.rows(*rows)
        (window,) = self._reader.read([rows], self._pool, self._threads)
        if self._reader.cuts_batches:
            parts = map(self._reader.convert, self._reader.parts(window))
            batches = [b for part in parts for b in self._reader.batches(part)]
            if not self._sent:
                _check_batch(batches[0])
                self._sent = True
            return batches
        assert isinstance(self._pool, SharedPool)
        return list(window.sizes), pack(ordered(window.data), self._pool)


def _check_batch(batch: Any) -> None:
    """Raise a `TransformError` for a batch that cannot cross to the main process.

    torch pickles it on a thread that prints the error and drops the batch: the main
    process would wait for it forever.
    """
    try:
        pickle.dumps(batch)
    except Exception as error:
        raise TransformError(
            "what your functions make of a batch cannot be sent from a worker "
            f"({type(error).__name__}: {error}): let them return tensors, arrays and "
            "plain values, or use num_workers=0"
        ) from error


def _as_it_is(value: Any) -> Any:
    return value
