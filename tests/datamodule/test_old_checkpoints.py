"""A checkpoint that an earlier release wrote resumes with the rows it was to have.

``tests/data/state_version_1`` was written once, by the first release of the format: a
table of 37 ids (its files' names are part of its identity), a checkpoint of each fit
below, the rows of the batches that were to come, and the states of single loaders. What
is saved today is the same, to the order of the keys.
"""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import lightning as L
import pyarrow as pa
import pytest
import torch
from torch.utils.data import BatchSampler

import lance_lightning
from lance_lightning import (
    LanceDataModule,
    PermutationSplit,
    RandomSplit,
    SeparateSources,
    ShardedFragments,
    StateError,
)
from lance_lightning.loading.state import IterableState, LoaderState, ModuleState
from tests.helpers.own_samplers import ByEpoch
from tests.helpers.trainers import quiet_trainer

FOLDER = Path(__file__).parents[1] / "data" / "state_version_1"
ROWS = json.loads((FOLDER / "rows.json").read_text())
LOADERS = json.loads((FOLDER / "loaders.json").read_text())
SPLITS = RandomSplit(counts={"train": 23, "val": 14})
IDS = [7 * at % 37 for at in range(37)]
PERMUTED = pa.table(  # the table has 20 rows in its first file
    {
        "row_id": pa.array([i if i < 20 else (1 << 32) + i - 20 for i in IDS], "u8"),
        "split_id": pa.array([0] * 23 + [1] * 14, "u8"),
    }
)
# The checkpoints hold the name that the sampler had when they were saved.
Known = type("ByEpoch", (ByEpoch,), {"__module__": "own_samplers"})
FITS = {
    "one": {"splits": SPLITS},
    "two": {
        "splits": RandomSplit(counts={"a": 23, "b": 9, "val": 5}),
        "stage_splits": {"train": ["a", "b"]},
    },
    "torch_sampler": {"splits": SPLITS, "sampler": Known(23)},
    "torch_batches": {
        "splits": SPLITS,
        "sampler": BatchSampler(Known(23), 4, False),
        "batch_size": None,
        "eval_batch_size": 4,
    },
    "fragments": {"splits": SPLITS, "sampler": ShardedFragments(randomize=True)},
    "left_early": {"splits": SPLITS},
    "permutation": {"splits": PermutationSplit(PERMUTED, ["train", "val"])},
    "separate": {},
}
STOPS = {"two": 9}  # after so many batches a fit was stopped, 8 if not said


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


class Stop(L.Callback):
    """Keeps the data module's state after some batches, and stops there."""

    def __init__(self, batches):
        self.batches = batches
        self.state = None

    def on_train_batch_end(self, trainer, model, *args):
        if len(model.rows) == self.batches:
            self.state = trainer.datamodule.state_dict()
            trainer.should_stop = True


def made(folder, name):
    """Return the data module of a fit, over a copy of its table."""
    table = str(folder / "table.lance")
    shutil.copytree(FOLDER / "table.lance", table)
    source = SeparateSources(train=table, val=table) if name == "separate" else table
    return LanceDataModule(
        source, **{"batch_size": 4, "cache_dir": folder / "cache", **FITS[name]}
    )


def saved(name):
    """Return the data module's state in a checkpoint."""
    return torch.load(FOLDER / f"{name}.ckpt", weights_only=True)["LanceDataModule"]


def at_home(state):
    """Return a state as text, as if the table were where it was written."""
    for source in state["sources"].values():
        source["uri"] = "/tmp/golden/table.lance"
    return json.dumps(state)


# They are of Lightning 2.6.6, and an older one says so.
@pytest.mark.filterwarnings("ignore:The loaded checkpoint was produced with Lightning")
@pytest.mark.parametrize("name", FITS)
def test_a_checkpoint_of_state_version_1_resumes_with_its_rows(tmp_path, name):
    data, model = made(tmp_path, name), Model()
    trainer = quiet_trainer(tmp_path, max_epochs=3)
    trainer.fit(model, datamodule=data, ckpt_path=FOLDER / f"{name}.ckpt")
    assert model.rows == ROWS[name]


@pytest.mark.parametrize("name", FITS)
def test_the_same_run_saves_the_same_state(tmp_path, name):
    data, stop = made(tmp_path, name), Stop(STOPS.get(name, 8))
    limits = {"max_steps": 8} if name == "left_early" else {"callbacks": [stop]}
    quiet_trainer(tmp_path, max_epochs=3, **limits).fit(Model(), datamodule=data)
    state = data.state_dict() if name == "left_early" else stop.state
    assert at_home(state) == json.dumps(saved(name))


@pytest.mark.parametrize("name", FITS)
def test_what_is_read_is_written_again_as_it_was(name):
    state = saved(name)
    assert json.dumps(ModuleState.from_plain(state).to_plain()) == json.dumps(state)


def loaders(data):
    """Return loaders and datasets that gave a few batches or samples."""
    data.train_dataloader().set_epoch(2)
    found = {
        "loader": (data.train_dataloader(), 2),
        "iterable": (data.iterable_dataset("train"), 1),
        "samples": (data.iterable_dataset("train", batched=False), 6),
        "val": (data.val_dataloader(), 0),
    }
    for loader, count in found.values():
        batches = iter(loader)
        for _ in range(count):
            next(batches)
    return {name: loader for name, (loader, _) in found.items()}


def test_one_file_of_the_package_names_the_keys():
    """Of those that nothing else has: a key such as "train" is also a stage."""
    package = Path(lance_lightning.__file__).parent
    keys = {"state_version", "epoch_is_left", "plan", "steps", "batched", "worker"}
    for path in package.rglob("*.py"):
        if path.relative_to(package) != Path("loading", "state.py"):
            nodes = ast.walk(ast.parse(path.read_text("utf-8")))
            found = {node.value for node in nodes if isinstance(node, ast.Constant)}
            assert keys.isdisjoint(found), path


def test_loaders_save_and_read_the_same_states(tmp_path):
    data = made(tmp_path, "one")
    data.setup("fit")
    found = {name: loader.state_dict() for name, loader in loaders(data).items()}
    assert json.dumps(found) == json.dumps(LOADERS)
    again = loaders(data)
    for name, state in LOADERS.items():
        again[name].load_state_dict(state)
        assert json.dumps(again[name].state_dict()) == json.dumps(state)


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (ModuleState, saved("one")),
        (LoaderState, LOADERS["loader"]),
        (IterableState, LOADERS["iterable"]),
    ],
)
def test_another_version_and_a_state_with_a_key_less_are_refused(kind, state):
    for version in (0, 2, None):
        with pytest.raises(StateError, match=f"has version {version}, this release"):
            kind.from_plain({**state, "state_version": version})
    with pytest.raises(StateError, match="has version None"):
        kind.from_plain({})
    for key in {"sources", "train", "epoch_is_left", "epoch", "batch", "worker"}:
        if key in state:
            with pytest.raises(StateError, match=f"lacks '{key}'"):
                kind.from_plain({k: v for k, v in state.items() if k != key})
