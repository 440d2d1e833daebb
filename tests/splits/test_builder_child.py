"""LanceDB's builder in this process and in a child."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning.errors import ConfigError
from lance_lightning.sources.arrow import ArrowSource
from lance_lightning.sources.lance import LanceSource
from lance_lightning.splits import builder as _builder
from lance_lightning.splits.building import build_plans
from lance_lightning.splits.specs import (
    HashSplit,
    RandomSplit,
)
from tests.helpers.split_tables import rows

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
