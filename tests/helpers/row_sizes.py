"""Columns of rows of any sizes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

ROWS = 4000
LARGE = 200_000
BOUND = 2 << 20


def lengths(kind: str) -> np.ndarray:
    ids = np.arange(ROWS)
    if kind == "tail":  # none of them among the rows of the sample
        return np.where(ids % 80 == 7, LARGE, 10)
    if kind == "sorted":
        return np.where(ids >= ROWS - 100, LARGE, 10)
    return np.full(ROWS, 10)


def column(kind: str, type_: str) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths(kind))])
    if type_ == "list":
        values = pa.array(np.zeros(offsets[-1] // 4 + 1, np.float32))
        return pa.ListArray.from_arrays(pa.array((offsets // 4).astype("i4")), values)
    data = pa.py_buffer(b"x" * int(offsets[-1]))
    ends = pa.py_buffer(offsets.astype("i4"))
    return pa.Array.from_buffers(pa.string(), ROWS, [None, ends, data])
