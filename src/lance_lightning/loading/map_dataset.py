"""A split as a torch ``Dataset``: one sample an index."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex, overload

import numpy as np
from torch.utils.data import Dataset

from lance_lightning.forks import refuse_fork
from lance_lightning.loading.batch_reader import BatchReader
from lance_lightning.loading.display import html_of, text_of
from lance_lightning.loading.sizing import WINDOW_BYTES
from lance_lightning.loading.stream import WindowRows
from lance_lightning.reading import BufferPool, Threads, sort_offsets

Sample = dict[str, Any]


class LanceMapDataset(Dataset[Sample]):
    """The rows of a split, at the pinned version: what torch calls map-style.

    ``dataset[i]`` is one row as a dict of what the output format has for a row:
    tensors and text for the torch formats, numpy's values for ``numpy``, Python's for
    all others. A list of indices, as torch's ``DataLoader`` asks for, is one read; a
    row by itself costs about as much as a thousand neighbours. The module's own
    functions (``transform`` and so on) are not run.

    Its pickle is a few KB. `LanceDataModule.dataset` makes it.

    Args:
        reader: Reads the split's rows.
    """

    def __init__(self, reader: BatchReader) -> None:
        self._reader = reader
        self._forget_memory()

    def _forget_memory(self) -> None:
        # Of all reads: new threads and new memory cost more than reading a row.
        self._pool = BufferPool()
        self._threads = Threads()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None, "_threads": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_memory()

    def __len__(self) -> int:
        return self._reader.stream.plan.num_rows

    def __repr__(self) -> str:
        return text_of(self, lambda: self._reader.facts())

    def _repr_html_(self) -> str:
        return html_of(self, lambda: self._reader.facts())

    @overload
    def __getitem__(self, index: SupportsIndex) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Sample | list[Sample]:
        """Return one sample, or a list of them for a slice.

        Raises:
            IndexError: There is no such row.
        """
        if isinstance(index, slice):
            return self.__getitems__(range(len(self))[index])
        (sample,) = self.__getitems__([index])
        return sample

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[Sample]:
        """Return the samples at indices, in one read.

        Raises:
            IndexError: One is not in the split.
            ConfigError: This process was forked.
        """
        refuse_fork()
        found = np.array([self._checked(index) for index in indices], np.int64)
        offsets = self._reader.stream.plan.offsets(found)
        rows = WindowRows(0, 0, [len(offsets)], offsets, *sort_offsets(offsets))
        fits = len(offsets) * self._reader.sizes.row_bytes <= WINDOW_BYTES
        pool = self._pool if fits else BufferPool()  # what is larger is not kept
        (window,) = self._reader.read([rows], pool, self._threads)
        window = self._reader.convert(window)
        return self._reader.format.rows(window.data, 0, len(offsets))

    def _checked(self, index: SupportsIndex) -> int:
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(
                f"index {number} is not in the split "
                f"{self._reader.stream.plan.name!r} of {len(self)} rows"
            )
        return number % len(self)
