"""The identity of a table's data."""

from __future__ import annotations

import shutil

import lance
import pyarrow as pa
import pytest

from lance_lightning.errors import SourceError
from lance_lightning.sources.lance import LanceSource
from lance_lightning.tables import open_datasets
from lance_lightning.tables.identity import Identity, schema_digest
from tests.helpers.ten_rows import ids, table


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
