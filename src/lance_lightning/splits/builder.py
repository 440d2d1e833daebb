"""LanceDB's permutation builder, run on a stand-in for the table.

The stand-in is a small Lance dataset with a row for each row that is to be assigned,
and the columns that the assignment needs. So the table itself may be anywhere, with
row ids of any kind. Few rows are assigned in this process. Many are assigned in a
child process, because the builder takes its memory limit from an environment variable
only; it is not a fork, since lancedb's threads do not survive one.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

_IN_PROCESS = 1_000_000  # rows: 33 MB of the builder's own limit of 100 MB
_POLL = 0.5  # seconds between two looks at the child
_CHUNK = 1 << 20  # rows written at a time
_log = logging.getLogger(__name__)


def write_stand_in(folder: Path, schema: Any, batches: Iterable[Any]) -> None:
    """Write the stand-in: in one fragment, where a row's id is its place."""
    import lance  # not above: the child does without, and starts the sooner

    reader = pa.RecordBatchReader.from_batches(schema, batches)
    lance.write_dataset(
        reader,
        str(_stand_in(folder)),
        max_rows_per_file=2**32 - 1,  # Lance takes 2**32 for none
        max_bytes_per_file=2**62,
    )


def write_blank_stand_in(folder: Path, num_rows: int) -> None:
    """Write a stand-in for an assignment that depends only on the number of rows."""
    schema = pa.schema([("c0", pa.int8())])
    sizes = (min(_CHUNK, num_rows - i) for i in range(0, num_rows, _CHUNK))
    columns = (pa.array(np.zeros(size, np.int8)) for size in sizes)
    batches = (pa.record_batch([column], schema=schema) for column in columns)
    write_stand_in(folder, schema, batches)


def assign(
    folder: Path,
    request: dict[str, Any],
    num_rows: int,
    num_splits: int,
    tick: Callable[[], None],
) -> Any:
    """Return the split, an unsigned int, of each row of the stand-in in ``folder``.

    Args:
        folder: Where the stand-in was written; scratch space.
        request: ``method`` names the builder's method, the rest its arguments.
        num_rows: The rows of the stand-in; at least one.
        num_splits: The splits; it is also what rows in no split get.
        tick: Called now and then while the builder runs.

    Raises:
        RuntimeError: The builder failed; the message is its reason.
    """
    job = {
        "folder": str(folder),
        "request": request,
        "num_rows": num_rows,
        "num_splits": num_splits,
    }
    if num_rows <= _IN_PROCESS:
        try:
            return _assigned(job, folder)
        except Exception as error:
            # An environment with a lower limit, say. The child has a higher one, and
            # tells the reason of what fails there too.
            _log.debug("the builder failed in this process: %s", error)
    return _assigned_by_child(job, folder, tick)


def _assigned_by_child(
    job: dict[str, Any], folder: Path, tick: Callable[[], None]
) -> Any:
    code, errors = _run_child(job, tick)
    if code < 0:
        raise RuntimeError(
            f"its process was killed by signal {-code}, as happens when memory runs out"
        )
    if code > 0:
        failed = folder / "error.txt"
        told = failed.read_text(encoding="utf-8") if failed.exists() else ""
        raise RuntimeError(_shortened(told or errors))
    return np.load(folder / "assigned.npy")


def assigned_of(split_ids: Any, num_splits: int) -> Any:
    """Return the split, an unsigned int, of each row of LanceDB's split ids.

    It is ``num_splits`` for rows in no split: those of null, or beyond the names.
    """
    values = split_ids.fill_null(0).to_numpy(zero_copy_only=False)
    named = split_ids.is_valid().to_numpy(zero_copy_only=False) & (values < num_splits)
    assigned = np.full(len(values), num_splits, np.min_scalar_type(num_splits))
    assigned[named] = values[named]
    return assigned


def _stand_in(folder: Path) -> Path:
    return folder / "rows.lance"


def _run_child(job: dict[str, Any], tick: Callable[[], None]) -> tuple[int, str]:
    """Run `main` in a child, and return its exit code and what it complained."""
    child = subprocess.Popen(
        # Not multiprocessing, which would import the user's script again.
        [sys.executable, "-W", "ignore", "-c", f"import {__name__} as b; b.main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=job["folder"],
        env={**os.environ, **_environment(job)},
        encoding="utf-8",
        errors="replace",
    )
    with child:
        try:
            request: str | None = json.dumps(job)
            while True:
                try:
                    _, errors = child.communicate(request, timeout=_POLL)
                    return child.returncode, errors
                except subprocess.TimeoutExpired:
                    request = None  # it is on its way
                    tick()
        except BaseException:
            child.kill()
            raise


def _environment(job: dict[str, Any]) -> dict[str, str]:
    return {
        # The builder sorts within a pool of 100 MB, and cannot do with less than
        # about 33 bytes a row. This is a limit: what is not needed is not taken.
        "LANCEDB_PERM_BUILDER_MEMORY_LIMIT": str(2**30 + 256 * job["num_rows"]),
        # What a killed builder leaves goes with the folder.
        "TMPDIR": job["folder"],
        # The child finds what this process finds, wherever it was started.
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path),
    }


def _shortened(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    shown = lines[-1:] if text.startswith("Traceback") else lines
    return " ".join(shown)[:600] or "it gave no reason"


# -- in the child, and here for few rows ---------------------------------------


def main() -> None:
    """Do the job that comes as JSON on stdin: what the child process runs.

    The split of each row is written to ``assigned.npy`` in the job's folder, or the
    reason of a failure to ``error.txt``.
    """
    job = json.load(sys.stdin)
    folder = Path(job["folder"])
    try:
        np.save(folder / "assigned.npy", _assigned(job, folder))
    except BaseException as error:  # a panic in Rust is no Exception
        (folder / "error.txt").write_text(str(error), encoding="utf-8")
        sys.exit(1)


def _assigned(job: dict[str, Any], folder: Path) -> Any:
    import lancedb
    from lancedb.permutation import permutation_builder

    table = lancedb.connect(folder).open_table(_stand_in(folder).stem)
    request = dict(job["request"])
    method = getattr(permutation_builder(table), request.pop("method"))
    found = method(**request).execute().to_arrow()
    none = job["num_splits"]
    assigned = np.full(job["num_rows"], none, np.min_scalar_type(none))
    assigned[found["row_id"].to_numpy()] = assigned_of(found["split_id"], none)
    return assigned
