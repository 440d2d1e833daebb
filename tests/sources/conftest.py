"""A database and a cache of its own."""

from __future__ import annotations

import pytest


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def database(tmp_path):
    lancedb = pytest.importorskip("lancedb")
    return lancedb.connect(tmp_path / "db")
