"""Windows on their way from a worker to the main process, in shared memory."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lance_lightning.gather import ALIGNMENT, PRIVATE, BufferPool
from lance_lightning.layout import Layout

Array = np.ndarray[Any, Any]

_HEAD = ALIGNMENT  # its first byte says whether the main process looks at the block
_STEPS = 8  # sizes a power of two is cut in: blocks of about a size are used again


class _Block:
    """Memory that both processes see.

    Args:
        size: Bytes, at least.
    """

    def __init__(self, size: int) -> None:
        self.tensor = torch.empty(_HEAD + size, dtype=torch.uint8)
        self.tensor.untyped_storage().share_memory_()
        self.memory: Array = self.tensor.numpy()
        self.memory[0] = 0
        self.is_lent = False
        self.address = int(self.tensor.data_ptr())

    @property
    def size(self) -> int:
        return len(self.memory) - _HEAD

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
        keep: How many blocks are kept.
    """

    def __init__(self, keep: int = 8) -> None:
        self._keep = keep
        self._blocks: list[_Block] = []
        self.private = BufferPool(PRIVATE)

    def take(self, size: int) -> tuple[Array, pa.Buffer]:
        """Return ``size`` bytes to write to, and the same bytes for Arrow.

        They come back to the pool when Arrow's buffer, with every array made of
        it, is gone; if they were sent, when that is so in the main process too.
        """
        block = self._free_block(size)
        block.is_lent = True
        lent = block.memory[_HEAD : _HEAD + size]
        weakref.finalize(lent, block.give_back)
        return block.memory[_HEAD : _HEAD + size], pa.py_buffer(lent)

    def _free_block(self, size: int) -> _Block:
        step = 1 << max(0, (size - 1).bit_length() - _STEPS.bit_length() + 1)
        size = -(-size // step) * step
        for block in self._blocks:
            if size <= block.size <= 2 * size and block.is_free:
                return block
        # Free ones of other sizes would take up shared memory for nothing.
        self._blocks = [block for block in self._blocks if not block.is_free]
        block = _Block(size)
        self._blocks = [*self._blocks, block][-self._keep :]
        return block

    def __getstate__(self) -> dict[str, Any]:
        return {"_keep": self._keep, "_blocks": [], "private": BufferPool(PRIVATE)}

    def place_of(self, buffer: pa.Buffer) -> tuple[torch.Tensor, int] | None:
        """Return the block that a buffer lies in and where, or None if in none."""
        for block in self._blocks:
            offset = int(buffer.address) - block.address
            if 0 <= offset < len(block.memory):
                return block.tensor, offset
        return None


class PackedBatch:
    """A record batch in shared memory; it is pickled in a few KB.

    Args:
        schema: Of the batch.
        rows: Rows of the batch.
        blocks: The memory: rows of fixed-width columns as they are, others as an
            Arrow IPC stream.
        places: Where in the first block a column's values begin, by its number.
    """

    def __init__(
        self,
        schema: pa.Schema,
        rows: int,
        blocks: list[torch.Tensor],
        places: Mapping[int, int],
    ) -> None:
        self._schema = schema
        self._rows = rows
        self._blocks = blocks
        self._places = dict(places)

    def __reduce__(self) -> Any:
        return _received, (self._schema, self._rows, self._blocks, self._places)

    def pin_memory(self) -> PackedBatch:
        """Return a copy in pinned memory; torch's pinning thread calls this."""
        blocks = [block.pin_memory() for block in self._blocks]
        return PackedBatch(self._schema, self._rows, blocks, self._places)

    def unpack(self) -> pa.RecordBatch:
        """Return the batch, without a copy."""
        blocks = [pa.py_buffer(block.numpy()) for block in self._blocks]
        columns: list[pa.Array] = [None] * len(self._schema)
        for number, start in self._places.items():
            type_ = self._schema.types[number]
            layout = Layout.of(type_)
            assert layout is not None
            data = blocks[0].slice(start, self._rows * layout.row_bytes)
            bitmaps = [None] * len(layout.per_row)
            columns[number] = layout.array(type_, self._rows, data, bitmaps)
        if len(self._places) < len(columns):
            others = pa.ipc.open_stream(blocks[-1].slice(_HEAD)).read_next_batch()
            rest = iter(others.columns)
            columns = [next(rest) if each is None else each for each in columns]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def _received(
    schema: pa.Schema, rows: int, blocks: list[torch.Tensor], places: dict[int, int]
) -> PackedBatch:
    """Rebuild a batch in the main process; the last to drop it frees the blocks."""
    mine = [_watched(block) for block in blocks]
    return PackedBatch(schema, rows, mine, places)


def _watched(block: torch.Tensor) -> torch.Tensor:
    """Return a block that says so when nothing looks at it any more."""
    flag = block.numpy()[:1]
    lent = block.numpy()[:]
    weakref.finalize(lent, flag.fill, 0).atexit = False
    return torch.from_numpy(lent)


def pack(batch: pa.RecordBatch, pool: SharedPool) -> PackedBatch:
    """Return a batch so that it crosses without a copy where its memory is shared.

    Args:
        batch: Rows, of memory of the pool or of any other.
        pool: The worker's.
    """
    places: dict[int, int] = {}
    blocks: list[torch.Tensor] = []
    for number, column in enumerate(batch.columns):
        found = _place_of(column, pool)
        if found is not None:
            blocks, places[number] = [found[0]], found[1]
    others = [number for number in range(batch.num_columns) if number not in places]
    if others:
        blocks.append(_stream(batch.select(others), pool))
    for block in blocks:
        block[0] = 1  # now: torch pickles it later, on another thread
    return PackedBatch(batch.schema, batch.num_rows, blocks, places)


def _place_of(column: pa.Array, pool: SharedPool) -> tuple[torch.Tensor, int] | None:
    """Return where in shared memory a column lies, if it has nothing but values."""
    if column.offset or not len(column) or Layout.of(column.type) is None:
        return None
    *bitmaps, data = column.buffers()
    if any(bitmap is not None for bitmap in bitmaps):
        return None
    return pool.place_of(data)


def _stream(batch: pa.RecordBatch, pool: SharedPool) -> torch.Tensor:
    """Return an Arrow IPC stream of a batch in a block of the pool."""
    counter = pa.MockOutputStream()
    with pa.ipc.new_stream(counter, batch.schema) as writer:
        writer.write_batch(batch)
    _, buffer = pool.take(counter.size())
    found = pool.place_of(buffer)
    assert found is not None
    with pa.ipc.new_stream(pa.FixedSizeBufferWriter(buffer), batch.schema) as writer:
        writer.write_batch(batch)
    return found[0]
