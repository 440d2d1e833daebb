"""Where the rows come from: the sources a user names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lance
import pyarrow as pa

from lance_lightning.cache import build_once
from lance_lightning.identity import (
    Identity,
    content_digest,
    identity_of,
    schema_digest,
)
from lance_lightning.snapshot import (
    Snapshot,
    absolute,
    check_filter_text,
    checked_out,
    explained,
    from_environment,
    listed,
    local_path,
    open_at,
    open_newest,
    strip_secrets,
    tagged,
    without_environment,
)
from lance_lightning.types import ConfigError, SourceError, check_int


@runtime_checkable
class Source(Protocol):
    """A table to read from, as the user names it."""

    @property
    def filter(self) -> str | None:
        """The SQL filter that rows must pass, if any."""

    def describe(self) -> str:
        """Return what the user named, without secrets."""

    def resolve(self, cache_dir: Path, version: int | None = None) -> Snapshot:
        """Pin the table.

        Args:
            cache_dir: Where an in-memory table is written.
            version: Wins over what the source names: a checkpoint's version, or
                that of rank 0.
        """


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Pinned:
    """What the sources that lie in storage share."""

    version: int | None = None
    tag: str | None = None
    branch: str | None = None
    storage_options: Mapping[str, str] | None = field(default=None, hash=False)
    filter: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None:
            check_int("version", self.version, 1)
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
        for item in sorted(fields(self), key=lambda item: bool(item.kw_only)):
            value = getattr(self, item.name)
            if item.name == "storage_options" and value:
                value = dict.fromkeys(value, "***")
            elif item.name == "uri":
                value = strip_secrets(value)
            if value is not None:
                shown.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        # As in a snapshot's pickle: a secret of the environment stays there.
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.storage_options:
            values["storage_options"] = without_environment(self.storage_options)
        return _restored, (type(self), values)

    def _pin(self, uri: str, version: int | None) -> Snapshot:
        if version is not None:
            check_int("version", version, 1)
        options = dict(self.storage_options or {})
        newest = open_newest(uri, options)
        branch = None if self.branch == "main" else self.branch
        chosen = self.version
        if self.tag is not None:
            branch, chosen = tagged(newest, uri, options, self.tag)
        dataset = checked_out(newest, uri, options, branch, version or chosen)
        found = identity_of(dataset)
        snapshot = Snapshot(uri, found.version, branch, options, found)
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


@dataclass(frozen=True, slots=True, repr=False)
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


@dataclass(frozen=True, slots=True, repr=False)
class LanceDBSource(_Pinned):
    """A table of a LanceDB database that lies in a folder or an object store.

    LanceDB is asked once where the table lies; everything after needs Lance alone.

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

    Raises:
        ConfigError: A value is of the wrong type, or both tag and version are given.
        SourceError: The database is remote or in memory.
    """

    uri: str
    table: str
    namespace: str | Sequence[str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", _checked_uri(self.uri))
        object.__setattr__(self, "namespace", _namespace(self.namespace))
        if not isinstance(self.table, str) or not self.table:
            raise ConfigError(f"table must be a table's name, got {self.table!r}")
        place = strip_secrets(self.uri)
        if self.uri.startswith("db://"):
            raise SourceError(
                f"the remote database {place!r} is not supported yet; copy the table "
                "to a Lance dataset and use LanceSource(uri)"
            )
        if self.uri.startswith("memory://"):
            raise SourceError(
                f"the tables of {place!r} live in one connection alone and cannot be "
                "opened by URI; pass the table itself: ArrowSource(table)"
            )
        _Pinned.__post_init__(self)

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
        return self._pin(self._located(), version)

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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ArrowSource:
    """A table in memory, which is written to the cache once, under its content.

    Args:
        table: A ``pyarrow.Table`` or ``RecordBatch``, or a LanceDB table that is
            held in memory, which is read here.
        filter: A SQL expression that rows must pass.

    Raises:
        ConfigError: It is not such a table.
    """

    table: Any
    filter: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", _arrow_table(self.table))
        check_filter_text(self.filter)

    def __deepcopy__(self, memo: Any) -> ArrowSource:
        return self  # Arrow's data never changes

    def __repr__(self) -> str:
        return f"ArrowSource({self.describe()})"

    def describe(self) -> str:
        """Return the kind of table and its rows."""
        return f"arrow table of {self.table.num_rows} rows"

    def resolve(self, cache_dir: Path, version: int | None = None) -> Snapshot:
        """Write the table to the cache, unless it is there, and pin it.

        Raises:
            SourceError: Lance cannot store it, ``version`` is not 1, or the filter
                does not fit the schema.
        """
        if version not in (None, 1):
            raise SourceError(
                f"an in-memory table has version 1 alone, so version {version!r} "
                "cannot be read; leave version out"
            )
        content = content_digest(self.table)
        target = cache_dir.absolute() / "tables" / f"{content}.lance"
        build_once(target, self._write)
        dataset = open_at(str(target), {}, None, 1)
        found = Identity(1, schema_digest(dataset.schema), content)
        snapshot = Snapshot(str(target), 1, None, {}, found, from_memory=True)
        snapshot.check_filter(self.filter)
        return snapshot

    def _write(self, folder: Path) -> None:
        remedy = (
            "cast or drop the columns that Lance cannot store, or give the cache more "
            "room (cache_dir=...)"
        )
        with explained(f"storing an {self.describe()}", "", {}, remedy):
            lance.write_dataset(self.table, str(folder))


def _arrow_table(value: Any) -> Any:
    if isinstance(value, pa.RecordBatch):
        value = pa.Table.from_batches([value])
    elif type(value).__module__.startswith("lancedb.") and hasattr(value, "to_arrow"):
        uri = str(value.uri)
        if not uri.startswith("memory://"):
            raise ConfigError(
                f"the LanceDB table at {strip_secrets(uri)!r} is stored already, and "
                "ArrowSource would copy it; use LanceDBSource(uri, table)"
            )
        value = value.to_arrow()
    if not isinstance(value, pa.Table):
        raise ConfigError(
            "ArrowSource takes a pyarrow.Table or RecordBatch, or a LanceDB table in "
            f"memory, got {type(value).__name__}; pandas: pa.Table.from_pandas(df), "
            "polars: df.to_arrow()"
        )
    if not value.num_columns:
        raise ConfigError("ArrowSource was given a table without columns")
    return value


@dataclass(frozen=True, slots=True, init=False, repr=False)
class SeparateSources:
    """A source for each split: ``SeparateSources(train="a.lance", val="b.lance")``.

    Args:
        sources: A source or a URI for each split name; None leaves a split out.

    Raises:
        ConfigError: No source is given, or a value is not one.
    """

    sources: dict[str, Source]

    def __init__(self, **sources: Any) -> None:
        given = {name: value for name, value in sources.items() if value is not None}
        if not given:
            raise ConfigError(
                "SeparateSources needs a source for each split, such as "
                "SeparateSources(train=..., val=...), got none"
            )
        found = {name: _separate(name, value) for name, value in given.items()}
        object.__setattr__(self, "sources", found)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.sources.items())
        return f"SeparateSources({shown})"

    def describe(self) -> str:
        """Return each split's source, without secrets."""
        return "; ".join(f"{k}: {v.describe()}" for k, v in self.sources.items())

    def source_of(self, split: str) -> Source:
        """Return the source of a split.

        Raises:
            ConfigError: There is none of that name.
        """
        if split not in self.sources:
            raise ConfigError(
                f"no source for split {split!r}; sources there are for: "
                f"{listed(self.sources)}"
            )
        return self.sources[split]


def _separate(name: str, value: Any) -> Source:
    if isinstance(value, SeparateSources):
        raise ConfigError(
            f"the source of split {name!r} is itself a SeparateSources; give one "
            "source for each split"
        )
    return as_source(value)


def as_source(value: Any) -> Source:
    """Return a source as it is, and a path or URI as a `LanceSource`.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(value, (str, os.PathLike)):
        return LanceSource(os.fspath(value))
    if isinstance(value, Source):
        return value
    hint = ""
    if isinstance(value, (pa.Table, pa.RecordBatch)):
        hint = "; write ArrowSource(table)"
    elif type(value).__name__ == "DataFrame":
        hint = "; write ArrowSource(pa.Table.from_pandas(df)), or (df.to_arrow())"
    elif isinstance(value, Mapping):
        hint = "; a mapping needs a _target_, such as lance_lightning.LanceSource"
    raise ConfigError(
        f"source must be a URI or a source such as LanceSource(uri), got "
        f"{type(value).__name__}{hint}"
    )


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
