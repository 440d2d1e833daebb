"""Models that keep what they saw."""

from __future__ import annotations

import lightning as L
import torch


class Recorder(L.LightningModule):
    """A model that trains a weight and keeps the ids of every batch it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.seen: dict[str, list[list[int]]] = {
            "train": [],
            "val": [],
            "test": [],
            "predict": [],
        }

    def step(self, batch, stage: str):
        self.seen[stage].append(batch["id"].tolist())
        return self.layer(batch["vector"]).square().mean()

    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", self.step(batch, "val"))

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("test_loss", self.step(batch, "test"))

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        self.step(batch, "predict")
        return batch["id"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)
