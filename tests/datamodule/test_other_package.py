"""`pytorch_lightning` has classes of its own: its Trainer is told from lightning's."""

import json
import subprocess
import sys

import pytest

from lance_lightning import ConfigError, LanceDataModule
from tests.helpers.models import Recorder
from tests.helpers.trainers import quiet_trainer

SCRIPT = """
import json, sys
import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.tuner import Tuner
from lance_lightning import LanceDataModule

data = LanceDataModule(sys.argv[1], stage_splits={"val": "train", "predict": "train"})
model = BoringModel()
said = {}
for name, start in {
    "fit": lambda trainer: trainer.fit(model, datamodule=data),
    "fit, by place": lambda trainer: trainer.fit(model, data),
    "validate": lambda trainer: trainer.validate(model, datamodule=data),
    "predict, by place": lambda trainer: trainer.predict(model, data),
    "tune": lambda trainer: Tuner(trainer).lr_find(model, datamodule=data),
}.items():
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    try:
        start(trainer)
    except Exception as error:
        said[name] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""
WAYS = ["fit", "fit, by place", "validate", "predict, by place", "tune"]


def test_a_trainer_of_pytorch_lightning_is_refused_in_a_sentence(table):
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, table],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert out.returncode == 0, out.stderr
    said = json.loads(out.stdout.splitlines()[-1])
    assert list(said) == WAYS
    for name in WAYS:
        error, message = said[name]
        assert error == "ConfigError", (name, message)
        assert "write `import lightning.pytorch as pl` in the place of" in message


def test_a_data_module_that_is_iterated_says_what_to_iterate(table):
    with pytest.raises(ConfigError, match=r"iterate data.train_dataloader\(\)"):
        iter(LanceDataModule(table))


def test_the_trainer_is_at_hand_and_can_be_taken_away(table, tmp_path):
    data = LanceDataModule(table, stage_splits={"val": "train"})
    assert data.trainer is None
    trainer = quiet_trainer(tmp_path)
    trainer.fit(Recorder(), data)
    assert data.trainer is trainer
    data.trainer = None
    assert data.trainer is None
