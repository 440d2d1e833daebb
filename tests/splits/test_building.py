"""Splits are built once, the same for every process."""

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning.frozen import replace
from lance_lightning.sources.lance import LanceSource
from lance_lightning.splits import assignment, progress_bar
from lance_lightning.splits.building import build_plans
from lance_lightning.splits.specs import (
    AllRows,
    RandomSplit,
)
from tests.helpers.split_tables import CASES, pinned, rows


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
