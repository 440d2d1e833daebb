"""The one door through which rows of a pinned table are read.

Whatever reads storage once a table is open comes through here, so that a read which
fails says what was lost, why, and what to do; what retries, waits or counts belongs
here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pyarrow as pa

from lance_lightning.errors import SourceError
from lance_lightning.tables.opening import check_out, open_newest
from lance_lightning.tables.secrets import explain_errors, strip_secrets
from lance_lightning.tables.snapshot import Snapshot

T = TypeVar("T")

# What Lance and Arrow raise for a read that fails.
STORAGE_ERRORS = (OSError, ValueError, RuntimeError, pa.ArrowException)


def read_table(
    snapshot: Snapshot,
    doing: str,
    work: Callable[[Any], T],
    caught: tuple[type[Exception], ...] = STORAGE_ERRORS,
) -> T:
    """Return what ``work`` reads of a table.

    Args:
        snapshot: The table, pinned.
        doing: What is done, for the error: ``"reading 5 rows"``.
        work: Called with the open dataset.
        caught: What it raises where a read fails.

    Raises:
        SourceError: It failed. The message names table and version, says whether
            these are still there, and what to do.
    """
    reason = ""

    def remedy() -> str:
        return _what_was_lost(snapshot, reason)

    with explain_errors(
        f"{doing} of {snapshot.describe()}",
        snapshot.uri,
        snapshot.storage_options,
        remedy,
        caught,
    ):
        try:
            return work(snapshot.open())
        except caught as error:
            reason = str(error)
            raise


def scan_table(
    snapshot: Snapshot, doing: str, scanner: Callable[[], Any]
) -> Iterator[Any]:
    """Yield the record batches of a scan of a table, each read through the door.

    Args:
        snapshot: The table, pinned.
        doing: What is done, for the error.
        scanner: Returns the scanner.

    Raises:
        SourceError: As `read_table` does.
    """
    batches = read_table(snapshot, doing, lambda _: iter(scanner().to_batches()))
    while True:
        batch = read_table(snapshot, doing, lambda _: next(batches, None))
        if batch is None:
            return
        yield batch


def _what_was_lost(snapshot: Snapshot, reason: str) -> str:
    """Return why a read failed, as far as storage tells, and what to do."""
    uri, options = snapshot.uri, snapshot.storage_options
    if snapshot.remote is not None:
        return "check that the server can be reached, and resume from a checkpoint"
    if snapshot.from_memory:
        return (
            "this is the copy of an in-memory table in the cache folder: start again, "
            "with cache_dir=... a folder that nothing cleans up meanwhile"
        )
    try:
        newest = open_newest(uri, options)
    except SourceError:
        return (
            f"{strip_secrets(uri)!r} cannot be opened any more: the table was "
            "removed or renamed, a link to it moved, or its storage does not answer. "
            "Bring it back, and resume from a checkpoint"
        )
    try:
        check_out(newest, uri, options, snapshot.branch, snapshot.version)
    except SourceError:
        return _version_is_gone(snapshot, newest)
    try:
        snapshot.verify()
    except SourceError as error:
        return str(error)
    if "not found" in reason.lower():
        return (
            f"version {snapshot.version} is listed still, but the file above is "
            "missing: it was deleted or not copied along, or a cleanup_old_versions "
            f"is at work, which spares versions with a tag ({_tag(snapshot)}). Bring "
            "the file back, or start a new run on a version that is whole"
        )
    return (
        "table and version are there still, so the storage did not answer, a file is "
        "damaged, or a SQL expression among the columns met a value that it cannot "
        "take; mend that, and resume from a checkpoint"
    )


def _version_is_gone(snapshot: Snapshot, newest: Any) -> str:
    return (
        f"version {snapshot.version} was removed while it was read, and newest is "
        f"{newest.version}: cleanup_old_versions, which LanceDB's table.optimize() "
        "runs too, deletes versions that have no tag. Tag the version that a run "
        f"reads before it starts ({_tag(snapshot)}). Its rows are lost: start a new "
        "run on a version that is there"
    )


def _tag(snapshot: Snapshot) -> str:
    version, branch = snapshot.version, snapshot.branch
    of = version if branch is None else (branch, version)
    return (
        f"lance.dataset(uri).tags.create('training', {of!r}), or LanceDB's "
        f"table.tags.create('training', {version})"
    )
