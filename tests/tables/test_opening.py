"""A table is pinned at one version, tag or branch."""

from __future__ import annotations

import pickle

import lance
import pytest

from lance_lightning.sources.lance import LanceSource
from lance_lightning.tables import open_datasets
from tests.helpers.ten_rows import ids, read_elsewhere, table


def test_snapshot_reads_the_newest_version_when_nothing_is_named(uri, cache):
    lance.write_dataset(table(10), uri, mode="append")
    snapshot = LanceSource(uri).resolve(cache)
    assert snapshot.version == 2
    assert snapshot.num_rows == 20
    assert ids(snapshot) == list(range(20))
    assert snapshot.schema == table().schema


def test_version_and_tag_choose_what_is_read(uri, cache):
    dataset = lance.write_dataset(table(10), uri, mode="append")
    dataset.tags.create("first", 1)
    assert ids(LanceSource(uri, version=1).resolve(cache)) == list(range(10))
    assert ids(LanceSource(uri, tag="first").resolve(cache)) == list(range(10))


def test_given_version_wins_over_the_configured_one(uri, cache):
    dataset = lance.write_dataset(table(10), uri, mode="append")
    dataset.tags.create("second", 2)
    for source in (LanceSource(uri, tag="second"), LanceSource(uri, version=2)):
        assert source.resolve(cache, version=1).version == 1


@pytest.mark.parametrize("name", ["dev", "team/experiment"])
def test_branch_is_reopened_by_a_worker(uri, cache, tmp_path, name):
    main = lance.dataset(uri)
    branch = main.create_branch(name, 1)
    for start in (100, 200):
        branch.insert(table(start, 5))
        main.insert(table(start + 1, 5))  # the same versions, other rows
    newest = LanceSource(uri, branch=name).resolve(cache)
    assert (newest.branch, newest.version, newest.num_rows) == (name, 3, 20)
    snapshot = LanceSource(uri, branch=name, version=2).resolve(cache)
    expected = [*range(10), *range(100, 105)]
    assert (snapshot.branch, snapshot.version) == (name, 2)
    assert ids(snapshot) == expected
    assert read_elsewhere(snapshot, tmp_path) == str(expected)
    older = LanceSource(uri, branch=name, version=1).resolve(cache)
    assert ids(older) == list(range(10))


def test_tag_of_a_branch_reads_the_branch(uri, cache, tmp_path):
    main = lance.dataset(uri)
    main.create_branch("dev", 1).insert(table(100, 5))
    main.insert(table(10))
    main.tags.create("release", ("dev", 2))
    snapshot = LanceSource(uri, tag="release").resolve(cache)
    assert snapshot.branch == "dev"
    assert ids(snapshot) == [*range(10), *range(100, 105)]
    assert read_elsewhere(snapshot, tmp_path) == str(ids(snapshot))


def test_branch_main_is_no_branch(uri, cache):
    snapshot = LanceSource(uri, branch="main").resolve(cache)
    assert snapshot == LanceSource(uri).resolve(cache)


def test_writes_after_resolve_change_nothing(uri, cache, tmp_path):
    lance.write_dataset(table(10), uri, mode="append")
    snapshot = LanceSource(uri).resolve(cache)
    before = snapshot.open().to_table()

    dataset = lance.dataset(uri)
    dataset.delete("id % 2 = 0")
    dataset.optimize.compact_files()
    dataset.update({"value": "value + 1"})
    dataset.add_columns({"more": "id + 1"})
    lance.write_dataset(table(20), uri, mode="overwrite")

    snapshot.verify()
    assert snapshot.open().to_table() == before
    assert snapshot.num_rows == 20
    assert snapshot.schema == table().schema
    open_datasets.open_datasets.clear()  # as in a process that opens it only now
    assert snapshot.open().to_table() == before
    assert read_elsewhere(snapshot, tmp_path) == str(list(range(20)))


def test_relative_path_is_the_same_table_from_another_folder(
    uri, cache, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    snapshot = LanceSource("t.lance").resolve(cache)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    open_datasets.open_datasets.clear()
    assert ids(snapshot) == list(range(10))


def test_table_is_opened_once_a_process(uri, cache):
    snapshot = LanceSource(uri).resolve(cache)
    assert snapshot.open() is snapshot.open()
    assert pickle.loads(pickle.dumps(snapshot)).open() is snapshot.open()


@pytest.mark.parametrize("version", [None, 1])
def test_the_process_that_pins_a_table_opens_it_once(uri, cache, monkeypatch, version):
    opened, dataset = [], lance.dataset

    def counted(*args, **options):
        opened.append(args)
        return dataset(*args, **options)

    monkeypatch.setattr(lance, "dataset", counted)
    snapshot = LanceSource(uri).resolve(cache, version)
    assert snapshot.open().to_table() == table()
    assert len(opened) == 1
