"""A table pinned at a version, which every process opens for itself."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import lance
import pyarrow as pa

from lance_lightning.arrow import bytes_of_blobs, register_extension_types
from lance_lightning.checks import LISTED, listed
from lance_lightning.errors import LanceLightningError, SourceError, is_panic
from lance_lightning.forks import refuse_fork
from lance_lightning.identity import Identity, identity_of
from lance_lightning.projection import Columns, asked_of_lance, check_filter, one
from lance_lightning.sql import literal_hint

register_extension_types()  # before a schema is read


def strip_secrets(uri: str) -> str:
    """Return ``uri`` without user, password and query: they can hold secrets."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    user, _, server = host.rpartition("@")
    # Azure writes abfss://CONTAINER@ACCOUNT/..., where the container is no secret.
    if user and (":" in user or not scheme.startswith(("abfs", "wasb"))):
        host = server
    return f"{scheme}://{host}{slash}{path}"


def _secrets(uri: str, options: Mapping[str, str | None]) -> list[str]:
    """Return what must not be shown, the longest first."""
    rest = uri.partition("://")[2]
    user = rest.split("/", 1)[0].rpartition("@")[0]
    query = rest.partition("?")[2]
    found = [*options.values(), user, *user.split(":"), query]
    found += [part.partition("=")[2] for part in query.split("&")]
    secrets = {value for value in found if value and len(value) > 3}
    return sorted(secrets - {"true", "false"}, key=len, reverse=True)


@contextmanager
def explained(
    doing: str,
    uri: str,
    options: Mapping[str, str | None],
    remedy: str | Callable[[], str],
    caught: tuple[type[Exception], ...] = (ValueError, OSError, RuntimeError),
) -> Iterator[None]:
    """Turn what Lance raises into a `SourceError` that shows no secret."""
    try:
        yield
    except LanceLightningError:
        raise
    except BaseException as error:
        if not isinstance(error, caught) and not is_panic(error):
            raise
        # Lance appends the places in its own source files.
        reason = re.sub(r",? \S+\.rs:\d+:\d+", "", str(error))
        shown = reason
        for secret in _secrets(uri, options):
            shown = shown.replace(secret, "***")
        # A traceback would print the original, secret and all.
        cause = error if shown == reason else None
        raise SourceError(f"{doing} failed: {shown}; {_told(remedy)}") from cause


def _told(remedy: str | Callable[[], str]) -> str:
    """Return the remedy, which may have to ask the storage what there is."""
    if isinstance(remedy, str):
        return remedy
    try:
        return remedy()
    except Exception as error:  # its text could show a secret, and hide the cause
        return f"what there is could not be listed either ({type(error).__name__})"


class Remote(Protocol):
    """How a process opens a table that lies behind a server; it can pickle."""

    def open(
        self, options: Mapping[str, str | None], branch: str | None, version: int
    ) -> Any:
        """Return what stands in for a ``lance.LanceDataset``, with `identity()`."""

    def table_at(
        self, options: Mapping[str, str | None], branch: str | None, version: int
    ) -> Any:
        """Return LanceDB's own table."""


@dataclass(frozen=True, slots=True, repr=False)
class Snapshot:
    """A table pinned at a version: small, and opened by each process for itself.

    Args:
        uri: Where the Lance dataset lies; absolute where it is a local path.
        version: The pinned version, counted on ``branch``.
        branch: The branch, or None for main.
        storage_options: What the object store needs. A value that the environment
            holds as well (``os.environ[key.upper()]``) is left out of the pickle
            and comes back from the environment of the process that opens it.
        identity: What was found at that version when it was pinned.
        from_memory: The dataset is the cached copy of an in-memory table.
        remote: Opens a table that lies behind a server; None for Lance itself.
    """

    uri: str
    version: int
    branch: str | None
    storage_options: Mapping[str, str | None] = field(hash=False)
    identity: Identity
    from_memory: bool = False
    remote: Remote | None = None

    @property
    def num_fragments(self) -> int:
        """Fragments that the rows lie in; 0 where Lance cannot tell."""
        dataset = self.open()
        return len(dataset.get_fragments()) if self.remote is None else 0

    @property
    def is_local(self) -> bool:
        """Whether the dataset lies in the file system."""
        scheme, mark, _ = self.uri.partition("://")
        return self.remote is None and (not mark or scheme.startswith("file"))

    def open(self) -> Any:
        """Return the ``lance.LanceDataset`` at this version, or what stands in for it.

        One a process: opened, and held against `identity`, the first time.

        Raises:
            SourceError: The version is gone, or another table lies there now.
        """
        refuse_fork()
        return _open_datasets(self)

    def opened_as(self, dataset: Any) -> None:
        """Let `open` return the dataset whose identity this is, in this process."""
        _open_datasets.keep(self, dataset)

    def verify(self) -> None:
        """Open the table again and compare it with what was pinned.

        Raises:
            SourceError: The version is gone, or another table lies there now.
        """
        _open_verified(self)

    @property
    def schema(self) -> Any:
        """The ``pyarrow.Schema`` of the table."""
        return self.open().schema

    @property
    def num_rows(self) -> int:
        """The rows of the table, without those that were deleted."""
        return int(self.open().count_rows())

    def describe(self) -> str:
        """Return URI, branch and version, without secrets."""
        branch = f", branch {self.branch!r}" if self.branch else ""
        return f"{strip_secrets(self.uri)}{branch}, version {self.version}"

    def __repr__(self) -> str:
        return f"Snapshot({self.describe()})"

    def __reduce__(self) -> tuple[Any, ...]:
        options = without_environment(self.storage_options)
        state = (self.uri, self.version, self.branch, options)
        return _restored, (*state, self.identity, self.from_memory, self.remote)

    def lance_columns(
        self, columns: Columns, with_row_id: bool = False
    ) -> list[str] | dict[str, str] | None:
        """Return what to hand to Lance's ``columns=`` for these columns.

        A name in a list is exactly that column, or the field of a struct
        (``"box.left"``). A value in a mapping is such a name or a SQL expression;
        a value of None leaves the new name out. The row id comes last.

        Raises:
            ConfigError: ``columns`` is neither of these.
            SourceError: There is no such column.
        """
        return asked_of_lance(self.schema, columns, with_row_id)

    def projected_schema(self, columns: Columns, with_row_id: bool = False) -> Any:
        """Return the ``pyarrow.Schema`` that Lance gives for these columns.

        Raises:
            ConfigError: ``columns`` is neither a list nor a mapping.
            SourceError: There is no such column, or an expression is not valid.
        """
        wanted = self.lance_columns(columns, with_row_id)
        try:
            return self._projected(wanted, "reading the columns")
        except SourceError:
            # Asked for one by one, the error says which expression it was.
            for name, sql in wanted.items() if isinstance(wanted, dict) else ():
                self._projected({name: sql}, f"the expression {sql!r} for {name!r}")
            raise

    def batch_schema(self, columns: Columns, with_row_id: bool = False) -> Any:
        """Return the ``pyarrow.Schema`` of the batches that are read.

        It is `projected_schema` with the bytes of blobs in the place of what Lance
        gives for them, which is where they lie.
        """
        schema = self.projected_schema(columns, with_row_id)
        in_lance = isinstance(self.open(), lance.LanceDataset)
        return bytes_of_blobs(schema) if in_lance else schema

    def scan(self, columns: Columns, filter: str | None) -> Any:
        """Return a scanner of the rows that pass a filter, in the table's order."""
        dataset = self.open()
        index = _without_index(dataset) if filter is not None else {}
        wanted = self.lance_columns(columns)
        return dataset.scanner(
            columns=wanted, filter=filter, scan_in_order=True, **index
        )

    def _projected(self, wanted: list[str] | dict[str, str] | None, doing: str) -> Any:
        if self.remote is not None or not isinstance(wanted, list):
            return self._planned(doing, columns=wanted)
        try:
            # Lance plans each name that is asked for: thousands take seconds.
            table = self._planned(doing, columns=None)
        except SourceError:
            # Not for all columns where one has a name that Lance cannot plan.
            return self._planned(doing, columns=wanted)
        own = [name for name in wanted if name not in table.names]
        more = self._planned(doing, columns=own) if own else pa.schema([])
        fields = {field.name: field for field in [*table, *more]}
        return pa.schema([fields[name] for name in wanted], table.metadata)

    def _planned(self, doing: str, **asked: Any) -> Any:
        """Return the schema of a scan, which Lance checks in planning it."""
        reason = ""

        def remedy() -> str:
            there = listed(self.schema.names)
            return f"{literal_hint(reason)}columns there are: {there}"

        with explained(doing, self.uri, self.storage_options, remedy):
            try:
                return self.open().scanner(**asked).projected_schema
            except Exception as error:
                reason = str(error)
                raise

    def check_filter(self, sql: str | None) -> None:
        """Check a SQL filter against the schema, without reading a row.

        Raises:
            ConfigError: It is not a string, or is blank.
            SourceError: It is not one expression that gives a bool, it would keep
                all rows or none, or it would give other rows each time.
        """
        if sql is None:
            return
        check_filter(sql, self.schema)
        doing = f"the filter {sql!r} on {self.describe()}"
        self._planned(doing, filter=one(sql))


def _without_index(dataset: Any) -> dict[str, bool]:
    """Return the options of a filtered scan: without an index where Lance crashes.

    In legacy storage a scalar index of one column, another column in the filter and
    the row offset among the columns panic: "Take should not be used to insert row_id".
    """
    if not isinstance(dataset, lance.LanceDataset):
        return {}
    legacy = dataset.data_storage_version in ("0.1", "legacy")
    return {"use_scalar_index": False} if legacy else {}


def _restored(
    uri: str,
    version: int,
    branch: str | None,
    options: dict[str, str | None],
    identity: Identity,
    from_memory: bool,
    remote: Remote | None,
) -> Snapshot:
    filled = from_environment(options)
    return Snapshot(uri, version, branch, filled, identity, from_memory, remote)


def without_environment(options: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return storage options for a pickle: None for what the environment holds."""
    return {
        key: None if value == os.environ.get(key.upper()) else value
        for key, value in options.items()
    }


def from_environment(options: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return storage options with what the environment holds in place of None."""
    return {
        key: os.environ.get(key.upper()) if value is None else value
        for key, value in options.items()
    }


class _OpenDatasets:
    """The datasets that this process has open, by snapshot.

    A handle keeps the metadata of a table in memory: a module has a few at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._datasets: OrderedDict[Snapshot, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, snapshot: Snapshot) -> Any:
        with self._lock:
            if snapshot in self._datasets:
                self._datasets.move_to_end(snapshot)
                return self._datasets[snapshot]
        return self.keep(snapshot, _open_verified(snapshot))

    def keep(self, snapshot: Snapshot, dataset: Any) -> Any:
        """Keep the dataset of a snapshot; return the one that is kept already."""
        with self._lock:
            kept = self._datasets.setdefault(snapshot, dataset)
            while len(self._datasets) > self._most:
                self._datasets.popitem(last=False)
        return kept

    def clear(self) -> None:
        """Forget them, as a process that has opened none."""
        with self._lock:
            self._datasets.clear()


_open_datasets = _OpenDatasets(16)


def _open_verified(snapshot: Snapshot) -> Any:
    options, branch, version = (
        snapshot.storage_options,
        snapshot.branch,
        snapshot.version,
    )
    if snapshot.remote is not None:
        _check_environment(options)
        dataset = snapshot.remote.open(options, branch, version)
        found = dataset.identity()
    else:
        dataset = open_at(snapshot.uri, options, branch, version)
        found = identity_of(dataset)
    pinned = snapshot.identity
    if snapshot.from_memory:  # its folder's name holds the digest of its content
        found = Identity(found.version, found.schema, pinned.fragments)
    if found != pinned:
        raise SourceError(
            f"another table lies at {snapshot.describe()} than the one that was "
            "pinned, so its rows are not those that were split\n"
            f"  pinned: {pinned}\n  found:  {found}\n"
            "bring the table back, or start a new run on the one that is there"
        )
    return dataset


def open_newest(uri: str, options: Mapping[str, str | None]) -> Any:
    """Return the ``lance.LanceDataset`` at the newest version of main."""
    refuse_fork()
    _check_environment(options)
    doing = f"opening the Lance dataset at {strip_secrets(uri)!r}"

    def remedy() -> str:
        return f"check the URI and the storage options{tables_in(uri)}"

    with explained(doing, uri, options, remedy):
        return lance.dataset(uri, storage_options=dict(options) or None)


def open_at(
    uri: str, options: Mapping[str, str | None], branch: str | None, version: int
) -> Any:
    """Return the ``lance.LanceDataset`` at a version of a branch."""
    if branch is None:
        _check_environment(options)
        try:  # one request less than by way of the newest version
            return lance.dataset(uri, version, storage_options=dict(options) or None)
        except (ValueError, OSError):
            pass  # found again, and explained, below
    return checked_out(open_newest(uri, options), uri, options, branch, version)


def checked_out(
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

    with explained(f"opening version {version} of {place}", uri, options, remedy):
        return newest.checkout_version((branch, version))


def _branch_head(
    newest: Any, uri: str, options: Mapping[str, str | None], branch: str
) -> Any:
    place = strip_secrets(uri)
    with explained(f"listing the branches of {place}", uri, options, "try again"):
        there = newest.branches.list()
    if branch not in there:
        raise SourceError(
            f"no branch {branch!r} at {place}, so nothing can be read from it; "
            f"branches there are: {listed(sorted(there))}; leave branch out for main"
        )
    with explained(f"opening branch {branch!r} of {place}", uri, options, "try again"):
        return newest.checkout_version((branch, None))


def tagged(
    newest: Any, uri: str, options: Mapping[str, str | None], tag: str
) -> tuple[str | None, int]:
    """Return branch and version of a tag: its version alone would mean main's."""
    place = strip_secrets(uri)
    with explained(f"listing the tags of {place}", uri, options, "try again"):
        there = newest.tags.list()
    if tag not in there:
        raise SourceError(
            f"no tag {tag!r} at {place}, so no version can be chosen by it; "
            f"tags there are: {listed(sorted(there))}"
        )
    return there[tag]["branch"], int(there[tag]["version"])


def _check_environment(options: Mapping[str, str | None]) -> None:
    missing = [key.upper() for key, value in options.items() if value is None]
    if missing:
        raise SourceError(
            "storage options that the environment held where the table was pinned are "
            "missing in this process, so it cannot be opened; set the environment "
            f"variables {listed(missing)} here too"
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
    return f"; Lance datasets in that folder: {listed(tables)}" if tables else ""


def local_path(uri: str) -> Path | None:
    """Return the absolute path of a local folder, None for an object store."""
    path = uri.removeprefix("file://")
    return None if "://" in path else Path(path).expanduser().absolute()


def absolute(uri: str) -> str:
    """Return a local path absolute, as a worker may run in another folder."""
    return uri if "://" in uri else str(local_path(uri))
