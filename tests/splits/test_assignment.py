"""Splits are LanceDB's own, disjoint, built once, and the same for every process."""

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.permutation import Permutation, permutation_builder

from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.frozen import replace
from lance_lightning.sources.arrow import ArrowSource
from lance_lightning.sources.database import LanceDBSource
from lance_lightning.sources.lance import LanceSource
from lance_lightning.splits import assignment, progress_bar
from lance_lightning.splits import builder as _builder
from lance_lightning.splits.builder_request import builder_sizes
from lance_lightning.splits.building import build_plans
from lance_lightning.splits.lancedb_permutation import permutation_of
from lance_lightning.splits.specs import (
    AllRows,
    CalculatedSplit,
    HashSplit,
    PermutationSplit,
    RandomSplit,
    SequentialSplit,
)
from lance_lightning.splits.split_sizes import split_sizes

FILTER = "id % 3 != 1"


def rows(start, stop):
    ids = range(start, stop)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "box": pa.array([{"left": i % 97} for i in ids]),
            "name": pa.array([f"n{i // 3}" for i in ids]).dictionary_encode(),
            "fold": pa.array([None if i % 5 == 0 else i % 4 for i in ids], pa.int8()),
        }
    )


def make_table(folder, name="base", **options):
    """Return a LanceDB table of 1,091 rows in three fragments, with deletions."""
    table = lancedb.connect(folder).create_table(name, rows(0, 500), **options)
    table.add(rows(500, 800))
    table.add(rows(800, 1200))
    table.delete("id % 11 = 3")
    return table


def pinned(table):
    return LanceSource(table.to_lance().uri).resolve(Path())


def ids_of(plan, snapshot):
    """Return the ids of a plan's rows, in its order."""
    there = snapshot.open().to_table(columns=["id"])["id"].to_numpy()
    return there[plan.offsets(np.arange(plan.num_rows))].tolist()


def ids_by_split(plans, snapshot):
    return {name: ids_of(plan, snapshot) for name, plan in plans.items()}


def ids_of_permutation(found, table, count):
    """Return the ids of each split of a permutation table, in its order."""
    there = table.to_lance().to_table(columns=["id", "_rowid"])
    id_of = dict(zip(there["_rowid"].to_pylist(), there["id"].to_pylist(), strict=True))
    pairs = list(
        zip(found["row_id"].to_pylist(), found["split_id"].to_pylist(), strict=True)
    )
    return [[id_of[row] for row, of in pairs if of == i] for i in range(count)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_table(tmp_path_factory.mktemp("db"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


# -- the same rows as LanceDB's own builder ------------------------------------

CASES = {
    "random": (
        RandomSplit({"train": 0.7, "val": 0.2, "test": 0.1}, seed=3),
        None,
        lambda b: b.split_random(ratios=[0.7, 0.2, 0.1], seed=3),
    ),
    "random clumps, filtered": (
        RandomSplit(counts={"train": 500, "val": 100}, clump_size=10, seed=4),
        FILTER,
        lambda b: b.split_random(counts=[500, 100], seed=4, clump_size=10),
    ),
    "sequential": (
        SequentialSplit({"train": 0.8, "val": 0.2}),
        None,
        lambda b: b.split_sequential(ratios=[0.8, 0.2]),
    ),
    "sequential, filtered": (
        SequentialSplit(fixed=["train", "val", "test"]),
        FILTER,
        lambda b: b.split_sequential(fixed=3),
    ),
    "hash of several columns": (
        HashSplit({"train": 7, "val": 3}, ["name", "fold"]),
        None,
        lambda b: b.split_hash(["name", "fold"], [7, 3], discard_weight=0),
    ),
    "hash of a struct's field, filtered": (
        HashSplit({"train": 7, "val": 3}, ["box.left"], discard_weight=4),
        FILTER,
        lambda b: b.split_hash(["box.left"], [7, 3], discard_weight=4),
    ),
    "calculated": (
        CalculatedSplit("fold", ["train", "val", "test"]),
        None,
        lambda b: b.split_calculated("fold"),
    ),
    "calculated, filtered": (
        CalculatedSplit("(id + 1) % 5", ["train", "val"]),
        FILTER,
        lambda b: b.split_calculated("(id + 1) % 5"),
    ),
}


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


# -- built once, the same for every process ------------------------------------


def no_builder(*_):
    raise AssertionError("it was built again")


def test_plans_in_the_cache_are_not_built_again(base, cache, monkeypatch):
    spec, _, _ = CASES["random"]
    first = build_plans(spec, pinned(base), None, cache)
    monkeypatch.setattr(assignment, "assign", no_builder)
    assert build_plans(spec, pinned(base), None, cache) == first
    again = pickle.loads(pickle.dumps((spec, pinned(base))))
    assert build_plans(*again, None, cache) == first
    with pytest.raises(AssertionError):  # the guard of this test: a build needs it
        build_plans(replace(spec, seed=9), pinned(base), None, cache)


def test_pickled_plans_are_small_and_scratch_is_gone(base, cache):
    plans = build_plans(CASES["random"][0], pinned(base), None, cache)
    assert max(len(pickle.dumps(plan)) for plan in plans.values()) < 1024
    folder = Path(plans["train"].path).parent
    assert {path.name for path in folder.iterdir()} == {
        "0.npy",
        "1.npy",
        "2.npy",
        "meta.json",
    }
    assert json.loads((folder / "meta.json").read_text())["filter"] is None


def test_copy_of_a_table_has_the_same_plans(base, cache, tmp_path, monkeypatch):
    uri = base.to_lance().uri
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", uri, str(copy)], check=True)
    first = build_plans(CASES["random"][0], pinned(base), None, cache)
    monkeypatch.setattr(assignment, "assign", no_builder)
    snapshot = LanceSource(copy).resolve(Path())
    assert build_plans(CASES["random"][0], snapshot, None, cache) == first


SCRIPT = """
import sys
from pathlib import Path
from lance_lightning.sources import LanceSource
from lance_lightning.splits import RandomSplit, build_plans

print("started", flush=True)  # no guard: whoever imports this script starts again
sys.argv.pop(0)
spec = RandomSplit({"train": 0.7, "val": 0.2, "test": 0.1}, seed=3)
uri, cache = sys.argv
plans = build_plans(spec, LanceSource(uri).resolve(Path()), None, Path(cache))
print(*(plan.digest for plan in plans.values()))
"""


def test_another_process_gets_the_same_plans(base, cache, tmp_path):
    """Without a guard in its script, with one thread, in a folder with odd files."""
    script = tmp_path / "elsewhere" / "train.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    for name in ("json.py", "lancedb.py", "numpy.py"):
        (tmp_path / name).write_text("raise RuntimeError('the wrong module')")
    done = subprocess.run(
        [sys.executable, str(script), base.to_lance().uri, str(tmp_path / "cache")],
        cwd=tmp_path,
        env={**os.environ, "LANCE_CPU_THREADS": "1", "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    plans = build_plans(CASES["random"][0], pinned(base), None, cache)
    expected = " ".join(plan.digest for plan in plans.values())
    assert done.stdout.splitlines() == ["started", expected]


def test_killed_builder_leaves_nothing_that_harms(base, cache, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    mine = tmp_path / "cache"
    command = [sys.executable, str(script), base.to_lance().uri, str(mine)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as killed:
        end = time.monotonic() + 60
        while not list(mine.glob("plans/.*building*/scratch")):
            assert time.monotonic() < end
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    plans = build_plans(CASES["random"][0], pinned(base), None, mine)
    assert plans["train"].digest == digest_of("random", base, cache)
    assert not list(mine.glob("plans/.*building*"))


def digest_of(case, table, cache):
    spec, filter, _ = CASES[case]
    return build_plans(spec, pinned(table), filter, cache)["train"].digest


def test_building_leaves_the_environment_alone_and_says_nothing(
    tmp_path, monkeypatch, capfd, caplog
):
    monkeypatch.chdir(tmp_path)
    uri = tmp_path / "t.lance"
    lance.write_dataset(rows(0, 100), uri)
    before = dict(os.environ), os.getcwd(), list(sys.path), np.random.get_state()[1][0]
    caplog.set_level(logging.INFO, "lance_lightning")
    snapshot = LanceSource(uri).resolve(tmp_path)
    plans = build_plans(RandomSplit(fixed=3), snapshot, None, Path("cache"))
    after = dict(os.environ), os.getcwd(), list(sys.path), np.random.get_state()[1][0]
    assert before == after
    assert capfd.readouterr() == ("", "")
    assert Path(plans["split_0"].path).is_relative_to(tmp_path / "cache")
    sizes = "split_0 33, split_1 33, split_2 33; rows in no split: 1"
    assert [record.getMessage() for record in caplog.records] == [
        f"built splits: {sizes}"
    ]


@pytest.mark.parametrize("progress", [True, False])
def test_a_long_build_shows_a_bar(tmp_path, monkeypatch, capfd, progress):
    uri = tmp_path / "t.lance"
    lance.write_dataset(rows(0, 100), uri, max_rows_per_file=10)
    snapshot = LanceSource(uri).resolve(tmp_path)
    build_plans(AllRows(), snapshot, "id > 2", tmp_path, progress=progress)
    assert not capfd.readouterr().err  # it took no time
    monkeypatch.setattr(progress_bar, "PATIENCE", 0.0)
    build_plans(AllRows(), snapshot, "id > 3", tmp_path, progress=progress)
    assert ("/100" in capfd.readouterr().err) == progress


@pytest.mark.slow
def test_five_million_rows_build(tmp_path):
    """LanceDB's builder fails between 2.9M and 3.0M rows with its own limit."""
    count = 5_000_000
    uri = tmp_path / "t.lance"
    lance.write_dataset(pa.table({"id": np.arange(count)}), uri)
    shares = {"train": 0.8, "val": 0.1, "test": 0.1}
    snapshot = LanceSource(uri).resolve(tmp_path)
    plans = build_plans(RandomSplit(shares), snapshot, None, tmp_path, progress=False)
    assert [p.num_rows for p in plans.values()] == [4_000_000, 500_000, 500_000]
    seen = np.zeros(count, bool)
    for plan in plans.values():
        seen[plan.offsets(np.arange(plan.num_rows))] = True
    assert seen.all()


# -- every row, and filters ----------------------------------------------------


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


# -- permutation tables --------------------------------------------------------


def shuffled(table, names=("train", "val")):
    builder = permutation_builder(table).split_random(
        ratios=[0.75, 0.25], seed=5, split_names=list(names) if names else None
    )
    return builder.shuffle(seed=6).execute()


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


# -- LanceDB's own Permutation of a split --------------------------------------


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


# -- specs ---------------------------------------------------------------------


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


# -- in this process and in a child --------------------------------------------

NO_PYTHON = "/there/is/no/python"
REQUESTS = {
    "random": RandomSplit({"train": 0.7, "val": 0.2}, seed=3),
    "random clumps": RandomSplit(counts={"train": 500, "val": 90}, clump_size=10),
    "fixed": RandomSplit(fixed=7, seed=2**64 - 1),
    "hash": HashSplit({"train": 7, "val": 3}, ["id", "name"], discard_weight=2),
}


@pytest.mark.parametrize(
    "case",
    [
        "random",
        pytest.param("random clumps", marks=pytest.mark.slow),
        pytest.param("fixed", marks=pytest.mark.slow),
        "hash",
    ],
)
def test_this_process_and_the_child_assign_the_same_rows(tmp_path, monkeypatch, case):
    table = rows(0, 997)
    found = {}
    for where, limit in (("here", 10**6), ("child", 0)):
        monkeypatch.setattr(_builder, "_IN_PROCESS", limit)
        snapshot = ArrowSource(table).resolve(tmp_path)
        plans = build_plans(REQUESTS[case], snapshot, None, tmp_path / where)
        found[where] = [(p.name, p.num_rows, p.digest) for p in plans.values()]
    assert found["here"] == found["child"]


@pytest.mark.slow
def test_a_million_rows_are_assigned_here_as_by_the_child(tmp_path, monkeypatch):
    count = _builder._IN_PROCESS
    uri = tmp_path / "t.lance"
    table = pa.table({"id": np.arange(count), "name": np.arange(count).astype(str)})
    lance.write_dataset(table, uri, max_rows_per_file=300_000)
    snapshot = LanceSource(uri).resolve(tmp_path)
    for spec in (
        RandomSplit({"train": 0.9, "val": 0.1}),
        RandomSplit({"train": 0.9}, clump_size=64),
        HashSplit({"train": 9, "val": 1}, ["id", "name"]),
    ):
        monkeypatch.setattr(_builder, "_IN_PROCESS", count)
        monkeypatch.setattr(sys, "executable", NO_PYTHON)
        here = build_plans(spec, snapshot, None, tmp_path / "here")
        monkeypatch.undo()
        monkeypatch.setattr(_builder, "_IN_PROCESS", 0)
        child = build_plans(spec, snapshot, None, tmp_path / "child")
        assert [p.digest for p in here.values()] == [p.digest for p in child.values()]


def test_few_rows_start_no_child(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", NO_PYTHON)
    snapshot = ArrowSource(rows(0, 20)).resolve(tmp_path)
    build_plans(RandomSplit(fixed=2), snapshot, None, tmp_path)
    monkeypatch.setattr(_builder, "_IN_PROCESS", 19)
    with pytest.raises(FileNotFoundError):
        build_plans(RandomSplit(fixed=3), snapshot, None, tmp_path)


def test_an_environment_that_limits_the_builder_changes_no_row(tmp_path, monkeypatch):
    """What the builder cannot do here for want of memory, the child does."""
    snapshot = ArrowSource(rows(0, 997)).resolve(tmp_path)
    spec = REQUESTS["random"]
    here = build_plans(spec, snapshot, None, tmp_path / "here")
    monkeypatch.setenv("LANCEDB_PERM_BUILDER_MEMORY_LIMIT", "1000")
    other = build_plans(spec, snapshot, None, tmp_path / "limited")
    assert [p.digest for p in here.values()] == [p.digest for p in other.values()]
    assert os.environ["LANCEDB_PERM_BUILDER_MEMORY_LIMIT"] == "1000"
    monkeypatch.setattr(sys, "executable", NO_PYTHON)
    with pytest.raises(FileNotFoundError):  # the guard of this test: it did not here
        build_plans(spec, snapshot, None, tmp_path / "again")


def test_threads_that_ask_at_the_same_time_get_the_same_plans(tmp_path):
    snapshot = ArrowSource(rows(0, 997)).resolve(tmp_path)
    specs = [RandomSplit(fixed=3, seed=seed) for seed in (0, 1, 0, 1)]
    with ThreadPoolExecutor(len(specs)) as pool:
        found = list(
            pool.map(lambda spec: build_plans(spec, snapshot, None, tmp_path), specs)
        )
    assert found[0] == found[2] != found[1] == found[3]
    assert len(list(tmp_path.glob("plans/*/meta.json"))) == 2


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
    expected = np.bincount(found["split_id"].to_numpy(), minlength=len(weights))
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


def test_failing_builder_gives_its_own_reason_and_no_traceback(tmp_path):
    _builder.write_blank_stand_in(tmp_path, 10)
    request = {"method": "split_hash", "columns": ["c7"], "split_weights": [1]}
    request["discard_weight"] = 0
    with pytest.raises(RuntimeError, match="No field named c7") as caught:
        _builder.assign(tmp_path, request, 10, 1, lambda: None)
    assert "Traceback" not in str(caught.value)


def test_builder_that_cannot_start_or_is_killed_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(_builder, "_IN_PROCESS", 0)
    script = tmp_path / "python"
    for body, message in (
        ("kill -9 $$", "killed by signal 9, as happens when memory runs out"),
        ("echo 'no such module' >&2; exit 3", "no such module"),
    ):
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        snapshot = ArrowSource(rows(0, 20)).resolve(tmp_path)
        with pytest.raises(ConfigError, match=f"20 rows with RandomSplit.*{message}"):
            build_plans(RandomSplit(fixed=2), snapshot, None, tmp_path)
