"""Lists of any length, padded, flat or apart."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from lance.arrow import bfloat16_array

from lance_lightning.columns.column import ColumnOptions, Nulls, Padding
from lance_lightning.columns.converted import (
    convert_columns,
    rows_of_columns,
    slice_columns,
)
from lance_lightning.columns.planning import plan_columns
from lance_lightning.errors import ConfigError, DataError
from tests.helpers.arrays import MASK, convert

LISTS = [pa.list_(pa.int32()), pa.large_list(pa.int32())]


class TestLists:
    ROWS = ([9], [1, 2, 3], [], [4], [5, 6], [7])

    def window(self, arrow_type=LISTS[0], rows=ROWS, **options):
        options = ColumnOptions(**{"target": "torch", **options})
        array = pa.array(rows, arrow_type).slice(1)
        columns = plan_columns([pa.field("x", arrow_type)], lambda _: options)
        return convert_columns(columns, [array])

    @pytest.mark.parametrize("arrow_type", LISTS, ids=str)
    @pytest.mark.parametrize("target", ["torch", "numpy"])
    def test_padded_to_the_longest_of_the_batch(self, arrow_type, target):
        window = self.window(arrow_type, target=target)
        out = slice_columns(window, 0, 5)
        assert out["x"].tolist() == [
            [1, 2, 3],
            [0, 0, 0],
            [4, 0, 0],
            [5, 6, 0],
            [7, 0, 0],
        ]
        assert out["x_lengths"].tolist() == [3, 0, 1, 2, 1]
        assert str(out["x"].dtype).endswith("int32")
        out = slice_columns(window, 1, 3)
        assert out["x"].tolist() == [[0], [4]]
        assert slice_columns(window, 1, 2)["x"].shape == (1, 0)
        assert slice_columns(window, 2, 2)["x"].shape == (0, 0)

    def test_values_and_offsets(self):
        out = slice_columns(self.window(ragged="values_offsets"), 1, 4)
        assert out["x"].tolist() == [4, 5, 6]
        assert out["x_offsets"].tolist() == [0, 0, 1, 3]

    def test_a_list_of_tensors(self):
        out = slice_columns(self.window(ragged="list"), 0, 3)
        assert [value.tolist() for value in out["x"]] == [[1, 2, 3], [], [4]]
        assert all(value.dtype == torch.int32 for value in out["x"])

    @pytest.mark.parametrize("ragged", ["pad", "values_offsets", "list"])
    def test_rows_are_as_long_as_in_the_table(self, ragged):
        rows = rows_of_columns(self.window(ragged=ragged), 0, 2)
        assert [row["x"].tolist() for row in rows] == [[1, 2, 3], []]

    def test_lists_of_vectors(self):
        inner = pa.list_(pa.list_(pa.float32(), 2))
        out = slice_columns(self.window(inner, [[], [[1, 2]], [[3, 4], [5, 6]]]), 0, 2)
        assert out["x"].tolist() == [[[1, 2], [0, 0]], [[3, 4], [5, 6]]]

    def test_nulls_of_lists(self):
        rows = [[0], [1, None], None, [4]]
        with pytest.raises(DataError, match="column 'x' has 1 nulls"):
            self.window(rows=rows)
        with pytest.raises(DataError, match="column 'x' has 1 nulls"):
            self.window(rows=[[0], [1, None]])
        out = slice_columns(self.window(rows=rows, nulls=MASK), 0, 3)
        assert out["x"].tolist() == [[1, 0], [0, 0], [4, 0]]
        assert out["x_mask"].tolist() == [[True, False], [False, False], [True, False]]
        assert out["x_lengths"].tolist() == [2, 0, 1]

    def test_numbers_under_a_null_list_are_no_values(self):
        offsets = pa.array([0, 2, 4, 5], pa.int32())
        array = pa.ListArray.from_arrays(
            offsets, pa.array(range(5)), mask=pa.array([False, True, False])
        )
        out = convert(array, nulls=Nulls("fill", 0), ragged="values_offsets")
        assert out["x"].tolist() == [0, 1, 4]
        assert out["x_offsets"].tolist() == [0, 2, 2, 3]

    @pytest.mark.parametrize(
        ("padding", "expected"),
        [
            (Padding(-1), [[1, 2, 3], [-1, -1, -1], [4, -1, -1]]),
            (Padding(multiple=4), [[1, 2, 3, 0], [0] * 4, [4, 0, 0, 0]]),
            (Padding(7, 2), [[1, 2, 3, 7], [7] * 4, [4, 7, 7, 7]]),
        ],
    )
    @pytest.mark.parametrize("target", ["torch", "numpy"])
    def test_padding_has_a_value_and_a_multiple(self, target, padding, expected):
        window = self.window(target=target, padding=padding)
        out = slice_columns(window, 0, 3)
        assert out["x"].tolist() == expected
        assert out["x_lengths"].tolist() == [3, 0, 1]
        assert str(out["x"].dtype).endswith("int32")

    def test_padding_under_a_mask_is_not_valid(self):
        window = self.window(nulls=MASK, padding=Padding(9))
        out = slice_columns(window, 1, 4)
        assert out["x"].tolist() == [[9, 9], [4, 9], [5, 6]]
        assert out["x_mask"].tolist() == [[False] * 2, [True, False], [True] * 2]

    @pytest.mark.parametrize(
        ("arrow_type", "value", "rows"),
        [
            (pa.list_(pa.bool_()), True, [[], [False]]),
            (pa.list_(pa.float16()), -1.5, [[], [np.float16(1)]]),
            (pa.list_(pa.list_(pa.float32(), 2)), 0.5, [[], [[1, 2]]]),
        ],
        ids=str,
    )
    def test_padding_is_of_the_columns_dtype(self, arrow_type, value, rows):
        window = self.window(arrow_type, [[], *rows], padding=Padding(value))
        out = slice_columns(window, 0, 2)["x"]
        assert out[0].flatten().tolist() == [value] * out[0].numel()

    def test_padding_of_bfloat16(self):
        offsets = pa.array([0, 0, 1], pa.int32())
        array = pa.ListArray.from_arrays(offsets, bfloat16_array([2.5]))
        out = convert(array, padding=Padding(-1.0))["x"]
        assert out.dtype == torch.bfloat16
        assert out.tolist() == [[-1.0], [2.5]]

    @pytest.mark.parametrize("value", [1.5, "a", 2**40, True])
    def test_a_padding_value_of_another_type_is_refused(self, value):
        with pytest.raises(ConfigError, match="ragged pads column 'x' with"):
            self.window(padding=Padding(value))

    def test_nested_tensors(self):
        window = self.window(rows=[[0], [1, None], None, [4], [5, 6]], nulls=MASK)
        out = slice_columns(self.window(ragged="nested"), 0, 4)
        assert set(out) == {"x"}
        assert out["x"].layout == torch.jagged
        assert out["x"].dtype == torch.int32
        assert [row.tolist() for row in out["x"].unbind()] == [
            [1, 2, 3],
            [],
            [4],
            [5, 6],
        ]
        out = slice_columns(self.window(ragged="nested"), 2, 4)
        assert [row.tolist() for row in out["x"].unbind()] == [[4], [5, 6]]
        window = self.window(rows=[[0], [1, None], None], nulls=MASK, ragged="nested")
        out = slice_columns(window, 0, 2)
        assert [row.tolist() for row in out["x_mask"].unbind()] == [[True, False], []]

    @pytest.mark.parametrize("view", [pa.list_view, pa.large_list_view])
    @pytest.mark.parametrize("target", ["torch", "numpy"])
    def test_list_views_are_lists(self, view, target):
        rows = [[9], [1, 2], [], [3], [9]]
        array = pa.array(rows, view(pa.int64())).slice(1, 3)
        out = convert(array, target=target, ragged="values_offsets")
        assert out["x"].tolist() == [1, 2, 3]
        assert out["x_offsets"].tolist() == [0, 2, 2, 3]
