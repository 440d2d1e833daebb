"""A table of ten rows, and a cache of its own."""

from __future__ import annotations

import lance
import pytest

from tests.helpers.ten_rows import table


@pytest.fixture
def uri(tmp_path):
    place = str(tmp_path / "t.lance")
    lance.write_dataset(table(), place)
    return place


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"
