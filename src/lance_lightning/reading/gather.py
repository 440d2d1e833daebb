"""Rows of Arrow pieces written straight to their final places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lance_lightning.arrow import (
    FixedWidth,
    UnorderedRows,
    batch_of,
    concatenated,
    copied,
    empty_array,
    take_rows,
)
from lance_lightning.errors import DataError
from lance_lightning.reading.memory import MUCH_BYTES, BufferPool, Pool, padded
from lance_lightning.types import Array

Places = slice | Array


class RowGather:
    """Collects sorted pieces of a window in the window's own order.

    Columns of fixed width are scattered into one buffer each, so that a piece's
    memory can be used again for the next piece; others are kept as they were read.

    Args:
        rows: Rows of the window.
        pool: Where its memory comes from.
    """

    def __init__(self, rows: int, pool: Pool) -> None:
        self._rows = rows
        self._pool = pool
        self._schema: pa.Schema | None = None
        self._columns: list[_Column] = []
        self._others: set[int] = set()  # the numbers of those that are not in order
        self._order = np.empty(rows, dtype=np.int64)  # where they have each row
        self._seen = 0
        self._in_order = True

    def put(self, piece: pa.Table, places: Places, rows: Array | None = None) -> None:
        """Take in a piece.

        Args:
            piece: Rows as they were read.
            places: Row i belongs at ``places[i]`` of the window.
            rows: Which rows of the piece are meant, sorted; None is all.
        """
        if self._schema is None:
            self._schema = piece.schema
            self._columns = _columns(piece.schema, self._rows, self._pool)
            columns = enumerate(self._columns)
            self._others = {n for n, each in columns if not isinstance(each, _Fixed)}
        count = len(piece) if rows is None else len(rows)
        if self._others:
            self._order[places] = np.arange(self._seen, self._seen + count)
        self._seen += count
        self._in_order = self._in_order and isinstance(places, slice)
        for column, chunked in zip(self._columns, piece.columns, strict=True):
            start = done = 0
            for chunk in chunked.chunks:
                if rows is None:
                    count, own = len(chunk), None
                else:
                    until = int(np.searchsorted(rows, start + len(chunk)))
                    own = rows[done:until] - start
                    count = until - done
                if count:
                    column.put(chunk, part_of(places, done, count), own)
                done += count
                start += len(chunk)

    def finish(self) -> pa.RecordBatch | UnorderedRows:
        """Return the window."""
        assert self._schema is not None
        batch = batch_of([column.finish() for column in self._columns], self._schema)
        if self._in_order or not self._others:
            return batch
        return UnorderedRows(batch, self._others, self._order)


def part_of(places: Places, start: int, count: int) -> Places:
    """Return ``count`` of the places, from ``start`` on."""
    if isinstance(places, slice):
        return slice(places.start + start, places.start + start + count)
    return places[start : start + count]


def _columns(schema: pa.Schema, rows: int, pool: Pool) -> list[_Column]:
    """Return what collects each column."""
    layouts = [FixedWidth.of(type_) for type_ in schema.types]
    sizes = [padded(rows * layout.row_bytes) for layout in layouts if layout]
    memory_of = iter(memories(sizes, pool))
    columns: list[_Column] = []
    for number, (type_, layout) in enumerate(zip(schema.types, layouts, strict=True)):
        if layout is None:
            width = _value_bytes(type_)
            private = pool.private, number
            other = _Staged(type_, width, rows, *private) if width else None
            columns.append(other or _Variable(type_))
        else:
            memory, buffer = next(memory_of)
            size = rows * layout.row_bytes
            own = memory[:size], buffer.slice(0, size)
            columns.append(_Fixed(type_, layout, rows, *own))
    return columns


def memories(
    sizes: Sequence[int], pool: Pool, first: int = 0
) -> list[tuple[Array, pa.Buffer]]:
    """Return memory for columns, parted as the pool has it.

    Args:
        sizes: Bytes of each column, `padded`.
        pool: Where the memory comes from.
        first: Added to the numbers of the parts.
    """
    parts = pool.parts(sizes)
    totals: dict[int, int] = {}
    starts = []
    for size, part in zip(sizes, parts, strict=True):
        starts.append(totals.get(part, 0))
        totals[part] = starts[-1] + size
    lent = {part: pool.take(total, first + part) for part, total in totals.items()}
    found = []
    for size, part, start in zip(sizes, parts, starts, strict=True):
        memory, buffer = lent[part]
        found.append((memory[start : start + size], buffer.slice(start, size)))
    return found


class _Fixed:
    """A fixed-width column: its rows are blocks of bytes in one buffer."""

    def __init__(
        self,
        type_: pa.DataType,
        layout: FixedWidth,
        rows: int,
        memory: Array,
        buffer: pa.Buffer,
    ) -> None:
        self._type = type_
        self._layout = layout
        self._rows = rows
        self._buffer = buffer
        # One void item a row: numpy moves it with one memcpy, a third faster than
        # a row of numbers.
        self._values = memory.view(np.dtype((np.void, layout.row_bytes)))
        self._valid: list[Array | None] = [None] * len(layout.per_row)

    def put(self, chunk: pa.Array, places: Places, rows: Array | None) -> None:
        if isinstance(chunk, pa.ExtensionArray):
            chunk = chunk.storage
        for level, per_row in enumerate(self._layout.per_row):
            if chunk.null_count:
                self._mark(level, chunk, places, rows, per_row)
            if level < len(self._layout.lists):
                # ``values`` knows no offset, and ``flatten`` leaves null lists out.
                size = self._layout.lists[level].list_size
                chunk = chunk.values.slice(chunk.offset * size, len(chunk) * size)
        width = self._layout.row_bytes // self._layout.per_row[-1]
        data = np.frombuffer(chunk.buffers()[1], dtype=np.uint8)
        data = data[chunk.offset * width : (chunk.offset + len(chunk)) * width]
        values = data.view(self._values.dtype)
        self._values[places] = values if rows is None else values[rows]

    def _mark(
        self,
        level: int,
        chunk: pa.Array,
        places: Places,
        rows: Array | None,
        per_row: int,
    ) -> None:
        valid = self._valid[level]
        if valid is None:
            valid = self._valid[level] = np.ones((self._rows, per_row), dtype=bool)
        found = chunk.is_valid().to_numpy(zero_copy_only=False).reshape(-1, per_row)
        valid[places] = found if rows is None else found[rows]

    def finish(self) -> pa.Array:
        bitmaps = [None if valid is None else _bitmap(valid) for valid in self._valid]
        return self._layout.array(self._type, self._rows, self._buffer, bitmaps)


def _bitmap(valid: Array) -> pa.Buffer:
    return pa.py_buffer(np.packbits(valid.ravel(), bitorder="little"))


class _Variable:
    """A column of any other type: its pieces, end to end."""

    def __init__(self, type_: pa.DataType) -> None:
        self._type = type_
        self.chunks: list[pa.Array] = []

    def put(self, chunk: pa.Array, places: Places, rows: Array | None) -> None:
        # A copy: Lance may hold the piece's other columns in the same memory.
        self.chunks.append(copied(chunk) if rows is None else take_rows(chunk, rows))

    def finish(self) -> pa.Array:
        return concatenated(self.chunks) if self.chunks else empty_array(self._type)


def _value_bytes(type_: pa.DataType) -> int:
    """Return the bytes of a value of text, bytes or lists of numbers; 0 for others."""
    if _is_text(type_):
        return 1
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        layout = FixedWidth.of(type_.value_type)
        plain = not isinstance(type_.value_type, pa.BaseExtensionType)
        if layout is not None and plain and not layout.lists:
            return int(layout.row_bytes)
    return 0


def _is_text(type_: pa.DataType) -> bool:
    return type_ in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())


class _Staged:
    """A column of text, bytes or lists of numbers.

    Its values are copied end to end into one buffer that is used again from window to
    window, so that a piece's memory can serve the next piece.
    """

    def __init__(
        self,
        type_: pa.DataType,
        width: int,
        rows: int,
        pool: BufferPool,
        number: int,
    ) -> None:
        self._type = type_
        self._width = width
        self._rows = rows
        self._pool = pool
        self._number = number
        is_large = pa.types.is_large_string(type_) or pa.types.is_large_binary(type_)
        is_large = is_large or pa.types.is_large_list(type_)
        self._offset = np.dtype(np.int64 if is_large else np.int32)
        self._ends = np.zeros(rows + 1, dtype=np.int64)  # in values
        self._valid: Array | None = None
        self._seen = 0
        self._memory = pool.largest(number)
        self._others: _Variable | None = None  # from the first list with nulls inside

    def put(self, chunk: pa.Array, places: Places, rows: Array | None) -> None:
        if rows is not None:
            chunk = take_rows(chunk, rows)
        data = chunk
        if not _is_text(self._type):
            data = chunk.values
            if self._others is None and data.null_count:
                self._others = _Variable(self._type)
                self._others.chunks += [self._array()] if self._seen else []
        if self._others is not None:
            self._others.put(chunk, places, None)
            return
        count, buffers = len(chunk), chunk.buffers()
        offsets = np.frombuffer(buffers[1], dtype=self._offset)
        offsets = offsets[chunk.offset : chunk.offset + count + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        if last > first:
            # A list's values may be a slice of a buffer; text starts at its buffer.
            skip = first + (0 if data is chunk else data.offset)
            values = np.frombuffer(data.buffers()[-1], dtype=np.uint8)
            values = values[skip * self._width :][: (last - first) * self._width]
            self._append(values, count)
        if chunk.null_count:
            if self._valid is None:
                self._valid = np.ones(self._rows, dtype=bool)
            valid = chunk.is_valid().to_numpy(zero_copy_only=False)
            self._valid[self._seen : self._seen + count] = valid
        ends = self._ends[self._seen] - first + offsets[1:].astype(np.int64)
        self._ends[self._seen + 1 : self._seen + 1 + count] = ends
        self._seen += count

    def _append(self, values: Array, rows: int) -> None:
        done = int(self._ends[self._seen]) * self._width
        need = done + len(values)
        if need > len(self._memory):
            # What the rows so far make likely, in steps, so that buffers fit again.
            likely = need * self._rows // (self._seen + rows)
            likely = min(likely, max(2 * need, MUCH_BYTES))
            step = 1 << max(16, likely.bit_length() - 3)
            size = -(-likely // step) * step
            if done:  # in place, where the pages can be mapped elsewhere
                self._memory.resize(size, refcheck=False)  # nobody looks at it yet
            else:
                self._memory = np.empty(size, dtype=np.uint8)
        self._memory[done:need] = values

    def _array(self) -> pa.Array:
        """Return the rows so far, in the order in which they came."""
        most = int(self._ends[self._seen])
        if most >= 1 << (8 * self._offset.itemsize - 1):
            raise DataError(
                f"a window has {most} values of type {self._type}, more than the type "
                "can hold in one array: store the column as its large type, or use a "
                "smaller batch_size"
            )
        ends = self._ends[: self._seen + 1].astype(self._offset)
        valid = None
        if self._valid is not None:
            valid = _bitmap(self._valid[: self._seen])
        data = self._pool.lend(self._memory, most * self._width, self._number)
        if _is_text(self._type):
            buffers = [valid, pa.py_buffer(ends), data]
            return pa.Array.from_buffers(self._type, self._seen, buffers)
        values = pa.Array.from_buffers(self._type.value_type, most, [None, data])
        return pa.Array.from_buffers(
            self._type, self._seen, [valid, pa.py_buffer(ends)], children=[values]
        )

    def finish(self) -> pa.Array:
        return self._array() if self._others is None else self._others.finish()


_Column = _Fixed | _Staged | _Variable
