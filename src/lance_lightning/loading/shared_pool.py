"""Blocks of memory that a worker and the main process both see."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import torch

from lance_lightning.errors import WorkerError
from lance_lightning.loading.held_blocks import SHARED_MEMORY, memory_is_short
from lance_lightning.reading import ALIGNMENT, BufferPool
from lance_lightning.types import Array

_HEAD = ALIGNMENT  # its first byte says whether the main process looks at the block
# A block is an open file in both processes. The largest columns of a window have one
# each; the others share one, and the main process copies them out of it.
_OWN_BLOCKS = 4
_OWN_SHARE = 16  # a column of less than this part of all bytes shares
_SHARED = _OWN_BLOCKS  # the part of a window that columns share
STREAMS = _OWN_BLOCKS + 1  # the first part of those that are Arrow IPC
_WAIT_SECONDS = 5.0  # for the main process to drop what it was sent
_STEPS = 8  # sizes a power of two is cut in: blocks of about a size are used again


class SharedMemoryFullError(WorkerError):
    """There is no more shared memory for now."""


class Block:
    """Memory that both processes see.

    Args:
        size: Bytes, at least.
        is_shared: Whether several columns may be in it.

    Raises:
        SharedMemoryFullError: There is no more shared memory.
        WorkerError: It cannot be had, or no more file descriptors can.
    """

    def __init__(self, size: int, is_shared: bool) -> None:
        self.is_shared = is_shared
        self.tensor = torch.empty(_HEAD + size, dtype=torch.uint8)
        try:
            self.tensor.untyped_storage().share_memory_()
        except (RuntimeError, OSError) as error:
            raise _not_shared(size, error) from error
        self.memory: Array = self.tensor.numpy()
        self.memory[0] = 0
        self.is_lent = False
        self.address = int(self.tensor.data_ptr())

    @property
    def size(self) -> int:
        """Bytes that can be written to."""
        return len(self.memory) - _HEAD

    @property
    def values(self) -> Array:
        """The bytes of a message's values."""
        return self.memory[_HEAD:]

    @property
    def is_free(self) -> bool:
        """Whether neither process looks at it."""
        return not self.is_lent and not self.memory[0]

    def give_back(self) -> None:
        """Say that the worker does not look at it any more."""
        self.is_lent = False


class SharedPool:
    """A pool of a worker, of memory that crosses to the main process as it is.

    Shared memory is mapped page by page while it is written, in both processes, so
    it is used again as soon as the main process has dropped all that it was sent.

    Args:
        keep: How many blocks are kept for a part of a window.
    """

    def __init__(self, keep: int = 8) -> None:
        self._keep = keep
        self._blocks: dict[int, list[Block]] = {}
        self.private = BufferPool()

    def parts(self, sizes: Sequence[int]) -> list[int]:
        """Return a part for each of the largest columns, and one for all others."""
        largest = sorted(range(len(sizes)), key=lambda number: -sizes[number])
        parts = [_SHARED] * len(sizes)
        for part, number in enumerate(largest[:_OWN_BLOCKS]):
            if sizes[number] * _OWN_SHARE >= sum(sizes):
                parts[number] = part
        return parts

    def take(self, size: int, part: int = 0) -> tuple[Array, pa.Buffer]:
        """Return ``size`` bytes to write to, and the same bytes for Arrow.

        They come back to the pool when Arrow's buffer, with every array made of
        it, is gone; if they were sent, when that is so in the main process too.
        """
        block = self._free_block(size, part)
        block.is_lent = True
        lent = block.memory[_HEAD : _HEAD + size]
        weakref.finalize(lent, block.give_back)
        return block.memory[_HEAD : _HEAD + size], pa.py_buffer(lent)

    @contextlib.contextmanager
    def blocks(
        self, sizes: Sequence[int], *, wait: bool = True
    ) -> Iterator[list[Block]]:
        """Give blocks to write to and send; they come back if that raises.

        Otherwise they do when the main process has dropped what it was sent; where
        memory is short it goes back to the system then.

        Args:
            sizes: Bytes of each.
            wait: Whether to wait for shared memory that may become free.
        """
        taken: list[Block] = []
        try:
            for part, size in enumerate(sizes):
                taken.append(self._free_block(size, part, wait))
                taken[-1].memory[0] = 1
            yield taken
        except BaseException as error:
            for block in taken:
                block.memory[0] = 0
            taken.clear()
            if isinstance(error, SharedMemoryFullError):
                self._drop_free()
            raise
        if memory_is_short():
            for part, block in enumerate(taken):
                self._blocks[part].remove(block)

    def _free_block(self, size: int, part: int, wait: bool = True) -> Block:
        step = 1 << max(0, (size - 1).bit_length() - _STEPS.bit_length() + 1)
        size = -(-size // step) * step
        blocks = self._blocks.get(part, [])
        for block in blocks:
            if size <= block.size <= 2 * size and block.is_free:
                return block
        # Free ones of other sizes would take up shared memory for nothing.
        used = [block for block in blocks if not block.is_free]
        block = self._new_block(size, part % STREAMS == _SHARED, wait)
        self._blocks[part] = [*used, block][-self._keep :]
        return block

    def _new_block(self, size: int, is_shared: bool, wait: bool) -> Block:
        until = time.monotonic() + (_WAIT_SECONDS if wait else 0)
        while True:
            try:
                return Block(size, is_shared)
            except SharedMemoryFullError:
                never = shutil.disk_usage(SHARED_MEMORY).total < size
                if never or (not self._drop_free() and time.monotonic() >= until):
                    raise
            time.sleep(0.005)

    def _drop_free(self) -> bool:
        """Drop the blocks that are kept to be used again; False if there are none."""
        before = sum(map(len, self._blocks.values()))
        for part, blocks in self._blocks.items():
            self._blocks[part] = [block for block in blocks if not block.is_free]
        return sum(map(len, self._blocks.values())) < before

    def __getstate__(self) -> dict[str, Any]:
        return {"_keep": self._keep, "_blocks": {}, "private": BufferPool()}

    def block_of(self, buffer: pa.Buffer) -> tuple[Block, int] | None:
        """Return the block that a buffer is in and where, or None if in none."""
        for blocks in self._blocks.values():
            for block in blocks:
                offset = int(buffer.address) - block.address
                if 0 <= offset < len(block.memory):
                    return block, offset
        return None


def received_values(block: torch.Tensor) -> Array:
    """Return the values in a block; once the array is gone the block is free."""
    return lent_from(block, _HEAD)


def looked_into(block: Array) -> Array:
    """Return a block's bytes, whose slices keep the block.

    A slice of the array itself would outlive it: its base is what the array is of.
    """
    looked: Array = torch.from_numpy(block).numpy()
    return looked


def lent_from(block: torch.Tensor, start: int) -> Array:
    """Return a block's bytes from one on; once they are gone the block is free."""
    flag = block.numpy()[:1]
    lent = block.numpy()[start:]
    weakref.finalize(lent, flag.fill, 0).atexit = False
    return lent


def _not_shared(size: int, error: Exception) -> WorkerError:
    try:
        free = f" of which {shutil.disk_usage(SHARED_MEMORY).free >> 20} MB are free"
    except OSError:  # not Linux
        free = ""
    full = os.strerror(errno.ENOSPC) in str(error)
    kind = SharedMemoryFullError if full else WorkerError
    return kind(
        f"a worker needs {-(-size >> 20)} MB more of shared memory,{free} "
        f"({error}): give the container more (docker run --shm-size=8g), or use "
        "num_workers=0, fewer workers, a smaller batch_size, or functions that return "
        "smaller batches"
    )
