"""Which source a value is taken for."""

from __future__ import annotations

import copy
import pickle

import pytest

from lance_lightning.errors import ConfigError
from lance_lightning.sources.arrow import ArrowSource
from lance_lightning.sources.base import Source
from lance_lightning.sources.database import LanceDBSource
from lance_lightning.sources.lance import LanceSource
from lance_lightning.sources.open_objects import as_source
from lance_lightning.sources.separate import SeparateSources
from tests.helpers.ten_rows import table


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
