"""Windows on their way from a worker to the main process, in shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch

from lance_lightning.arrow import FixedWidth
from lance_lightning.loading.held_blocks import Held
from lance_lightning.loading.shared_pool import (
    STREAMS,
    Block,
    SharedPool,
    lent_from,
    looked_into,
)
from lance_lightning.reading import Pool, memories, padded
from lance_lightning.types import Array


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a column is.

    Args:
        block: The number of its block.
        start: Its first byte there.
        size: Its bytes.
        streamed: They are an Arrow IPC stream; else the values as they are.
        shared: Other columns are in the block too.
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
        places: Where each column is in it.
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
        layout = FixedWidth.of(type_)
        assert layout is not None
        return layout.array(type_, self._rows, data, [None] * len(layout.per_row))


def _received(
    schema: pa.Schema,
    rows: int,
    blocks: Sequence[torch.Tensor],
    places: Sequence[_Place],
) -> PackedBatch:
    """Rebuild a batch in the main process; the last to drop it frees the blocks."""
    return PackedBatch(schema, rows, [lent_from(block, 0) for block in blocks], places)


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

    block: Block
    start: int
    size: int
    streamed: bool


def _values_in(column: pa.Array, pool: SharedPool) -> _Part | None:
    """Return where in shared memory a column is, if it has nothing but values."""
    layout = FixedWidth.of(column.type)
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
    lent = memories(sizes, pool, STREAMS)
    for column, (memory, buffer) in zip(columns, lent, strict=True):
        _write(column, pa.FixedSizeBufferWriter(pa.py_buffer(memory)))
        found = pool.block_of(buffer)
        assert found is not None
        parts.append(_Part(*found, buffer.size, streamed=True))
    return parts


def _write(batch: pa.RecordBatch, sink: Any) -> None:
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
