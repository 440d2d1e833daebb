"""Blob columns, whose bytes Lance keeps apart from the rows: read beside them.

A scan gives a blob's bytes when told to; a take gives only where they are, so that
the bytes of scattered rows are asked for column by column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lance
import pyarrow as pa

from lance_lightning.arrow import BLOB_KEY, is_blob, refuse_blob
from lance_lightning.errors import DataError


def with_blobs(dataset: Any, columns: Any) -> Any:
    """Return what reads these columns: the dataset, or a `BlobDataset` over it.

    Args:
        dataset: An open Lance dataset. A stand-in for one is handed back: it has
            nothing to read blobs with.
        columns: What Lance is asked for, as `Snapshot.lance_columns` gives it.

    Raises:
        DataError: A blob is inside a struct, or is part of a SQL expression.
    """
    if not isinstance(dataset, lance.LanceDataset):
        return dataset
    if not any(_marked(field) for field in dataset.schema):
        return dataset
    paths = {}
    for field in dataset.scanner(columns=columns).projected_schema:
        if is_blob(field):
            paths[field.name] = _path(field.name, columns)
        else:
            refuse_blob(field)
    return BlobDataset(dataset, paths) if paths else dataset


def _marked(field: pa.Field) -> bool:
    """Tell whether a field of a table's own schema is, or holds, a blob."""
    if is_blob(field) or (field.metadata or {}).get(BLOB_KEY) == b"true":
        return True
    return pa.types.is_struct(field.type) and any(map(_marked, field.type))


def _path(name: str, columns: Any) -> str:
    """Return the quoted path of the blob that an output column shows."""
    if not isinstance(columns, Mapping):
        return f"`{name}`"
    sql = str(columns[name])
    if not sql.startswith("`"):
        raise DataError(
            f"column {name!r} is the SQL expression {sql} of a blob, whose bytes no "
            "expression can use: name only the blob, and decode it with decoders"
        )
    return sql


@dataclass(frozen=True, slots=True)
class BlobDataset:
    """Reads rows of a Lance dataset, blobs as ``large_binary``.

    Args:
        dataset: The open Lance dataset.
        paths: The quoted path of each blob, by the name of its output column.
    """

    dataset: Any
    paths: Mapping[str, str]

    def scanner(self, columns: Any, **options: Any) -> Any:
        """Return Lance's scanner, which reads the bytes as well."""
        return self.dataset.scanner(
            columns=columns, blob_handling="all_binary", **options
        )

    def take(self, offsets: Any, columns: Any) -> pa.Table:
        """Return the rows at sorted ``offsets``, repeats allowed."""
        schema = self.scanner(columns).projected_schema
        others = [name for name in schema.names if name not in self.paths]
        if isinstance(columns, Mapping):
            asked: Any = {name: columns[name] for name in others}
        else:
            asked = others
        rows = self.dataset.take(offsets, columns=asked) if others else None
        columns_read = [
            self._bytes(name, offsets)
            if rows is None or name in self.paths
            else rows[name]
            for name in schema.names
        ]
        return pa.Table.from_arrays(columns_read, schema=schema)

    def _bytes(self, name: str, offsets: Any) -> pa.Array:
        found = self.dataset.read_blobs(
            self.paths[name], indices=list(map(int, offsets)), preserve_order=True
        )
        return pa.array([value for _, value in found], pa.large_binary())

    def num_bytes(self, offsets: Any) -> int:
        """Return the bytes of all blobs of some rows, without reading them."""
        return sum(
            blob.size()
            for path in self.paths.values()
            for blob in self.dataset.take_blobs(path, indices=list(map(int, offsets)))
            if blob is not None
        )
