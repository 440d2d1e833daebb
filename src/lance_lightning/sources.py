"""Where the rows come from: the sources a user names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa

from lance_lightning.cache import build_once
from lance_lightning.frozen import fields_of, refuse_unknown, replace, spec, values_of
from lance_lightning.identity import (
    Identity,
    content_digest,
    identity_of,
    schema_digest,
)
from lance_lightning.lancedb_objects import (
    is_in_memory,
    is_permutation,
    is_remote,
    is_table,
    memory_rows,
    permutation_parts,
    served_table,
    stored_table,
)
from lance_lightning.projection import check_filter_text
from lance_lightning.remote import SCHEME, RemotePlace
from lance_lightning.snapshot import (
    Snapshot,
    absolute,
    checked_out,
    explained,
    from_environment,
    local_path,
    open_at,
    open_newest,
    strip_secrets,
    tagged,
    without_environment,
)
from lance_lightning.types import ConfigError, SourceError, check_int, listed


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
    after needs Lance alone. The rows of a remote table (``db://``) are read through
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
                f"the tables of {strip_secrets(self.uri)!r} live in one connection "
                "alone and cannot be opened by URI; pass the table itself: "
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


@spec("source", eq=False, repr=False)
class ArrowSource(Source):
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
    elif is_table(value):
        if not is_in_memory(value):
            raise ConfigError(
                f"the LanceDB table {value.name!r} is stored already, and ArrowSource "
                "would copy it; give the table itself, or LanceDBSource(uri, table)"
            )
        value = memory_rows(value)
    if not isinstance(value, pa.Table):
        raise ConfigError(
            "ArrowSource takes a pyarrow.Table or RecordBatch, or a LanceDB table in "
            f"memory, got {type(value).__name__}; pandas: pa.Table.from_pandas(df), "
            "polars: df.to_arrow()"
        )
    if not value.num_columns:
        raise ConfigError("ArrowSource was given a table without columns")
    return value


@spec("source", repr=False)
class SeparateSources:
    """A source for each split: ``SeparateSources(train="a.lance", val="b.lance")``.

    Args:
        train: A source or a URI; None is no such split, here and below.
        val: The validation rows.
        test: The test rows.
        predict: The rows to predict on.
        sources: A source or a URI for each split of another name.

    Raises:
        ConfigError: No source is given, or a value is not one.
    """

    sources: dict[str, Source]

    def __init__(
        self,
        *,
        train: Source | str | Any = None,
        val: Source | str | Any = None,
        test: Source | str | Any = None,
        predict: Source | str | Any = None,
        **sources: Any,
    ) -> None:
        named = {"train": train, "val": val, "test": test, "predict": predict}
        others = {*_arguments(LanceSource), *_arguments(LanceDBSource)}
        wrong = {name: sources[name] for name in sources if name in others}
        refuse_unknown("SeparateSources", "source", wrong, list(named))
        given = {
            name: value
            for name, value in {**named, **sources}.items()
            if value is not None
        }
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


def _arguments(cls: type[Source]) -> list[str]:
    return [each.name for each in fields_of(cls)]


def _separate(name: str, value: Any) -> Source:
    if isinstance(value, SeparateSources):
        raise ConfigError(
            f"the source of split {name!r} is itself a SeparateSources; give one "
            "source for each split"
        )
    return as_source(value)


# -- LanceDB's live objects ----------------------------------------------------


@spec("source")
class TableSource(Source):
    """A live LanceDB table: the version that its handle is at.

    Not a version that was asked for: a checkpoint's takes its place.

    Args:
        source: The same table by its name, at the newest version.
        version_of_handle: What is read.
    """

    source: LanceSource | LanceDBSource
    version_of_handle: int

    @property
    def filter(self) -> str | None:
        """No filter: a table has none."""
        return self.source.filter

    def describe(self) -> str:
        """Return where the table lies, without secrets."""
        return self.source.describe()

    def resolve(self, cache_dir: Path, version: int | None = None) -> Snapshot:
        """Pin the table at ``version``, else at that of the handle.

        Raises:
            SourceError: There is no such version any more.
        """
        return self.source.resolve(cache_dir, version or self.version_of_handle)


@spec("source", eq=False)
class PermutationSource(Source):
    """A live LanceDB permutation: a table, which of its rows, and their order.

    Args:
        base: The table.
        rows: A permutation table of one split, as a ``pyarrow.Table``; None is every
            row of the base.
        columns: New name -> column; None is all, under their own names.
        output_format: What ``with_format`` was given; None where it was not called.
    """

    base: Source
    rows: Any
    columns: Mapping[str, str] | None
    output_format: str | None

    @property
    def filter(self) -> str | None:
        """No filter: it chose the rows when it was built."""
        return self.base.filter

    @property
    def version(self) -> int | None:
        """The version that was permuted, where its row ids mean that one alone."""
        return getattr(self.base, "version", None)

    def describe(self) -> str:
        """Return where the table lies, without secrets."""
        kept = "every row" if self.rows is None else f"{self.rows.num_rows} rows"
        return f"permutation ({kept}) of {self.base.describe()}"

    def resolve(self, cache_dir: Path, version: int | None = None) -> Snapshot:
        """Pin the table.

        Raises:
            SourceError: There is no such version any more.
        """
        return self.base.resolve(cache_dir, version)


def live_source(value: Any) -> Any:
    """Return the source of a live LanceDB table or permutation, else ``value``.

    Raises:
        ConfigError: It has what cannot be taken over.
        SourceError: The table cannot be opened.
    """
    if is_permutation(value):
        return _permutation_source(value)
    return _table_source(value) if is_table(value) else value


def _table_source(
    table: Any, connection_factory: Callable[[str], Any] | None = None
) -> Source:
    if is_in_memory(table):
        return ArrowSource(table)
    if is_remote(table):
        served = served_table(table, reopened=connection_factory is not None)
        found: Any = LanceDBSource(
            served.uri,
            served.table,
            namespace=served.namespace,
            region=served.region,
            host_override=served.host_override,
            connection_factory=connection_factory,
            branch=served.branch,
        )
        return _at(found, served.version, served.is_newest)
    stored = stored_table(table)
    options = stored.storage_options or None
    found = LanceSource(stored.uri, branch=stored.branch, storage_options=options)
    return _at(found, stored.version, stored.is_newest)


def _at(source: Any, version: int, is_newest: bool) -> Source:
    """Return a version of a table; one behind the newest was checked out."""
    if is_newest:
        return TableSource(source, version)
    return replace(source, version=version)  # type: ignore[no-any-return]


def _permutation_source(permutation: Any) -> PermutationSource:
    parts = permutation_parts(permutation)
    if isinstance(parts.base, pa.Table):
        return PermutationSource(
            ArrowSource(parts.base), None, None, parts.output_format
        )
    base: Any = _table_source(parts.base, parts.connection_factory)
    if parts.rows is not None:
        base = _permuted(base, parts.rows.schema.metadata or {})
    return PermutationSource(base, parts.rows, parts.columns, parts.output_format)


def _permuted(source: Source, recorded: Mapping[bytes, bytes]) -> Source:
    """Return the table at the version that was permuted, where it was recorded."""
    if b"base_version" not in recorded:
        return source
    named: Any = source.source if isinstance(source, TableSource) else source
    branch = recorded.get(b"base_branch")
    return replace(  # type: ignore[no-any-return]
        named,
        version=int(recorded[b"base_version"]),
        branch=None if branch is None else branch.decode(),
    )


# -- whatever a user gives -----------------------------------------------------


def as_source(value: Any) -> Source:
    """Return a source as it is, and make one of a path, a URI or a live table.

    Raises:
        ConfigError: It is none of these.
        SourceError: A live table cannot be opened.
    """
    if isinstance(value, (str, os.PathLike)):
        return LanceSource(os.fspath(value))
    value = live_source(value)
    if isinstance(value, Source):
        return value
    hint = ""
    if isinstance(value, (pa.Table, pa.RecordBatch)):
        hint = "; write ArrowSource(table)"
    elif type(value).__name__ == "DataFrame":
        hint = "; write ArrowSource(pa.Table.from_pandas(df)), or (df.to_arrow())"
    elif isinstance(value, Mapping):
        hint = "; a mapping needs a _target_, such as lance_lightning.LanceSource"
    elif type(value).__name__ == "Permutations":
        hint = "; write SeparateSources(train=permutations['train'], ...)"
    raise ConfigError(
        "source must be a URI, a source such as LanceSource(uri), or a LanceDB table "
        f"or permutation, got {type(value).__name__}{hint}"
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
