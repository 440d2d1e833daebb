"""A table with deletions, and a cache that splits are kept in."""

import pytest

from tests.helpers.split_tables import make_table


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_table(tmp_path_factory.mktemp("db"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")
