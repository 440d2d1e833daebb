"""LanceDataModule under LightningCLI: a YAML, and overrides on the command line."""

import inspect
import json
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningCLI

import lance_lightning
from lance_lightning import ConfigError, LanceDataModule, LanceSource, RandomSplit
from tests.helpers.functions import plus_one
from tests.helpers.models import Recorder
from tests.helpers.processes import EXAMPLES, run_script

# Lightning 2.6.6 calls what jsonargparse 4.53 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


# Lightning's own class finds that of the run in a checkpoint. Before it took keywords,
# it dropped what names the class.
TAKES = inspect.signature(LightningDataModule.__init__).parameters
BASES = (LightningDataModule,) if "kwargs" in TAKES else ()


class Model(Recorder):
    """Writes down the ids of the batches it saw.

    Args:
        out: The file.
    """

    def __init__(self, out: str) -> None:
        super().__init__()
        self.out = out

    def on_fit_end(self):
        Path(self.out).write_text(json.dumps(self.seen))


CONFIG = """
model: {out: seen.json}
trainer:
  accelerator: cpu
  max_epochs: 1
  num_sanity_val_steps: 0
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
"""


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """Return a function that runs the command and returns the ids each loader gave."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["app.py"])  # Lightning warns of others than args

    def fitted(data, *arguments):
        config = {**yaml.safe_load(CONFIG), "data": data}
        (tmp_path / "fit.yaml").write_text(yaml.safe_dump(config))
        LightningCLI(
            Model,
            LanceDataModule,
            args=["fit", "--config", "fit.yaml", *arguments],
            seed_everything_default=False,
        )
        seen = json.loads((tmp_path / "seen.json").read_text())
        return {stage: ids for stage, ids in seen.items() if ids}

    return fitted


def batches(data):
    """Return the ids that a module in this process gives for the same arguments."""
    data.prepare_data()
    data.setup("fit")
    loaders = {"train": data.train_dataloader()}
    if "val" in data.split_names:
        loaders["val"] = data.val_dataloader()
    return {
        name: [batch["id"].tolist() for batch in loader]
        for name, loader in loaders.items()
    }


@pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`")
def test_the_defaults_are_those_of_the_module(table, fit):
    seen = fit({"source": table})
    assert seen == batches(LanceDataModule(table))
    assert sorted(np.concatenate(seen["train"])) == list(range(103))


def test_a_yaml_makes_the_same_module_as_python(table, fit):
    seen = fit(
        {
            "source": {
                "class_path": "lance_lightning.LanceSource",
                "init_args": {"uri": table, "filter": "label < 2"},
            },
            "splits": {
                "class_path": "lance_lightning.RandomSplit",
                "init_args": {"ratios": {"train": 0.7, "val": 0.3}, "seed": 3},
            },
            "sampler": {"class_path": "lance_lightning.Shuffle"},
            "batch_size": 8,
        }
    )
    data = LanceDataModule(
        LanceSource(table, filter="label < 2"),
        splits=RandomSplit({"train": 0.7, "val": 0.3}, seed=3),
        sampler=lance_lightning.Shuffle(),
        batch_size=8,
    )
    assert seen == batches(data)
    rows = np.concatenate([*seen["train"], *seen["val"]])
    kept = lance.dataset(table).to_table(["id"], filter="label < 2")["id"]
    assert sorted(rows) == kept.to_pylist()


def test_the_command_line_wins_over_the_yaml(table, fit):
    seen = fit(
        {
            "source": {
                "class_path": "lance_lightning.LanceSource",
                "init_args": {"uri": table},
            },
            "sampler": {"class_path": "lance_lightning.Shuffle"},
            "batch_size": 8,
        },
        "--data.batch_size=20",
        "--data.sampler=Sequential",
        "--data.splits=SequentialSplit",
        "--data.splits.ratios={train: 0.5, val: 0.5}",
        "--data.source.init_args.filter=id < 80",
    )
    assert seen["train"] == [list(range(20)), list(range(20, 40))]
    assert sorted(np.concatenate(seen["val"])) == list(range(40, 80))


def test_a_class_is_named_by_its_path(table, fit):
    seen = fit(
        {
            "source": table,
            "batch_size": 50,
            "sampler": "lance_lightning.ShardedBatches",
        },
        "--data.splits=lance_lightning.CalculatedSplit",
        "--data.splits.init_args.calculation=id % 2",
        "--data.splits.init_args.split_names=[train, val]",
    )
    assert np.concatenate(seen["train"]).tolist() == list(range(0, 103, 2))
    assert np.concatenate(seen["val"]).tolist() == list(range(1, 103, 2))


def test_a_wrong_value_is_a_clear_error(table, fit):
    with pytest.raises(
        ConfigError, match="must be one of BlockShuffle, Sequential, Sh"
    ):
        fit({"source": table}, "--data.sampler=Shufle")


def test_the_example_trains_and_takes_overrides(digits, tmp_path):
    (tmp_path / "data").symlink_to(digits / "data")
    config = ("--config", str(EXAMPLES / "lightning_cli.yaml"))
    quick = ("--trainer.max_epochs=1", "--trainer.enable_progress_bar=false")
    shown = ("--data.sampler=Shuffle", "--data.batch_size=128")
    shown += ("--data.splits.ratios={train: 0.9, val: 0.1}",)
    script = EXAMPLES / "lightning_cli.py"
    out = run_script(tmp_path, script, "fit", *config, *quick, *shown)
    assert out.returncode == 0, out.stderr
    assert "splits: train 1617 rows, val 180 rows" in out.stdout + out.stderr
    assert "13 steps of 128 rows" in out.stdout + out.stderr


@pytest.mark.slow
def test_the_example_runs_again_in_the_same_folder(digits, tmp_path):
    """Lightning refuses to write a config.yaml over another unless it is told to."""
    (tmp_path / "data").symlink_to(digits / "data")
    (tmp_path / "config.yaml").write_text("of an earlier run\n")
    arguments = ("fit", "--config", str(EXAMPLES / "lightning_cli.yaml"))
    arguments += ("--trainer.max_epochs=1", "--trainer.enable_progress_bar=false")
    out = run_script(tmp_path, EXAMPLES / "lightning_cli.py", *arguments)
    assert out.returncode == 0, out.stderr
    assert "sampler" in (tmp_path / "config.yaml").read_text()


class Sub(LanceDataModule):
    """A module of the user's, which saves nothing itself."""


class Saving(LanceDataModule):
    """A module of the user's with arguments of its own, which it saves."""

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(root, **options)
        self.save_hyperparameters()


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_a_checkpoint_of_a_run_gives_a_module_that_saves_its_own_arguments(
    table, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["app.py"])
    options = yaml.safe_load(CONFIG)["trainer"]
    data = {"root": table, "seed": 3, "transform": f"{__name__}.plus_one"}
    config = {"model": {"out": "seen.json"}, "data": data}
    config["trainer"] = {**options, "fast_dev_run": False, "max_steps": 1}
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(config))
    cli = LightningCLI(
        Model,
        Saving,
        args=["fit", "--config", "fit.yaml"],
        seed_everything_default=False,
    )
    cli.trainer.save_checkpoint("run.ckpt")
    for kind in (*BASES, Saving):
        found = kind.load_from_checkpoint("run.ckpt", weights_only=True)
        assert type(found) is Saving
        assert (found.splits, found.seed) == (cli.datamodule.splits, 3)
        fresh = LanceDataModule(table, seed=3, transform=plus_one)
        assert batches(found) == batches(fresh)


@pytest.mark.parametrize("of_sub", [False, True])
def test_a_checkpoint_of_a_run_gives_the_class_of_its_module(
    table, tmp_path, monkeypatch, of_sub
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["app.py"])
    options = yaml.safe_load(CONFIG)["trainer"]
    source = {"class_path": "LanceSource", "init_args": {"uri": table}}
    data = {"source": source, "splits": "SequentialSplit", "sampler": "Shuffle"}
    data |= {"seed": 3, "batch_size": 7}
    if of_sub:
        data = {"class_path": f"{__name__}.Sub", "init_args": data}
    config = {"model": {"out": "seen.json"}, "data": data}
    config["trainer"] = {**options, "fast_dev_run": False, "max_steps": 1}
    splits = data["init_args"] if of_sub else data
    splits["splits"] = {
        "class_path": "SequentialSplit",
        "init_args": {"ratios": {"train": 0.5, "val": 0.5}},
    }
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(config))
    cli = LightningCLI(
        Model,
        LanceDataModule,
        subclass_mode_data=of_sub,
        args=["fit", "--config", "fit.yaml"],
        seed_everything_default=False,
    )
    cli.trainer.save_checkpoint("run.ckpt")
    own = Sub if of_sub else LanceDataModule
    saved = torch.load("run.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    path = f"{__name__}.Sub" if of_sub else "lance_lightning.LanceDataModule"
    assert saved["_class_path"] == path
    for kind in (*BASES, own):
        found = kind.load_from_checkpoint("run.ckpt", weights_only=True)
        assert type(found) is own
        assert (found.sampler, found.seed) == (lance_lightning.Shuffle(), 3)
        assert (found.splits, found.batch_size) == (cli.datamodule.splits, 7)
        assert batches(found) == batches(
            LanceDataModule(
                table, splits=found.splits, sampler="shuffle", seed=3, batch_size=7
            )
        )
        other = kind.load_from_checkpoint("run.ckpt", transform=plus_one)
        assert other._config.transforms["train"].transform is plus_one
    assert "_instantiator" not in cli.datamodule.hparams_initial["datamodule"]
