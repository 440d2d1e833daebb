"""A process that was forked while Lance was loaded raises at once and never hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lance_lightning.forks import OS_FORK, lance_runs, starter
from tests.helpers.processes import APPS
from tests.helpers.tables import write_table

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return write_table(tmp_path_factory.mktemp("forks") / "table.lance", 103)


@pytest.fixture(scope="module")
def said(uri, tmp_path_factory) -> dict[str, str]:
    """What children said that were forked in all ways."""
    target = tmp_path_factory.mktemp("said") / "said.json"
    command = [sys.executable, str(APPS / "fork_app.py"), uri, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(target.read_text())


@pytest.mark.parametrize(
    "name",
    [
        "a new module",
        "setup",
        "a batch of an iterator",
        "a new iterator",
        "a sample",
        "samples of an iterable",
        "the table",
        "an import",
    ],
)
def test_every_public_object_refuses_a_forked_child_at_once(said, name):
    assert said[name].startswith("ConfigError: this process was forked by os.fork")
    assert "get_context('spawn')" in said[name]


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("a Process", "a multiprocessing.Process"),
        ("a Pool", "a multiprocessing.Pool"),
        ("an executor", "a ProcessPoolExecutor"),
        ("a DataLoader", "a DataLoader of torch's"),
    ],
)
def test_the_refusal_names_what_forked(said, name, starts):
    assert f"this process was forked by {starts}" in said[name]
    assert "spawn" in said[name]


def test_a_child_that_was_forked_before_lance_was_loaded_reads(said):
    assert said["before Lance"] == "value 103"
    assert said["the parent"] == "value 103"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preloaded", "code", "expected"),
    [
        ("lance_lightning.datamodule.module", "", "103 rows"),
        (
            "reads_at_import",
            "import lance\nimport lance_lightning.datamodule.module\n"
            "lance.dataset(URI).to_table()\n",
            "forked by multiprocessing's forkserver, whose server had read with Lance",
        ),
    ],
)
def test_a_forkservers_worker_reads_unless_its_server_has(
    uri, tmp_path, preloaded, code, expected
):
    code = code.replace("URI", repr(uri))
    (tmp_path / "reads_at_import.py").write_text(code)
    done = subprocess.run(
        [sys.executable, str(APPS / "forkserver_app.py"), uri, preloaded],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert expected in done.stdout, done.stderr


def test_what_starts_a_process_by_no_known_module_is_os_fork():
    assert starter(sys._getframe()) == OS_FORK
    assert starter(None) == OS_FORK


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are not told")
def test_lances_threads_are_known_by_their_names(uri):
    import lance

    lance.dataset(uri).to_table()
    assert lance_runs()
