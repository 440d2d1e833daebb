"""A run prints no warning of ours, and none of Lightning's about our loaders."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.trainer.connectors.data_connector import warning_cache

from lance_lightning import LanceDataModule
from lance_lightning.types import OUTPUT_FORMATS
from tests.helpers.models import Recorder
from tests.helpers.tables import flat

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).parents[2]
EVERY = {"val": "train", "test": "train", "predict": "train"}


@pytest.fixture(params=[1, 8], ids=["1 core", "8 cores"])
def cores(request, monkeypatch) -> int:
    """A machine of that many cores: Lightning counts them, and so does torch."""
    count = request.param
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)))
    return count


def listed_upstream() -> list[str]:
    """Return the messages that pyproject.toml ignores, as regular expressions."""
    config = tomllib.loads((REPO / "pyproject.toml").read_text())
    first, *others = config["tool"]["pytest"]["ini_options"]["filterwarnings"]
    assert first == "error"
    assert all(each.startswith("ignore:") for each in others)
    return [each.split(":")[1] for each in others]


def unlisted(caught) -> list[str]:
    """Return the warnings that upstream does not raise about itself."""
    patterns = listed_upstream()
    texts = [str(each.message) for each in caught]
    return [text for text in texts if not any(re.match(p, text) for p in patterns)]


class Writer(BasePredictionWriter):
    """Asks for the batch indices, which Lightning warns about when it has none."""

    def __init__(self) -> None:
        super().__init__("batch_and_epoch")

    def write_on_batch_end(self, *args):
        pass

    def write_on_epoch_end(self, *args):
        pass


def run_all(data, tmp_path, model, **options) -> list[str]:
    """Run every stage under a trainer of defaults; return the warnings."""
    warning_cache.clear()  # Lightning gives some of them once a process
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=2,
            logger=False,
            enable_progress_bar=False,
            default_root_dir=tmp_path,
            callbacks=[Writer()],
            **options,
        )
        trainer.fit(model, datamodule=data)
        trainer.validate(model, datamodule=data, verbose=False)
        trainer.test(model, datamodule=data, verbose=False)
        trainer.predict(model, datamodule=data)
    return unlisted(caught)


def test_a_default_run_warns_of_nothing(table, tmp_path, cores):
    data = LanceDataModule(table, stage_splits=EVERY)
    model = Recorder()
    assert run_all(data, tmp_path, model) == []
    assert sorted(flat(model.seen["train"])) == sorted([*range(103)] * 2)


def test_several_loaders_and_odd_limits_warn_of_nothing(table, tmp_path, cores):
    data = LanceDataModule(
        table,
        batch_size=8,
        stage_splits={**EVERY, "val": ["train", "train"], "predict": ["train"] * 2},
    )
    options = {
        "limit_train_batches": 0.5,
        "limit_val_batches": 2,
        "val_check_interval": 0.5,
        "reload_dataloaders_every_n_epochs": 1,
    }
    assert run_all(data, tmp_path, Recorder(), **options) == []


def test_overfitting_warns_of_nothing(table, tmp_path, cores):
    data = LanceDataModule(table, batch_size=8, stage_splits=EVERY)
    assert run_all(data, tmp_path, Recorder(), overfit_batches=2) == []


class Logs(Recorder):
    """A model for any format: it only logs."""

    def step(self, batch, stage):
        return torch.ones((), requires_grad=True) * self.layer.bias.sum()

    def training_step(self, batch, batch_idx):
        loss = self.step(batch, "train")
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return self.step(batch, "predict")


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_no_format_makes_logging_warn(table, tmp_path, output_format):
    columns = ["id", "label", "vector", "name"]
    if output_format in ("torch_row", "torch_col"):
        columns = columns[:2]
    data = LanceDataModule(
        table,
        columns=columns,
        output_format=output_format,
        batch_size=40,
        stage_splits=EVERY,
    )
    assert run_all(data, tmp_path, Logs()) == []


SCRIPT = """
import os
import sys
import warnings

os.cpu_count = lambda: 8
os.sched_getaffinity = lambda pid: set(range(8))


def main(uri, root, upstream):
    import lightning as L

    sys.path.insert(0, sys.argv[4])
    from tests.helpers.models import Recorder

    from lance_lightning import LanceDataModule

    warnings.simplefilter("error")
    for pattern in upstream.splitlines():
        warnings.filterwarnings("ignore", message=pattern)
    data = LanceDataModule(
        uri,
        stage_splits={"val": "train", "predict": "train"},
        batch_size=8,
        num_workers=2,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        default_root_dir=root,
    )
    model = Recorder()
    trainer.fit(model, datamodule=data)
    trainer.predict(model, datamodule=data)
    print(sum(len(batch) for batch in model.seen["train"]))


if __name__ == "__main__":
    main(*sys.argv[1:4])
"""


@pytest.mark.slow
def test_a_run_with_workers_warns_of_nothing(table, tmp_path):
    # A process of its own, so that what is said at its end is seen too.
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = [table, str(tmp_path / "root"), "\n".join(listed_upstream())]
    arguments.append(str(REPO))
    done = subprocess.run(
        [sys.executable, "-W", "always", str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == str(2 * 103)
    # Lightning prints warnings without their class: by file and line.
    assert not re.search(r"\.py:\d+: |Exception ignored|Traceback", done.stderr), (
        done.stderr
    )
