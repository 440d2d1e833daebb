"""Modules that are saved, and what their hyperparameters hold."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.utilities.model_helpers import is_overridden

from tests.helpers.models import Recorder
from tests.helpers.trainers import quiet_trainer

SECRET = "hunter2-hunter2"


class TrainOnly(Recorder):
    """A model that does not validate."""

    validation_step = L.LightningModule.validation_step


def saved(data, tmp_path, **options) -> str:
    """Fit two steps and return the path of the checkpoint."""
    trainer = quiet_trainer(tmp_path, max_steps=2, **options)
    validates = is_overridden("val_dataloader", data)
    trainer.fit(Recorder() if validates else TrainOnly(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    return str(tmp_path / "run.ckpt")


def plain_types(value) -> bool:
    """Tell whether there is nothing but Python's own plain types in a value."""
    if type(value) is dict:
        return all(type(k) is str and plain_types(v) for k, v in value.items())
    if type(value) is list:
        return all(plain_types(each) for each in value)
    return type(value) in (bool, int, float, str, type(None))
