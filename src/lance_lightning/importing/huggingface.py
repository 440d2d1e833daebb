"""Rows of the library `datasets`, as ``save_to_disk`` left them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lance_lightning.arrow import nested_type
from lance_lightning.errors import ConfigError
from lance_lightning.importing.rows import Input, rows_a_batch


def huggingface_rows(source: Path) -> Input:
    """What ``Dataset.save_to_disk`` of the library `datasets` wrote."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"{str(source)!r} is a dataset of Hugging Face, which the package datasets "
            "reads: pip install 'lance-lightning[datasets]'"
        ) from error
    found = datasets.load_from_disk(str(source))
    if isinstance(found, datasets.DatasetDict):
        raise ConfigError(
            f"{str(source)!r} holds the splits {', '.join(found)}; a table is made of "
            f"one: import {str(source / next(iter(found)))!r}, and train from several "
            "tables with SeparateSources"
        )
    encoded = [
        name
        for name, feature in found.features.items()
        if isinstance(feature, datasets.Image | datasets.Audio)
    ]
    rows = rows_a_batch(found.num_rows, found.data.nbytes)
    stored = found.with_format("arrow")
    schema = _plain_table(stored[:0], encoded).schema

    def batches(skip: int) -> Iterator[Any]:
        for at in range(skip, found.num_rows, rows):
            table = _plain_table(stored[at : at + rows], encoded).cast(schema)
            yield from table.combine_chunks().to_batches()

    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    return Input(files, schema, found.num_rows, batches)


def _plain_table(table: Any, encoded: Sequence[str]) -> Any:
    """Return a table of the library `datasets` in types that Lance knows.

    Args:
        table: Its rows.
        encoded: Columns of images and sound: the encoded bytes are kept of them.
    """
    import pyarrow.compute as pc

    for at, name in enumerate(table.column_names):
        column = table[name]
        if name in encoded:
            column = pc.struct_field(column, "bytes")
        elif isinstance(column.type, pa.ExtensionType):  # Array2D to Array5D
            parts = [part.storage for part in column.chunks]
            column = pa.chunked_array(parts, column.type.storage_type)
            column = column.cast(nested_type(column.type, table[name].type.shape))
        table = table.set_column(at, name, column)
    return table
