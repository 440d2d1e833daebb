"""Tables and frames in memory, as sources: written to the cache once."""

from __future__ import annotations

import sys
from dataclasses import field
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from lance_lightning.cache_folder import build_once
from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.frozen import spec
from lance_lightning.sources.base import Source
from lance_lightning.sources.lancedb_internals import (
    is_in_memory,
    is_table,
    memory_rows,
)
from lance_lightning.tables import (
    Identity,
    Snapshot,
    check_filter_text,
    content_digest,
    explain_errors,
    open_at,
    schema_digest,
)


@spec("source", eq=False, repr=False)
class ArrowSource(Source):
    """A table in memory, which is written to the cache once, under its content.

    Args:
        table: A ``pyarrow.Table``, ``RecordBatch`` or ``RecordBatchReader``, a frame
            of pandas or polars, a ``Dataset`` of Hugging Face, or a LanceDB table
            that is held in memory; it is read here.
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
                f"an in-memory table has only version 1, so version {version!r} "
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
        with explain_errors(f"storing an {self.describe()}", "", {}, remedy):
            lance.write_dataset(self.table, str(folder))


def is_kind(value: Any, module: str, name: str) -> bool:
    """Return whether a value is of a class of another package; imports nothing."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def is_frame(value: Any) -> bool:
    """Return whether a value is a table in memory, of whatever package."""
    return isinstance(value, pa.Table | pa.RecordBatch | pa.RecordBatchReader) or any(
        is_kind(value, module, name) for module, name in _FRAMES
    )


_FRAMES = (("pandas", "DataFrame"), ("polars", "DataFrame"), ("datasets", "Dataset"))


def _arrow_table(value: Any) -> Any:
    if is_table(value):
        if not is_in_memory(value):
            raise ConfigError(
                f"the LanceDB table {value.name!r} is stored already, and ArrowSource "
                "would copy it; give the table itself, or LanceDBSource(uri, table)"
            )
        value = memory_rows(value)
    elif is_frame(value):
        value = _table_of_frame(value)
    if not isinstance(value, pa.Table):
        raise ConfigError(
            "ArrowSource takes a pyarrow.Table, RecordBatch or RecordBatchReader, a "
            "DataFrame of pandas or polars, a Dataset of Hugging Face, or a LanceDB "
            f"table in memory, got {type(value).__name__}"
        )
    if not value.num_columns:
        raise ConfigError("ArrowSource was given a table without columns")
    return value


def _table_of_frame(value: Any) -> Any:
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    if isinstance(value, pa.RecordBatchReader):
        return value.read_all()
    if is_kind(value, "polars", "DataFrame"):
        return value.to_arrow()
    if is_kind(value, "datasets", "Dataset"):
        return _table_of_hugging_face(value)
    if not is_kind(value, "pandas", "DataFrame"):
        return value
    try:
        return pa.Table.from_pandas(value)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ConfigError(
            f"the pandas DataFrame cannot be made an Arrow table ({error}): give its "
            "columns one type each, or leave some out, df[[...]]"
        ) from error


def _table_of_hugging_face(dataset: Any) -> Any:
    given = dataset.format
    if given["type"] not in (None, "torch"):
        raise ConfigError(
            f"the Hugging Face dataset has the format {given['type']!r}, which a table "
            "has not: give dataset.with_format(None), and to the data module "
            "output_format=... or transform=..."
        )
    table = dataset.with_format("arrow")[:]
    metadata = dataset.features.arrow_schema.metadata  # what the columns are
    return table.select(given["columns"]).replace_schema_metadata(metadata)
