"""Worker processes: what they get, what they send, and how they end."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from lance_lightning.errors import ConfigError, WorkerError
from lance_lightning.loading.batch_reader import BatchReader
from lance_lightning.loading.held_blocks import SHARED_MEMORY, Held
from lance_lightning.loading.sent_batches import PinnedBatches, SentBatches
from lance_lightning.loading.sizing import WINDOW_BYTES
from lance_lightning.loading.stream import Window
from lance_lightning.loading.window_grid import Request, Requests
from lance_lightning.loading.window_requests import WindowRequests
from lance_lightning.loading.worker_process import AnsweredWindows, Start
from lance_lightning.reading import BufferPool

# A server forks the workers of the second; it has imported nothing and reads nothing.
START_METHODS = ("spawn", "forkserver")
# How torch begins when a worker, or the thread that pins, does not answer.
FAILED = ("DataLoader worker (pid", "DataLoader timed out", "Pin memory thread")
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
        self, reader: BatchReader, num_workers: int, options: Mapping[str, Any]
    ) -> None:
        reader.transforms.check_picklable()
        self._reader = reader
        windows = reader.requests(0, 0, reader.stream.share.num_batches)
        self._num_workers = min(num_workers, max(1, len(windows)))
        self._options = dict(options)
        self._held = Held()
        self._dataloader: DataLoader[Any] | None = None
        self._pool = BufferPool()
        self._answers: Iterator[Any] | None = None
        self._batch_bytes = reader.stream.batch_rows * reader.sent_row_bytes()
        self._most_sent = self._check_shared_memory()
        self._window_bytes = min(WINDOW_BYTES, self._most_sent)
        self._requests = WindowRequests(
            reader, self._window_bytes, self._most_sent, self._batch_bytes
        )

    def __getstate__(self) -> dict[str, Any]:
        # The workers that run belong to this process.
        return {**self.__dict__, "_dataloader": None, "_answers": None}

    def answers(self, requests: Requests) -> Iterator[Any]:
        """Yield what the workers make of windows, in order.

        That is the batches where the workers cut them, else the `Window` as it was
        read. Where the rows of a window turn out large, or what the user's functions
        make of them, a worker answers with its first batches only. What was asked for
        after them is dropped then, and is asked for again by what is known now: kept
        until the rest has come, it would take up memory. A worker that gets no memory
        at all is asked again while the others are asked for nothing.

        Raises:
            WorkerError: A worker ended by itself or took too long.
            TransformError: A batch could not be sent.
        """
        only_one = False
        while requests.start < requests.stop:
            self._requests.begin(requests, only_one=only_one)
            self._answers = mine = self._begin()
            number = id(mine)
            del mine
            is_whole = True
            while is_whole and requests.start < requests.stop:
                if self._answers is None or id(self._answers) != number:
                    return
                sizes, seen, sent, num_bytes, is_full = self._next()
                epoch, first, last = self._requests.answered(seen)
                self._requests.learn_sent(len(sizes), num_bytes, is_full=is_full)
                if not sizes and only_one:
                    raise sent
                end = first + len(sizes)
                is_whole = end == last and not only_one
                only_one = not sizes
                if only_one:
                    break
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
            "worker_init_fn": Start(self._options.get("worker_init_fn")),
        }
        return DataLoader(
            AnsweredWindows(self._reader, self._window_bytes, self._most_sent),
            batch_size=None,
            sampler=self._requests,
            num_workers=self._num_workers,
            collate_fn=_as_it_is,
            **options,
        )

    def _check_shared_memory(self) -> int:
        """Hold what the workers can take against what there is.

        A plain container has 64 MB of it. What the user's functions return is not
        known yet, so of those no more than one batch is asked for.

        Returns:
            The bytes that a worker may send at once.
        """
        try:
            free = shutil.disk_usage(SHARED_MEMORY).free
        except OSError:  # not Linux
            return sys.maxsize
        ahead = self._options.get("prefetch_factor") or 2
        # One more is in use, and the one before it may not be gone yet.
        at_once = ahead * self._num_workers + 2
        need = self._batch_bytes
        if not self._reader.cuts_batches:
            need *= at_once
        if need > free:
            mb = 1 << 20
            raise ConfigError(
                f"{self._num_workers} workers can hold {need // mb} MB of rows in "
                f"shared memory ({self._batch_bytes // mb} MB a batch, {ahead} "
                f"ahead each), and {SHARED_MEMORY} has {free // mb} MB free: give the "
                "container more (docker run --shm-size=8g), or use num_workers=0, "
                "fewer workers or fewer columns"
            )
        # What is text differs from window to window, and blocks are rounded up.
        return max(1, free * 4 // 5 // at_once)


def _as_it_is(value: Any) -> Any:
    return value
