"""A table pinned at a version, which every process opens for itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import lance
import pyarrow as pa

from lance_lightning.arrow import bytes_of_blobs, register_extension_types
from lance_lightning.checks import quote_names
from lance_lightning.errors import SourceError
from lance_lightning.forks import refuse_fork
from lance_lightning.tables.identity import Identity
from lance_lightning.tables.open_datasets import open_datasets, open_verified
from lance_lightning.tables.projection import Columns, asked_of_lance, check_filter, one
from lance_lightning.tables.secrets import (
    explain_errors,
    from_environment,
    strip_secrets,
    without_environment,
)
from lance_lightning.tables.sql import literal_hint

register_extension_types()  # before a schema is read


class Remote(Protocol):
    """How a process opens a table that is behind a server; it can pickle."""

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
        uri: Where the Lance dataset is; absolute where it is a local path.
        version: The pinned version, counted on ``branch``.
        branch: The branch, or None for main.
        storage_options: What the object store needs. A value that the environment
            holds as well (``os.environ[key.upper()]``) is left out of the pickle
            and comes back from the environment of the process that opens it.
        identity: What was found at that version when it was pinned.
        from_memory: The dataset is the cached copy of an in-memory table.
        remote: Opens a table that is behind a server; None for Lance itself.
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
        """Fragments that the rows are in; 0 where Lance cannot tell."""
        dataset = self.open()
        return len(dataset.get_fragments()) if self.remote is None else 0

    @property
    def is_local(self) -> bool:
        """Whether the dataset is in the file system."""
        scheme, mark, _ = self.uri.partition("://")
        return self.remote is None and (not mark or scheme.startswith("file"))

    def open(self) -> Any:
        """Return the ``lance.LanceDataset`` at this version, or what stands in for it.

        One a process: opened, and held against `identity`, the first time.

        Raises:
            SourceError: The version is gone, or another table is there now.
        """
        refuse_fork()
        return open_datasets(self)

    def opened_as(self, dataset: Any) -> None:
        """Let `open` return the dataset whose identity this is, in this process."""
        open_datasets.keep(self, dataset)

    def verify(self) -> None:
        """Open the table again and compare it with what was pinned.

        Raises:
            SourceError: The version is gone, or another table is there now.
        """
        open_verified(self)

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
        gives for them, which is where they are.
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
            there = quote_names(self.schema.names)
            return f"{literal_hint(reason)}columns there are: {there}"

        with explain_errors(doing, self.uri, self.storage_options, remedy):
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
