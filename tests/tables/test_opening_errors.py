"""A table that cannot be opened is an error that says what there is."""

from __future__ import annotations

import copy
from datetime import timedelta

import lance
import pytest

from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.sources.database import LanceDBSource
from lance_lightning.sources.lance import LanceSource
from tests.helpers.ten_rows import table


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
