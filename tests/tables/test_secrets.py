"""Neither texts nor errors show a secret."""

from __future__ import annotations

import pytest

from lance_lightning.errors import SourceError
from lance_lightning.sources.database import LanceDBSource
from lance_lightning.sources.lance import LanceSource
from lance_lightning.sources.separate import SeparateSources
from lance_lightning.tables.secrets import explain_errors, strip_secrets
from tests.helpers.ten_rows import SECRET, printed


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
        explain_errors("opening", "s3://bucket/x", options, "look up"),
    ):
        raise OSError(f"true: denied for {SECRET}, /src/rust/store.rs:1:2")
    assert str(caught.value) == "opening failed: true: denied for ***; look up"
    assert SECRET not in printed(caught)


def test_error_keeps_its_cause_when_the_remedy_cannot_be_found():
    def remedy():
        raise OSError(f"listing denied for {SECRET}")

    raising = explain_errors("opening", "s3://b/x", {}, remedy)
    kept = r"gone.*not be listed .*OSError"
    with pytest.raises(SourceError, match=kept) as caught, raising:
        raise ValueError("gone")
    assert SECRET not in printed(caught)
