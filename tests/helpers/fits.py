"""Fits with Lightning's options, and the order that they have without."""

from __future__ import annotations

import dataclasses

import lightning as L
import torch

from lance_lightning import SequentialSplit
from tests.helpers.models import Recorder
from tests.helpers.trainers import quiet_trainer

ROWS = 103
ALL = {"val": "train", "test": "train", "predict": "train"}  # needs no builder


def orders(data, epochs: int) -> list[list[list[int]]]:
    """Return the batches of epochs as a module without a trainer gives them."""
    loader = data.train_dataloader()
    return [[batch["id"].tolist() for batch in loader] for _ in range(epochs)]


def fit(data, tmp_path, **options) -> Recorder:
    model = Recorder()
    quiet_trainer(tmp_path, **options).fit(model, datamodule=data)
    return model


def fit_only(data, tmp_path, **options) -> Recorder:
    """Fit a model that does not validate."""

    class TrainOnly(Recorder):
        validation_step = L.LightningModule.validation_step

    model = TrainOnly()
    quiet_trainer(tmp_path, **options).fit(model, datamodule=data)
    return model


PARTS = SequentialSplit(counts={"train": 61, "val": 25, "predict": 17})


@dataclasses.dataclass
class Sample:
    x: torch.Tensor
    y: torch.Tensor
