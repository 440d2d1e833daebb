"""A checkpoint that an earlier release wrote resumes with the rows it was to have.

``tests/data/state_version_1`` holds a table of 37 ids, written once (its files' names
are part of its identity), two checkpoints of fits that were stopped in their second
epoch, and the rows of the batches that were to come.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import quiet_trainer

from lance_lightning import LanceDataModule, RandomSplit

FOLDER = Path(__file__).parent / "data" / "state_version_1"
FITS = {
    "one": {"splits": RandomSplit(counts={"train": 23, "val": 14})},
    "two": {
        "splits": RandomSplit(counts={"a": 23, "b": 9, "val": 5}),
        "stage_splits": {"train": ["a", "b"]},
    },
}


class Model(L.LightningModule):
    """The model that was trained."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.rows = []

    def training_step(self, batch, batch_idx):
        batches = batch if isinstance(batch, list) else [batch]
        self.rows.append([each["id"].tolist() for each in batches])
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], 0.0)


@pytest.mark.parametrize("name", FITS)
def test_a_checkpoint_of_state_version_1_resumes_with_its_rows(tmp_path, name):
    shutil.copytree(FOLDER / "table.lance", tmp_path / "table.lance")
    data = LanceDataModule(str(tmp_path / "table.lance"), batch_size=4, **FITS[name])
    model = Model()
    trainer = quiet_trainer(tmp_path, max_epochs=3)
    trainer.fit(model, datamodule=data, ckpt_path=FOLDER / f"{name}.ckpt")
    assert model.rows == json.loads((FOLDER / "rows.json").read_text())[name]
