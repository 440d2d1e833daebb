"""Tables behind a server are read like others, and its key stays in the environment."""

from __future__ import annotations

import copy
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import lance
import lancedb
import numpy as np
import pytest
from lancedb.permutation import Permutation, permutation_builder
from lancedb.remote import HeaderProvider

from lance_lightning import (
    HashSplit,
    LanceDataModule,
    LanceDBSource,
    LanceSource,
    PermutationSplit,
    RandomSplit,
    SeparateSources,
    Sequential,
    Shuffle,
)
from lance_lightning.errors import ConfigError, DataError, SourceError
from lance_lightning.frozen import replace
from lance_lightning.tables import open_datasets
from lance_lightning.tables import remote as remotes
from tests.helpers.lancedb_server import serving
from tests.helpers.models import Recorder
from tests.helpers.tables import flat, make_table, write_table
from tests.helpers.trainers import quiet_trainer

KEY = "planted-key-0123456789"
ROWS = 103


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("LANCEDB_API_KEY", KEY)
    uri = write_table(tmp_path / "t.lance", 60, rows_per_file=30)
    lance.write_dataset(make_table(43, start=60), uri, mode="append")
    with serving(tmp_path, KEY) as running:
        yield running


@pytest.fixture
def local(server) -> LanceSource:
    return LanceSource(server.folder / "t.lance")


@pytest.fixture
def source(server) -> LanceDBSource:
    return LanceDBSource("db://dev", "t", host_override=server.url)


def connected(server, **options):
    options = {"api_key": KEY, "host_override": server.url, **options}
    return lancedb.connect("db://dev", **options)


def in_order(source, **options) -> LanceDataModule:
    options = {"sampler": Sequential(), "batch_size": 16, **options}
    return LanceDataModule(source, **options)


def ids(data: LanceDataModule, stage: str = "train") -> list[int]:
    loader = getattr(data, f"{stage}_dataloader")()
    return flat(batch["id"].tolist() for batch in loader)


def values(data: LanceDataModule) -> list[dict]:
    rows = []
    for batch in data.train_dataloader():
        rows += batch.to_pylist()
    return rows


# -- rows ----------------------------------------------------------------------


def test_a_remote_table_gives_the_rows_of_the_table(source, local):
    found = values(in_order(source, output_format="arrow"))
    assert found == values(in_order(local, output_format="arrow"))
    assert len(found) == ROWS


def test_expressions_and_row_ids_are_the_servers(source, local):
    columns = {"z": "id * 2", "a": "name", "vector": "vector"}
    options = {"columns": columns, "with_row_id": True, "output_format": "arrow"}
    found = values(in_order(source, **options))
    assert found == values(in_order(local, **options))
    assert list(found[0]) == ["z", "a", "vector", "_rowid"]


@pytest.mark.parametrize("sampler", [None, Shuffle()])
def test_the_order_of_training_is_that_of_a_local_table(source, local, sampler):
    options = {} if sampler is None else {"sampler": sampler}
    remote = LanceDataModule(source, batch_size=16, **options)
    same = LanceDataModule(local, batch_size=16, **options)
    assert ids(remote) == ids(same)
    assert sorted(ids(remote)) == list(range(ROWS))


@pytest.mark.parametrize(
    ("splits", "filter"),
    [
        (RandomSplit({"train": 0.6, "val": 0.4}, seed=2), None),
        (HashSplit({"train": 6, "val": 4}, columns=["id"]), "id > 20"),
    ],
    ids=["random", "hash and filter"],
)
def test_splits_are_those_of_a_local_table(server, splits, filter):
    remote = LanceDBSource("db://dev", "t", host_override=server.url, filter=filter)
    local = LanceSource(server.folder / "t.lance", filter=filter)
    for stage in ("train", "val"):
        expected = ids(in_order(local, splits=splits), stage)
        assert ids(in_order(remote, splits=splits), stage) == expected


def test_a_permutation_table_names_rows_by_the_servers_row_ids(source, local):
    table = lancedb.connect(os.path.dirname(local.uri)).open_table("t")
    made = permutation_builder(table).shuffle(seed=1).execute()
    splits = PermutationSplit(made, ["train"])
    found = ids(in_order(source, splits=splits))
    assert found == ids(in_order(local, splits=splits))
    older = replace(source, version=1)
    with pytest.raises(SourceError, match=r"was built on version=2.*version=2"):
        ids(in_order(older, splits=splits))


def test_many_rows_take_several_requests(server, source, monkeypatch):
    monkeypatch.setattr(remotes, "ROWS_A_REQUEST", 10)
    dataset = source.resolve(server.folder).open()
    server.requests.clear()
    assert dataset.take(range(ROWS))["id"].to_pylist() == list(range(ROWS))
    assert server.count("/query/") == 11
    repeated = dataset.take([3, 3, 3, 50, 50], columns=["id"])
    assert repeated["id"].to_pylist() == [3, 3, 3, 50, 50]
    assert dataset.take([], columns=["id"]).num_rows == 0
    assert sum(batch.num_rows for batch in dataset.scanner().to_batches()) == ROWS
    kept = dataset.scanner(columns=["name"], filter="id > 90").to_batches()
    assert [batch["name"][0].as_py() for batch in kept] == ["row-91", "row-101"]


def test_neighbours_are_read_in_one_request(server, source, monkeypatch):
    monkeypatch.setattr(remotes, "ROWS_A_REQUEST", 10)
    dataset = source.resolve(server.folder).open()
    server.requests.clear()
    part = dataset.scanner(columns=["id"], offset=50, limit=40).to_table()
    assert part["id"].to_pylist() == list(range(50, 90))
    assert server.count("/query/") == 1
    assert dataset.scanner(columns=["id"], limit=0).to_table().num_rows == 0
    # A server that counts rows in another order is asked for them by name.
    server.disordered = True
    for expected in (5, 4):
        server.requests.clear()
        part = dataset.scanner(columns=["id"], offset=50, limit=40).to_table()
        assert part["id"].to_pylist() == list(range(50, 90))
        assert server.count("/query/") == expected


def test_workers_read_with_the_key_of_their_environment(server, source):
    data = in_order(source, num_workers=1)
    assert ids(data) == list(range(ROWS))
    data.teardown()


def test_threads_share_a_remote_table(server, source):
    dataset = source.resolve(server.folder).open()

    def read(start: int) -> list[int]:
        return dataset.take(range(start, start + 20), ["id"])["id"].to_pylist()

    with ThreadPoolExecutor(4) as pool:
        starts = [7 * i for i in range(12)]
        for start, found in zip(starts, pool.map(read, starts), strict=True):
            assert found == list(range(start, start + 20))


# -- one version ---------------------------------------------------------------


def test_rows_written_meanwhile_change_nothing(server, source, local):
    data = in_order(source)
    data.setup()
    dataset = lance.write_dataset(make_table(9, 900), local.uri, mode="append")
    dataset.delete("id < 50")
    assert ids(data) == list(range(ROWS))
    assert data.snapshot().version == 2
    again = copy.copy(source).resolve(server.folder, version=1)
    assert again.num_rows == 60
    asked = {body.get("version") for path, body in server.requests if "query" in path}
    assert asked == {2}


def test_version_tag_and_branch_choose_what_is_read(server, local):
    dataset = lance.dataset(local.uri)
    dataset.tags.create("first", 1)
    dataset.create_branch("dev", 2).insert(make_table(5, start=500))

    def read(**options) -> list[int]:
        given = {"host_override": server.url, **options}
        return ids(in_order(LanceDBSource("db://dev", "t", **given)))

    assert read(version=1) == list(range(60))
    assert read(tag="first") == list(range(60))
    assert read(branch="main") == list(range(ROWS))
    assert read(branch="dev") == [*range(ROWS), *range(500, 505)]
    for wrong in ({"version": 9}, {"tag": "no"}, {"branch": "no"}):
        with pytest.raises(SourceError, match=r"db://dev/t.* failed.*check database"):
            read(**wrong)


def test_a_namespace_is_part_of_the_name(server):
    place = LanceDBSource("db://dev", "t", namespace="a", host_override=server.url)
    assert ids(in_order(place)) == list(range(ROWS))
    assert any("a$t" in path for path, _ in server.requests)


def test_a_run_on_a_remote_table_is_resumed(server, source, local, tmp_path):
    splits = RandomSplit({"train": 0.8, "val": 0.2})
    data = LanceDataModule(source, batch_size=16, splits=splits)
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(Recorder(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert KEY.encode() not in (tmp_path / "a.ckpt").read_bytes()
    lance.write_dataset(make_table(9, 900), local.uri, mode="append")
    again = LanceDataModule.load_from_checkpoint(tmp_path / "a.ckpt")
    model = Recorder()
    quiet_trainer(tmp_path, max_epochs=2).fit(
        model, datamodule=again, ckpt_path=tmp_path / "a.ckpt"
    )
    assert again.snapshot().version == 2
    assert sorted(flat(model.seen["train"])) == sorted(ids(data))
    twin = write_table(tmp_path / "u.lance", 60)
    lance.write_dataset(make_table(43, start=60), twin, mode="append")
    other = LanceDBSource("db://dev", "u", host_override=server.url)
    with pytest.raises(Exception, match="trained on another table"):
        quiet_trainer(tmp_path, max_epochs=3).fit(
            Recorder(),
            datamodule=LanceDataModule(other, batch_size=16, splits=splits),
            ckpt_path=tmp_path / "a.ckpt",
        )


# -- live objects --------------------------------------------------------------


def test_a_live_remote_table_is_taken_as_it_is(server):
    table = connected(server).open_table("t")
    data = in_order(table)
    lance.write_dataset(make_table(9, 900), server.folder / "t.lance", mode="append")
    assert ids(data) == list(range(ROWS))
    assert table.count_rows() == ROWS + 9  # the user's handle is left alone
    table.checkout(1)
    data = in_order(SeparateSources(train=table))
    assert ids(data) == list(range(60))
    assert KEY not in str(data.hparams)
    assert KEY.encode() not in pickle.dumps(data.train_dataloader().reader)


def test_a_permutation_of_a_remote_table_keeps_its_rows_and_order(server, local):
    table = connected(server).open_table("t")
    assert ids(in_order(Permutation.identity(table))) == list(range(ROWS))
    stored = lancedb.connect(server.folder).open_table("t")
    made = permutation_builder(stored).shuffle(seed=1).execute()
    permutation = Permutation.from_tables(table, made).rename_column("id", "key")
    data = in_order(permutation)
    found = flat(batch["key"].tolist() for batch in data.train_dataloader())
    assert found == ids(in_order(Permutation.from_tables(stored, made)))
    taken = list(data.permutation("train").with_format("arrow").iter(10))
    assert [i for batch in taken for i in batch["id"].to_pylist()] == found
    part = in_order(Permutation.identity(table).with_skip(5).with_take(7))
    assert ids(part) == list(range(5, 12))


def open_table(name: str):
    return lancedb.connect(
        "db://dev", api_key=KEY, host_override=os.environ["TEST_HOST"]
    ).open_table(name)


class Token(HeaderProvider):
    def get_headers(self):
        return {"x-token": "a"}


def test_a_connection_factory_opens_the_table_in_each_process(server, monkeypatch):
    monkeypatch.setenv("TEST_HOST", server.url)
    monkeypatch.delenv("LANCEDB_API_KEY")
    source = LanceDBSource("db://dev", "t", connection_factory=open_table)
    reader = in_order(source).train_dataloader().reader
    there = pickle.loads(pickle.dumps(reader))
    open_datasets.open_datasets.clear()  # as in a worker
    assert there.snapshot.open().count_rows() == ROWS
    permutation = Permutation.identity(open_table("t"))
    permutation = permutation.with_connection_factory(open_table)
    assert ids(in_order(permutation)) == list(range(ROWS))


def test_workers_need_a_connection_factory_that_they_can_import(server, monkeypatch):
    monkeypatch.setenv("TEST_HOST", server.url)

    def local_to_a_test(name):
        return open_table(name)

    source = LanceDBSource("db://dev", "t", connection_factory=local_to_a_test)
    whole = Permutation.identity(open_table("t"))
    reopened = whole.with_connection_factory(local_to_a_test)
    for given in (source, SeparateSources(train="a", val=source), reopened):
        with pytest.raises(ConfigError, match=r"connection_factory is .*local_to_"):
            LanceDataModule(given, num_workers=1)
        LanceDataModule(given)
    LanceDataModule(whole.with_connection_factory(open_table), num_workers=1)


@pytest.mark.parametrize(
    "config", [{"header_provider": Token()}, {"extra_headers": {"x-token": "a"}}]
)
def test_a_connection_that_cannot_be_made_again_says_so(server, config):
    table = connected(server, client_config=config).open_table("t")
    with pytest.raises(ConfigError, match=r"'t' cannot be made again.*connection_f"):
        LanceDataModule(table)


# -- secrets and errors --------------------------------------------------------


def test_the_key_is_neither_pickled_nor_shown(server, source):
    snapshot = source.resolve(server.folder)
    for held in (source, snapshot, in_order(source)):
        assert KEY.encode() not in pickle.dumps(held)
        assert KEY not in repr(held)
    assert len(pickle.dumps(snapshot)) < 4096
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot


def test_a_process_without_a_key_says_what_to_set(source, tmp_path, monkeypatch):
    monkeypatch.delenv("LANCEDB_API_KEY")
    with pytest.raises(SourceError, match="LANCEDB_API_KEY is not set"):
        source.resolve(tmp_path)


def test_a_wrong_key_is_refused_without_showing_it(source, tmp_path, monkeypatch):
    monkeypatch.setenv("LANCEDB_API_KEY", "wrong-key-0123456789")
    with pytest.raises(SourceError, match="who are you") as caught:
        source.resolve(tmp_path)
    assert "wrong-key" not in str(caught.value)


def test_missing_tables_and_servers_are_named(server, tmp_path, monkeypatch):
    for retries in ("MAX_RETRIES", "CONNECT_RETRIES"):
        monkeypatch.setenv(f"LANCE_CLIENT_{retries}", "0")
    with pytest.raises(SourceError, match=r"db://dev/no.* failed"):
        LanceDBSource("db://dev", "no", host_override=server.url).resolve(tmp_path)
    nobody = LanceDBSource("db://dev", "t", host_override="http://127.0.0.1:1")
    with pytest.raises(SourceError, match="server can be reached"):
        nobody.resolve(tmp_path)


def test_a_failing_read_names_table_and_version(server, source):
    data = in_order(source)
    loader = data.train_dataloader()
    server.broken = ("/query/",)
    with pytest.raises(
        SourceError, match=r"db://dev/t, version 2 failed.*out of order"
    ):
        list(loader)


def test_another_table_at_the_same_place_is_found_out(server, source, local):
    snapshot = source.resolve(server.folder)
    rows = make_table(ROWS)
    lance.write_dataset(rows, local.uri, mode="overwrite")
    dataset = lance.dataset(local.uri)
    assert dataset.version == 3
    snapshot.verify()  # the pinned version is there still
    os.rename(local.uri, f"{local.uri}.old")
    lance.write_dataset(rows.slice(0, 50), local.uri)
    lance.write_dataset(rows.slice(60), local.uri, mode="append")
    with pytest.raises(SourceError, match="another table lies at db://dev/t"):
        snapshot.verify()


def test_other_rows_than_those_asked_for_are_an_error(source, tmp_path):
    dataset = source.resolve(tmp_path).open()
    with pytest.raises(DataError, match="2 rows from offset 102 to 103 and got 1"):
        dataset.take(np.array([102, 103]))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"uri": "./db", "region": "us-east-1"}, "region is for a remote database"),
        ({"uri": "./db", "connection_factory": open_table}, "is for a remote database"),
        ({"uri": "db://a", "region": 3}, "region of a remote database cannot be 3"),
        ({"uri": "db://a", "host_override": ""}, "host_override of a remote"),
        ({"uri": "db://a", "connection_factory": "f"}, "cannot be 'f'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given, match):
    with pytest.raises(ConfigError, match=match):
        LanceDBSource(given.pop("uri"), "t", **given)
