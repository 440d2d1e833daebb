"""Rows of Parquet, CSV, JSON lines and Arrow files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from lance_lightning.errors import SourceError
from lance_lightning.importing.rows import (
    BATCH_ROWS,
    Input,
    after,
    parts_after,
    rows_a_batch,
)

TEXT_BLOCK = 32 * 1024**2  # bytes of a text file from which its types are inferred


def dataset_rows(files: list[Path], root: Path, kind: str) -> Input:
    """Parquet, CSV and JSON lines, through ``pyarrow.dataset``."""
    import pyarrow.csv as csv
    import pyarrow.dataset as ds
    import pyarrow.fs as fs
    import pyarrow.json as json

    formats: dict[str, Any] = {
        "parquet": ds.ParquetFileFormat,
        "csv": lambda: ds.CsvFileFormat(
            csv.ParseOptions(newlines_in_values=True),
            read_options=csv.ReadOptions(block_size=TEXT_BLOCK),
        ),
        "json": lambda: ds.JsonFileFormat(
            read_options=json.ReadOptions(block_size=TEXT_BLOCK)
        ),
    }
    options = ds.FileSystemFactoryOptions(
        partition_base_dir=str(root.absolute()),
        partitioning=ds.HivePartitioning.discover(),
    )
    paths = [str(path.absolute()) for path in files]
    local = fs.LocalFileSystem()
    factory = ds.FileSystemDatasetFactory(local, paths, formats[kind](), options)
    schema = factory.inspect(promote_options="permissive")
    parts = list(factory.finish(schema).get_fragments())

    if kind == "parquet":
        counts = [part.count_rows() for part in parts]
        num_rows = sum(counts)
        size = sum(path.stat().st_size for path in files)
        rows = rows_a_batch(num_rows, 4 * size)  # it is compressed

        def batches(skip: int) -> Iterator[Any]:
            for part, rest in parts_after(parts, counts, skip):
                yield from after(_scanned(part, schema, rows), rest)

        return Input(files, schema, num_rows, batches)

    def text_batches(skip: int) -> Iterator[Any]:
        if kind == "json":
            scans = (_json_batches(part, schema) for part in parts)
        else:
            scans = (_scanned(part, schema, BATCH_ROWS) for part in parts)
        return after(_typed(itertools.chain.from_iterable(scans)), skip)

    return Input(files, schema, None, text_batches)


def _scanned(part: Any, schema: Any, rows: int) -> Iterator[Any]:
    batches = part.to_batches(
        schema=schema, batch_size=rows, batch_readahead=2, fragment_readahead=1
    )
    for batch in batches:
        yield batch.replace_schema_metadata(schema.metadata)


def _json_batches(part: Any, schema: Any) -> Iterator[Any]:
    """Give the rows of a JSON file; a key that ``schema`` lacks is an error.

    ``pyarrow.dataset`` would leave such keys out.
    """
    import pyarrow.dataset as ds
    import pyarrow.json as json

    keys = ds.get_partition_keys(part.partition_expression)
    fields = pa.schema([field for field in schema if field.name not in keys])
    reader = json.open_json(
        part.path,
        read_options=json.ReadOptions(block_size=TEXT_BLOCK),
        parse_options=json.ParseOptions(
            explicit_schema=fields, unexpected_field_behavior="error"
        ),
    )
    for batch in reader:
        for name, value in keys.items():
            column = pa.repeat(pa.scalar(value), batch.num_rows)
            batch = batch.append_column(name, column)
        for at in range(0, batch.num_rows, BATCH_ROWS):
            yield _conformed(batch.slice(at, BATCH_ROWS), schema)


def _typed(batches: Iterator[Any]) -> Iterator[Any]:
    """Say what to do where a text does not fit the types taken from its beginning."""
    try:
        yield from batches
    except pa.ArrowInvalid as error:
        raise SourceError(
            f"the text does not fit the columns ({error}); they and their types are "
            f"taken from the first {TEXT_BLOCK // 1024**2} MB of each file: where "
            "they mislead, convert it to parquet with what you mean"
        ) from error


def arrow_rows(files: list[Path]) -> Input:
    """Arrow IPC files (Feather too) and streams, memory-mapped."""
    readers = [_ipc(path) for path in files]
    schema = pa.unify_schemas(
        [reader.schema for reader in readers], promote_options="permissive"
    )

    def batches(skip: int) -> Iterator[Any]:
        found = itertools.chain.from_iterable(_ipc_batches(path) for path in files)
        for batch in after(found, skip):
            rows = rows_a_batch(batch.num_rows, batch.nbytes)
            for at in range(0, batch.num_rows, rows):
                yield _conformed(batch.slice(at, rows), schema)

    return Input(files, schema, None, batches)


def _ipc(path: Path) -> Any:
    file = pa.memory_map(str(path))
    magic = file.read(6)
    file.seek(0)
    return pa.ipc.open_file(file) if magic == b"ARROW1" else pa.ipc.open_stream(file)


def _ipc_batches(path: Path) -> Iterator[Any]:
    reader = _ipc(path)
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return (reader.get_batch(at) for at in range(reader.num_record_batches))
    return iter(reader)


def _conformed(batch: Any, schema: Any) -> Any:
    """Return a batch with the columns of ``schema``, null where it has none."""
    columns = []
    for field in schema:
        at = batch.schema.get_field_index(field.name)
        if at < 0:
            columns.append(pa.nulls(batch.num_rows, field.type))
        else:
            column = batch.column(at)
            columns.append(
                column if column.type == field.type else column.cast(field.type)
            )
    return pa.RecordBatch.from_arrays(columns, schema=schema)
