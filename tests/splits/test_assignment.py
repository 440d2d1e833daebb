"""Splits have the rows that LanceDB's own builder gives them."""

import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.permutation import permutation_builder

from lance_lightning.errors import ConfigError
from lance_lightning.splits import assignment
from lance_lightning.splits.builder_request import builder_sizes
from lance_lightning.splits.building import build_plans
from lance_lightning.splits.specs import (
    CalculatedSplit,
    SequentialSplit,
)
from lance_lightning.splits.split_sizes import split_sizes
from tests.helpers.split_tables import (
    CASES,
    ids_by_split,
    ids_of_permutation,
    pinned,
    rows,
)


@pytest.mark.parametrize("case", CASES)
def test_same_rows_as_lancedb_on_fragments_with_deletions(base, cache, case):
    spec, filter, configure = CASES[case]
    snapshot = pinned(base)
    plans = build_plans(spec, snapshot, filter, cache)

    builder = configure(permutation_builder(base))
    found = (builder.filter(filter) if filter else builder).execute().to_arrow()
    expected = ids_of_permutation(found, base, len(spec.split_names))

    assert tuple(plans) == spec.split_names
    assert all(plan.sorted for plan in plans.values())
    mine = ids_by_split(plans, snapshot)
    assert list(mine.values()) == [sorted(ids) for ids in expected]
    assert all(mine.values())
    everyone = [i for ids in mine.values() for i in ids]
    assert len(set(everyone)) == len(everyone), "splits must be disjoint"


@pytest.mark.parametrize("case", ["random", "sequential", "hash of several columns"])
def test_splits_whose_shares_sum_to_one_cover_the_table(base, cache, case):
    spec, _, _ = CASES[case]
    plans = build_plans(spec, pinned(base), None, cache)
    assert sum(plan.num_rows for plan in plans.values()) == base.count_rows() == 1091


def test_sequential_splits_are_ranges_without_a_file(base, cache):
    plans = build_plans(CASES["sequential"][0], pinned(base), None, cache)
    assert [(p.is_range, p.start, p.num_rows) for p in plans.values()] == [
        (True, 0, 873),
        (True, 873, 218),
    ]


@hypothesis.settings(
    max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)
@hypothesis.given(
    count=st.integers(1, 40),
    weights=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    rest=st.integers(0, 3),
    kind=st.sampled_from(["ratios", "counts", "fixed"]),
)
def test_sequential_splits_have_the_sizes_that_lancedb_gives(
    tmp_path_factory, count, weights, rest, kind
):
    names = [f"s{i}" for i in range(len(weights))]
    total = sum(weights) + rest
    given = {
        "ratios": [weight / total for weight in weights],
        "counts": [max(1, weight * count // total) for weight in weights],
        "fixed": names,
    }[kind]
    if kind != "fixed":
        given = dict(zip(names, given, strict=True))
    spec = SequentialSplit(**{kind: given})
    asked = builder_sizes(spec)
    table = lancedb.connect("memory://").create_table("t", rows(0, count))
    builder = permutation_builder(table).split_sequential(**asked)
    try:
        found = builder.execute().to_arrow()
    except ValueError:  # less than a row to a split
        with pytest.raises(ConfigError):
            assignment._check_sizes(spec, count)
        return
    assignment._check_sizes(spec, count)
    of_rows = found["split_id"].to_numpy().astype(np.int64)
    expected = np.bincount(of_rows, minlength=len(weights))
    assert split_sizes(spec, count) == expected.tolist()
    assert found["row_id"].to_pylist() == list(range(sum(expected)))


def test_sequential_and_calculated_splits_need_no_lancedb(tmp_path):
    code = """
import sys
sys.modules["lancedb"] = None
import pyarrow as pa
from pathlib import Path
from lance_lightning import ArrowSource, CalculatedSplit, SequentialSplit
from lance_lightning.splits import build_plans
cache = Path(sys.argv[1])
snapshot = ArrowSource(pa.table({"id": range(100)})).resolve(cache)
for spec in (
    SequentialSplit({"a": 0.8, "b": 0.2}), CalculatedSplit("id % 4", ["a", "b"])
):
    for filter in (None, "id > 10"):
        plans = build_plans(spec, snapshot, filter, cache)
        print(*(plan.num_rows for plan in plans.values()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["80 20", "71 18", "25 25", "22 22"]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int64(), pa.uint64()])
def test_a_calculation_of_any_whole_numbers_is_as_lancedb_has_it(tmp_path, kind):
    table = lancedb.connect(tmp_path).create_table(
        "t", pa.table({"id": range(6), "fold": pa.array([0, 1, None, 2, 3, 100], kind)})
    )
    for count in (1, 3, 300):
        spec = CalculatedSplit("fold", [f"s{i}" for i in range(count)])
        plans = build_plans(spec, pinned(table), None, tmp_path)
        found = permutation_builder(table).split_calculated("fold").execute().to_arrow()
        expected = ids_of_permutation(found, table, count)
        assert list(ids_by_split(plans, pinned(table)).values()) == expected
