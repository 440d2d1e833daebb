"""Tables of a LanceDB database as sources."""

from __future__ import annotations

import pytest

from lance_lightning.errors import SourceError
from lance_lightning.sources.database import LanceDBSource
from lance_lightning.sources.lance import LanceSource
from tests.helpers.ten_rows import ids, read_elsewhere, table


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
