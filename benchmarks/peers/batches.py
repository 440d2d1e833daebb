"""How rows and Arrow become batches where a peer leaves that to its user."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

VARIABLE = ("text", "tokens")  # columns whose values differ in size: kept in lists


def collate_rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of rows: one tensor a column, or a list."""
    return {name: _column(name, [row[name] for row in rows]) for name in rows[0]}


def _column(name: str, values: list[Any]) -> Any:
    if name == "tokens":
        return [torch.as_tensor(value) for value in values]
    if name in VARIABLE:
        return values
    if isinstance(values[0], torch.Tensor):
        return torch.stack(values)
    if isinstance(values[0], np.ndarray):
        return torch.from_numpy(np.stack(values))
    return torch.tensor(values)


def arrow_to_batch(batch: Any, **_: Any) -> dict[str, Any]:
    """Make a batch of Arrow columns, without Python objects where that can be."""
    names = batch.schema.names
    return {name: _arrow_column(batch.column(name)) for name in names}


def _arrow_column(array: Any) -> Any:
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return array.to_pylist()
    if pa.types.is_fixed_size_list(kind):
        flat = array.flatten().to_numpy(zero_copy_only=True)
        return torch.from_numpy(flat.reshape(len(array), -1).copy())
    if pa.types.is_list(kind):
        flat = torch.from_numpy(array.flatten().to_numpy().copy())
        return list(flat.split(array.value_lengths().to_pylist()))
    return torch.from_numpy(array.to_numpy().copy())


def same(batch: Any) -> Any:
    """Collate nothing: the batch is one already."""
    return batch


def generator() -> torch.Generator:
    """Return a generator of a fixed seed for torch's sampler."""
    return torch.Generator().manual_seed(0)


def spawned(workers: int) -> dict[str, Any]:
    """Return the options of a `DataLoader` whose workers are spawned and stay."""
    if not workers:
        return {}
    return {
        "num_workers": workers,
        "multiprocessing_context": "spawn",
        "persistent_workers": True,
    }
