"""The rows that everybody reads, made again wherever they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

CHUNK = 10_000  # rows made at a time, each chunk from a key of its own
VOCABULARY = 5_000
Columns = dict[str, Any]  # name -> array, list of str, or list of arrays


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of row.

    Args:
        name: As on the command line.
        rows: Rows at full size.
        columns: Its columns, ``id`` (0, 1, 2, ...) first.
        make: Takes a generator and a number of rows, returns the other columns.
        about: What a row is, for the tables.
        in_batches: Whether the Lance table is written batch by batch; else at once,
            as ``lance.write_dataset(table)`` does. Its pages are then larger, which
            costs the raw scan most of its speed, and a reader of pieces nothing.
    """

    name: str
    rows: int
    columns: tuple[str, ...]
    make: Callable[[np.random.Generator, int], Columns]
    about: str
    in_batches: bool = False

    def chunks(self, rows: int) -> Iterator[Columns]:
        """Make the first rows, in chunks; the same at every call."""
        number = list(WORKLOADS).index(self.name)
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            rng = np.random.Generator(np.random.Philox(key=[number, start]))
            ids = np.arange(start, start + count, dtype=np.int64)
            yield {"id": ids, **self.make(rng, count)}

    def samples(self, rows: int) -> Iterator[dict[str, Any]]:
        """Make the first rows one by one, as dicts of numpy values and str."""
        for chunk in self.chunks(rows):
            for values in zip(*chunk.values(), strict=True):
                yield dict(zip(chunk, values, strict=True))


def _narrow(rng: np.random.Generator, count: int) -> Columns:
    return {
        "label": rng.integers(0, 10, count),
        "vector": rng.standard_normal((count, 128), dtype=np.float32),
    }


def _wide(rng: np.random.Generator, count: int) -> Columns:
    return {"image": rng.integers(0, 256, (count, 3 * 64 * 64), dtype=np.uint8)}


def _text(rng: np.random.Generator, count: int) -> Columns:
    # Words as common as in a natural language, so that text packs as text does.
    letters = rng.integers(97, 123, (VOCABULARY, 12), dtype=np.uint8)
    sizes = rng.integers(2, 12, VOCABULARY)
    words = [bytes(w[:n]).decode() for w, n in zip(letters, sizes, strict=True)]
    drawn = np.minimum(rng.zipf(1.2, 400_000) - 1, VOCABULARY - 1)
    prose = " ".join([words[i] for i in drawn.tolist()])
    lengths = rng.integers(200, 2_001, count).tolist()
    starts = rng.integers(0, len(prose) - 2_000, count).tolist()
    return {"text": [prose[s : s + n] for s, n in zip(starts, lengths, strict=True)]}


def _tokens(rng: np.random.Generator, count: int) -> Columns:
    lengths = rng.integers(50, 501, count)
    values = rng.integers(0, 50_000, int(lengths.sum()), dtype=np.int32)
    return {"tokens": np.split(values, np.cumsum(lengths)[:-1])}


WORKLOADS = {
    each.name: each
    for each in (
        Workload(
            "narrow",
            1_000_000,
            ("id", "label", "vector"),
            _narrow,
            "int64 id, int64 label, 128 x float32 (528 bytes)",
        ),
        Workload(
            "wide",
            30_000,
            ("id", "image"),
            _wide,
            "int64 id, 3 x 64 x 64 uint8 (12 KB)",
        ),
        Workload(
            "text", 200_000, ("id", "text"), _text, "int64 id, 200-2000 characters"
        ),
        Workload(
            "tokens", 200_000, ("id", "tokens"), _tokens, "int64 id, 50-500 x int32"
        ),
        Workload(
            "batches",
            1_000_000,
            ("id", "label", "vector"),
            _narrow,
            f"the narrow rows, in a Lance table that was written {CHUNK:,} at a time",
            in_batches=True,
        ),
    )
}


def arrow_batches(workload: Workload, rows: int) -> Iterator[Any]:
    """Make the first rows as Arrow record batches."""
    import pyarrow as pa

    for chunk in workload.chunks(rows):
        columns = {name: _arrow(pa, values) for name, values in chunk.items()}
        yield pa.RecordBatch.from_pydict(columns)


def _arrow(pa: Any, values: Any) -> Any:
    if isinstance(values, list):
        if isinstance(values[0], str):
            return pa.array(values)
        offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
        return pa.ListArray.from_arrays(offsets, np.concatenate(values))
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1])
