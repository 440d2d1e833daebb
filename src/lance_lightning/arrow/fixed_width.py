"""How Arrow columns are stored in a window: in place, or as they were read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa


class FixedWidth:
    """A fixed-width type taken apart: list levels outside, a primitive inside."""

    def __init__(self, lists: list[pa.DataType], leaf: pa.DataType) -> None:
        self.lists = lists
        self.leaf = leaf
        self.per_row = [1]  # values per row at each level, the leaf's last
        for type_ in lists:
            self.per_row.append(self.per_row[-1] * type_.list_size)
        self.row_bytes = self.per_row[-1] * leaf.byte_width

    @staticmethod
    def of(type_: pa.DataType) -> FixedWidth | None:
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
        return FixedWidth(lists, type_)

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
