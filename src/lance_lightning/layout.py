"""How Arrow columns lie in a window: in place, or as they were read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa

from lance_lightning.types import Array


class Layout:
    """A fixed-width type taken apart: list levels outside, a primitive inside."""

    def __init__(self, lists: list[pa.DataType], leaf: pa.DataType) -> None:
        self.lists = lists
        self.leaf = leaf
        self.per_row = [1]  # values per row at each level, the leaf's last
        for type_ in lists:
            self.per_row.append(self.per_row[-1] * type_.list_size)
        self.row_bytes = self.per_row[-1] * leaf.byte_width

    @staticmethod
    def of(type_: pa.DataType) -> Layout | None:
        """Return the layout, or None for a type of another kind."""
        if isinstance(type_, pa.BaseExtensionType):
            type_ = type_.storage_type
        lists = []
        while pa.types.is_fixed_size_list(type_):
            if type_.list_size == 0:
                return None
            lists.append(type_)
            type_ = type_.value_type
        fixed = (
            pa.types.is_integer(type_)
            or pa.types.is_floating(type_)
            or pa.types.is_temporal(type_)
            or pa.types.is_decimal(type_)
            or pa.types.is_fixed_size_binary(type_)
        )
        if not fixed or type_.byte_width == 0:
            return None
        return Layout(lists, type_)

    def array(
        self,
        type_: pa.DataType,
        rows: int,
        data: pa.Buffer,
        bitmaps: Sequence[pa.Buffer | None],
    ) -> pa.Array:
        """Return the values in a buffer, as an array of a type of this layout.

        Args:
            type_: The type.
            rows: How many.
            data: The leaf's values.
            bitmaps: Which are valid at each level, the leaf's last; None is all.
        """
        array = pa.Array.from_buffers(
            self.leaf, rows * self.per_row[-1], [bitmaps[-1], data]
        )
        for level in range(len(self.lists) - 1, -1, -1):
            array = pa.Array.from_buffers(
                self.lists[level],
                rows * self.per_row[level],
                [bitmaps[level]],
                children=[array],
            )
        if isinstance(type_, pa.BaseExtensionType):
            array = type_.wrap_array(array)
        return array


@dataclass(frozen=True, slots=True)
class Unordered:
    """Rows of which only the columns of fixed width are in order.

    The others lie as they were read and are put in order with each batch: that takes
    no second copy of the window.

    Args:
        batch: The rows.
        others: The numbers of the columns that are not in order: of those that have no
            `Layout`.
        order: Where these have each row, int64 of shape (rows,).
    """

    batch: pa.RecordBatch
    others: Collection[int]
    order: Array

    @property
    def num_rows(self) -> int:
        """Rows of the window."""
        return int(self.batch.num_rows)

    @property
    def schema(self) -> pa.Schema:
        """What the columns are."""
        return self.batch.schema

    def slice(self, start: int, length: int) -> pa.RecordBatch:
        """Return rows from ``start`` on, in order."""
        order = self.order[start : start + length]
        arrays = [
            taken(column, order)
            if number in self.others
            else column.slice(start, length)
            for number, column in enumerate(self.batch.columns)
        ]
        return batch_of(arrays, self.batch.schema)


def ordered(rows: pa.RecordBatch | Unordered) -> pa.RecordBatch:
    """Return the rows of a window in order."""
    return rows.slice(0, rows.num_rows) if isinstance(rows, Unordered) else rows


def taken(array: pa.Array, rows: Array) -> pa.Array:
    """Return rows of an array; Arrow has no take for extension types."""
    if isinstance(array, pa.ExtensionArray):
        return array.type.wrap_array(array.storage.take(pa.array(rows)))
    return array.take(pa.array(rows))


def copied(array: pa.Array) -> pa.Array:
    """Return an array in memory of its own."""
    return pa.concat_arrays([array, array.slice(len(array))])


def batch_of(arrays: list[pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    """Return arrays as a batch, by their own types: a dictionary's may be wider."""
    for at, array in enumerate(arrays):
        if array.type != schema.field(at).type:
            schema = schema.set(at, schema.field(at).with_type(array.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
