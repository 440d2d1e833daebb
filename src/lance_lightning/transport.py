"""Windows on their way from a worker to the main process, in shared memory."""

from __future__ import annotations

import contextlib
import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lance_lightning.gather import ALIGNMENT, BufferPool, Pool, memories, padded
from lance_lightning.held_blocks import SHARED_MEMORY, Held
from lance_lightning.layout import Layout
from lance_lightning.types import WorkerError

Array = np.ndarray[Any, Any]

_HEAD = ALIGNMENT  # its first byte says whether the main process looks at the block
# A block is an open file in both processes. The largest columns of a window have one
# each; the others share one, and the main process copies them out of it.
_OWN_BLOCKS = 4
_OWN_SHARE = 16  # a column of less than this part of all bytes shares
_SHARED = _OWN_BLOCKS  # the part of a window that columns share
_STREAMS = _OWN_BLOCKS + 1  # the first part of those that are Arrow IPC
_STEPS = 8  # sizes a power of two is cut in: blocks of about a size are used again


class _Block:
    """Memory that both processes see.

    Args:
        size: Bytes, at least.
        is_shared: Whether several columns may lie in it.

    Raises:
        WorkerError: There is no more shared memory, or no more file descriptors.
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
        return len(self.memory) - _HEAD

    @property
    def values(self) -> Array:
        """The bytes of a message's values."""
        return self.memory[_HEAD:]

    @property
    def is_free(self) -> bool:
        return not self.is_lent and not self.memory[0]

    def give_back(self) -> None:
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
        self._blocks: dict[int, list[_Block]] = {}
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
    def blocks(self, sizes: Sequence[int]) -> Iterator[list[_Block]]:
        """Give blocks to write to and send; they come back if that raises.

        Otherwise they do when the main process has dropped what it was sent.
        """
        taken: list[_Block] = []
        try:
            for part, size in enumerate(sizes):
                taken.append(self._free_block(size, part))
                taken[-1].memory[0] = 1
            yield taken
        except BaseException:
            for block in taken:
                block.memory[0] = 0
            raise

    def _free_block(self, size: int, part: int) -> _Block:
        step = 1 << max(0, (size - 1).bit_length() - _STEPS.bit_length() + 1)
        size = -(-size // step) * step
        blocks = self._blocks.get(part, [])
        for block in blocks:
            if size <= block.size <= 2 * size and block.is_free:
                return block
        # Free ones of other sizes would take up shared memory for nothing.
        used = [block for block in blocks if not block.is_free]
        block = _Block(size, part % _STREAMS == _SHARED)
        self._blocks[part] = [*used, block][-self._keep :]
        return block

    def __getstate__(self) -> dict[str, Any]:
        return {"_keep": self._keep, "_blocks": {}, "private": BufferPool()}

    def block_of(self, buffer: pa.Buffer) -> tuple[_Block, int] | None:
        """Return the block that a buffer lies in and where, or None if in none."""
        for blocks in self._blocks.values():
            for block in blocks:
                offset = int(buffer.address) - block.address
                if 0 <= offset < len(block.memory):
                    return block, offset
        return None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a column lies.

    Args:
        block: The number of its block.
        start: Its first byte there.
        size: Its bytes.
        streamed: They are an Arrow IPC stream; else the values as they are.
        shared: Other columns lie in the block too.
    """

    block: int
    start: int
    size: int
    streamed: bool
    shared: bool


class PackedBatch:
    """A record batch in shared memory; it is pickled in a few KB.

    Args:
        schema: Of the batch.
        rows: Rows of the batch.
        blocks: The memory: tensors where it is sent or pinned, arrays once received.
        places: Where each column lies in it.
    """

    def __init__(
        self,
        schema: pa.Schema,
        rows: int,
        blocks: Sequence[Array | torch.Tensor],
        places: Sequence[_Place],
    ) -> None:
        self._schema = schema
        self._rows = rows
        self._blocks = blocks
        self._places = places

    def __reduce__(self) -> Any:
        return _received, (self._schema, self._rows, self._blocks, self._places)

    def pin_memory(self) -> PackedBatch:
        """Return a copy in pinned memory; torch's pinning thread calls this."""
        blocks: list[torch.Tensor] = []
        places: list[_Place] = []
        for place in self._places:
            column = self._memory(place)
            places.append(replace(place, block=len(blocks), start=0, shared=False))
            blocks.append(torch.from_numpy(column).pin_memory())
        return PackedBatch(self._schema, self._rows, blocks, places)

    def unpack(self, pool: Pool, held: Held) -> pa.RecordBatch:
        """Return the batch: a column with a block of its own without a copy.

        One that shares its block is copied out: what is kept of it would keep the
        others, and their shared memory. So is one of a block that is one too many.

        Args:
            pool: Where the memory of the copies comes from.
            held: The blocks that are looked into.
        """
        columns = []
        for number, place in enumerate(self._places):
            memory = self._memory(place)
            data = pa.py_buffer(memory)
            if place.shared or not self._may_look_into(place, held):
                copy, data = pool.take(place.size, number)
                copy[:] = memory
            columns.append(self._column(self._schema.types[number], data, place))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _memory(self, place: _Place) -> Array:
        block = self._blocks[place.block]
        if isinstance(block, torch.Tensor):
            memory = block.numpy()
        else:
            memory = looked_into(block)
        return memory[place.start : place.start + place.size]

    def _may_look_into(self, place: _Place, held: Held) -> bool:
        block = self._blocks[place.block]
        return isinstance(block, torch.Tensor) or held.take(block)

    def _column(self, type_: pa.DataType, data: pa.Buffer, place: _Place) -> pa.Array:
        if place.streamed:
            return pa.ipc.open_stream(data).read_next_batch().column(0)
        layout = Layout.of(type_)
        assert layout is not None
        return layout.array(type_, self._rows, data, [None] * len(layout.per_row))


def _received(
    schema: pa.Schema,
    rows: int,
    blocks: Sequence[torch.Tensor],
    places: Sequence[_Place],
) -> PackedBatch:
    """Rebuild a batch in the main process; the last to drop it frees the blocks."""
    return PackedBatch(schema, rows, [_lent(block, 0) for block in blocks], places)


def received_values(block: torch.Tensor) -> Array:
    """Return the values in a block; once the array is gone the block is free."""
    return _lent(block, _HEAD)


def looked_into(block: Array) -> Array:
    """Return a block's bytes, whose slices keep the block.

    A slice of the array itself would outlive it: its base is what the array is of.
    """
    looked: Array = torch.from_numpy(block).numpy()
    return looked


def _lent(block: torch.Tensor, start: int) -> Array:
    flag = block.numpy()[:1]
    lent = block.numpy()[start:]
    weakref.finalize(lent, flag.fill, 0).atexit = False
    return lent


def pack(batch: pa.RecordBatch, pool: SharedPool) -> PackedBatch:
    """Return a batch so that it crosses without a copy where its memory is shared.

    Args:
        batch: Rows, of memory of the pool or of any other.
        pool: The worker's.
    """
    found = [_values_in(column, pool) for column in batch.columns]
    others = [number for number, part in enumerate(found) if part is None]
    for number, written in zip(others, _streamed(batch, others, pool), strict=True):
        found[number] = written
    numbers: dict[int, int] = {}  # of the blocks, by their address
    blocks: list[torch.Tensor] = []
    places = []
    for part in found:
        assert part is not None
        address = part.block.tensor.data_ptr()
        if address not in numbers:
            numbers[address] = len(blocks)
            blocks.append(part.block.tensor)
            part.block.memory[0] = 1  # now: torch pickles it later, on another thread
        places.append(
            _Place(
                numbers[address],
                part.start,
                part.size,
                part.streamed,
                part.block.is_shared,
            )
        )
    return PackedBatch(batch.schema, batch.num_rows, blocks, places)


@dataclass(frozen=True, slots=True)
class _Part:
    """A column in a block: as `_Place` has it, with the block itself."""

    block: _Block
    start: int
    size: int
    streamed: bool


def _values_in(column: pa.Array, pool: SharedPool) -> _Part | None:
    """Return where in shared memory a column lies, if it has nothing but values."""
    layout = Layout.of(column.type)
    if column.offset or not len(column) or layout is None:
        return None
    *bitmaps, data = column.buffers()
    if any(bitmap is not None for bitmap in bitmaps):
        return None
    found = pool.block_of(data)
    if found is None:
        return None
    return _Part(*found, len(column) * layout.row_bytes, streamed=False)


def _streamed(
    batch: pa.RecordBatch, numbers: Sequence[int], pool: SharedPool
) -> list[_Part]:
    """Return an Arrow IPC stream of each of some columns, in blocks of the pool."""
    columns = [batch.select([number]) for number in numbers]
    sizes = []
    for column in columns:
        counter = pa.MockOutputStream()
        _write(column, counter)
        sizes.append(padded(counter.size()))
    parts = []
    lent = memories(sizes, pool, _STREAMS)
    for column, (memory, buffer) in zip(columns, lent, strict=True):
        _write(column, pa.FixedSizeBufferWriter(pa.py_buffer(memory)))
        found = pool.block_of(buffer)
        assert found is not None
        parts.append(_Part(*found, buffer.size, streamed=True))
    return parts


def _write(batch: pa.RecordBatch, sink: Any) -> None:
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _not_shared(size: int, error: Exception) -> WorkerError:
    try:
        free = f" of which {shutil.disk_usage(SHARED_MEMORY).free >> 20} MB are free"
    except OSError:  # not Linux
        free = ""
    return WorkerError(
        f"a worker needs {-(-size >> 20)} MB more of shared memory,{free} "
        f"({error}): give the container more (docker run --shm-size=8g), or use "
        "num_workers=0, fewer workers, a smaller batch_size, or functions that return "
        "smaller batches"
    )
