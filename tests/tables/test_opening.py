"""Guarantees of sources and snapshots: one pinned version, small, no secret shown."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.sources.arrow import ArrowSource
from lance_lightning.sources.base import Source
from lance_lightning.sources.database import LanceDBSource
from lance_lightning.sources.lance import LanceSource
from lance_lightning.sources.open_objects import as_source
from lance_lightning.sources.separate import SeparateSources
from lance_lightning.tables import open_datasets
from lance_lightning.tables.identity import Identity, content_digest, schema_digest
from lance_lightning.tables.secrets import explained, strip_secrets

SECRET = "planted-secret-0123456789"


def table(start: int = 0, rows: int = 10) -> pa.Table:
    ids = np.arange(start, start + rows)
    return pa.table({"id": ids, "value": ids * 0.5})


@pytest.fixture
def uri(tmp_path):
    place = str(tmp_path / "t.lance")
    lance.write_dataset(table(), place)
    return place


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def ids(snapshot) -> list[int]:
    return snapshot.open().to_table(columns=["id"])["id"].to_pylist()


def run(code: str, *arguments: str, **environment: str) -> str:
    """Run code in a fresh process, as a spawned worker is."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


READ_IDS = """
import pickle, sys
snapshot = pickle.load(open(sys.argv[1], "rb"))
print(snapshot.open().to_table(columns=["id"])["id"].to_pylist())
assert not {"lancedb", "lightning", "hydra"} & set(sys.modules), "heavy imports"
"""


def read_elsewhere(snapshot, folder, **environment: str) -> str:
    (folder / "snapshot.pickle").write_bytes(pickle.dumps(snapshot))
    return run(READ_IDS, str(folder / "snapshot.pickle"), **environment)


# -- pinning -------------------------------------------------------------------


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


# -- identity ------------------------------------------------------------------


def test_copy_elsewhere_keeps_the_identity(uri, cache, tmp_path):
    dataset = lance.write_dataset(table(10), uri, mode="append")
    dataset.delete("id = 3")
    shutil.copytree(uri, tmp_path / "copy.lance")
    dataset.shallow_clone(str(tmp_path / "clone.lance"), dataset.version)
    first = LanceSource(uri).resolve(cache)
    for name in ("copy.lance", "clone.lance"):
        other = LanceSource(tmp_path / name).resolve(cache)
        assert other.identity == first.identity
        assert ids(other) == ids(first)


def test_copies_that_deleted_different_rows_differ(uri, cache, tmp_path):
    shutil.copytree(uri, tmp_path / "copy.lance")
    lance.dataset(uri).delete("id = 3")
    lance.dataset(str(tmp_path / "copy.lance")).delete("id = 4")
    first = LanceSource(uri).resolve(cache)
    second = LanceSource(tmp_path / "copy.lance").resolve(cache)
    assert first.version == second.version
    assert first.identity.schema == second.identity.schema
    assert first.identity.fragments != second.identity.fragments


def test_table_written_anew_is_told_apart(uri, cache):
    snapshot = LanceSource(uri).resolve(cache)
    snapshot.verify()
    shutil.rmtree(uri)
    lance.write_dataset(table(), uri)  # the same rows, and version 1 again
    with pytest.raises(SourceError, match=r"another table(.|\n)*pinned:(.|\n)*found:"):
        snapshot.verify()
    anew = LanceSource(uri).resolve(cache)
    assert anew.version == snapshot.version
    assert anew.identity != snapshot.identity
    assert ids(anew) == list(range(10))
    open_datasets.open_datasets.clear()
    with pytest.raises(SourceError, match="another table"):
        snapshot.open()


def test_schema_is_part_of_the_identity(cache, tmp_path):
    identities = set()
    fields = [
        pa.field("id", pa.int64()),
        pa.field("id", pa.int32()),
        pa.field("id", pa.int64(), nullable=False),
        pa.field("id", pa.int64(), metadata={"unit": "m"}),
    ]
    for i, field in enumerate(fields):
        rows = pa.table({"id": range(3)}).cast(pa.schema([field.remove_metadata()]))
        place = tmp_path / f"{i}.lance"
        lance.write_dataset(rows.cast(pa.schema([field])), str(place))
        identities.add(LanceSource(place).resolve(cache).identity.schema)
    assert len(identities) == len(fields)


def test_schema_digest_is_the_same_whether_an_extension_type_is_registered():
    class Celsius(pa.ExtensionType):
        def __init__(self):
            super().__init__(pa.float32(), "test.celsius")

        def __arrow_ext_serialize__(self):
            return b"parameters"

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type, serialized):
            return cls()

    bare = {
        "ARROW:extension:name": "test.celsius",
        "ARROW:extension:metadata": "parameters",
    }
    known = pa.schema([pa.field("t", Celsius())])
    unknown = pa.schema([pa.field("t", pa.float32(), metadata=bare)])
    assert schema_digest(known) == schema_digest(unknown)


def test_identity_survives_a_checkpoint(uri, cache):
    identity = LanceSource(uri).resolve(cache).identity
    state = identity.to_dict()
    assert {type(value) for value in state.values()} == {int, str}
    assert Identity.from_dict(state) == identity


# -- pickles -------------------------------------------------------------------


def test_pickle_is_small_whatever_the_table(tmp_path, cache):
    wide = pa.table({f"column_{i}": [1] for i in range(2000)})
    place = tmp_path / "wide.lance"
    dataset = lance.write_dataset(wide, str(place))
    for _ in range(5):
        dataset.insert(wide)
    snapshot = LanceSource(place).resolve(cache)
    assert len(snapshot.schema) == 2000
    assert len(pickle.dumps(snapshot)) < 4096
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot
    assert copy.deepcopy(snapshot) == snapshot


def test_credentials_of_the_environment_are_not_pickled(uri, cache, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    options = {"aws_secret_access_key": SECRET, "aws_region": "here"}
    snapshot = LanceSource(uri, storage_options=options).resolve(cache)
    pickled = pickle.dumps(snapshot)
    assert SECRET.encode() not in pickled
    assert pickle.loads(pickled).storage_options == options
    assert pickle.loads(pickled) == snapshot


def test_missing_credentials_name_the_environment_variable(uri, cache, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    options = {"aws_secret_access_key": SECRET}
    snapshot = LanceSource(uri, storage_options=options).resolve(cache)
    pickled = pickle.dumps(snapshot)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    elsewhere = pickle.loads(pickled)
    with pytest.raises(
        SourceError, match=r"set the environment.*AWS_SECRET_ACCESS_KEY"
    ):
        elsewhere.open()


def test_object_store_is_read_by_a_worker(cache, tmp_path, monkeypatch):
    server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        address = "http://{}:{}".format(*moto.get_host_and_port())
        boto3.client(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key=SECRET,
        ).create_bucket(Bucket="bucket")
        options = {
            "aws_access_key_id": "key",
            "aws_secret_access_key": SECRET,
            "aws_endpoint": address,
            "aws_region": "us-east-1",
            "allow_http": True,
        }
        text = {key: str(value).lower() for key, value in options.items()}
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        place = "s3://bucket/t.lance"
        lance.write_dataset(table(), place, storage_options=text)
        snapshot = LanceSource(place, storage_options=options).resolve(cache)
        assert SECRET.encode() not in pickle.dumps(snapshot)
        assert read_elsewhere(snapshot, tmp_path) == str(list(range(10)))

        database = LanceDBSource("s3://bucket", "t", storage_options=options)
        pytest.importorskip("lancedb")
        found = database.resolve(cache)
        assert found.identity == snapshot.identity
        assert read_elsewhere(found, tmp_path) == str(list(range(10)))

        missing = LanceSource("s3://bucket/no.lance", storage_options=options)
        with pytest.raises(SourceError, match=r"s3://bucket/no.lance") as caught:
            missing.resolve(cache)
        assert SECRET not in printed(caught)
    finally:
        moto.stop()


# -- secrets -------------------------------------------------------------------


def printed(caught) -> str:
    return "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://bucket/t.lance", "s3://bucket/t.lance"),
        ("s3://key:secret@bucket/t.lance?token=x#y", "s3://bucket/t.lance"),
        ("https://token@host:80/t.lance", "https://host:80/t.lance"),
        ("abfss://box@name.dfs.core.windows.net/t", None),
        ("abfss://box@name.dfs.core.windows.net/t?sig=x", "abfss://box@name.dfs.core.windows.net/t"),
        ("/data/odd?name#1@2", None),
    ],
)  # fmt: skip
def test_uri_is_shown_without_secrets(uri, shown):
    assert strip_secrets(uri) == (shown or uri)
    assert LanceSource(uri).describe() == (shown or uri)


def test_secrets_are_not_shown(uri, cache, tmp_path):
    lancedb_uri = str(tmp_path)
    options = {"aws_secret_access_key": SECRET, "password": SECRET}
    snapshot = LanceSource(uri, storage_options=options).resolve(cache)
    things = [
        LanceSource(uri, storage_options=options),
        LanceDBSource(lancedb_uri, "t", storage_options=options),
        LanceSource(f"s3://user:{SECRET}@bucket/x?token={SECRET}"),
        SeparateSources(train=LanceSource(uri, storage_options=options)),
        snapshot,
    ]
    for thing in things:
        assert SECRET not in repr(thing) + str(thing) + thing.describe()
    assert "aws_secret_access_key" in repr(things[0])


@pytest.mark.parametrize(
    "make", [LanceSource, lambda u, **k: LanceDBSource(u, "t", **k)]
)
def test_errors_show_no_secret(cache, make):
    uri = f"nostore://user:{SECRET}@bucket/x?token={SECRET}"
    source = make(uri, storage_options={"aws_secret_access_key": SECRET})
    with pytest.raises(SourceError) as caught:
        source.resolve(cache)
    assert SECRET not in printed(caught)


def test_secret_in_lances_own_message_is_not_shown():
    options = {"aws_secret_access_key": SECRET, "allow_http": "true"}
    with (
        pytest.raises(SourceError) as caught,
        explained("opening", "s3://bucket/x", options, "look up"),
    ):
        raise OSError(f"true: denied for {SECRET}, /src/rust/store.rs:1:2")
    assert str(caught.value) == "opening failed: true: denied for ***; look up"
    assert SECRET not in printed(caught)


def test_error_keeps_its_cause_when_the_remedy_cannot_be_found():
    def remedy():
        raise OSError(f"listing denied for {SECRET}")

    raising = explained("opening", "s3://b/x", {}, remedy)
    kept = r"gone.*not be listed .*OSError"
    with pytest.raises(SourceError, match=kept) as caught, raising:
        raise ValueError("gone")
    assert SECRET not in printed(caught)


# -- errors --------------------------------------------------------------------


def test_missing_table_lists_the_tables_of_the_folder(uri, cache, tmp_path):
    with pytest.raises(SourceError, match=r"no\.lance.*not found"):
        LanceSource(tmp_path / "no.lance").resolve(cache)
    with pytest.raises(SourceError, match=r"datasets in that folder: 't\.lance'"):
        LanceSource(tmp_path).resolve(cache)
    assert not (tmp_path / "no.lance").exists()


def test_missing_version_lists_the_versions_there_are(uri, cache):
    for i in range(3):
        lance.write_dataset(table(10 * i), uri, mode="append")
    with pytest.raises(SourceError, match=r"version 99 .* there are: 1-4"):
        LanceSource(uri, version=99).resolve(cache)
    lance.dataset(uri).create_branch("dev")
    with pytest.raises(SourceError, match=r"version 99 .*'dev'.* there are: 4"):
        LanceSource(uri, version=99, branch="dev").resolve(cache)


def test_version_that_was_cleaned_up_names_the_tag_as_remedy(uri, cache):
    snapshot = LanceSource(uri).resolve(cache)
    dataset = lance.write_dataset(table(), uri, mode="overwrite")
    dataset.cleanup_old_versions(older_than=timedelta(0))
    gone = r"version 1 .* there are: 2.* tag the"
    with pytest.raises(SourceError, match=gone):
        snapshot.verify()
    with pytest.raises(SourceError, match=gone):
        LanceSource(uri, version=1).resolve(cache)


def test_unknown_tag_and_branch_list_what_there_is(uri, cache):
    dataset = lance.dataset(uri)
    dataset.tags.create("first", 1)
    dataset.create_branch("dev")
    with pytest.raises(SourceError, match=r"no tag 'frist'.* are: 'first'"):
        LanceSource(uri, tag="frist").resolve(cache)
    with pytest.raises(SourceError, match=r"no branch 'dve'.* are: 'dev'"):
        LanceSource(uri, branch="dve").resolve(cache)


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": "abc"},
        {"version": 0},
        {"version": True},
        {"tag": 3},
        {"branch": ""},
        {"tag": "a", "version": 1},
        {"tag": "a", "branch": "b"},
        {"filter": " "},
        {"filter": 3},
        {"storage_options": "abc"},
        {"storage_options": {"key": ["abc"]}},
    ],
)
def test_wrong_arguments_fail_at_construction(wrong):
    with pytest.raises(ConfigError):
        LanceSource("t.lance", **wrong)
    with pytest.raises(ConfigError):
        LanceDBSource("db", "t", **wrong)


def test_storage_options_become_text():
    options = {"allow_http": True, "timeout": 3, "region": None}
    source = LanceSource("t.lance", storage_options=options)
    assert source.storage_options == {"allow_http": "true", "timeout": "3"}
    assert hash(source) == hash(copy.deepcopy(source))
    assert source == copy.deepcopy(source)


# -- columns -------------------------------------------------------------------

ODD = ["id", "A b", "Up", "up", "id + 1", "select", "1", 'q"t', "it's", "é", "a\\b"]


@pytest.fixture
def odd(tmp_path, cache):
    """A table with odd names: each column holds its own number."""
    columns = {name: np.full(4, i) for i, name in enumerate(ODD)}
    columns["s"] = pa.array([{"left": 70, "B c": 71, "in": {"x.y": 72}}] * 4)
    lance.write_dataset(pa.table(columns), str(tmp_path / "odd.lance"))
    return LanceSource(tmp_path / "odd.lance").resolve(cache)


def check_read(snapshot, columns, with_row_id, expected):
    """Scan and take give the schema that was promised, and these values."""
    schema = snapshot.projected_schema(columns, with_row_id)
    asked = snapshot.lance_columns(columns, with_row_id)
    dataset = snapshot.open()
    for read in (
        dataset.scanner(columns=asked, offset=1, limit=1).to_table(),
        dataset.take([1], columns=asked),
    ):
        assert read.schema == schema
        assert read.to_pylist() == [expected]
        assert list(read.to_pylist()[0]) == list(expected)


def test_a_name_in_a_list_is_exactly_that_column(odd):
    for i, name in enumerate(ODD):
        check_read(odd, [name], False, {name: i})
        check_read(odd, [name], True, {name: i, "_rowid": 1})
        check_read(odd, {"new": name}, True, {"new": i, "_rowid": 1})
    check_read(odd, ODD[::-1], False, {n: i for i, n in reversed([*enumerate(ODD)])})


def test_fields_of_structs_are_columns(odd):
    expected = {"s.B c": 71, "up": 3, "s.in.x.y": 72}
    check_read(odd, ["s.B c", "up", "s.in.x.y"], False, expected)
    check_read(odd, {"left": "s.left"}, True, {"left": 70, "_rowid": 1})


def test_expressions_are_new_columns(odd):
    columns = {"twice": "up * 2", "id": "id", "half": "cast(up as float) / 2 -- note"}
    check_read(odd, columns, True, {"twice": 6, "id": 0, "half": 1.5, "_rowid": 1})
    check_read(odd, {"swap": "Up", "gone": None}, False, {"swap": 2})


def test_row_id_comes_last_unless_it_was_asked_for(odd):
    check_read(odd, ["_rowid", "up"], True, {"_rowid": 1, "up": 3})
    everything = odd.projected_schema(None, True).names
    assert everything == [*odd.schema.names, "_rowid"]
    assert odd.projected_schema(None).names == odd.schema.names
    assert odd.lance_columns(None) is None
    assert odd.projected_schema(["up"], True).field("_rowid").type == pa.uint64()


def test_row_offset_can_be_asked_for(odd):
    assert odd.projected_schema(["_rowoffset", "up"]).names == ["_rowoffset", "up"]


def test_unknown_column_lists_the_columns(odd):
    for columns in (["upp"], ["UP"], ["s.wrong"], ["up * 2"]):
        with pytest.raises(
            SourceError, match=r"unknown column .*columns there are: 'id', 'A b'"
        ):
            odd.projected_schema(columns)
    with pytest.raises(SourceError, match="did you mean 'up'"):
        odd.lance_columns(["upp"])


def test_unknown_column_of_a_wide_table_lists_some(tmp_path, cache):
    wide = pa.table({f"column_{i}": [1] for i in range(2000)})
    lance.write_dataset(wide, str(tmp_path / "wide.lance"))
    snapshot = LanceSource(tmp_path / "wide.lance").resolve(cache)
    with pytest.raises(SourceError, match="and 1960 more"):
        snapshot.lance_columns(["column_x"])
    assert len(snapshot.lance_columns(None, with_row_id=True)) == 2001


@pytest.mark.parametrize("sql", ["up +", "nope + 1", "sum(up)", "up, id", "up; id"])
def test_bad_expression_is_named(odd, sql):
    with pytest.raises(SourceError) as caught:
        odd.projected_schema({"fine": "up * 2", "bad": sql})
    assert f"({sql})" in str(caught.value)
    assert "'bad'" in str(caught.value)
    assert "columns there are" in str(caught.value)


@pytest.mark.parametrize(
    "wrong", ["up", [], {}, 3, [3], ["up", "up"], {"new": 3}, {"": "up"}, {"new": None}]
)
def test_columns_of_a_wrong_type_are_refused(odd, wrong):
    with pytest.raises(ConfigError, match="columns"):
        odd.projected_schema(wrong)


def test_lances_own_names_cannot_be_given_to_others(odd):
    with pytest.raises(SourceError, match="_rowid"):
        odd.projected_schema({"_rowid": "up"})


def test_column_with_a_backquote_is_refused_with_the_remedy(tmp_path, cache):
    lance.write_dataset(pa.table({"a`b": [1], "c": [2]}), str(tmp_path / "b.lance"))
    snapshot = LanceSource(tmp_path / "b.lance").resolve(cache)
    with pytest.raises(SourceError, match=r"backquote.*rename"):
        snapshot.projected_schema(["a`b"])
    assert snapshot.projected_schema(["c"]) == pa.schema({"c": pa.int64()})
    check = snapshot.open().scanner(columns=snapshot.lance_columns(["c"])).to_table()
    assert check.to_pylist() == [{"c": 2}]


# -- filters -------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "up > 3",
        "`A b` = 1",
        "s.left > 1",
        "true",
        "up > 3 -- note",
        "'random()' = '`now()`' or up > 3",
    ],
)
def test_filters_that_lance_reads_are_taken(odd, sql):
    odd.check_filter(sql)
    odd.open().scanner(filter=sql).to_table()


@pytest.mark.parametrize(
    "sql",
    [
        "up >",
        "nope > 3",
        "up",
        "1",
        "sum(up) > 2",
        "up > 'a'",
        "up > 3; drop",
        "up > 3 limit 5",
    ],
)
def test_bad_filter_gives_the_reason(odd, sql):
    with pytest.raises(SourceError, match=r"the filter .* failed: .*columns there are"):
        odd.check_filter(sql)


@pytest.mark.parametrize(
    "sql",
    ["random() < 0.5", "up > 1 and RANDOM () > 0", "now() > x", "d = current_date"],
)
def test_filter_that_gives_other_rows_each_time_is_refused(odd, sql):
    with pytest.raises(SourceError, match="another value each time"):
        odd.check_filter(sql)


def test_filter_is_checked_when_the_source_is_resolved(uri, cache):
    assert LanceSource(uri, filter="id > 3").resolve(cache).num_rows == 10
    sources_ = [
        LanceSource(uri, filter="nope > 3"),
        ArrowSource(table(), filter="nope > 3"),
    ]
    for source in sources_:
        with pytest.raises(SourceError, match="nope"):
            source.resolve(cache)


# -- LanceDB -------------------------------------------------------------------


@pytest.fixture
def database(tmp_path):
    lancedb = pytest.importorskip("lancedb")
    return lancedb.connect(tmp_path / "db")


def test_lancedb_table_is_read_by_lance_alone(database, cache, tmp_path):
    made = database.create_table("t", table())
    made.add(table(10))
    made.tags.create("first", 1)
    made.branches.create("dev", "main", 1).add(table(100, 5))
    place = tmp_path / "db"
    newest = LanceDBSource(place, "t").resolve(cache)
    assert (newest.version, ids(newest)) == (2, list(range(20)))
    assert read_elsewhere(newest, tmp_path) == str(list(range(20)))
    assert ids(LanceDBSource(place, "t", version=1).resolve(cache)) == [*range(10)]
    assert ids(LanceDBSource(place, "t", tag="first").resolve(cache)) == [*range(10)]
    branch = LanceDBSource(place, "t", branch="dev").resolve(cache)
    assert ids(branch) == [*range(10), *range(100, 105)]
    assert newest.identity == LanceSource(place / "t.lance").resolve(cache).identity


def test_lancedb_uri_forms_are_one_table(database, cache, tmp_path, monkeypatch):
    database.create_table("t", table())
    monkeypatch.chdir(tmp_path)
    forms = ["db", tmp_path / "db", f"file://{tmp_path}/db"]
    uris = {LanceDBSource(form, "t").resolve(cache).uri for form in forms}
    assert uris == {str(tmp_path / "db" / "t.lance")}


def test_lancedb_namespaces_are_read(cache, tmp_path):
    lancedb = pytest.importorskip("lancedb")
    database = lancedb.connect_namespace("dir", {"root": str(tmp_path / "db")})
    database.create_namespace(["a"])
    database.create_namespace(["a", "b"])
    database.create_table("t", table(0, 3))
    database.create_table("t", table(0, 5), namespace_path=["a"])
    made = database.create_table("t", table(0, 7), namespace_path=["a", "b"])
    made.add(table(7, 1))
    made.tags.create("first", 1)
    place = tmp_path / "db"
    assert LanceDBSource(place, "t").resolve(cache).num_rows == 3
    assert LanceDBSource(place, "t", namespace="a").resolve(cache).num_rows == 5
    deep = LanceDBSource(place, "t", namespace=["a", "b"])
    assert deep.resolve(cache).num_rows == 8
    assert read_elsewhere(deep.resolve(cache), tmp_path) == str(list(range(8)))
    tagged = LanceDBSource(place, "t", namespace=["a", "b"], tag="first")
    assert tagged.resolve(cache).num_rows == 7
    assert deep.describe() == f"{place}, table 'a.b.t'"
    with pytest.raises(SourceError, match="tables there are: 't'"):
        LanceDBSource(place, "no", namespace=["a"]).resolve(cache)


def test_missing_lancedb_table_lists_the_tables(database, cache, tmp_path):
    for i in range(12):
        database.create_table(f"t{i}", table())
    with pytest.raises(SourceError, match=r"tables there are: 't0', .*'t9'"):
        LanceDBSource(tmp_path / "db", "no").resolve(cache)


def test_missing_lancedb_folder_is_not_made(cache, tmp_path):
    with pytest.raises(SourceError, match="no LanceDB database"):
        LanceDBSource(tmp_path / "typo", "t").resolve(cache)
    assert not (tmp_path / "typo").exists()


def test_databases_that_cannot_be_opened_by_uri_say_what_to_do():
    with pytest.raises(SourceError, match="LanceDBSource"):
        LanceSource("db://name/t")
    with pytest.raises(SourceError, match="ArrowSource"):
        LanceDBSource("memory://", "t")
    with pytest.raises(SourceError, match="ArrowSource"):
        LanceSource("memory://t.lance")


# -- tables in memory ----------------------------------------------------------


def test_in_memory_table_is_read_from_the_cache(cache, tmp_path):
    source = ArrowSource(table())
    snapshot = source.resolve(cache)
    assert snapshot.open().to_table() == table()
    assert cache in Path(snapshot.uri).parents
    assert read_elsewhere(snapshot, tmp_path) == str(list(range(10)))
    snapshot.verify()
    assert source.describe() == "arrow table of 10 rows"
    assert snapshot == ArrowSource(table()).resolve(cache, version=1)
    with pytest.raises(SourceError, match="version 2"):
        source.resolve(cache, version=2)


RESOLVE = """
import sys, pathlib
import pyarrow as pa
from lance_lightning.sources import ArrowSource
rows = pa.table({"id": range(10), "text": [None, "a"] * 5, "list": [[1], None] * 5})
snapshot = ArrowSource(rows).resolve(pathlib.Path(sys.argv[1]))
print(snapshot.identity)
"""


def test_identity_of_an_in_memory_table_is_its_content(tmp_path):
    first = run(RESOLVE, str(tmp_path / "one"))
    assert first == run(RESOLVE, str(tmp_path / "other"))
    other = ArrowSource(table(1)).resolve(tmp_path / "one")
    assert str(other.identity) != first


def many_types() -> pa.Table:
    rng = np.random.Generator(np.random.Philox(key=3))
    numbers = rng.integers(0, 100, 24)
    hole = [None if i % 5 == 2 else i for i in range(24)]

    def each(make):
        return [None if i is None else make(i) for i in hole]

    maps = pa.map_(pa.string(), pa.int8())
    return pa.table(
        {
            "int": numbers,
            "null_int": pa.array(hole),
            "half": pa.array(each(float), pa.float16()),
            "bool": each(lambda i: i % 3 == 0),
            "text": each(lambda i: "x" * i),
            "large": pa.array(each(str), pa.large_string()),
            "bytes": each(lambda i: bytes([i])),
            "fixed_bytes": pa.array(each(lambda i: bytes([i, i])), pa.binary(2)),
            "list": each(lambda i: list(range(i % 3))),
            "lists": each(lambda i: [[i], None, []]),
            "vector": pa.array(each(lambda i: [i, None]), pa.list_(pa.float32(), 2)),
            "struct": each(lambda i: {"a": i, "b": None if i % 2 else "b"}),
            "map": pa.array(each(lambda i: [("k", i)]), maps),
            "kind": pa.array(each(lambda i: f"k{i % 3}")).dictionary_encode(),
            "null": pa.nulls(24),
            "when": pa.array(each(int), pa.timestamp("us", tz="UTC")),
        }
    )


def test_chunks_and_offsets_do_not_change_the_content():
    rows = many_types()
    expected = content_digest(rows)
    for size in (1, 5, 7, 23):
        chunks = [rows.slice(i, size) for i in range(0, 24, size)]
        assert content_digest(pa.concat_tables(chunks)) == expected
    padded = pa.concat_tables([rows.slice(3, 5), rows]).combine_chunks()
    assert content_digest(padded.slice(5)) == expected
    batches = rows.to_batches(max_chunksize=9)
    assert content_digest(pa.Table.from_batches(batches)) == expected


def test_every_value_is_part_of_the_content():
    rows = many_types()
    seen = {content_digest(rows)}
    for i, name in enumerate(rows.column_names):
        if name == "null":
            continue
        values = rows[name].to_pylist()
        values[0], values[4] = values[4], values[0]
        swapped = pa.array(values, rows.schema.field(i).type)
        seen.add(content_digest(rows.set_column(i, name, swapped)))
        values[0] = None
        hollow = pa.array(values, rows.schema.field(i).type)
        seen.add(content_digest(rows.set_column(i, name, hollow)))
    assert len(seen) == 1 + 2 * (rows.num_columns - 1)
    seen.add(content_digest(rows.slice(1)))
    seen.add(content_digest(rows.rename_columns([f"{n}_" for n in rows.column_names])))
    seen.add(content_digest(rows.replace_schema_metadata({"k": "v"})))
    assert len(seen) == 4 + 2 * (rows.num_columns - 1)


def test_bytes_under_a_null_are_not_content():
    mask = pa.py_buffer(bytes([0b101]))
    same = [
        pa.Array.from_buffers(pa.int64(), 3, [mask, pa.py_buffer(np.array(values))])
        for values in ([1, 7, 3], [1, 8, 3])
    ]
    assert same[0].to_pylist() == same[1].to_pylist() == [1, None, 3]
    assert len({content_digest(pa.table({"x": values})) for values in same}) == 1
    within = [pa.StructArray.from_arrays([a], ["a"]) for a in same]
    assert len({content_digest(pa.table({"x": values})) for values in within}) == 1


def test_empty_and_chunkless_tables_have_the_same_content():
    empty = table().slice(0, 0)
    assert content_digest(empty) == content_digest(empty.schema.empty_table())
    assert content_digest(empty) != content_digest(table())


def test_extension_arrays_are_content(cache):
    rows = [
        pa.table({"t": pa.FixedShapeTensorArray.from_numpy_ndarray(values)})
        for values in (np.zeros((3, 2, 2), "f4"), np.ones((3, 2, 2), "f4"))
    ]
    assert content_digest(rows[0]) != content_digest(rows[1])
    snapshot = ArrowSource(rows[1]).resolve(cache)
    assert snapshot.open().to_table()["t"].to_pylist() == rows[1]["t"].to_pylist()


def test_types_that_lance_does_not_store_are_named(cache):
    runs = pa.RunEndEncodedArray.from_arrays([2, 5], [1, 2])
    with pytest.raises(SourceError, match=r"column 'runs'.*run_end.*cast"):
        ArrowSource(pa.table({"runs": runs})).resolve(cache)
    small = pa.table({"m": pa.nulls(2, pa.month_day_nano_interval())})
    with pytest.raises(SourceError, match=r"Interval.*cast"):
        ArrowSource(small).resolve(cache)
    assert not [p for p in (cache / "tables").iterdir() if not p.name.endswith(".lock")]


def test_racing_processes_store_an_in_memory_table_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(2) as pool:
        asked = [pool.apply_async(resolve_there, (tmp_path,)) for _ in range(4)]
        found = [answer.get(60) for answer in asked]
    assert len(set(found)) == 1
    folders = [p for p in (tmp_path / "tables").iterdir() if p.is_dir()]
    assert [str(folder) for folder in folders] == [found[0][0]]


def resolve_there(cache):
    snapshot = ArrowSource(table()).resolve(cache)
    return snapshot.uri, snapshot.identity


def test_arrow_source_is_copied_and_pickled(cache):
    batch = table().to_batches()[0]
    source = ArrowSource(batch, filter="id > 3")
    assert copy.deepcopy(source) is source
    again = pickle.loads(pickle.dumps(source))
    assert again.filter == "id > 3"
    assert again.resolve(cache) == source.resolve(cache)


def test_lancedb_table_in_memory_is_read_at_once(cache):
    lancedb = pytest.importorskip("lancedb")
    made = lancedb.connect("memory://").create_table("t", table())
    made.delete("id = 3")
    source = ArrowSource(made)
    made.add(table(10))
    expected = [i for i in range(10) if i != 3]
    assert ids(source.resolve(cache)) == expected
    assert ids(pickle.loads(pickle.dumps(source)).resolve(cache)) == expected


def test_what_is_no_table_in_memory_says_what_to_use(database):
    stored = database.create_table("t", table())
    with pytest.raises(ConfigError, match="LanceDBSource"):
        ArrowSource(stored)
    for wrong in ("t.lance", [1], {"id": [1]}):
        with pytest.raises(ConfigError, match="ArrowSource takes"):
            ArrowSource(wrong)
    with pytest.raises(ConfigError, match="without columns"):
        ArrowSource(pa.table({}))


# -- which source --------------------------------------------------------------


def test_paths_and_uris_are_lance_sources(tmp_path):
    assert as_source("a.lance") == LanceSource("a.lance")
    assert as_source(tmp_path) == LanceSource(str(tmp_path))
    given = [LanceSource("a"), LanceDBSource("db", "t"), ArrowSource(table())]
    for source in given:
        assert isinstance(source, Source)
        assert as_source(source) is source
    assert as_source(table()).table == table()
    for wrong in (3, None, SeparateSources(train="a")):
        with pytest.raises(ConfigError, match="source must be"):
            as_source(wrong)
    with pytest.raises(ConfigError, match="uri must be"):
        as_source("")


def test_separate_sources_hold_one_for_each_split():
    held = SeparateSources(train="a.lance", val=LanceDBSource("db", "t"), test=None)
    assert held.sources == {
        "train": LanceSource("a.lance"),
        "val": LanceDBSource("db", "t"),
    }
    assert held.source_of("train") == LanceSource("a.lance")
    with pytest.raises(ConfigError, match=r"'test'.*'train', 'val'"):
        held.source_of("test")
    assert held.describe() == "train: a.lance; val: db, table 't'"
    assert pickle.loads(pickle.dumps(held)) == copy.deepcopy(held) == held
    with pytest.raises(ConfigError, match="itself a SeparateSources"):
        SeparateSources(train=held)
    for nothing in ({}, {"train": None}):
        with pytest.raises(ConfigError, match="a source for each split"):
            SeparateSources(**nothing)
