"""Batches on their way from a worker to the main process.

torch's own way pickles a batch on a thread that prints an error and drops the batch,
and needs a file descriptor for every tensor. Here the worker itself pickles, so that
what cannot be sent fails where it was made, and all values of a message share a few
blocks of shared memory.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np
import torch

from lance_lightning.formats import page_locked
from lance_lightning.loading.batch_pickler import BatchPickler
from lance_lightning.loading.held_blocks import LARGE_BYTES, Held
from lance_lightning.loading.shared_pool import (
    SharedMemoryFullError,
    SharedPool,
    looked_into,
    received_values,
)
from lance_lightning.reading import ALIGNMENT
from lance_lightning.types import Array

INLINE_BYTES = 256 << 10  # that many go through the pipe faster than in a block
OWN_BLOCKS = 8  # in a message; each takes a file descriptor


class Place(NamedTuple):
    """Where bytes are in a message.

    Args:
        block: The block's number; 0 is the one that all smaller values share.
        start: The first byte.
        size: How many.
    """

    block: int
    start: int
    size: int


class SentBatches:
    """The batches of one window, which are unpickled one by one.

    Args:
        blocks: The memory: tensors where it is shared.
        batches: Of each batch where its pickle is, and the values outside of that.
    """

    def __init__(self, blocks: list[Any], batches: list[list[Place]]) -> None:
        self._blocks = blocks
        self._batches = batches

    def __reduce__(self) -> Any:
        return _received, (self._blocks, self._batches)

    def unpack(self, held: Held) -> Iterator[Any]:
        """Yield the batches.

        A value in a block of its own is not copied; the others get memory of their
        own, so that one that is kept keeps nothing else.

        Raises:
            Exception: A batch cannot be unpickled; whatever its values raise.
        """
        while self._batches:
            first, *others = self._batches.pop(0)
            pickled: Any = _bytes(self._blocks[first.block], first)
            values = (self._value(place, held) for place in others)
            batch = pickle.loads(pickled, buffers=values)
            del pickled
            if not self._batches:
                self._blocks = []  # before the last batch is used
            yield batch
            del batch

    def pin_memory(self) -> PinnedBatches:
        """Return the batches in page-locked memory; torch's pinning thread calls it."""
        batches: list[Any] = []
        try:
            for batch in self.unpack(Held()):
                batches.append(page_locked(batch))
        except Exception as error:
            return PinnedBatches(batches, error)
        return PinnedBatches(batches)

    def _value(self, place: Place, held: Held) -> Array:
        block = self._blocks[place.block]
        if place.block:
            self._blocks[place.block] = None  # it is this value's only
            if held.take(block):
                return _bytes(looked_into(block), place)
        return _bytes(block, place).copy()


class PinnedBatches:
    """Batches in page-locked memory.

    Args:
        batches: Those that could be made.
        error: What the next one raised.
    """

    def __init__(self, batches: list[Any], error: Exception | None = None) -> None:
        self._batches = batches
        self._error = error

    def unpack(self, held: Held) -> Iterator[Any]:
        """Yield the batches."""
        while self._batches:
            yield self._batches.pop(0)
        if self._error is not None:
            raise self._error


class Sendable:
    """A value that was pickled already: torch's thread cannot fail on it.

    Args:
        value: What is sent.
    """

    def __init__(self, value: Any) -> None:
        self._pickled = bytes(ForkingPickler.dumps(value))

    def __reduce__(self) -> Any:
        return pickle.loads, (self._pickled,)


class Message:
    """Batches that a worker sends together.

    Args:
        pool: The worker's shared memory.
    """

    def __init__(self, pool: SharedPool) -> None:
        self._pool = pool
        self._batches: list[list[Array]] = []  # the pickle, then what is outside of it
        self._sizes: list[int] = []  # bytes of each batch

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, batch: Any) -> None:
        """Pickle a batch.

        Raises:
            Exception: It cannot be pickled; whatever its values raise.
        """
        stream = io.BytesIO()
        values: list[Array] = []
        BatchPickler(stream, values).dump(batch)
        pickled = np.frombuffer(stream.getbuffer(), np.uint8)
        self._batches.append([pickled, *values])
        self._sizes.append(sum(map(len, self._batches[-1])))

    def would_pass(self, limit: int) -> bool:
        """Return whether one more as large as the largest would pass a limit."""
        return sum(self._sizes) + max(self._sizes, default=0) > limit

    @property
    def num_bytes(self) -> int:
        """The bytes of all batches."""
        return sum(self._sizes)

    def finish(self) -> Sendable:
        """Return the batches, in shared memory but for a few bytes.

        Where that is full they are the first ones only, and one is waited for.

        Raises:
            WorkerError: There is too little shared memory.
            OSError: There are too few file descriptors.
        """
        while True:
            try:
                return self._shared(wait=len(self) == 1)
            except SharedMemoryFullError:
                if len(self) == 1:
                    raise
                half = len(self) // 2
                del self._batches[half:], self._sizes[half:]

    def _shared(self, *, wait: bool) -> Sendable:
        values = [value for batch in self._batches for value in batch]
        large = [n for n, value in enumerate(values) if len(value) >= LARGE_BYTES]
        large.sort(key=lambda number: len(values[number]), reverse=True)
        sizes = [0, *(len(values[number]) for number in large[:OWN_BLOCKS])]
        blocks = {number: at for at, number in enumerate(large[:OWN_BLOCKS], 1)}
        places: list[Place] = []
        for number, value in enumerate(values):
            block = blocks.get(number, 0)
            places.append(Place(block, 0 if block else sizes[0], len(value)))
            if not block:
                sizes[0] += -(-len(value) // ALIGNMENT) * ALIGNMENT
        with self._pool.blocks(sizes[sizes[0] <= INLINE_BYTES :], wait=wait) as shared:
            memories = [block.values for block in shared]
            tensors: list[Any] = [block.tensor for block in shared]
            if sizes[0] <= INLINE_BYTES:
                memories.insert(0, np.empty(sizes[0], np.uint8))
                tensors.insert(0, memories[0])
            for place, value in zip(places, values, strict=True):
                _bytes(memories[place.block], place)[:] = value
            rest = iter(places)
            batches = [[next(rest) for _ in batch] for batch in self._batches]
            return Sendable(SentBatches(tensors, batches))


def _bytes(block: Array, place: Place) -> Array:
    return block[place.start : place.start + place.size]


def _received(blocks: list[Any], batches: list[list[Place]]) -> SentBatches:
    """Rebuild a message in the main process."""
    memories = [
        received_values(block) if isinstance(block, torch.Tensor) else block
        for block in blocks
    ]
    return SentBatches(memories, batches)
