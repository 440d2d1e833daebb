"""A process that is killed in mid-epoch comes to the same weights in the end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.processes import environment, free_port
from tests.helpers.tables import write_table

CONFIG = """
defaults:
  - data: lance
  - override data/splits: random
  - override data/sampler: block_shuffle
  - _self_
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none

data:
  columns: [id, vector, label]
  global_batch_size: 8
  splits: {ratios: {train: 0.8, val: 0.2}}
  transform: {_target_: augment.noise, _partial_: true}
trainer:
  _target_: lightning.Trainer
  max_epochs: 3
  accelerator: cpu
  devices: 1
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  default_root_dir: ${hydra:runtime.output_dir}
  callbacks:
    - _target_: lightning.pytorch.callbacks.ModelCheckpoint
      dirpath: ${out}
      filename: step-{step}
      auto_insert_metric_name: false
      every_n_train_steps: 4
      save_top_k: -1
    - _target_: lightning.pytorch.callbacks.OnExceptionCheckpoint
      dirpath: ${out}
out: ???
ckpt_path: null
die_at: null  # step
signal: 9

hydra: {run: {dir: "${out}/hydra"}}
"""

AUGMENT = """
import torch


def noise(batch):
    vector = batch["vector"] / 400
    return {**batch, "vector": vector + 0.1 * torch.randn_like(vector)}
"""

MODEL = """
import os

import lightning as L
import torch


class Classifier(L.LightningModule):
    def __init__(self, die_at, number):
        super().__init__()
        self.die_at, self.number = die_at, number
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)
        )

    def loss(self, batch):
        scores = self.layers(batch["vector"])
        return torch.nn.functional.cross_entropy(scores, batch["label"])

    def training_step(self, batch, batch_idx):
        if self.global_step == self.die_at:
            os.kill(os.getpid(), self.number)
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)
"""

SCRIPT = """
import hydra


@hydra.main(version_base="1.3", config_path=".", config_name="train")
def main(cfg):
    import lightning as L
    import torch
    from hydra.utils import instantiate
    from model import Classifier

    torch.set_num_threads(1)
    L.seed_everything(0)
    trainer = instantiate(cfg.trainer)
    model = Classifier(cfg.die_at, cfg.signal)
    trainer.fit(model, datamodule=instantiate(cfg.data), ckpt_path=cfg.ckpt_path)
    if trainer.is_global_zero:
        torch.save(model.state_dict(), cfg.out + "/weights.pt")


if __name__ == "__main__":
    main()
"""

ONE = ("trainer.devices=1",)
TWO = ("trainer.devices=2", "+trainer.strategy=ddp")


class Project:
    """A user's project, whose script is run as a user runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = write_table(folder / "t.lance", 103, rows_per_file=30)
        for name, text in {
            "train.yaml": CONFIG,
            "augment.py": AUGMENT,
            "model.py": MODEL,
            "train.py": SCRIPT,
        }.items():
            (folder / name).write_text(text)

    def run(self, out: str, *overrides: str) -> subprocess.CompletedProcess[str]:
        """Run the script to its end, whatever it is."""
        command = [sys.executable, "train.py", f"data.source.uri={self.uri}"]
        return subprocess.run(
            [*command, f"out={self.folder / out}", *overrides],
            cwd=self.folder,
            env=environment(MASTER_PORT=str(free_port())),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def weights(self, out: str, *overrides: str) -> dict[str, torch.Tensor]:
        """Run the script to its good end and return the weights."""
        done = self.run(out, *overrides)
        assert done.returncode == 0, done.stderr[-4000:]
        return torch.load(self.folder / out / "weights.pt", weights_only=True)

    def checkpoints(self, out: str) -> list[str]:
        """Return the names of what a run saved, the latest step last."""
        found = (self.folder / out).glob("*.ckpt")
        return sorted((path.name for path in found), key=lambda name: (len(name), name))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def unbroken(project) -> dict[str, torch.Tensor]:
    return project.weights("unbroken", *ONE)


def same(some, other) -> bool:
    return all(torch.equal(some[name], other[name]) for name in some)


@pytest.mark.slow
def test_weights_are_the_same_after_a_kill(project, unbroken):
    # Eleven steps an epoch: the second is broken off, and the last checkpoint is
    # from the step before it.
    killed = project.run("killed", *ONE, "die_at=18")
    assert killed.returncode == -signal.SIGKILL
    assert project.checkpoints("killed")[-1] == "step-16.ckpt"
    last = project.folder / "killed" / "step-16.ckpt"
    assert (
        torch.load(last, weights_only=True)["LanceDataModule"]["train"][0]["batch"] == 5
    )
    resumed = project.weights("resumed", *ONE, f"ckpt_path={last}")
    assert same(resumed, unbroken)
    # That the comparison can fail: the weights of the checkpoint are others.
    assert not same(torch.load(last, weights_only=True)["state_dict"], unbroken)


@pytest.mark.slow
def test_weights_are_the_same_after_a_termination(project, unbroken):
    ended = project.run("ended", *ONE, "die_at=18", f"signal={int(signal.SIGTERM)}")
    assert "Received SIGTERM" in ended.stderr
    assert not (project.folder / "ended" / "weights.pt").exists()
    saved = project.folder / "ended" / "on_exception.ckpt"
    state = torch.load(saved, weights_only=True)["LanceDataModule"]
    assert state["train"][0]["batch"] == 19 - 11  # the step was finished
    assert same(project.weights("went-on", *ONE, f"ckpt_path={saved}"), unbroken)


@pytest.mark.slow
def test_weights_are_the_same_after_a_kill_of_two_processes(project):
    unbroken = project.weights("two", *TWO)
    killed = project.run("two-killed", *TWO, "die_at=18")
    assert killed.returncode != 0
    assert project.checkpoints("two-killed")[-1] == "step-16.ckpt"
    last = project.folder / "two-killed" / "step-16.ckpt"
    assert same(project.weights("two-resumed", *TWO, f"ckpt_path={last}"), unbroken)
