"""A small network that predicts by how many minutes a flight arrives late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lance
import lightning as L
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn
from torchmetrics import MeanSquaredError

TARGET = "arr_delay"  # minutes, below 0 where the flight is early


@dataclass(frozen=True)
class Numbered:
    """Put numbers in place of words, before a batch becomes tensors.

    A picklable object and no closure, so that worker processes can have it.

    Args:
        words: For each column the words that have numbers, from 1 on in their order;
            0 is any other.
    """

    words: Mapping[str, Sequence[str]]

    def __call__(self, batch: Any) -> Any:
        """Return the ``pyarrow.RecordBatch`` with int64 in the columns of words."""
        for name, words in self.words.items():
            found = pc.fill_null(pc.index_in(batch[name], pa.array(words)), -1)
            numbers = pc.add(found.cast(pa.int64()), 1)
            batch = batch.set_column(batch.schema.get_field_index(name), name, numbers)
        return batch


def numbered(uri: str, columns: Sequence[str]) -> Numbered:
    """Return what numbers the words that the columns of a Lance dataset have."""
    table = lance.dataset(uri).to_table(columns=list(columns))
    return Numbered(
        {
            name: sorted(pc.unique(table[name]).drop_null().to_pylist())
            for name in columns
        }
    )


class ArrivalDelay(L.LightningModule):
    """Embeddings of words, numbers, masks and the time of day, and two layers.

    Args:
        words: For each column of words, how many there are.
        numbers: For each column of numbers, about its mean and standard deviation.
        masked: Columns of numbers whose nulls come as a mask.
        hidden_size: Units of a layer.
        learning_rate: Of Adam.
    """

    delays: Tensor  # sum and number of those trained on

    def __init__(
        self,
        words: Mapping[str, int],
        numbers: Mapping[str, Sequence[float]],
        masked: Sequence[str] = (),
        hidden_size: int = 64,
        learning_rate: float = 3e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.numbers, self.masked = dict(numbers), list(masked)
        self.learning_rate = learning_rate
        self.embeddings = nn.ModuleDict(
            {name: nn.Embedding(size + 1, 8) for name, size in words.items()}
        )
        inputs = 8 * len(words) + len(numbers) + len(masked) + 4
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, 1),
        )
        self.error = MeanSquaredError(squared=False)
        self.error_of_mean = MeanSquaredError(squared=False)
        self.register_buffer("delays", torch.zeros(2, dtype=torch.float64))

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the delays in minutes, shape (B,), of a batch of columns."""
        parts = [layer(batch[name]) for name, layer in self.embeddings.items()]
        for name, (mean, deviation) in self.numbers.items():
            parts.append(((batch[name].float() - mean) / deviation)[:, None])
        parts += [batch[f"{name}_mask"].float()[:, None] for name in self.masked]
        parts += [_cycle(batch["time_hour"], days * 86400) for days in (1, 7)]
        minutes: Tensor = 40 * self.layers(torch.cat(parts, dim=1)).squeeze(1)
        return minutes

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Return the mean squared error, in units of 40 minutes."""
        delay = batch[TARGET].float()
        self.delays += torch.stack([delay.sum(), torch.ones_like(delay).sum()])
        loss = nn.functional.mse_loss(self(batch) / 40, delay / 40)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Measure the error on the validation split."""
        self._measure(batch, "val")

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Measure the error on the test split."""
        self._measure(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over every weight."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def _measure(self, batch: Mapping[str, Tensor], stage: str) -> None:
        delay = batch[TARGET].float()
        mean = (self.delays[0] / self.delays[1].clamp(min=1)).float()
        self.error(self(batch), delay)
        self.error_of_mean(mean.expand_as(delay), delay)
        self.log(f"{stage}_rmse", self.error, prog_bar=True)
        self.log(f"{stage}_rmse_of_mean", self.error_of_mean)


def _cycle(seconds: Tensor, period: int) -> Tensor:
    """Return the place of times in a period, as sine and cosine, shape (B, 2)."""
    angle = (seconds % period).float() * (2 * torch.pi / period)
    return torch.stack([angle.sin(), angle.cos()], dim=1)
