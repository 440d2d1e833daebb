"""Fixtures of all tests, and how long one of the default run may take."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.processes import EXAMPLES, run_script
from tests.helpers.tables import write_table
from tests.helpers.worker_in_process import InProcessLoader

MOST_SECONDS = 10


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail a test of the default run that takes more than `MOST_SECONDS`.

    It has to take that long by the clock and in CPU time. A test on a loaded machine
    waits for its turn, which the clock counts and CPU time does not; threads that run
    at once add up in CPU time and not by the clock. What only sleeps passes, and so
    do fixtures: the tests of a file share theirs.
    """
    before, begin = cpu_seconds(), time.perf_counter()
    result = yield
    taken = min(cpu_seconds() - before, time.perf_counter() - begin)
    if taken > MOST_SECONDS and item.get_closest_marker("slow") is None:
        pytest.fail(
            f"it took {taken:.1f} s of CPU time, and a test may take {MOST_SECONDS}: "
            "make it smaller, or mark it as slow",
            pytrace=False,
        )
    return result


@pytest.fixture(autouse=True)
def _cache_dir(tmp_path_factory, monkeypatch):
    monkeypatch.setenv(
        "LANCE_LIGHTNING_CACHE_DIR", str(tmp_path_factory.mktemp("cache"))
    )


@pytest.fixture(params=["in process", pytest.param("spawned", marks=pytest.mark.slow)])
def worker_kind(request, monkeypatch) -> str:
    """What the workers of loaders are; by default none is started."""
    if request.param == "in process":
        monkeypatch.setattr(
            "lance_lightning.loading.workers.DataLoader", InProcessLoader
        )
    return request.param


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """A working folder of the examples, which holds `data/digits.lance`."""
    folder = tmp_path_factory.mktemp("digits")
    run_script(folder, EXAMPLES / "make_digits.py").check_returncode()
    return folder


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder of all tests, with a table and a cache."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def shared_table(shared) -> str:
    """The table of `table`, for fixtures of more than one test."""
    return write_table(shared / "table.lance", 103, rows_per_file=30)


@pytest.fixture
def table(shared_table) -> Iterator[str]:
    """A table of 103 rows in files of 30: nothing divides. No test may change it."""
    files = sorted(Path(shared_table).rglob("*"))
    yield shared_table
    if sorted(Path(shared_table).rglob("*")) != files:
        shutil.rmtree(shared_table)
        write_table(shared_table, 103, rows_per_file=30)
        pytest.fail("a test that changes its table asks for own_table")


@pytest.fixture
def own_table(tmp_path) -> str:
    """A table like `table` that a test may change."""
    return write_table(tmp_path / "table.lance", 103, rows_per_file=30)


@pytest.fixture
def shared_cache(_cache_dir, shared, monkeypatch) -> None:
    """Keep what was built for tests that do not ask where it comes from."""
    monkeypatch.setenv("LANCE_LIGHTNING_CACHE_DIR", str(shared / "cache"))
