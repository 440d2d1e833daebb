"""A table of a LanceDB database as a source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from lance_lightning.checks import quote_names
from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.frozen import spec
from lance_lightning.sources.base import StoredSource, checked_uri
from lance_lightning.tables import (
    SCHEME,
    RemotePlace,
    Snapshot,
    explain_errors,
    local_path,
    strip_secrets,
)


@spec("source", repr=False)
class LanceDBSource(StoredSource):
    """A table of a LanceDB database: in a folder, an object store or LanceDB Cloud.

    Where the table is in storage, LanceDB is asked once for the place, and everything
    after needs only Lance. The rows of a remote table (``db://``) are read through
    LanceDB's Table API; each process takes the API key from its own environment
    variable ``LANCEDB_API_KEY``.

    Args:
        uri: The database, as for ``lancedb.connect``.
        table: The table's name.
        namespace: The namespace that holds the table, as LanceDB's
            ``namespace_path``; one name or a list of them.
        version: The version to read, by its number; the newest if nothing is named.
        tag: The version to read, by its tag.
        branch: The branch to read; ``version`` is then counted on it.
        storage_options: What the object store needs; never shown.
        filter: A SQL expression that rows must pass.
        region: LanceDB Cloud's region, of a remote database.
        host_override: The URL of a server of your own, of a remote database.
        connection_factory: A function that workers can import. It takes the table's
            name and returns the open LanceDB table, of a remote database, for other
            credentials than an API key.

    Raises:
        ConfigError: A value is of the wrong type, or both tag and version are given.
        SourceError: The database is in memory.
    """

    uri: str
    table: str
    namespace: str | Sequence[str] | None = field(default=None, kw_only=True)
    region: str | None = field(default=None, kw_only=True)
    host_override: str | None = field(default=None, kw_only=True)
    connection_factory: Callable[[str], Any] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", checked_uri(self.uri))
        object.__setattr__(self, "namespace", _namespace(self.namespace))
        if not isinstance(self.table, str) or not self.table:
            raise ConfigError(f"table must be a table's name, got {self.table!r}")
        if self.uri.startswith("memory://"):
            raise SourceError(
                f"the tables of {strip_secrets(self.uri)!r} live in only one "
                "connection and cannot be opened by URI; pass the table itself: "
                "ArrowSource(table)"
            )
        for name in ("region", "host_override", "connection_factory"):
            self._check_remote(name, getattr(self, name))
        StoredSource.__post_init__(self)

    def _check_remote(self, name: str, value: Any) -> None:
        if value is None:
            return
        if not self.uri.startswith(SCHEME):
            raise ConfigError(
                f"{name} is for a remote database, {SCHEME}..., and this one is "
                f"{strip_secrets(self.uri)!r}: leave it out"
            )
        fits = callable(value) if name == "connection_factory" else value
        if not fits or not (callable(value) or isinstance(value, str)):
            raise ConfigError(f"{name} of a remote database cannot be {value!r}")

    def describe(self) -> str:
        """Return database and table, without secrets."""
        name = ".".join([*(self.namespace or ()), self.table])
        return f"{strip_secrets(self.uri)}, table {name!r}"

    def resolve(self, cache_dir: Path, version: int | None = None) -> Snapshot:
        """Pin the table at ``version``, else at what was named, else the newest.

        Raises:
            SourceError: There is no such database, table, version, tag or branch, or
                the filter does not fit the schema.
        """
        if self.uri.startswith(SCHEME):
            return self._pin_remote(version)
        return self._pin(self._located(), version)

    def _pin_remote(self, version: int | None) -> Snapshot:
        place = RemotePlace(
            self.uri,
            self.table,
            tuple(self.namespace or ()),
            self.region,
            self.host_override,
            self.connection_factory,
        )
        options = dict(self.storage_options or {})
        branch = None if self.branch == "main" else self.branch
        wanted = version or self.version or self.tag
        found = place.open(options, branch, wanted).identity()
        snapshot = Snapshot(
            place.describe(), found.version, branch, options, found, remote=place
        )
        snapshot.check_filter(self.filter)
        return snapshot

    def _located(self) -> str:
        """Return the URI of the table's Lance dataset."""
        local = local_path(self.uri)
        if local is not None and not local.is_dir():
            raise SourceError(  # lancedb.connect would make the folder
                f"no LanceDB database at {str(local)!r}, so no table can be opened; "
                "check the path, which is relative to the working folder"
            )
        import lancedb

        options = dict(self.storage_options or {})
        doing = f"connecting to the LanceDB database at {strip_secrets(self.uri)!r}"
        with explain_errors(doing, self.uri, options, "check URI and storage options"):
            database = lancedb.connect(self.uri, storage_options=options or None)
        path = list(self.namespace or ())

        def remedy() -> str:
            return f"tables there are: {quote_names(_table_names(database, path))}"

        doing = f"opening {self.describe()}"
        # Each kind of namespace raises an error of its own.
        with explain_errors(doing, self.uri, options, remedy, caught=(Exception,)):
            return str(database.open_table(self.table, namespace_path=path).uri)


def _table_names(database: Any, namespace: list[str]) -> list[str]:
    names: list[str] = []
    token = None
    while True:
        found = database.list_tables(namespace_path=namespace, page_token=token)
        names += found.tables
        token = found.page_token
        if not token:
            return names


def _namespace(value: Any) -> tuple[str, ...] | None:
    names = (value,) if isinstance(value, str) else value
    if names is None:
        return None
    if not isinstance(names, Sequence) or not all(
        isinstance(name, str) and name for name in names
    ):
        raise ConfigError(f"namespace must be a name or a list of them, got {value!r}")
    return tuple(names)
