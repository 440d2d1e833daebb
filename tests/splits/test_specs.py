"""What a spec takes, and what does not fit a table."""

import json
import pickle

import pytest
from lancedb.permutation import permutation_builder

from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.splits.building import build_plans
from lance_lightning.splits.specs import (
    AllRows,
    CalculatedSplit,
    HashSplit,
    RandomSplit,
    SequentialSplit,
)
from tests.helpers.split_tables import pinned


def test_none_removes_a_split():
    spec = RandomSplit({"train": 0.9, "val": 0.1, "test": None})
    assert spec.split_names == ("train", "val")
    assert RandomSplit({"train": 0.9, "val": 0.1}) == spec
    counts = SequentialSplit(counts={"train": 9, "val": None})
    assert counts.split_names == ("train",)
    assert HashSplit({"train": 9, "val": None}, ["id"]).split_names == ("train",)


def test_fixed_takes_names_or_a_number():
    assert RandomSplit(fixed=["a", "b"]).split_names == ("a", "b")
    assert SequentialSplit(fixed=2).split_names == ("split_0", "split_1")


def test_every_argument_is_part_of_the_key_and_so_is_the_order_of_the_splits():
    specs = [
        AllRows(),
        AllRows("val"),
        RandomSplit({"train": 0.8, "val": 0.2}),
        RandomSplit({"val": 0.2, "train": 0.8}),
        RandomSplit({"train": 0.8, "val": 0.1}),
        RandomSplit({"train": 0.8, "val": 0.2}, seed=1),
        RandomSplit({"train": 0.8, "val": 0.2}, clump_size=8),
        RandomSplit(counts={"train": 8, "val": 2}),
        RandomSplit(fixed=["train", "val"]),
        SequentialSplit({"train": 0.8, "val": 0.2}),
        HashSplit({"train": 8, "val": 2}, ["id"]),
        HashSplit({"train": 8, "val": 2}, ["id", "fold"]),
        HashSplit({"train": 8, "val": 2}, ["id"], discard_weight=1),
        CalculatedSplit("fold", ["train", "val"]),
        CalculatedSplit("fold", ["val", "train"]),
        CalculatedSplit("fold + 1", ["val", "train"]),
    ]
    keys = {json.dumps(spec.key(), sort_keys=True) for spec in specs}
    assert len(keys) == len(specs)
    for spec in specs:
        assert pickle.loads(pickle.dumps(spec)) == spec


def test_ratios_that_sum_to_one_but_for_rounding_are_taken(base, tmp_path):
    shares = {"train": 0.33, "val": 0.56, "test": 0.11}
    builder = permutation_builder(base).split_sequential(ratios=[*shares.values()])
    with pytest.raises(ValueError, match=r"must sum to 1\.0 or less"):
        builder.execute()
    plans = build_plans(SequentialSplit(shares), pinned(base), None, tmp_path)
    assert [plan.num_rows for plan in plans.values()] == [360, 611, 120]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomSplit(), "takes one of ratios, counts and fixed, got none"),
        (
            lambda: RandomSplit({"train": 1}, counts={"train": 3}),
            "got ratios and counts.*`ratios: null`",
        ),
        (
            lambda: RandomSplit({"train": 0.9, "val": 0.1, "test": 0.1}),
            "sum to 1.1 .*train=0.9, val=0.1, test=0.1. Hydra merges .*null removes",
        ),
        (lambda: SequentialSplit({"train": 0.9, "val": 0}), "of 'val' must be above 0"),
        (lambda: RandomSplit({"train": -0.1}), "'train' must be above 0 .*train=-0.1"),
        (lambda: RandomSplit({"train": float("nan")}), "'train' must be above 0"),
        (
            lambda: RandomSplit({"train": "abc"}),
            "of 'train' must be a number, got 'abc'",
        ),
        (lambda: RandomSplit({"train": True}), "must be a number, got True"),
        (lambda: RandomSplit({"train": None}), "leaves no split"),
        (lambda: RandomSplit([0.9, 0.1]), "ratios must map split names to shares"),
        (lambda: RandomSplit({"": 0.9}), "text that is not empty, got ''"),
        (lambda: RandomSplit({0: 0.9}), "text that is not empty, got 0"),
        (lambda: RandomSplit(counts={"train": 0}), "at least 1, got 0; null removes"),
        (lambda: RandomSplit(counts={"train": 1.5}), "must be an integer, got 1.5"),
        (lambda: RandomSplit(fixed=0), "fixed must be at least 1, got 0"),
        (lambda: RandomSplit(fixed=True), "fixed must be an integer, got True"),
        (lambda: RandomSplit(fixed=1.5), "fixed must be an integer, got 1.5"),
        (lambda: RandomSplit(fixed="abc"), "fixed must be a list of names, got 'abc'"),
        (lambda: RandomSplit(fixed=[]), "fixed is empty"),
        (lambda: RandomSplit(fixed=["a", "a"]), r"once, twice: \['a'\]"),
        (lambda: RandomSplit({"a": 1}, clump_size=0), "clump_size must be at least 1"),
        (lambda: RandomSplit({"a": 1}, seed=-1), "seed must be at least 0, got -1"),
        (lambda: RandomSplit({"a": 1}, seed=2**64), r"seed must be below 2\*\*64"),
        (lambda: RandomSplit({"a": 1}, seed="x"), "seed must be an integer, got 'x'"),
        (lambda: HashSplit({"a": 1.5}, ["id"]), "'a' must be an integer, got 1.5"),
        (lambda: HashSplit({"a": -1}, ["id"]), "'a' must be at least 1, got -1"),
        (lambda: HashSplit({"a": 0}, ["id"]), "'a' must be at least 1, got 0; null"),
        (lambda: HashSplit({"a": 2**63}, ["id"]), r"less than 2\*\*63"),
        (
            lambda: HashSplit({"a": 1}, "id"),
            "columns must be a list of names, got 'id'",
        ),
        (lambda: HashSplit({"a": 1}, []), "columns is empty"),
        (lambda: HashSplit({"a": 1}, ["id", "id"]), "columns must hold each name once"),
        (lambda: HashSplit({"a": 1}, ["id"], discard_weight=-1), "discard_weight must"),
        (lambda: CalculatedSplit("", ["a"]), "calculation must be a SQL expression"),
        (lambda: CalculatedSplit("fold", []), "split_names is empty"),
        (lambda: CalculatedSplit("fold", "train"), "list of names, got 'train'"),
        (lambda: AllRows(""), "text that is not empty"),
        (lambda: AllRows(3), "text that is not empty, got 3"),
    ],
)
def test_bad_arguments_are_refused_at_construction(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("spec", "filter", "error", "message"),
    [
        ("random", None, ConfigError, "splits must be one of AllRows.*got 'random'"),
        (AllRows(), "nope > 3", SourceError, "nope.*columns there are: 'id', 'box'"),
        (AllRows(), "id >", SourceError, "filter 'id >'"),
        (AllRows(), "id", SourceError, "filter 'id'"),
        (AllRows(), 3, ConfigError, "filter must be a SQL expression.*got 3"),
        (
            RandomSplit(counts={"train": 1000, "val": 100}),
            None,
            ConfigError,
            r"1100 rows \(train=1000, val=100\), but there are 1091.*Hydra merges",
        ),
        (
            SequentialSplit({"train": 0.9, "val": 0.0001}),
            None,
            ConfigError,
            r"1091 rows give less than one to each of the splits \['val'\]",
        ),
        (RandomSplit(fixed=2000), None, ConfigError, "1091 rows give less than one"),
        (
            HashSplit({"train": 1}, ["nme"]),
            None,
            SourceError,
            "unknown column 'nme'.*did you mean 'name'.*columns there are: 'id', 'box'",
        ),
        (CalculatedSplit("nope", ["a"]), None, SourceError, "'nope'.*'id', 'box'"),
        (CalculatedSplit("id +", ["a"]), None, SourceError, r"calculation 'id \+'"),
        (CalculatedSplit("id, fold", ["a"]), None, SourceError, "'id, fold'"),
        (CalculatedSplit("random()", ["a"]), None, SourceError, "another value"),
        (
            CalculatedSplit("cast(random() * id as bigint)", ["a"]),
            None,
            SourceError,
            "another value",
        ),
        (
            CalculatedSplit("id / 2.5", ["a"]),
            None,
            SourceError,
            "calculation 'id / 2.5'",
        ),
        (
            CalculatedSplit("cast(id as double)", ["a"]),
            None,
            ConfigError,
            "gives double.*whole number.*bigint",
        ),
        (CalculatedSplit("id > 3", ["a", "b"]), None, ConfigError, "gives bool"),
        (CalculatedSplit("id % 3 - 1", ["a"]), None, ConfigError, "gives -1, so no"),
    ],
)
def test_what_does_not_fit_the_table_is_refused(
    base, tmp_path, spec, filter, error, message
):
    with pytest.raises(error, match=message):
        build_plans(spec, pinned(base), filter, tmp_path)
    assert not list(tmp_path.glob("plans/*/meta.json"))
