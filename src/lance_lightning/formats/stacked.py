"""One tensor of all columns: torch_row and torch_col."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lance_lightning.columns import Column, Decoded, Numbers
from lance_lightning.errors import DataError


@dataclass(frozen=True, slots=True)
class Stacked:
    """A window of torch_row or torch_col.

    Args:
        tensor: Shape (rows, C), or (C, rows).
        shapes: The shape of one row of each column; their sizes sum to C.
        by_row: The rows come first.
    """

    tensor: torch.Tensor
    shapes: dict[str, tuple[int, ...]]
    by_row: bool

    def slice(self, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start`` to ``stop``, a view."""
        return self.tensor.narrow(0 if self.by_row else 1, start, stop - start)

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return rows ``start`` to ``stop`` as dicts of their columns."""
        found = self.slice(start, stop)
        if not self.by_row:
            found = found.T
        widths = [math.prod(shape) for shape in self.shapes.values()]
        parts = [
            part.reshape(stop - start, *shape).unbind(0)
            for part, shape in zip(
                torch.split(found, widths, 1), self.shapes.values(), strict=True
            )
        ]
        return [
            dict(zip(self.shapes, row, strict=True)) for row in zip(*parts, strict=True)
        ]


def numbers_of(column: Column) -> Numbers | None:
    """Return the numbers that a column is in the end; None where it is not."""
    while isinstance(column, Decoded):
        column = column.column
    return column if isinstance(column, Numbers) else None


def common_dtype(name: str, dtypes: Mapping[str, torch.dtype]) -> str:
    """Return the dtype that holds every column's digits.

    numpy's promotion, but for 64-bit integers beside floats: float64 has 53 bits.
    """
    names = [str(dtype).removeprefix("torch.") for dtype in dtypes.values()]
    common = np.result_type(*(n.replace("bfloat16", "float32") for n in names))
    if common.kind == "f" and "int64" in names:
        listed = ", ".join(f"{c}: {n}" for c, n in zip(dtypes, names, strict=True))
        raise DataError(
            f"output_format={name!r} makes one tensor of all columns, and {common} "
            f"would lose digits of int64 ({listed}): set dtype='float32' or another, "
            "choose columns of one dtype with columns=[...], or output_format='torch'"
        )
    return str(common)


def join(parts: list[np.ndarray], by_row: bool) -> np.ndarray:
    """Join arrays of shape (rows, width); one alone is not copied."""
    if len(parts) == 1:
        return parts[0] if by_row else parts[0].T
    rows, width = len(parts[0]), sum(part.shape[1] for part in parts)
    # ``out``, since numpy would take the order of memory from the transposed parts.
    if by_row:
        out = np.empty((rows, width), parts[0].dtype)
        return np.concatenate(parts, axis=1, out=out)
    out = np.empty((width, rows), parts[0].dtype)
    return np.concatenate([part.T for part in parts], axis=0, out=out)
