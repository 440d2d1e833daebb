"""Tables behind a server, LanceDB Cloud's (``db://``): read through the Table API.

`RemoteDataset` stands in for the few methods of a ``lance.LanceDataset`` that this
package calls. A row is asked for by its offset, which is the same whatever order the
server answers in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from lance_lightning.errors import DataError, SourceError
from lance_lightning.tables.identity import Identity, hex_digest, schema_digest
from lance_lightning.tables.projection import SYSTEM_COLUMNS
from lance_lightning.tables.secrets import explain_errors, strip_secrets
from lance_lightning.types import ROW_OFFSET

SCHEME = "db://"
API_KEY = "LANCEDB_API_KEY"  # LanceDB's own name
ROWS_A_REQUEST = 8192  # the offsets go along as text, about 10 bytes each


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """Where a remote table is. It holds no credentials, and pickles.

    Args:
        uri: The database, ``db://...``.
        table: The table's name.
        namespace: The namespace that holds the table.
        region: The region of LanceDB Cloud; None is LanceDB's default.
        host_override: The URL of a server of one's own.
        connection_factory: Opens the table by its name, in place of all of these.
    """

    uri: str
    table: str
    namespace: tuple[str, ...] = ()
    region: str | None = None
    host_override: str | None = None
    connection_factory: Callable[[str], Any] | None = None

    def describe(self) -> str:
        """Return database and table, without secrets."""
        name = "$".join([*self.namespace, self.table])
        return f"{strip_secrets(self.uri)}/{name}"

    def open(
        self,
        options: Mapping[str, str | None],
        branch: str | None,
        version: int | str | None,
    ) -> RemoteDataset:
        """Return the table pinned at a version, or at a tag; None is the newest.

        Raises:
            SourceError: There is no such table, branch or version, the server does
                not answer, or this process has no API key.
        """
        return RemoteDataset(self.table_at(options, branch, version), self, branch)

    def table_at(
        self,
        options: Mapping[str, str | None],
        branch: str | None,
        version: int | str | None,
    ) -> Any:
        """Return LanceDB's own table, pinned, on a connection of our own.

        Raises:
            SourceError: As `open` does.
        """
        with self.explain_errors(f"opening the remote table {self.describe()}"):
            table = self._connected(options)
            if branch is not None:
                table = table.branches.checkout(branch)
            table.checkout(table.version if version is None else version)
            return table

    def _connected(self, options: Mapping[str, str | None]) -> Any:
        """Return the table at the newest version of main."""
        if self.connection_factory is not None:
            return self.connection_factory(self.table)
        if not os.environ.get(API_KEY):
            raise SourceError(
                f"the environment variable {API_KEY} is not set in this process, so "
                f"the remote table {self.describe()} cannot be opened; set it on "
                "every node: the key itself goes into no checkpoint and to no worker"
            )
        import lancedb

        given = {"region": self.region, "host_override": self.host_override}
        database = lancedb.connect(
            self.uri,
            storage_options=dict(options) or None,
            **{name: value for name, value in given.items() if value is not None},
        )
        return database.open_table(self.table, namespace_path=[*self.namespace])

    def explain_errors(self, doing: str) -> AbstractContextManager[None]:
        """Turn what LanceDB raises into a `SourceError` that shows no key."""
        return explain_errors(
            doing,
            self.host_override or self.uri,
            {"key": os.environ.get(API_KEY)},
            f"check database, table, version, region and {API_KEY}, and that the "
            "server can be reached",
            caught=(Exception,),  # LanceDB has several classes for these
        )


class RemoteDataset:
    """A remote table at one version, with the methods of a Lance dataset we call.

    Args:
        table: The open LanceDB table, checked out at a version; only ours.
        place: Where it is.
        branch: The branch it was opened on.
    """

    def __init__(self, table: Any, place: RemotePlace, branch: str | None) -> None:
        self._table = table
        self._place = place
        self._branch = branch
        self._answers_in_order = True  # until it turns out otherwise
        self.version = int(table.version)

    @cached_property
    def schema(self) -> Any:
        """The ``pyarrow.Schema`` of the table."""
        with self._reading("the schema"):
            return self._table.schema

    @cached_property
    def _num_rows(self) -> int:
        with self._reading("the number of rows"):
            return int(self._table.count_rows())

    def count_rows(self) -> int:
        """Return the number of rows."""
        return self._num_rows

    def identity(self) -> Identity:
        """Return what tells this table: the server shows no fragments."""
        place = [self._place.describe(), self._branch or "", str(self.version)]
        rows = hex_digest("remote", *place, str(self.count_rows()))
        return Identity(self.version, schema_digest(self.schema), rows)

    def checkout_version(self, _: Any) -> Any:
        """Refuse: two versions of a remote table cannot be compared.

        Raises:
            ValueError: Always.
        """
        raise ValueError("the versions of a remote table cannot be compared")

    def take(self, offsets: Any, columns: Any = None) -> Any:
        """Return a ``pyarrow.Table`` of the rows at ``offsets``, which are sorted.

        Args:
            offsets: Row offsets, int64 of shape (rows,), repeats allowed.
            columns: Names, or new names to SQL expressions; None is all columns.

        Raises:
            DataError: The server gave other rows.
            SourceError: It gave none.
        """
        offsets = np.asarray(offsets, np.int64)
        if not len(offsets):
            return self.projected(columns).empty_table()
        starts = range(0, len(offsets), ROWS_A_REQUEST)
        return pa.concat_tables(
            [self._take(offsets[at : at + ROWS_A_REQUEST], columns) for at in starts]
        )

    def _take(self, offsets: Any, columns: Any) -> Any:
        query = self._table.take_offsets(offsets.tolist())
        found, there = self._run(query, columns, f"{len(offsets)} rows")
        if not np.array_equal(there, offsets):
            raise DataError(
                f"asked the remote table {self._place.describe()} for {len(offsets)} "
                f"rows from offset {offsets[0]} to {offsets[-1]} and got "
                f"{len(there)}, or others"
            )
        return found

    def neighbours(self, start: int, stop: int, columns: Any) -> Any:
        """Return the rows from offset ``start`` up to, not with, ``stop``.

        In one request where the server counts rows in the table's order.

        Raises:
            DataError: The server gave other rows.
            SourceError: It gave none.
        """
        offsets = np.arange(start, stop)
        if self._answers_in_order and len(offsets):
            query = self._table.search().offset(start).limit(len(offsets))
            found, there = self._run(query, columns, f"rows {start} to {stop}")
            if np.array_equal(there, offsets):
                return found
            self._answers_in_order = False
        return self.take(offsets, columns)

    def scanner(
        self,
        columns: Any = None,
        filter: str | None = None,
        offset: int = 0,
        limit: int | None = None,
        batch_size: int | None = None,
        scan_in_order: bool = True,
    ) -> RemoteScan:
        """Return a scan in the order of the offsets; nothing is read yet.

        Args:
            columns: Names, or new names to SQL expressions; None is all columns.
            filter: A SQL expression that rows must pass.
            offset: The first row.
            limit: How many rows; None is all.
            batch_size: Rows in a batch; no more than `ROWS_A_REQUEST`.
            scan_in_order: It always is.
        """
        del batch_size, scan_in_order
        return RemoteScan(self, columns, filter, offset, limit)

    def projected(self, columns: Any, filter: str | None = None) -> Any:
        """Return the ``pyarrow.Schema`` of the columns, as the server has it."""
        query = self._table.search().limit(1)
        query = query if filter is None else query.where(filter)
        return self._run(query, columns, "the columns")[0].schema

    def all_of(self, columns: Sequence[str], filter: str | None = None) -> Any:
        """Return columns of all rows that pass, in one request."""
        query = self._table.search()
        query = query if filter is None else query.where(filter)
        return self._run(query, columns, f"{list(columns)} of all rows")[0]

    def _run(self, query: Any, columns: Any, what: str) -> tuple[Any, Any]:
        """Return the query's rows sorted by offset, and their offsets."""
        asked = self.schema.names if columns is None else columns
        if isinstance(asked, Mapping):
            wanted: Any = {**asked, ROW_OFFSET: ROW_OFFSET}
        else:
            wanted = list(dict.fromkeys([*asked, ROW_OFFSET]))
        with self._reading(what):
            found = query.select(wanted).to_arrow()
        there = found[ROW_OFFSET].to_numpy().astype(np.int64)
        if (there[1:] < there[:-1]).any():
            order = np.argsort(there, kind="stable")
            found, there = found.take(order), there[order]
        # A mapping comes back in the order of JSON, and none says what to leave out.
        return found.select(list(asked)), there

    def _reading(self, what: str) -> AbstractContextManager[None]:
        place = f"{self._place.describe()}, version {self.version}"
        return self._place.explain_errors(f"reading {what} of the remote table {place}")


@dataclass(frozen=True, slots=True)
class RemoteScan:
    """A scan over a remote table, in the order of the offsets."""

    dataset: RemoteDataset
    columns: Any
    filter: str | None
    offset: int
    limit: int | None

    @property
    def projected_schema(self) -> Any:
        """The ``pyarrow.Schema`` that the scan gives."""
        return self.dataset.projected(self.columns, self.filter)

    def to_table(self) -> Any:
        """Return all its rows as a ``pyarrow.Table``."""
        found = list(self._tables(sys.maxsize))
        return pa.concat_tables(found) if found else self.projected_schema.empty_table()

    def to_batches(self) -> Iterator[Any]:
        """Yield its rows as record batches."""
        for table in self._tables(ROWS_A_REQUEST):
            yield from table.to_batches()

    def _tables(self, size: int) -> Iterator[Any]:
        """Yield its rows as tables of at most ``size`` rows."""
        if isinstance(self.columns, list) and {*self.columns} <= {*SYSTEM_COLUMNS}:
            # A few bytes a row: one request for all of them.
            found = self.dataset.all_of(self.columns, self.filter)
            yield found.slice(self.offset, self.limit)
        elif self.filter is None:
            rows = range(self.dataset.count_rows())[self._own]
            for start in range(rows.start, rows.stop, size):
                stop = min(start + size, rows.stop)
                yield self.dataset.neighbours(start, stop, self.columns)
        else:
            found = self.dataset.all_of([ROW_OFFSET], self.filter)
            offsets = found[ROW_OFFSET].to_numpy()[self._own]
            for start in range(0, len(offsets), size):
                yield self.dataset.take(offsets[start : start + size], self.columns)

    @property
    def _own(self) -> slice:
        stop = None if self.limit is None else self.offset + self.limit
        return slice(self.offset, stop)
