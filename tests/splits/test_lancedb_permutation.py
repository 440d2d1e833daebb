"""LanceDB's own Permutation of a split."""

from pathlib import Path

import lance
import pytest
from lancedb.permutation import Permutation

from lance_lightning.errors import ConfigError
from lance_lightning.sources.database import LanceDBSource
from lance_lightning.sources.lance import LanceSource
from lance_lightning.splits.building import build_plans
from lance_lightning.splits.lancedb_permutation import permutation_of
from lance_lightning.splits.specs import (
    AllRows,
    PermutationSplit,
)
from tests.helpers.split_tables import (
    FILTER,
    ids_by_split,
    ids_of,
    make_table,
    pinned,
    rows,
    shuffled,
)


def test_permutation_of_gives_the_plans_rows_at_the_pinned_version(tmp_path):
    table = make_table(tmp_path)
    snapshot = pinned(table)
    spec = PermutationSplit(shuffled(table))
    plans = build_plans(spec, snapshot, FILTER, tmp_path / "cache")
    expected = ids_by_split(plans, snapshot)
    table.add(rows(5000, 5100))
    table.delete("id < 100")
    for name, plan in plans.items():
        found = permutation_of(plan, snapshot)
        assert isinstance(found, Permutation)
        assert found.num_rows == plan.num_rows
        some = [plan.num_rows - 1, 0, 3]
        read = [row["id"] for row in found.__getitems__(some)]
        assert read == [expected[name][i] for i in some]
        batches = found.with_format("arrow").iter(100)
        assert [i for b in batches for i in b["id"].to_pylist()] == expected[name]


def test_permutation_of_a_range_and_of_a_database_table(base, tmp_path):
    snapshot = LanceDBSource(str(Path(base.to_lance().uri).parent), "base").resolve(
        tmp_path
    )
    plan = build_plans(AllRows("test"), snapshot, None, tmp_path)["test"]
    found = permutation_of(plan, snapshot)
    assert [row["id"] for row in found.__getitems__([3, 1090])] == [4, 1199]
    assert found.num_rows == 1091


def test_permutation_of_a_branch_reads_the_branch(tmp_path):
    table = make_table(tmp_path)
    branch = table.branches.create("wide")
    branch.delete("id < 1000")
    source = LanceSource(table.to_lance().uri, branch="wide")
    snapshot = source.resolve(tmp_path)
    plan = build_plans(AllRows(), snapshot, None, tmp_path)["train"]
    branch.delete("id > 1100")
    found = permutation_of(plan, snapshot)
    ids = [row["id"] for row in found.__getitems__(list(range(plan.num_rows)))]
    assert ids == ids_of(plan, snapshot)
    assert (ids[0], ids[-1]) == (1000, 1199)


def test_permutation_of_says_when_lancedb_cannot_open_the_folder(tmp_path):
    lance.write_dataset(rows(0, 10), tmp_path / "plain")
    snapshot = LanceSource(tmp_path / "plain").resolve(tmp_path)
    plan = build_plans(AllRows(), snapshot, None, tmp_path)["train"]
    with pytest.raises(ConfigError, match=r"ends in '\.lance'.*plain"):
        permutation_of(plan, snapshot)


def test_permutation_of_an_empty_split_is_one_clear_error(base, tmp_path):
    plan = build_plans(AllRows(), pinned(base), "id < 0", tmp_path)["train"]
    with pytest.raises(ConfigError, match="split 'train' has no row"):
        permutation_of(plan, pinned(base))
