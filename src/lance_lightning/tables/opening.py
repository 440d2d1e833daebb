"""A table is opened: the newest version, one of them, of a branch or a tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lance

from lance_lightning.checks import LISTED, quote_names
from lance_lightning.errors import SourceError
from lance_lightning.forks import refuse_fork
from lance_lightning.tables.secrets import explain_errors, strip_secrets


def open_newest(uri: str, options: Mapping[str, str | None]) -> Any:
    """Return the ``lance.LanceDataset`` at the newest version of main."""
    refuse_fork()
    check_environment(options)
    doing = f"opening the Lance dataset at {strip_secrets(uri)!r}"

    def remedy() -> str:
        return f"check the URI and the storage options{tables_in(uri)}"

    with explain_errors(doing, uri, options, remedy):
        return lance.dataset(uri, storage_options=dict(options) or None)


def open_at(
    uri: str, options: Mapping[str, str | None], branch: str | None, version: int
) -> Any:
    """Return the ``lance.LanceDataset`` at a version of a branch."""
    if branch is None:
        check_environment(options)
        try:  # one request less than by way of the newest version
            return lance.dataset(uri, version, storage_options=dict(options) or None)
        except (ValueError, OSError):
            pass  # found again, and explained, below
    return check_out(open_newest(uri, options), uri, options, branch, version)


def check_out(
    newest: Any,
    uri: str,
    options: Mapping[str, str | None],
    branch: str | None,
    version: int | None,
) -> Any:
    """Return a version of a branch, given the newest of main."""
    if branch is not None:
        newest = _branch_head(newest, uri, options, branch)
    if version is None or version == newest.version:
        return newest
    place = strip_secrets(uri) + (f", branch {branch!r}" if branch else "")

    def remedy() -> str:
        there = _ranges([found["version"] for found in newest.versions()])
        return (
            f"versions there are: {there}. cleanup_old_versions removes what has no "
            "tag: tag the version that a run needs (dataset.tags.create(name, "
            "version)), or choose one that is there"
        )

    with explain_errors(f"opening version {version} of {place}", uri, options, remedy):
        return newest.checkout_version((branch, version))


def _branch_head(
    newest: Any, uri: str, options: Mapping[str, str | None], branch: str
) -> Any:
    place = strip_secrets(uri)
    with explain_errors(f"listing the branches of {place}", uri, options, "try again"):
        there = newest.branches.list()
    if branch not in there:
        raise SourceError(
            f"no branch {branch!r} at {place}, so nothing can be read from it; "
            f"branches there are: {quote_names(sorted(there))}; leave branch out for "
            "main"
        )
    with explain_errors(
        f"opening branch {branch!r} of {place}", uri, options, "try again"
    ):
        return newest.checkout_version((branch, None))


def resolve_tag(
    newest: Any, uri: str, options: Mapping[str, str | None], tag: str
) -> tuple[str | None, int]:
    """Return branch and version of a tag: only its version would mean main's."""
    place = strip_secrets(uri)
    with explain_errors(f"listing the tags of {place}", uri, options, "try again"):
        there = newest.tags.list()
    if tag not in there:
        raise SourceError(
            f"no tag {tag!r} at {place}, so no version can be chosen by it; "
            f"tags there are: {quote_names(sorted(there))}"
        )
    return there[tag]["branch"], int(there[tag]["version"])


def check_environment(options: Mapping[str, str | None]) -> None:
    """Raise a `SourceError` if the environment lacks an option left to it."""
    missing = [key.upper() for key, value in options.items() if value is None]
    if missing:
        raise SourceError(
            "storage options that the environment held where the table was pinned are "
            "missing in this process, so it cannot be opened; set the environment "
            f"variables {quote_names(missing)} here too"
        )


def _ranges(numbers: Sequence[int]) -> str:
    """Return ``"1-3, 7"`` for 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs[-LISTED:]]
    return ", ".join(shown) or "none"


def tables_in(uri: str) -> str:
    """Say which tables a local folder holds: a database given for a table."""
    folder = local_path(uri)
    if folder is None or not folder.is_dir():
        return ""
    tables = sorted(path.name for path in folder.glob("*.lance"))
    return f"; Lance datasets in that folder: {quote_names(tables)}" if tables else ""


def local_path(uri: str) -> Path | None:
    """Return the absolute path of a local folder, None for an object store."""
    path = uri.removeprefix("file://")
    return None if "://" in path else Path(path).expanduser().absolute()


def absolute(uri: str) -> str:
    """Return a local path absolute, as a worker may run in another folder."""
    return uri if "://" in uri else str(local_path(uri))
