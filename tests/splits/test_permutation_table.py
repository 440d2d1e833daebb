"""Splits out of LanceDB's permutation tables."""

import pickle

import lance
import lancedb
import pyarrow as pa
import pytest

from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.sources.arrow import ArrowSource
from lance_lightning.sources.lance import LanceSource
from lance_lightning.splits.building import build_plans
from lance_lightning.splits.specs import (
    PermutationSplit,
)
from tests.helpers.split_tables import (
    FILTER,
    ids_by_split,
    ids_of,
    ids_of_permutation,
    make_table,
    pinned,
    rows,
    shuffled,
)


def test_permutation_table_keeps_its_order_from_wherever_it_is(base, tmp_path):
    table = shuffled(base)
    found = table.to_arrow()
    expected = ids_of_permutation(found, base, 2)
    uri = tmp_path / "permutation.lance"
    lance.write_dataset(found, uri)
    digests = set()
    for given in (table, found, str(uri), uri):
        spec = pickle.loads(pickle.dumps(PermutationSplit(given)))
        assert spec.split_names == ("train", "val")
        plans = build_plans(spec, pinned(base), None, tmp_path)
        assert list(ids_by_split(plans, pinned(base)).values()) == expected
        assert not any(plan.sorted for plan in plans.values())
        digests.add(spec.key()["digest"])
    assert len(digests) == 1
    assert len(list((tmp_path / "plans").glob("*/meta.json"))) == 1


def test_filter_thins_a_permutation_out_in_its_order(base, tmp_path):
    found = shuffled(base).to_arrow()
    expected = [
        [i for i in ids if i % 3 != 1] for ids in ids_of_permutation(found, base, 2)
    ]
    plans = build_plans(PermutationSplit(found), pinned(base), FILTER, tmp_path)
    assert list(ids_by_split(plans, pinned(base)).values()) == expected


def test_splits_of_a_permutation_can_be_named(base, tmp_path):
    found = shuffled(base, names=None).to_arrow()
    assert PermutationSplit(found).split_names == ("split_0", "split_1")
    spec = PermutationSplit(found, split_names=["train"])
    plans = build_plans(spec, pinned(base), None, tmp_path)
    (expected, _) = ids_of_permutation(found, base, 2)
    assert ids_by_split(plans, pinned(base)) == {"train": expected}


def test_stable_row_ids_are_found_where_the_rows_are_now(tmp_path):
    uri = tmp_path / "t.lance"
    data = rows(0, 300)
    lance.write_dataset(data, uri, max_rows_per_file=100, enable_stable_row_ids=True)
    lance.dataset(uri).delete("id < 50")
    lance.dataset(uri).optimize.compact_files()
    table = lancedb.connect(tmp_path).open_table("t")
    found = shuffled(table).to_arrow()
    expected = ids_of_permutation(found, table, 2)
    plans = build_plans(PermutationSplit(found), pinned(table), None, tmp_path)
    assert list(ids_by_split(plans, pinned(table)).values()) == expected


def test_permutation_of_another_version_is_refused_with_the_remedy(tmp_path):
    table = make_table(tmp_path)
    found = shuffled(table).to_arrow()
    version = table.version
    expected = ids_of_permutation(found, table, 2)
    lance.dataset(table.to_lance().uri).create_scalar_index("id", "BTREE")
    table.checkout_latest()
    assert table.version > version  # the same fragments: the same row ids
    plans = build_plans(PermutationSplit(found), pinned(table), None, tmp_path)
    assert list(ids_by_split(plans, pinned(table)).values()) == expected

    table.add(rows(5000, 5010))
    with pytest.raises(SourceError, match=f"give the source version={version}"):
        build_plans(PermutationSplit(found), pinned(table), None, tmp_path)
    snapshot = LanceSource(table.to_lance().uri, version=version).resolve(tmp_path)
    plans = build_plans(PermutationSplit(found), snapshot, None, tmp_path)
    assert list(ids_by_split(plans, snapshot).values()) == expected


def test_permutation_of_an_in_memory_table_serves_its_copy(tmp_path):
    table = lancedb.connect("memory://").create_table("t", rows(0, 200))
    found = shuffled(table).to_arrow()
    snapshot = ArrowSource(table).resolve(tmp_path)
    plans = build_plans(PermutationSplit(found), snapshot, None, tmp_path)
    there = found.filter(pa.compute.equal(found["split_id"], 1))["row_id"].to_pylist()
    assert ids_of(plans["val"], snapshot) == there


def test_row_ids_that_are_not_in_the_table_are_counted(base, tmp_path):
    found = shuffled(base).to_arrow().replace_schema_metadata(None)
    gone = found.set_column(
        0,
        "row_id",
        pa.array([*range(2**40, 2**40 + 7), *found["row_id"].to_numpy()[7:]]),
    )
    with pytest.raises(SourceError, match=f"7 of the 1091 row ids .*first: {2**40}"):
        build_plans(PermutationSplit(gone), pinned(base), None, tmp_path)


def test_row_that_comes_twice_in_a_permutation_is_refused(base, tmp_path):
    found = shuffled(base).to_arrow()
    twice = pa.concat_tables([found, found.slice(0, 3)])
    with pytest.raises(ConfigError, match="3 row ids come more than once"):
        build_plans(PermutationSplit(twice), pinned(base), None, tmp_path)


def test_permutation_dataset_that_changed_meanwhile_is_refused(base, tmp_path):
    uri = tmp_path / "permutation.lance"
    lance.write_dataset(shuffled(base).to_arrow(), uri)
    spec = PermutationSplit(uri)
    lance.dataset(uri).delete("split_id = 1")
    with pytest.raises(SourceError, match="has changed"):
        build_plans(spec, pinned(base), None, tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"a": [1]}), "columns 'row_id' and 'split_id'"),
        (
            pa.table({"row_id": [0.5], "split_id": [0]}),
            "must hold integers, got double",
        ),
        (pa.table({"row_id": [None, 1], "split_id": [0, 0]}), "1 nulls"),
        (17, "columns 'row_id' and 'split_id'.*int"),
    ],
)
def test_what_is_no_permutation_table_is_refused(table, message):
    with pytest.raises(ConfigError, match=message):
        PermutationSplit(table)
