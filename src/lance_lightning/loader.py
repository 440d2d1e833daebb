"""`LanceDataLoader`: a sized iterable of batches that can start at any batch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset

from lance_lightning.fetch import read_ahead
from lance_lightning.formats import move
from lance_lightning.gather import BufferPool
from lance_lightning.reader import Reader, Rows, Window
from lance_lightning.shard import TrainShard
from lance_lightning.state import STATE_VERSION, EpochClock, check_same, check_version
from lance_lightning.types import ConfigError, StateError, check_int

# What torch's DataLoader takes and we hand on; the rest of it is the module's.
PASSED_ON = (
    "generator",
    "multiprocessing_context",
    "persistent_workers",
    "pin_memory",
    "pin_memory_device",
    "prefetch_factor",
    "timeout",
    "worker_init_fn",
)
OURS = {
    "batch_sampler": "sampler",
    "batch_size": "batch_size",
    "collate_fn": "collate_fn",
    "dataset": "source",
    "drop_last": "drop_last",
    "num_workers": "num_workers",
    "sampler": "sampler",
    "shuffle": "sampler",
}
SHARED_MEMORY = "/dev/shm"

NO_OFFSETS = np.empty(0, dtype=np.int64)
Request = tuple[int, int, int]  # epoch, first batch, last batch excluded


def check_dataloader_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for torch's ``DataLoader``, checked.

    Raises:
        ConfigError: An option that is not torch's, one that this loader decides
            itself, or workers that are not spawned.
    """
    for name in kwargs:
        if name in OURS:
            raise ConfigError(
                f"dataloader_kwargs[{name!r}] is decided by the data module: use its "
                f"argument {OURS[name]!r} instead"
            )
        if name not in PASSED_ON:
            listed = ", ".join(PASSED_ON)
            raise ConfigError(
                f"dataloader_kwargs has no option {name!r}; there are: {listed}"
            )
    context = kwargs.get("multiprocessing_context", "spawn")
    method = context if isinstance(context, str) else context.get_start_method()
    if method != "spawn":
        raise ConfigError(
            f"multiprocessing_context is {method!r}, but Lance's threads do not "
            "survive a fork, and a worker started that way crashes or hangs: leave "
            "the option out, workers are spawned"
        )
    return dict(kwargs)


class SplitRows:
    """The rows of a loader's split: its length is what Lightning asks for.

    Args:
        num_rows: Rows of the split, over all replicas.
    """

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows

    def __len__(self) -> int:
        return self._num_rows


class BatchSizeHolder:
    """Stands where DeepSpeed looks for a loader's batch size.

    Args:
        batch_size: Rows per rank per step.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size


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
        check_start: Called before an iteration begins; it may set the clock.

    Raises:
        ConfigError: Options that cannot work, a function of the user's that
            workers cannot get, or too little shared memory for the workers.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        num_workers: int = 0,
        dataloader_kwargs: Mapping[str, Any] | None = None,
        clock: EpochClock | None = None,
        check_start: Callable[[], None] | None = None,
    ) -> None:
        self._reader = reader
        self._num_workers = check_int("num_workers", num_workers, 0)
        self._kwargs = check_dataloader_kwargs(dataloader_kwargs or {})
        self._clock = clock
        self._check_start = check_start
        self._requests = _Requests()
        self._dataloader: DataLoader[Any] | None = None
        self._iteration = 0
        self._pool = BufferPool()
        self.dataset = SplitRows(reader.stream.plan.num_rows)
        self.batch_sampler: Any = BatchSizeHolder(self.batch_size)
        if self._num_workers:
            reader.transforms.check_picklable()
            self._check_shared_memory()

    @property
    def batch_size(self) -> int:
        """Rows per rank per step."""
        shard = self._reader.stream.shard
        if isinstance(shard, TrainShard):
            return shard.global_batch_size // shard.world.size
        return shard.batch_size

    @property
    def reader(self) -> Reader:
        """What this loader reads; it is what a worker gets."""
        return self._reader

    def __len__(self) -> int:
        """Return the steps of an epoch, the same on every rank."""
        return self._reader.stream.shard.num_batches

    def __iter__(self) -> Iterator[Any]:
        """Begin the next epoch; nothing is read before the first batch is asked for."""
        return self._batches()

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be of this epoch, from its first batch."""
        if self._clock is not None:
            self._clock.set(check_int("epoch", epoch, 0))

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader stands: small, plain, the same on every rank."""
        epoch, batch = (
            (0, 0) if self._clock is None else self._clock.position(len(self))
        )
        return {
            "state_version": STATE_VERSION,
            "epoch": epoch,
            "batch": batch,
            **self.describe(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on where `state_dict` stood.

        Raises:
            StateError: The state belongs to other rows, another order or, in the
                middle of an epoch, another global batch size.
        """
        check_version(state)
        self.check_state(state)
        if self._clock is not None:
            self._clock.set(state["epoch"], state["batch"])

    def describe(self) -> dict[str, Any]:
        """Return what decides the order of the rows, in plain Python."""
        stream = self._reader.stream
        shard = stream.shard
        sampler = None if stream.sampler is None else stream.sampler.state()
        described = {
            "plan": stream.plan.digest,
            "num_rows": stream.plan.num_rows,
            "seed": stream.seed,
            "sampler": sampler,
            "global_batch_size": None,
            "drop_last": None,
        }
        if isinstance(shard, TrainShard):
            described["global_batch_size"] = shard.global_batch_size
            described["drop_last"] = shard.drop_last
        return described

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise a `StateError` when a state's position means nothing here."""
        here = self.describe()
        check_same(
            state,
            here,
            ("plan", "num_rows", "seed"),
            "To go on with the run, restore these settings; to start afresh, load "
            "the weights alone.",
        )
        if not state["batch"]:
            return
        if state["global_batch_size"] != here["global_batch_size"]:
            raise StateError(
                f"the checkpoint was saved in the middle of an epoch, at batch "
                f"{state['batch']} of {state['global_batch_size']} rows over all "
                f"ranks, and here a global batch has {here['global_batch_size']} "
                f"rows: set global_batch_size={state['global_batch_size']}, or resume "
                "from a checkpoint at the end of an epoch"
            )
        check_same(
            state,
            here,
            ("sampler", "drop_last"),
            "The checkpoint was saved in the middle of an epoch: restore these "
            "settings, or resume from a checkpoint at the end of an epoch.",
        )

    def __getstate__(self) -> dict[str, Any]:
        # Workers stay behind when the loader goes to another process.
        return {**self.__dict__, "_dataloader": None}

    def close(self) -> None:
        """Stop the workers; the next iteration starts them again."""
        self._iteration += 1
        self._dataloader = None

    def _batches(self) -> Iterator[Any]:
        self._iteration += 1
        iteration = self._iteration
        if self._check_start is not None:
            self._check_start()
        epoch, first = (0, 0) if self._clock is None else self._clock.begin()
        requests = [
            (epoch, start, stop)
            for start, stop in self._reader.windows(first, len(self))
        ]
        source = self._from_workers if self._num_workers else self._from_thread
        for batch in source(requests):
            if self._clock is not None:
                self._clock.tick()
            yield batch
            if iteration != self._iteration and self._num_workers:
                raise RuntimeError(
                    "this iterator is over: its loader was closed or began another "
                    "epoch meanwhile, and the workers serve one iteration at a time"
                )

    def _from_thread(self, requests: list[Request]) -> Iterator[Any]:
        # The order of one window is worked out while the one before it is read.
        rows = read_ahead(self._rows, requests)
        for window in read_ahead(self._read, rows):
            yield from self._reader.batches(window)

    def _rows(self, request: Request) -> Rows:
        return self._reader.rows(*request)

    def _read(self, rows: Rows) -> Window:
        window = self._reader.convert(self._reader.read(rows, self._pool))
        if self._pins:
            pinned = move(window.data, torch.Tensor.pin_memory)
            window = Window(
                pinned, window.epoch, window.first, window.sizes, window.row_offsets
            )
        return window

    @property
    def _pins(self) -> bool:
        wanted = bool(self._kwargs.get("pin_memory", False))
        return wanted and torch.accelerator.is_available()

    def _from_workers(self, requests: list[Request]) -> Iterator[Any]:
        if self._dataloader is None:
            self._dataloader = self._start_workers()
        self._requests.pending = requests
        for request, answer in zip(requests, self._dataloader, strict=True):
            if self._reader.transforms:
                yield from answer
                continue
            window = _unpacked(answer, request)
            yield from self._reader.batches(self._reader.convert(window))

    def _start_workers(self) -> DataLoader[Any]:
        options: dict[str, Any] = {
            "persistent_workers": True,
            # Without one, torch draws from its global generator at every epoch.
            "generator": torch.Generator(),
            **self._kwargs,
            "pin_memory": self._pins,
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

    def _check_shared_memory(self) -> None:
        """Hold what the workers can take against what there is.

        Shared memory that runs out kills a worker with a bus error; a plain
        container has 64 MB of it.
        """
        try:
            free = shutil.disk_usage(SHARED_MEMORY).free
        except OSError:  # not Linux
            return
        reader = self._reader
        window = reader.window_batches * self.batch_size * reader.row_bytes
        ahead = self._kwargs.get("prefetch_factor") or 2
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
        window = self._reader.read(self._reader.rows(*request), self._pool)
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
