"""A split's batches: windows that were read, converted and cut; it goes to workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lance_lightning.arrow import UnorderedRows, sql_name
from lance_lightning.columns import nulls_error
from lance_lightning.errors import DecodeError, NullError, TransformError, WorkerError
from lance_lightning.formats import Format, move
from lance_lightning.loading.display import Facts, Shown, columns_shown
from lance_lightning.loading.sizing import DECODED_ROWS
from lance_lightning.loading.stream import Window, WindowRows
from lance_lightning.loading.transforms import BatchPlace, Transforms, make_batch
from lance_lightning.loading.window_reader import WindowReader
from lance_lightning.reading import BufferPool, Threads, sort_offsets


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchReader(WindowReader):
    """Everything that is needed to read batches, in a few KB: it goes to workers.

    Args:
        format: The output format.
        transforms: The user's functions.
        shown: What reprs show of the columns.
    """

    format: Format
    transforms: Transforms
    shown: Shown = field(default_factory=Shown, compare=False, repr=False)

    def facts(self) -> Facts:
        """Return what is known of the rows and columns, for a repr."""
        plan = self.stream.plan
        return {
            "source": self.snapshot.describe(),
            "split": f"{plan.name}, {plan.num_rows:,} rows",
            **columns_shown(self.columns, self.shown, self.format),
        }

    @property
    def cuts_batches(self) -> bool:
        """Whether a worker cuts the batches and sends those, not the window's rows.

        There are functions of the user's, or decoders.
        """
        return bool(self.transforms) or self.format.decoders is not None

    def sent_row_bytes(self) -> int:
        """Return the mean bytes of a row as a worker sends it.

        Where there are decoders some of the split's rows are decoded to find out.
        """
        plan = self.stream.plan
        if self.format.decoders is None or not plan.num_rows:
            return self.sizes.row_bytes
        count = min(plan.num_rows, DECODED_ROWS)
        offsets = plan.offsets(np.arange(count))
        rows = WindowRows(0, 0, [count], offsets, *sort_offsets(offsets))
        (window,) = self.read([rows], BufferPool(), Threads())
        sizes: list[int] = []
        move(self.convert(window).data, lambda tensor: sizes.append(tensor.nbytes))
        return max(self.sizes.row_bytes, sum(sizes) // count)

    def parts(self, window: Window) -> Iterator[Window]:
        """Cut a window that was read into what is converted at once.

        That is a batch where there are decoders: decoded, its rows take many times
        the memory of their bytes.
        """
        if self.format.decoders is None:
            yield window
            return
        start = 0
        for number, size in zip(window.numbers, window.sizes, strict=True):
            yield Window(
                window.data.slice(start, size),
                window.epoch,
                number,
                [size],
                window.row_offsets[start : start + size],
            )
            start += size

    def convert(self, window: Window) -> Window:
        """Convert an Arrow window to the output format, once for all its batches.

        With an ``arrow_transform`` it stays Arrow: the batches are converted
        after it has run.
        """
        if self.transforms.arrow_transform is not None:
            return window
        try:
            return replace(window, data=self.format.convert(window.data))
        except DecodeError as error:
            at = error.row or 0
            if isinstance(window.data, UnorderedRows):  # it was counted as read
                at = int(np.flatnonzero(window.data.order == at)[0])
            ids = self.row_ids(window.row_offsets[at : at + 1])
            raise DecodeError(f"{error}; row ids {ids}", error.row) from error.__cause__
        except NullError as error:
            raise nulls_error(error.found, self._sql_of) from None

    def batches(self, window: Window) -> Iterator[Any]:
        """Cut a converted window into batches and run the user's functions."""
        start = 0
        if not self.transforms:
            for size in window.sizes:
                yield self.format.slice(window.data, start, start + size)
                start += size
            return
        for at, size in enumerate(window.sizes):
            place = self.place(window, at)
            try:
                batch = make_batch(
                    window.data,
                    start,
                    start + size,
                    self.format,
                    self.transforms,
                    place,
                )
            except TransformError as error:
                ids = self.row_ids(np.array(error.row_offsets, np.int64))
                raise TransformError(f"{error}; row ids {ids}") from error.__cause__
            except DecodeError as error:  # after an arrow_transform
                ids = self.row_ids(place.row_offsets[:8])
                raise DecodeError(f"{error}; in the batch of row ids {ids}") from (
                    error.__cause__
                )
            yield batch
            start += size

    def place(self, window: Window | WindowRows, at: int) -> BatchPlace:
        """Return the place of a window's batch number ``at``, counted from 0."""
        start = sum(window.sizes[:at])
        return BatchPlace(
            self.stage,
            self.stream.seed,
            window.epoch,
            window.first + at * window.stride,
            self.stream.share.world.rank,
            window.row_offsets[start : start + window.sizes[at]],
        )

    def not_sent(self, place: BatchPlace, error: Exception) -> TransformError:
        """Return the error for a batch that cannot cross from a worker."""
        said = str(error)
        if not isinstance(error, WorkerError):  # which has a remedy of its own
            said = (
                f"{type(error).__name__}: {error}; let your functions return tensors, "
                "arrays and plain values, or use num_workers=0"
            )
        ids = self.row_ids(place.row_offsets[:8])
        return TransformError(
            f"a batch cannot be sent from a worker: {said} ({place}); row ids {ids}"
        )

    def _sql_of(self, name: str) -> str:
        """Return how a filter names a column, which can have a new name here."""
        column, dot, field = name.partition(".")
        if not isinstance(self.columns, Mapping) or column not in self.columns:
            return sql_name(name)
        return f"{self.columns[column]}{dot}{sql_name(field) if field else ''}"
