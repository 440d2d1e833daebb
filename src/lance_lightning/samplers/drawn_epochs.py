"""The order of a sampler that yields its epochs, one whole epoch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lance_lightning.checks import check_importable
from lance_lightning.errors import ConfigError
from lance_lightning.samplers.base import TrainingSplit
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


class DrawnEpochs:
    """The order of a sampler that yields its epochs.

    An epoch is as long as the first one. The last two are kept, of 8 bytes a row, in
    each process that works out rows.

    Args:
        name: The sampler's name.
        draw: Returns what the sampler yields for a seed and an epoch.
        split: What it was made for.
        strided: See `Sampler`.

    Raises:
        ConfigError: Nothing was drawn.
    """

    def __init__(
        self,
        name: str,
        draw: Callable[[int, int], DrawnEpoch],
        split: TrainingSplit,
        *,
        strided: bool,
    ) -> None:
        self.strided = strided
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
        self._epochs = {(split.seed, 0): first}
        self.digest = first.digest()
        self.epoch_rows = len(first.indices)
        self.batches = None if first.ends is None else len(first.ends)

    def __getstate__(self) -> dict[str, Any]:
        # A worker gets the rows of each window, and draws nothing.
        return {**self.__dict__, "_epochs": {}}

    def check_importable(self) -> None:
        """Raise a `ConfigError` unless a spawned worker could load the sampler."""
        check_importable(f"the sampler {self._name}", self._draw)

    def begin(self, seed: int, epoch: int) -> DrawnEpoch:
        """Return an epoch, drawn now unless it is one of the last two that were.

        On the main thread: the global generators are seeded meanwhile.

        Raises:
            ConfigError: It is shorter than the first one.
        """
        if (seed, epoch) in self._epochs:
            return self._epochs[seed, epoch]
        drawn = self._draw(seed, epoch)
        if len(drawn) < self._length:
            what = "rows" if drawn.ends is None else "batches"
            raise ConfigError(
                f"the sampler {self._name} yields {len(drawn)} {what} in epoch "
                f"{epoch} and {self._length} in epoch 0, so ranks and trainer would "
                "count on steps that do not come; let it yield as many in each epoch"
            )
        # The last one stays: a thread that reads ahead may not have left it yet.
        kept = list(self._epochs.items())[-1:]
        self._epochs = dict([*kept, ((seed, epoch), drawn)])
        return drawn

    def resolve(
        self, num_rows: int, global_batch_size: int, row_bytes: int
    ) -> DrawnEpochs:
        """Return the order itself: it has no sizes."""
        return self

    def indices(
        self,
        positions: Ints,
        *,
        num_rows: int,
        seed: int,
        epoch: int,
        global_batch_size: int,
    ) -> Ints:
        """Return the indices at positions; see `Sampler.indices`."""
        return self.begin(seed, epoch).indices[positions]

    def rows_of_batches(
        self, batches: Ints, *, seed: int, epoch: int
    ) -> tuple[Ints, Ints]:
        """Return the rows of the batches that the sampler itself makes.

        Args:
            batches: Which ones, shape ``(N,)``.
            seed: The module's seed.
            epoch: From 0.

        Returns:
            Indices into the split, one batch after the other, and the rows of each
            batch, shape ``(N,)``.
        """
        drawn = self.begin(seed, epoch)
        assert drawn.ends is not None
        starts = np.concatenate([[0], drawn.ends[:-1]])[batches]
        ends = drawn.ends[batches]
        parts = [drawn.indices[a:b] for a, b in zip(starts, ends, strict=True)] or [
            drawn.indices[:0]
        ]
        return np.concatenate(parts), ends - starts

    def state(self) -> dict[str, Any]:
        """Return the sampler's name, and what tells its order from another."""
        return {"sampler": self._name, "length": self._length, "order": self.digest}
