"""A table of ten rows, read in this process and in another."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback

import numpy as np
import pyarrow as pa

SECRET = "planted-secret-0123456789"


def table(start: int = 0, rows: int = 10) -> pa.Table:
    ids = np.arange(start, start + rows)
    return pa.table({"id": ids, "value": ids * 0.5})


def ids(snapshot) -> list[int]:
    return snapshot.open().to_table(columns=["id"])["id"].to_pylist()


def run(code: str, *arguments: str, **environment: str) -> str:
    """Run code in a fresh process, as a spawned worker is."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


READ_IDS = """
import pickle, sys
snapshot = pickle.load(open(sys.argv[1], "rb"))
print(snapshot.open().to_table(columns=["id"])["id"].to_pylist())
assert not {"lancedb", "lightning", "hydra"} & set(sys.modules), "heavy imports"
"""


def read_elsewhere(snapshot, folder, **environment: str) -> str:
    (folder / "snapshot.pickle").write_bytes(pickle.dumps(snapshot))
    return run(READ_IDS, str(folder / "snapshot.pickle"), **environment)


def printed(caught) -> str:
    return "".join(traceback.format_exception(caught.value))
