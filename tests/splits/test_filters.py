"""Splits of the rows that a filter keeps."""

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning.sources.lance import LanceSource
from lance_lightning.splits.building import build_plans
from lance_lightning.splits.specs import (
    AllRows,
    CalculatedSplit,
    HashSplit,
    RandomSplit,
)
from tests.helpers.split_tables import ids_by_split, ids_of, pinned, rows


def test_all_rows_without_a_filter_are_a_range_and_touch_no_cache(base, tmp_path):
    plans = build_plans(AllRows(), pinned(base), None, tmp_path / "cache")
    assert ids_by_split(plans, pinned(base)) == {
        "train": [i for i in range(1200) if i % 11 != 3]
    }
    assert plans["train"].is_range
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("index", ["BTREE", "BITMAP", "ZONEMAP"])
@pytest.mark.parametrize("storage", ["legacy", "stable"])
def test_filter_keeps_its_rows_whatever_index_the_storage_has(tmp_path, storage, index):
    kinds = [None if i % 10 == 9 else f"k{i % 4}" for i in range(90)]
    table = pa.table({"id": range(90), "kind": kinds, "other": range(90)})
    uri = str(tmp_path / "rows.lance")
    options = {"max_rows_per_file": 30, "data_storage_version": storage}
    dataset = lance.write_dataset(table, uri, **options)
    dataset.create_scalar_index("kind", index)
    dataset.delete("id = 13")
    lance.write_dataset(table.slice(0, 9), uri, mode="append")  # no part of the index
    snapshot = LanceSource(uri).resolve(tmp_path)
    rows = snapshot.open().to_table()
    for sql in ("kind = 'k1'", "kind in ('k1', 'k2') and other > 5", "kind is null"):
        kept = rows.filter(lance.dataset(uri).to_table(columns={"k": sql})["k"])
        plan = build_plans(AllRows(), snapshot, sql, tmp_path)["train"]
        found = rows.take(plan.offsets(np.arange(plan.num_rows)))
        assert found["id"].to_pylist() == kept["id"].to_pylist()
    if storage == "legacy" and index == "BTREE":  # columns are read along
        split = HashSplit({"a": 1, "b": 1}, columns=["id"])
        sql = "kind in ('k1', 'k2') and other > 5"
        both = build_plans(split, snapshot, sql, tmp_path).values()
        assert (
            sum(plan.num_rows for plan in both)
            == rows.filter(
                snapshot.open().to_table(columns={"k": sql}, use_scalar_index=False)[
                    "k"
                ]
            ).num_rows
        )


@pytest.mark.parametrize("stable", [False, True], ids=["row addresses", "stable ids"])
def test_filter_keeps_its_rows_whatever_happened_to_the_fragments(tmp_path, stable):
    uri = tmp_path / "t.lance"
    for first in range(0, 1000, 200):
        mode = "append" if first else "create"
        data = rows(first, first + 200)
        lance.write_dataset(data, uri, mode=mode, enable_stable_row_ids=stable)

    def check():
        snapshot = LanceSource(uri).resolve(tmp_path)
        for filter in ("id % 7 < 3", "id > 450 and id < 900", "name = 'n7'"):
            plan = build_plans(AllRows(), snapshot, filter, tmp_path)["train"]
            kept = snapshot.open().to_table(columns=["id"], filter=filter)["id"]
            assert ids_of(plan, snapshot) == kept.to_pylist()

    check()
    lance.dataset(uri).delete("id % 10 = 4")
    lance.dataset(uri).delete("id >= 400 and id < 600")  # a whole fragment
    check()
    lance.dataset(uri).update({"fold": "fold + 1"}, where="id % 6 = 1")
    check()
    lance.dataset(uri).create_scalar_index("id", "BTREE")
    lance.write_dataset(rows(2000, 2050), uri, mode="append")
    check()
    lance.dataset(uri).optimize.compact_files(target_rows_per_fragment=300)
    numbers = [f.fragment_id for f in lance.dataset(uri).get_fragments()]
    assert numbers[0] > 0, "compaction must have renumbered the fragments"
    check()


@pytest.mark.parametrize(
    "spec",
    [
        AllRows(),
        RandomSplit({"train": 0.9, "val": 0.1}),
        HashSplit({"train": 9, "val": 1}, ["id"]),
        CalculatedSplit("fold", ["train", "val"]),
    ],
    ids=lambda spec: type(spec).__name__,
)
def test_filter_that_keeps_no_row_gives_empty_splits(base, tmp_path, spec):
    plans = build_plans(spec, pinned(base), "id < 0", tmp_path)
    assert {name: plan.num_rows for name, plan in plans.items()} == dict.fromkeys(
        spec.split_names, 0
    )
