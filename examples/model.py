"""A small classifier of the digits, and what it needs to read three batch formats."""

from typing import Any

import lightning as L
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack
from torchmetrics.classification import MulticlassAccuracy


def image_and_label(batch: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images (B, 64) and labels (B,) of a torch, numpy or arrow batch."""
    if isinstance(batch, pa.RecordBatch):
        image = from_dlpack(batch["image"].flatten()).view(batch.num_rows, -1)
        label = from_dlpack(batch["label"])
    else:
        image, label = torch.as_tensor(batch["image"]), torch.as_tensor(batch["label"])
    return image.to(device), label.to(device)  # no copy where they are there


class DigitClassifier(L.LightningModule):
    """One hidden layer over the 64 pixels.

    Args:
        hidden_size: Units of the hidden layer.
        learning_rate: Of Adam.
    """

    def __init__(self, hidden_size: int = 128, learning_rate: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.layers = nn.Sequential(
            nn.Linear(64, hidden_size), nn.ReLU(), nn.Linear(hidden_size, 10)
        )
        # Counts hits over all ranks: a mean of each rank's mean would not be exact.
        self.accuracy = MulticlassAccuracy(num_classes=10, average="micro")

    def forward(self, image: Tensor) -> Tensor:
        """Return scores (B, 10) of images (B, 64) with values in 0-16."""
        scores: Tensor = self.layers(image / 16)
        return scores

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the mean loss of the batch."""
        image, label = image_and_label(batch, self.device)
        loss = nn.functional.cross_entropy(self(image), label)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Count hits on the validation split."""
        self._count(batch, "val_accuracy")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Count hits on the test split."""
        self._count(batch, "test_accuracy")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over every weight."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def _count(self, batch: Any, name: str) -> None:
        image, label = image_and_label(batch, self.device)
        self.accuracy(self(image), label)
        self.log(name, self.accuracy, prog_bar=True)
