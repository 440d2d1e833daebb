"""Tables whose every column follows from the id."""

from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa


def make_table(rows: int, start: int = 0) -> pa.Table:
    """Return a table whose every column follows from the id."""
    ids = np.arange(start, start + rows, dtype=np.int64)
    vectors = (ids[:, None] * 4 + np.arange(4)).astype(np.float32)
    return pa.table(
        {
            "id": ids,
            "label": pa.array(ids % 3, pa.int64()),
            "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), 4),
            "name": [f"row-{i}" for i in ids],
        }
    )


def write_table(path, rows: int, rows_per_file: int | None = None) -> str:
    """Write `make_table` as a Lance dataset and return its URI."""
    options = {} if rows_per_file is None else {"max_rows_per_file": rows_per_file}
    lance.write_dataset(make_table(rows), str(path), **options)
    return str(path)


def flat(batches) -> list[int]:
    """Return the ids of all batches in one list."""
    return [i for batch in batches for i in batch]
