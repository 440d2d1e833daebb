"""Which rows a prediction belongs to, for Lightning's prediction writers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from lightning.pytorch.overrides.distributed import _IndexBatchSamplerWrapper

from lance_lightning.loading import LanceDataLoader


class _BatchIndices(Sequence[list[int]]):
    """The indices of every batch, worked out when they are asked for."""

    def __init__(self, loader: LanceDataLoader) -> None:
        self._stream = loader.reader.stream

    def __len__(self) -> int:
        return self._stream.share.num_batches

    @overload
    def __getitem__(self, batch: int) -> list[int]: ...

    @overload
    def __getitem__(self, batch: slice) -> list[list[int]]: ...

    def __getitem__(self, batch: int | slice) -> Any:
        if isinstance(batch, slice):
            return [self[number] for number in range(*batch.indices(len(self)))]
        stream = self._stream
        return stream.share.indices(stream.order, 0, batch, batch + 1)[0].tolist()


class PredictedRows(_IndexBatchSamplerWrapper):
    """Gives prediction writers the ``batch_indices``: rows of the split, from 0.

    Lightning asks a loader's ``batch_sampler`` for them, and only when it is of its
    own, private class; else it warns and writers get none.

    Args:
        loader: The loader that predictions are made from.
    """

    def __init__(self, loader: LanceDataLoader) -> None:
        # The base class wraps a batch sampler; there is none here.
        self.batch_size = loader.batch_size
        self.seen_batch_indices: Any = _BatchIndices(loader)
