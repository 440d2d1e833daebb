"""Batches of any kind: their size, and their way to a device."""

import dataclasses
from collections import OrderedDict, defaultdict, namedtuple
from types import MappingProxyType

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from lance_lightning.formats.batches import batch_size_of, is_leaf, move
from lance_lightning.formats.format import Format
from lance_lightning.types import OUTPUT_FORMATS
from tests.helpers.any_schema import BY_COLUMN, STACKED, held, plain, record_batch

Point = namedtuple("Point", ["x", "name"])


@dataclasses.dataclass(frozen=True)
class Pair:
    left: torch.Tensor
    right: object


def test_move_reaches_every_tensor_and_nothing_else():
    one = torch.ones(2)
    frame, table = pd.DataFrame({"x": [1]}), pa.table({"x": [1]})
    array = np.array(["a"], object)
    batch = {
        "tensor": one,
        "list": [one, "text", None],
        "tuple": (one, b"bytes"),
        "named": Point(one, "p"),
        "pair": Pair(one, [one]),
        "leaves": [frame, table, array, pl.DataFrame({"x": [1]}), 1, 2.0],
        "ordered": OrderedDict(a=one),
        "default": defaultdict(list, a=one),
        "frozen": MappingProxyType({"a": one}),
    }
    moved = move(batch, lambda tensor: tensor + 1)
    two = [2.0, 2.0]
    assert moved["tensor"].tolist() == two
    assert plain(moved["list"]) == [two, "text", None]
    assert isinstance(moved["tuple"], tuple)
    assert moved["named"].name == "p"
    assert moved["named"].x.tolist() == two
    assert moved["pair"].left.tolist() == moved["pair"].right[0].tolist() == two
    assert all(a is b for a, b in zip(moved["leaves"], batch["leaves"], strict=True))
    assert type(moved["ordered"]) is OrderedDict
    assert moved["default"].default_factory is list
    for name in ("ordered", "default", "frozen"):
        assert moved[name]["a"].tolist() == two
    assert one.tolist() == [1.0, 1.0]


def test_move_hands_on_what_moves_itself():
    packed = pack_sequence([torch.ones(3), torch.ones(2)])
    seen = []
    move({"p": packed}, lambda value: seen.append(value) or value)
    assert seen == [packed]


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_move_walks_windows_of_every_format(name):
    table = {"x": [1, 2], "y": [3, 4]}
    if name in BY_COLUMN:
        table.update(r=[[1], [2, 3]], s=["a", "b"])
    format = Format(name)
    window = format.convert(record_batch(table))
    moved = move(window, torch.clone)
    found = held(name, format.slice(moved, 0, 2)) if name not in STACKED else None
    expected = format.slice(window, 0, 2)
    assert found == (held(name, expected) if name not in STACKED else None)
    if name in STACKED:
        assert format.slice(moved, 0, 2).equal(expected)
        assert format.rows(moved, 1, 2) == [{"x": 2, "y": 4}]


LEAF_VALUES = ["s", b"b", 1, None, np.zeros(2), np.float32(1), pa.array([1])]
LEAF_VALUES += [pd.DataFrame(), pd.Series([1]), pl.DataFrame(), pl.Series([1])]


@pytest.mark.parametrize("value", LEAF_VALUES, ids=lambda v: type(v).__name__)
def test_leaves(value):
    assert is_leaf(value)


@pytest.mark.parametrize("value", [torch.ones(1), {}, [], (), Point(1, 2), object()])
def test_no_leaves(value):
    assert not is_leaf(value)


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.zeros(3, 5), 3),
        (np.zeros((4, 2)), 4),
        (pa.record_batch({"a": [1, 2]}), 2),
        (pa.table({"a": [1, 2]}), 2),
        (pd.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]}), 3),
        (pl.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]}), 3),
        ({"s": "word", "x": torch.zeros(5, 2)}, 5),
        ({"s": ["ab", "cdefg"]}, 2),
        ({"s": [b"ab", b"cdefg"]}, 2),
        ({"inner": {"x": torch.zeros(2)}}, 2),
        ({"ragged": [torch.zeros(7), torch.zeros(1)], "y": torch.zeros(2)}, 2),
        ({"ragged": [torch.zeros(7), torch.zeros(1), torch.zeros(1)]}, 3),
        ({"places": [torch.zeros(2)] * 9, "y": torch.zeros(2)}, 2),
        ({"loss": torch.tensor(1.0), "y": torch.zeros(2)}, 2),
        ((torch.zeros(6, 2), torch.zeros(6)), 6),
        ([torch.zeros(6, 2), torch.zeros(6)], 6),
        (Point(torch.zeros(6, 2), "x"), 6),
        ([{"x": torch.zeros(9)}] * 4, 4),
        (["long text", "b"], 2),
        ("text", None),
        (b"bytes", None),
        (torch.tensor(1.0), None),
        ({}, None),
        (None, None),
        (object(), None),
    ],
)
def test_batch_size_of(batch, size):
    assert batch_size_of(batch) == size


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_num_rows_of_every_format(name):
    table = {"v": pa.array([[1.0] * 5] * 3, pa.list_(pa.float32(), 5))}
    if name not in STACKED:
        table["s"] = ["abcd"] * 3
    format = Format(name)
    window = format.convert(record_batch(table))
    for rows in (0, 1, 3):
        batch = format.slice(window, 0, rows)
        assert format.num_rows(batch) == rows
        if name not in ("torch_col", "python"):
            assert batch_size_of(batch) == rows
