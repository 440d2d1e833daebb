"""The order of a sampler that yields its epochs, one whole epoch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lance_lightning.checks import check_importable
from lance_lightning.errors import ConfigError
from lance_lightning.samplers.base import Order, TrainingSplit
from lance_lightning.types import Ints


@dataclass(frozen=True, slots=True)
class DrawnEpoch:
    """What a sampler yielded for one epoch.

    Args:
        indices: Indices into the split, in order.
        ends: Where in them each batch ends; None where the sampler yields rows.
    """

    indices: Ints
    ends: Ints | None = None

    def __len__(self) -> int:
        return len(self.indices) if self.ends is None else len(self.ends)

    def digest(self) -> str:
        """Return a short digest, to tell one order from another."""
        digest = hashlib.sha256(self.indices.astype("<i8").tobytes())
        if self.ends is not None:
            digest.update(b"batches" + self.ends.astype("<i8").tobytes())
        return digest.hexdigest()[:16]


class DrawnEpochs(Order):
    """The order of a sampler that yields its epochs.

    An epoch is as long as the first one. The last two are kept, of 8 bytes a row, in
    each process that works out rows.

    Args:
        name: The sampler's name.
        draw: Returns what the sampler yields for a seed and an epoch.
        split: What it was made for.
        share: See `Order`.

    Raises:
        ConfigError: Nothing was drawn.
    """

    def __init__(
        self,
        name: str,
        draw: Callable[[int, int], DrawnEpoch],
        split: TrainingSplit,
        *,
        share: Literal["strided", "contiguous"],
    ) -> None:
        self.share = share
        self.draws = True
        self._name = name
        self._draw = draw
        first = draw(split.seed, 0)
        if not len(first):
            raise ConfigError(
                f"the sampler {name} yields nothing for the split {split.plan.name!r}, "
                "so there is nothing to train on; give it rows of the split"
            )
        self._length = len(first)
        # Of one epoch: a sampler that shuffles does so in the first one too.
        self.reads_in_table_order = bool((np.diff(first.indices) >= 0).all())
        self._seed = split.seed
        self._epochs = {0: first}
        self._digest = first.digest()
        self.rows_per_epoch = len(first.indices)
        self.batches_per_epoch = None if first.ends is None else len(first.ends)
        self.depends_on_ranks = self.batches_per_epoch is not None

    def __getstate__(self) -> dict[str, Any]:
        # A worker gets the rows of each window, and draws nothing.
        return {**self.__dict__, "_epochs": {}}

    def check_importable(self) -> None:
        """Raise a `ConfigError` unless a spawned worker could load the sampler."""
        check_importable(f"the sampler {self._name}", self._draw)

    def prepare(self, epoch: int) -> None:
        """Draw an epoch now, unless it is one of the last two that were.

        On the main thread: the global generators are seeded meanwhile.

        Raises:
            ConfigError: It is shorter than the first one.
        """
        self._drawn(epoch)

    def _drawn(self, epoch: int) -> DrawnEpoch:
        if epoch in self._epochs:
            return self._epochs[epoch]
        drawn = self._draw(self._seed, epoch)
        if len(drawn) < self._length:
            what = "rows" if drawn.ends is None else "batches"
            raise ConfigError(
                f"the sampler {self._name} yields {len(drawn)} {what} in epoch "
                f"{epoch} and {self._length} in epoch 0, so ranks and trainer would "
                "count on steps that do not come; let it yield as many in each epoch"
            )
        # The last one stays: a thread that reads ahead may not have left it yet.
        kept = list(self._epochs.items())[-1:]
        self._epochs = dict([*kept, (epoch, drawn)])
        return drawn

    def indices(self, positions: Ints, epoch: int) -> Ints:
        """Return the indices at positions; see `Order.indices`."""
        return self._drawn(epoch).indices[positions]

    def batches(self, numbers: Ints, epoch: int) -> tuple[Ints, Ints]:
        """Return the rows of the sampler's own batches; see `Order.batches`."""
        drawn = self._drawn(epoch)
        assert drawn.ends is not None
        starts = np.concatenate([[0], drawn.ends[:-1]])[numbers]
        ends = drawn.ends[numbers]
        parts = [drawn.indices[a:b] for a, b in zip(starts, ends, strict=True)] or [
            drawn.indices[:0]
        ]
        return np.concatenate(parts), ends - starts

    def state(self) -> dict[str, Any]:
        """Return the sampler's name, and what tells its order from another."""
        return {"sampler": self._name, "length": self._length, "order": self._digest}

    def fingerprint(self) -> str:
        """Return the digest of the first epoch, which all ranks must have drawn."""
        return self._digest
