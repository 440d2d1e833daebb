"""Where the rows come from: the sources a user names, and tables pinned at a version.

A source says which table; resolving it gives a `Snapshot`, which every process
opens for itself, at that version and no other.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lance
import numpy as np
import pyarrow as pa

from lance_lightning.cache import build_once
from lance_lightning.types import ROW_ID, ConfigError, SourceError, check_int

Columns = Sequence[str] | Mapping[str, str] | None

# Lance's own columns, which can be asked for by name though no schema lists them.
SYSTEM_COLUMNS = (ROW_ID, "_rowaddr", "_rowoffset")
_LISTED = 40  # names that an error lists before it says how many more there are


# -- secrets -------------------------------------------------------------------


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
def _explained(
    doing: str,
    uri: str,
    options: Mapping[str, str | None],
    remedy: str | Callable[[], str],
    caught: tuple[type[Exception], ...] = (ValueError, OSError, RuntimeError),
) -> Iterator[None]:
    """Turn what Lance raises into a `SourceError` that shows no secret."""
    try:
        yield
    except SourceError:
        raise
    except caught as error:
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


def _listed(names: Iterable[Any]) -> str:
    names = list(names)
    shown = ", ".join(repr(name) for name in names[:_LISTED])
    more = len(names) - _LISTED
    return (shown or "none") + (f" and {more} more" if more > 0 else "")


# -- identity ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one state of one table from any other, wherever it lies.

    Args:
        version: Lance's version number.
        schema: A digest of the schema, in hex.
        fragments: A digest, in hex, of the fragments' metadata: data files, whose
            names are random, and deletion files. Of an in-memory table, its content.
    """

    version: int
    schema: str
    fragments: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for a checkpoint."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Identity:
        """Return the identity that `to_dict` wrote."""
        return cls(**{name: state[name] for name in cls.__slots__})


def _hex(*parts: bytes | str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def identity_of(dataset: Any) -> Identity:
    """Return the identity of an open Lance dataset."""
    return Identity(
        version=dataset.version,
        schema=_schema_digest(dataset.schema),
        fragments=_fragments_digest(dataset),
    )


def _fragments_digest(dataset: Any) -> str:
    digest = hashlib.sha256()
    for fragment in dataset.get_fragments():
        metadata = _without_place(fragment.metadata.to_json())
        canonical = json.dumps(metadata, sort_keys=True, separators=(",", ":"))
        digest.update(canonical.encode() + b"\n")
    return digest.hexdigest()


def _without_place(metadata: Any) -> Any:
    """Drop ``base_id``: clones and branches name where a file lies with it."""
    if isinstance(metadata, dict):
        return {k: _without_place(v) for k, v in metadata.items() if k != "base_id"}
    if isinstance(metadata, list):
        return [_without_place(value) for value in metadata]
    return metadata


def _schema_digest(schema: Any) -> str:
    described = [[_field_key(field) for field in schema], _metadata_key(schema)]
    return _hex(json.dumps(described, sort_keys=True, separators=(",", ":")))


def _metadata_key(holder: Any) -> dict[str, str]:
    pairs = (holder.metadata or {}).items()
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in pairs}


def _field_key(arrow_field: Any) -> list[Any]:
    """Describe a field alike whether or not its extension type is registered."""
    kind, metadata = arrow_field.type, _metadata_key(arrow_field)
    if isinstance(kind, pa.BaseExtensionType):
        metadata |= _extension_metadata(kind)
        kind = kind.storage_type
    children = _children(kind)
    name = str(kind) if not children else type(kind).__name__
    size = getattr(kind, "list_size", None)
    below = [_field_key(child) for child in children]
    return [arrow_field.name, name, size, arrow_field.nullable, metadata, below]


def _children(kind: Any) -> list[Any]:
    if pa.types.is_struct(kind):
        return [kind.field(i) for i in range(kind.num_fields)]
    if pa.types.is_map(kind):
        return [kind.key_field, kind.item_field]
    return [kind.value_field] if hasattr(kind, "value_field") else []


def _extension_metadata(kind: Any) -> dict[str, str]:
    """Return what an unregistered type has as metadata of its field."""
    if isinstance(kind, pa.ExtensionType):  # defined in Python
        parameters = kind.__arrow_ext_serialize__().decode("latin-1")
    else:  # Arrow's own, registered in every process
        parameters = str(getattr(kind, "shape", ""))
    return {
        "ARROW:extension:name": kind.extension_name,
        "ARROW:extension:metadata": parameters,
    }


# -- snapshot ------------------------------------------------------------------


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
    """

    uri: str
    version: int
    branch: str | None
    storage_options: Mapping[str, str | None] = field(hash=False)
    identity: Identity
    from_memory: bool = False

    def open(self) -> Any:
        """Return the ``lance.LanceDataset`` at this version.

        One a process: opened, and held against `identity`, the first time.

        Raises:
            SourceError: The version is gone, or another table lies there now.
        """
        return _opened(self)

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
        options = {
            key: None if value == os.environ.get(key.upper()) else value
            for key, value in self.storage_options.items()
        }
        state = (self.uri, self.version, self.branch, options)
        return _restored, (*state, self.identity, self.from_memory)

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
        if columns is None and not with_row_id:
            return None
        schema = self.schema
        wanted = _expressions(schema, columns)
        if with_row_id:
            wanted.setdefault(ROW_ID, _quoted(ROW_ID))
        known = {*schema.names, *SYSTEM_COLUMNS}
        # Lance's take gives a name with a dot back as a struct, its scanner as a
        # column of that name; as an expression it is the same in both.
        if all(name in known and _quoted(name) == sql for name, sql in wanted.items()):
            return list(wanted)
        return wanted

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

    def _projected(self, wanted: list[str] | dict[str, str] | None, doing: str) -> Any:
        remedy = f"columns there are: {_listed(self.schema.names)}"
        with _explained(doing, self.uri, self.storage_options, remedy):
            return self.open().scanner(columns=wanted).projected_schema

    def check_filter(self, sql: str | None) -> None:
        """Check a SQL filter against the schema, without reading a row.

        Raises:
            ConfigError: It is not a string, or is blank.
            SourceError: It is not one expression that gives a bool, or it would
                give other rows each time.
        """
        if sql is None:
            return
        _check_filter_text(sql)
        _check_repeatable(sql, self.schema)
        doing = f"the filter {sql!r} on {self.describe()}"
        remedy = f"columns there are: {_listed(self.schema.names)}"
        with _explained(doing, self.uri, self.storage_options, remedy):
            _ = self.open().scanner(filter=_one(sql)).projected_schema


def _restored(
    uri: str,
    version: int,
    branch: str | None,
    options: dict[str, str | None],
    identity: Identity,
    from_memory: bool,
) -> Snapshot:
    filled = {
        key: os.environ.get(key.upper()) if value is None else value
        for key, value in options.items()
    }
    return Snapshot(uri, version, branch, filled, identity, from_memory)


# A handle keeps the metadata of a table in memory: a module has a few at a time.
@functools.lru_cache(maxsize=16)
def _opened(snapshot: Snapshot) -> Any:
    return _open_verified(snapshot)


def _open_verified(snapshot: Snapshot) -> Any:
    dataset = _open_at(
        snapshot.uri, snapshot.storage_options, snapshot.branch, snapshot.version
    )
    found, pinned = identity_of(dataset), snapshot.identity
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


# -- columns and filters -------------------------------------------------------


def _quoted(name: str) -> str:
    return f"`{name}`"


def _one(sql: str) -> str:
    """Return ``sql`` in brackets.

    Lance reads the first expression of "a, b" or "a > 1; b" and drops the rest
    silently; in brackets it is an error. A line break ends a comment.
    """
    return f"({sql}\n)" if "--" in sql else f"({sql})"


def _expressions(schema: Any, columns: Columns) -> dict[str, str]:
    """Return new name -> Lance expression for every column asked for."""
    if columns is None:
        columns = schema.names
    if isinstance(columns, Mapping):
        pairs = [(k, v) for k, v in columns.items() if v is not None]
    elif isinstance(columns, Sequence) and not isinstance(columns, (str, bytes)):
        pairs = [(name, name) for name in columns]
    else:
        raise ConfigError(
            "columns must be a list of names, or a mapping from new name to a column "
            f"or SQL expression, got {columns!r}; write [{columns!r}] for one column"
        )
    if not pairs:
        raise ConfigError("columns is empty, so no value would be read; name some")
    if not all(isinstance(part, str) and part for pair in pairs for part in pair):
        raise ConfigError(f"columns must hold names and SQL as text, got {columns!r}")
    counts = Counter(name for name, _ in pairs)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ConfigError(f"columns must name a column once; twice: {_listed(twice)}")
    by_sql, known = isinstance(columns, Mapping), {*schema.names, *SYSTEM_COLUMNS}
    return {
        name: _expression(schema, known, name, asked, by_sql) for name, asked in pairs
    }


def _expression(
    schema: Any, known: set[str], name: str, asked: str, by_sql: bool
) -> str:
    found = _quoted(asked) if asked in known else _path(schema, asked)
    if found is None and not by_sql:
        raise SourceError(_unknown_column(schema, asked))
    if name in SYSTEM_COLUMNS and name != asked:
        raise SourceError(
            f"{name!r} is the name of Lance's own column and cannot name {asked!r}; "
            "choose another new name"
        )
    if found is not None and "`" in asked:
        raise SourceError(
            f"the column name {asked!r} holds a backquote, which Lance cannot read; "
            "rename the column (dataset.alter_columns)"
        )
    return found or _one(asked)


def _path(fields: Any, name: str) -> str | None:
    """Return the quoted path of a column, or of a struct's field, or None."""
    for arrow_field in fields:
        if arrow_field.name == name:
            return _quoted(name)
        prefix = f"{arrow_field.name}."
        if pa.types.is_struct(arrow_field.type) and name.startswith(prefix):
            below = _path(arrow_field.type, name[len(prefix) :])
            if below is not None:
                return f"{_quoted(arrow_field.name)}.{below}"
    return None


def _unknown_column(schema: Any, name: str) -> str:
    close = difflib.get_close_matches(name, schema.names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return (
        f"unknown column {name!r}{hint}; columns there are: {_listed(schema.names)} "
        "(a SQL expression is written as a mapping: {new name: expression})"
    )


# Quoted text and names, which may well hold the word random().
_QUOTED = re.compile(r"'(?:[^']|'')*'|`[^`]*`|\"[^\"]*\"")
_CHANGING = re.compile(
    r"\b(?:random|rand|uuid|now|today)\s*\(|\bcurrent_(?:date|time(?:stamp)?)\b",
    re.IGNORECASE,
)


def _check_repeatable(sql: str, schema: Any) -> None:
    found = _CHANGING.search(_QUOTED.sub("''", sql))
    if found and found.group() not in schema.names:
        raise SourceError(
            f"the filter {sql!r} calls {found.group()!r}, which gives another value "
            "each time, so ranks and resumed runs would read other rows; use a column "
            "or a constant instead"
        )


def _check_filter_text(sql: Any) -> None:
    if sql is not None and not (isinstance(sql, str) and sql.strip()):
        raise ConfigError(
            f"filter must be a SQL expression such as 'label >= 0', got {sql!r}; "
            "leave it out to read every row"
        )


# -- opening -------------------------------------------------------------------


def _open_newest(uri: str, options: Mapping[str, str | None]) -> Any:
    _check_environment(options)
    doing = f"opening the Lance dataset at {strip_secrets(uri)!r}"

    def remedy() -> str:
        return f"check the URI and the storage options{_tables_in(uri)}"

    with _explained(doing, uri, options, remedy):
        return lance.dataset(uri, storage_options=dict(options) or None)


def _open_at(
    uri: str, options: Mapping[str, str | None], branch: str | None, version: int
) -> Any:
    if branch is None:
        _check_environment(options)
        try:  # one request less than by way of the newest version
            return lance.dataset(uri, version, storage_options=dict(options) or None)
        except (ValueError, OSError):
            pass  # found again, and explained, below
    return _checked_out(_open_newest(uri, options), uri, options, branch, version)


def _checked_out(
    newest: Any,
    uri: str,
    options: Mapping[str, str | None],
    branch: str | None,
    version: int | None,
) -> Any:
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

    with _explained(f"opening version {version} of {place}", uri, options, remedy):
        return newest.checkout_version((branch, version))


def _branch_head(
    newest: Any, uri: str, options: Mapping[str, str | None], branch: str
) -> Any:
    place = strip_secrets(uri)
    with _explained(f"listing the branches of {place}", uri, options, "try again"):
        there = newest.branches.list()
    if branch not in there:
        raise SourceError(
            f"no branch {branch!r} at {place}, so nothing can be read from it; "
            f"branches there are: {_listed(sorted(there))}; leave branch out for main"
        )
    with _explained(f"opening branch {branch!r} of {place}", uri, options, "try again"):
        return newest.checkout_version((branch, None))


def _tagged(
    newest: Any, uri: str, options: Mapping[str, str | None], tag: str
) -> tuple[str | None, int]:
    """Return branch and version of a tag: its version alone would mean main's."""
    place = strip_secrets(uri)
    with _explained(f"listing the tags of {place}", uri, options, "try again"):
        there = newest.tags.list()
    if tag not in there:
        raise SourceError(
            f"no tag {tag!r} at {place}, so no version can be chosen by it; "
            f"tags there are: {_listed(sorted(there))}"
        )
    return there[tag]["branch"], int(there[tag]["version"])


def _check_environment(options: Mapping[str, str | None]) -> None:
    missing = [key.upper() for key, value in options.items() if value is None]
    if missing:
        raise SourceError(
            "storage options that the environment held where the table was pinned are "
            "missing in this process, so it cannot be opened; set the environment "
            f"variables {_listed(missing)} here too"
        )


def _ranges(numbers: Sequence[int]) -> str:
    """Return ``"1-3, 7"`` for 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs[-_LISTED:]]
    return ", ".join(shown) or "none"


def _tables_in(uri: str) -> str:
    """Say which tables a local folder holds: a database given for a table."""
    folder = _local(uri)
    if folder is None or not folder.is_dir():
        return ""
    tables = sorted(path.name for path in folder.glob("*.lance"))
    return f"; Lance datasets in that folder: {_listed(tables)}" if tables else ""


def _local(uri: str) -> Path | None:
    """Return the absolute path of a local folder, None for an object store."""
    path = uri.removeprefix("file://")
    return None if "://" in path else Path(path).expanduser().absolute()


def _absolute(uri: str) -> str:
    """Return a local path absolute, as a worker may run in another folder."""
    return uri if "://" in uri else str(_local(uri))


# -- sources -------------------------------------------------------------------


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
        _check_filter_text(self.filter)
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

    def _pin(self, uri: str, version: int | None) -> Snapshot:
        if version is not None:
            check_int("version", version, 1)
        options = dict(self.storage_options or {})
        newest = _open_newest(uri, options)
        branch = None if self.branch == "main" else self.branch
        chosen = self.version
        if self.tag is not None:
            branch, chosen = _tagged(newest, uri, options, self.tag)
        dataset = _checked_out(newest, uri, options, branch, version or chosen)
        found = identity_of(dataset)
        snapshot = Snapshot(uri, found.version, branch, options, found)
        snapshot.check_filter(self.filter)
        return snapshot


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
        return self._pin(_absolute(self.uri), version)


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
        local = _local(self.uri)
        if local is not None and not local.is_dir():
            raise SourceError(  # lancedb.connect would make the folder
                f"no LanceDB database at {str(local)!r}, so no table can be opened; "
                "check the path, which is relative to the working folder"
            )
        import lancedb

        options = dict(self.storage_options or {})
        doing = f"connecting to the LanceDB database at {strip_secrets(self.uri)!r}"
        with _explained(doing, self.uri, options, "check URI and storage options"):
            database = lancedb.connect(self.uri, storage_options=options or None)
        path = list(self.namespace or ())

        def remedy() -> str:
            return f"tables there are: {_listed(_table_names(database, path))}"

        doing = f"opening {self.describe()}"
        # Each kind of namespace raises an error of its own.
        with _explained(doing, self.uri, options, remedy, caught=(Exception,)):
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
        _check_filter_text(self.filter)

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
        dataset = _open_at(str(target), {}, None, 1)
        found = Identity(1, _schema_digest(dataset.schema), content)
        snapshot = Snapshot(str(target), 1, None, {}, found, from_memory=True)
        snapshot.check_filter(self.filter)
        return snapshot

    def _write(self, folder: Path) -> None:
        remedy = (
            "cast or drop the columns that Lance cannot store, or give the cache more "
            "room (cache_dir=...)"
        )
        with _explained(f"storing an {self.describe()}", "", {}, remedy):
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


def content_digest(table: Any) -> str:
    """Return a digest, in hex, of a ``pyarrow.Table``'s schema and values.

    How the table is cut into chunks changes nothing, nor do the bytes that lie
    under a null: what a process leaves there is chance.

    Raises:
        SourceError: A column is of a type that Lance does not store.
    """
    parts = [_schema_digest(table.schema), str(table.num_rows)]
    for name, column in zip(table.column_names, table.columns, strict=True):
        streams: dict[str, Any] = {}
        for chunk in column.chunks:
            if len(chunk):
                for path, data in _streams(chunk, name):
                    streams.setdefault(path, hashlib.sha256()).update(data)
        parts += [f"{path}={streams[path].hexdigest()}" for path in streams]
    return _hex(*parts)


def _streams(array: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield streams of bytes that do not depend on chunks, offsets or nulls' bytes."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    yield f"{path}?", _bytes(array.is_valid())
    array = array.drop_null() if array.null_count else array
    kind = array.type
    if pa.types.is_struct(kind):
        for i, child in enumerate(array.flatten()):
            yield from _streams(child, f"{path}.{i}")
    elif pa.types.is_map(kind):
        yield f"{path}#", _lengths(array.offsets)
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        yield from _streams(array.keys[first:last], f"{path}.key")
        yield from _streams(array.items[first:last], f"{path}.value")
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield f"{path}#", _lengths(array.offsets)
        yield from _streams(array.flatten(), f"{path}[]")
    elif pa.types.is_fixed_size_list(kind):
        yield from _streams(array.flatten(), f"{path}[]")
    elif pa.types.is_boolean(kind):
        yield path, _bytes(array)
    elif not pa.types.is_null(kind):
        yield from _leaf_streams(array, path)


def _leaf_streams(array: Any, path: str) -> Iterator[tuple[str, Any]]:
    kind, start = array.type, array.offset
    try:
        width = kind.bit_width // 8
    except ValueError:
        width = 0
    if width:
        values = array.buffers()[1]
        yield path, values[start * width : (start + len(array)) * width]
        return
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    if not (wide or pa.types.is_string(kind) or pa.types.is_binary(kind)):
        raise SourceError(
            f"column {path!r} is of type {kind}, which Lance does not store; cast or "
            "drop the column"
        )
    _, offsets, values = array.buffers()
    ends = np.frombuffer(offsets, np.int64 if wide else np.int32)
    ends = ends[start : start + len(array) + 1]
    yield f"{path}#", np.diff(ends).astype(np.int64)
    if values is not None:
        yield path, values[int(ends[0]) : int(ends[-1])]


def _lengths(offsets: Any) -> Any:
    return np.diff(offsets.to_numpy()).astype(np.int64)


def _bytes(booleans: Any) -> Any:
    return booleans.to_numpy(zero_copy_only=False)


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
                f"{_listed(self.sources)}"
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
    in_memory = isinstance(value, (pa.Table, pa.RecordBatch))
    hint = "; write ArrowSource(table)" if in_memory else ""
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
