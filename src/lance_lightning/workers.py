"""Worker processes: what they get, what they send, and how they end."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lance_lightning.fetch import Threads
from lance_lightning.gather import BufferPool, Pool
from lance_lightning.grid import Request, Requests
from lance_lightning.held_blocks import SHARED_MEMORY, Held
from lance_lightning.layout import ordered
from lance_lightning.reader import WINDOW_BYTES, Reader, Rows, Window
from lance_lightning.row_sizes import Seen
from lance_lightning.sent_batches import (
    Message,
    PinnedBatches,
    Sendable,
    SentBatches,
)
from lance_lightning.transport import SharedPool, pack
from lance_lightning.types import ConfigError, WorkerError
from lance_lightning.window_requests import WindowRequests

# A server forks the workers of the second; it has imported nothing and reads nothing.
START_METHODS = ("spawn", "forkserver")
# How torch begins when a worker, or the thread that pins, does not answer.
FAILED = ("DataLoader worker (pid", "DataLoader timed out", "Pin memory thread")
# Rows of each batch, what was found of the rows where their width varies, and the rows.
Answer = tuple[list[int], Seen | None, Sendable]
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
        self._held = Held()
        self._dataloader: DataLoader[Any] | None = None
        self._pool = BufferPool()
        self._answers: Iterator[Any] | None = None
        free = self._check_shared_memory(windows.most_batches())
        self._window_bytes = WINDOW_BYTES if free is None else min(WINDOW_BYTES, free)
        self._requests = WindowRequests(reader, self._window_bytes)

    def __getstate__(self) -> dict[str, Any]:
        # The workers that run belong to this process.
        return {**self.__dict__, "_dataloader": None, "_answers": None}

    def answers(self, requests: Requests) -> Iterator[Any]:
        """Yield what the workers make of windows, in order.

        That is the batches where the workers cut them, else the `Window` as it was
        read. Where the rows of a window turn out large a worker answers with its first
        batches only. What was asked for after them is dropped then, and is asked for
        again by what is known now: kept until the rest has come, it would take up
        memory.

        Raises:
            WorkerError: A worker ended by itself or took too long.
            TransformError: A batch could not be sent.
        """
        while requests.start < requests.stop:
            self._requests.begin(requests)
            self._answers = mine = self._begin()
            number = id(mine)
            del mine
            is_whole = True
            while is_whole and requests.start < requests.stop:
                if self._answers is None or id(self._answers) != number:
                    return
                sizes, seen, sent = self._next()
                epoch, first, last = self._requests.answered(seen)
                end = first + len(sizes)
                is_whole = end == last
                requests = replace(requests, start=end)
                if self._reader.cuts_batches:
                    yield self._batches(sent, (epoch, first, end))
                else:
                    # Only the user's functions ask for offsets; they ran in the worker.
                    yield Window(
                        sent.unpack(self._pool, self._held),
                        epoch,
                        first,
                        sizes,
                        NO_OFFSETS,
                    )
                del sent  # its memory serves the next window

    def _begin(self) -> Iterator[Any]:
        if self._dataloader is not None:
            try:
                return iter(self._dataloader)
            except RuntimeError as error:
                if not str(error).startswith(FAILED):
                    raise
                error.with_traceback(None)
            self.close()  # a worker that was lost since the last iteration
        self._dataloader = self._start()
        return iter(self._dataloader)

    def _next(self) -> Any:
        assert self._answers is not None
        try:
            return next(self._answers)
        except RuntimeError as error:
            if not str(error).startswith(FAILED):
                raise
            said = str(error)
            # Its traceback holds the iterator, which would not end.
            error.with_traceback(None)
        self.close()
        raise WorkerError(
            f"{said}. Its own message, if it left one, is above. A worker that was "
            "killed may have run out of memory: use fewer workers or a smaller "
            "batch_size. One that cannot start may lack the script's "
            '`if __name__ == "__main__":`. The next iteration starts workers anew'
        )

    def _batches(
        self, answer: SentBatches | PinnedBatches, request: Request
    ) -> Iterator[Any]:
        batches = answer.unpack(self._held)
        for at in itertools.count():
            try:
                batch = next(batches)
            except StopIteration:
                return
            except Exception as error:
                place = self._reader.place(self._reader.rows(*request), at)
                raise self._reader.not_sent(place, error) from error
            yield batch
            del batch

    def close(self) -> None:
        """Stop the workers; the next request starts them again."""
        self._answers = None
        self._dataloader = None

    def _start(self) -> DataLoader[Any]:
        options: dict[str, Any] = {
            "persistent_workers": True,
            # Without one, torch draws from its global generator at every epoch.
            "generator": torch.Generator(),
            "multiprocessing_context": START_METHODS[0],
            **self._options,
            "worker_init_fn": _Start(self._options.get("worker_init_fn")),
        }
        return DataLoader(
            _Windows(self._reader, self._window_bytes),
            batch_size=None,
            sampler=self._requests,
            num_workers=self._num_workers,
            collate_fn=_as_it_is,
            **options,
        )

    def _check_shared_memory(self, batches: int) -> int | None:
        """Hold what the workers can take against what there is.

        Shared memory that runs out kills a worker with a bus error; a plain
        container has 64 MB of it.

        Returns:
            The bytes that a window can take; None where that is not known.
        """
        try:
            free = shutil.disk_usage(SHARED_MEMORY).free
        except OSError:  # not Linux
            return None
        shard = self._reader.stream.shard
        rows = -(-shard.num_rows_of_rank // max(1, shard.num_batches))
        window = batches * rows * self._reader.sent_row_bytes()
        ahead = self._options.get("prefetch_factor") or 2
        # One more is in use, and the one before it may not be gone yet; what is text
        # differs from window to window, and blocks are rounded up.
        at_once = ahead * self._num_workers + 2
        need = window * at_once * 5 // 4
        if need > free:
            mb = 1 << 20
            raise ConfigError(
                f"{self._num_workers} workers can hold {need // mb} MB of rows in "
                f"shared memory ({window // mb} MB a window, {ahead} windows ahead "
                f"each), and {SHARED_MEMORY} has {free // mb} MB free: give the "
                "container more (docker run --shm-size=8g), or use num_workers=0, "
                "fewer workers or fewer columns"
            )
        return max(1, free * 4 // 5 // at_once)


class _Windows(Dataset[Any]):
    """What a worker holds: it answers a request with one window.

    Args:
        reader: What it reads.
        most_bytes: Of a window, where the width of a row varies.
    """

    def __init__(self, reader: Reader, most_bytes: int) -> None:
        self._reader: Reader | None = reader
        self._most_bytes = most_bytes
        self._pickled = b""
        self._begin()

    def _begin(self) -> None:
        self._threads = Threads()
        self._private = BufferPool()
        self._shared = SharedPool()

    def __getstate__(self) -> dict[str, Any]:
        # The reader stays pickled until it is asked for: an error then crosses to the
        # main process, where one at the start of a worker would only end it.
        pickled = bytes(ForkingPickler.dumps(self._reader))
        return {"_pickled": pickled, "_most_bytes": self._most_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._reader, self._pickled = None, state["_pickled"]
        self._most_bytes = state["_most_bytes"]
        self._begin()

    def __getitem__(self, request: Request | Rows) -> Answer:
        with _errors_that_cross():
            return self._answer(request)

    def _answer(self, request: Request | Rows) -> Answer:
        reader = self._reader = self._reader or self._unpickled()
        rows = request if isinstance(request, Rows) else reader.rows(*request)
        pool: Pool = self._private if reader.cuts_batches else self._shared
        limit = self._most_bytes
        window, seen = reader.read_first(rows, pool, self._threads, limit)
        sizes = list(window.sizes)
        if reader.cuts_batches:
            return sizes, seen, self._cut(reader, window)
        return sizes, seen, Sendable(pack(ordered(window.data), self._shared))

    def _cut(self, reader: Reader, window: Window) -> Sendable:
        message = Message(self._shared)
        parts = map(reader.convert, reader.parts(window))
        batches = itertools.chain.from_iterable(map(reader.batches, parts))
        for at, batch in enumerate(batches):
            try:
                message.add(batch)
            except Exception as error:
                raise reader.not_sent(reader.place(window, at), error) from error
        try:
            return message.finish()
        except Exception as error:
            raise reader.not_sent(reader.place(window, 0), error) from error

    def _unpickled(self) -> Reader:
        try:
            reader: Reader = ForkingPickler.loads(self._pickled)
        except Exception as error:
            raise WorkerError(
                f"a worker cannot load what it was sent ({type(error).__name__}: "
                f"{error}): your functions and what they hold must be importable "
                "there, from a module and not from under a script's "
                '`if __name__ == "__main__":`; or use num_workers=0'
            ) from error
        return reader


class _Start:
    """What a worker does first.

    Args:
        then: The user's ``worker_init_fn``.
    """

    def __init__(self, then: Callable[[int], Any] | None) -> None:
        self._then = then

    def __call__(self, worker: int) -> None:
        end_with_parent()
        if self._then is not None:
            with _errors_that_cross():
                self._then(worker)


@contextlib.contextmanager
def _errors_that_cross() -> Iterator[None]:
    """Raise an error of a class that can be pickled: torch sends the class along."""
    try:
        yield
    except Exception as error:
        try:
            pickle.dumps(type(error))
        except Exception:
            name = type(error).__qualname__
            raise WorkerError(f"a worker raised {name}: {error}") from error
        raise


def end_with_parent() -> None:
    """End this worker as soon as its parent ends, however that does.

    torch's worker asks who its parent is when it begins to work; if the parent ended
    before, it would wait forever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:  # not a worker
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="lance_lightning_parent", daemon=True).start()


def _as_it_is(value: Any) -> Any:
    return value
