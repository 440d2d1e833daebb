"""Where the rows come from: the sources a user names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lance_lightning.checks import check_int, listed
from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.frozen import fields_of, spec, values_of
from lance_lightning.tables import (
    SCHEME,
    RemotePlace,
    Snapshot,
    absolute,
    check_filter_text,
    checked_out,
    explained,
    from_environment,
    identity_of,
    local_path,
    open_newest,
    strip_secrets,
    tagged,
    without_environment,
)


class Source:
    """A table to read from, as the user names it."""

    if TYPE_CHECKING:  # a field of the same name would take it for its default

        @property
        def filter(self) -> str | None:
            """The SQL filter that rows must pass, if any."""

    def describe(self) -> str:
        """Return what the user named, without secrets."""
        raise NotImplementedError

    def resolve(self, cache_dir: Path, version: int | None = None) -> Snapshot:
        """Pin the table.

        Args:
            cache_dir: Where an in-memory table is written.
            version: Wins over what the source names: a checkpoint's version, or
                that of rank 0.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, repr=False)
class _Pinned(Source):
    """What the sources that lie in storage share."""

    version: int | None = None
    tag: str | None = None
    branch: str | None = None
    storage_options: Mapping[str, str] | None = field(default=None, hash=False)
    filter: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None:
            version = check_int("version", self.version, 1)
            object.__setattr__(self, "version", version)
        for name in ("tag", "branch"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise ConfigError(f"{name} must be a name, got {value!r}")
        if self.tag is not None and (self.version or self.branch):
            other = "version" if self.version else "branch"
            raise ConfigError(
                f"a tag names branch and version by itself: give tag={self.tag!r} or "
                f"{other}={getattr(self, other)!r}, not both"
            )
        check_filter_text(self.filter)
        object.__setattr__(self, "storage_options", _options(self.storage_options))

    def __repr__(self) -> str:
        shown = []
        for item in sorted(fields_of(self), key=lambda item: bool(item.kw_only)):
            value = getattr(self, item.name)
            if item.name == "storage_options" and value:
                value = dict.fromkeys(value, "***")
            elif item.name in ("uri", "host_override") and value:
                value = strip_secrets(value)
            if value is not None:
                shown.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        # As in a snapshot's pickle: a secret of the environment stays there.
        values = values_of(self)
        if self.storage_options:
            values["storage_options"] = without_environment(self.storage_options)
        return _restored, (type(self), values)

    def _pin(self, uri: str, version: int | None) -> Snapshot:
        if version is not None:
            version = check_int("version", version, 1)
        options = dict(self.storage_options or {})
        newest = open_newest(uri, options)
        branch = None if self.branch == "main" else self.branch
        chosen = self.version
        if self.tag is not None:
            branch, chosen = tagged(newest, uri, options, self.tag)
        dataset = checked_out(newest, uri, options, branch, version or chosen)
        found = identity_of(dataset)
        snapshot = Snapshot(uri, found.version, branch, options, found)
        snapshot.opened_as(dataset)
        snapshot.check_filter(self.filter)
        return snapshot


def _restored(kind: type[_Pinned], values: dict[str, Any]) -> _Pinned:
    source = object.__new__(kind)
    if values["storage_options"]:
        options = from_environment(values["storage_options"])
        values = {**values, "storage_options": options}
    for name, value in values.items():
        object.__setattr__(source, name, value)
    return source


@spec("source", repr=False)
class LanceSource(_Pinned):
    """A Lance dataset.

    Args:
        uri: A local path, or the URI of an object store.
        version: The version to read, by its number; the newest if nothing is named.
        tag: The version to read, by its tag.
        branch: The branch to read; ``version`` is then counted on it.
        storage_options: What the object store needs; never shown.
        filter: A SQL expression that rows must pass.

    Raises:
        ConfigError: A value is of the wrong type, or both tag and version are given.
    """

    uri: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", _checked_uri(self.uri))
        if self.uri.startswith(("db://", "memory://")):
            remedy = "LanceDBSource" if self.uri.startswith("db") else "ArrowSource"
            raise SourceError(
                f"{strip_secrets(self.uri)!r} is not the place of a Lance dataset, so "
                f"it cannot be opened as one; use {remedy}"
            )
        _Pinned.__post_init__(self)

    def describe(self) -> str:
        """Return the URI without secrets."""
        return strip_secrets(self.uri)

    def resolve(self, cache_dir: Path, version: int | None = None) -> Snapshot:
        """Pin the dataset at ``version``, else at what was named, else the newest.

        Raises:
            SourceError: There is no such dataset, version, tag or branch, or the
                filter does not fit the schema.
        """
        return self._pin(absolute(self.uri), version)


@spec("source", repr=False)
class LanceDBSource(_Pinned):
    """A table of a LanceDB database: in a folder, an object store or LanceDB Cloud.

    Where the table lies in storage, LanceDB is asked once for the place, and everything
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
        object.__setattr__(self, "uri", _checked_uri(self.uri))
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
        _Pinned.__post_init__(self)

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
        with explained(doing, self.uri, options, "check URI and storage options"):
            database = lancedb.connect(self.uri, storage_options=options or None)
        path = list(self.namespace or ())

        def remedy() -> str:
            return f"tables there are: {listed(_table_names(database, path))}"

        doing = f"opening {self.describe()}"
        # Each kind of namespace raises an error of its own.
        with explained(doing, self.uri, options, remedy, caught=(Exception,)):
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


def _checked_uri(uri: Any) -> str:
    if not isinstance(uri, (str, os.PathLike)) or not os.fspath(uri):
        raise ConfigError(f"uri must be a path or URI, got {uri!r}")
    return str(os.fspath(uri))


def _options(options: Any) -> dict[str, str] | None:
    """Return the options as text, which is what Lance takes: YAML gives true, 1."""
    if options is None:
        return None
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"storage_options must be a mapping, got {type(options).__name__}"
        )
    found = {}
    for key, value in options.items():
        if value is None:  # how a Hydra override takes a key away
            continue
        if not isinstance(key, str) or not isinstance(value, (str, int, float)):
            raise ConfigError(
                f"storage_options must map text to text, got {type(value).__name__} "
                f"for {key!r}"
            )
        found[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return found
