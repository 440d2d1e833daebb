"""Fixtures of runs that are saved and resumed."""

from __future__ import annotations

import pytest

from tests.helpers.resuming import Runs
from tests.helpers.tables import write_table


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    folder = tmp_path_factory.mktemp("resume")
    return Runs(folder, write_table(folder / "t.lance", 37, rows_per_file=10))
