"""Spawned worker processes: what they get, what they send, and how they end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset

from lance_lightning.gather import BufferPool
from lance_lightning.reader import Reader, Window
from lance_lightning.types import ConfigError

SHARED_MEMORY = "/dev/shm"
NO_OFFSETS = np.empty(0, dtype=np.int64)

Request = tuple[int, int, int]  # epoch, first batch, last batch excluded


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
        windows = list(reader.windows(0, reader.stream.shard.num_batches))
        self._num_workers = min(num_workers, max(1, len(windows)))
        self._options = dict(options)
        self._requests = _Requests()
        self._dataloader: DataLoader[Any] | None = None
        self._answers: Iterator[Any] | None = None
        self._check_shared_memory(max(last - first for first, last in windows))

    def answers(self, requests: list[Request]) -> Iterator[Any]:
        """Yield what the workers make of each request, in order.

        That is a list of batches where there are functions of the user's, else the
        `Window` as it was read.
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
            yield answer if self._reader.transforms else _unpacked(answer, request)

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
        window = batches * rows * self._reader.row_bytes
        ahead = self._options.get("prefetch_factor") or 2
        need = window * ahead * self._num_workers
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
    """The windows of the current epoch: what torch's sampler hands to the workers."""

    def __init__(self) -> None:
        self.pending: list[Request] = []

    def __iter__(self) -> Iterator[Request]:
        return iter(self.pending)

    def __len__(self) -> int:
        return len(self.pending)


class _Windows(Dataset[Any]):
    """What a worker holds: it answers a request with one window."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._pool = BufferPool()

    def __getitem__(self, request: Request) -> Any:
        rows = self._reader.rows(*request)
        (window,) = self._reader.read([rows], self._pool)
        if self._reader.transforms:
            return list(self._reader.batches(self._reader.convert(window)))
        return _packed(window)


def _packed(window: Window) -> tuple[list[int], torch.Tensor]:
    """Return a window as one tensor of Arrow IPC bytes.

    Tensors cross to the main process in shared memory; anything else is pickled
    and squeezed through a pipe.
    """
    counter = pa.MockOutputStream()
    with pa.ipc.new_stream(counter, window.data.schema) as writer:
        writer.write_batch(window.data)
    block = torch.empty(counter.size(), dtype=torch.uint8)
    sink = pa.FixedSizeBufferWriter(pa.py_buffer(block.numpy()))
    with pa.ipc.new_stream(sink, window.data.schema) as writer:
        writer.write_batch(window.data)
    return list(window.sizes), block


def _unpacked(answer: tuple[list[int], torch.Tensor], request: Request) -> Window:
    """Return the window that `_packed` sent, without a copy."""
    sizes, block = answer
    data = pa.ipc.open_stream(pa.py_buffer(block.numpy())).read_next_batch()
    epoch, first, _ = request
    # Only the user's functions ask for the offsets, and they ran in the worker.
    return Window(data, epoch, first, sizes, NO_OFFSETS)


def _as_it_is(value: Any) -> Any:
    return value
