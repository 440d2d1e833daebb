"""Hyperparameters: plain, complete, without secrets, and a module made of them."""

from __future__ import annotations

import enum
import json

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import BatchSizeFinder
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf

from lance_lightning import (
    AllRows,
    ArrowSource,
    BlockShuffle,
    CalculatedSplit,
    ConfigError,
    HashSplit,
    LanceDataModule,
    LanceDBSource,
    LanceSource,
    PermutationSplit,
    RandomSplit,
    SeparateSources,
    Sequential,
    SequentialSplit,
    ShardedBatches,
    ShardedFragments,
    Shuffle,
)
from lance_lightning.datamodule.plain_specs import SPECS
from tests.helpers.hyperparameters import TrainOnly, plain_types, saved
from tests.helpers.tables import flat, make_table
from tests.helpers.trainers import quiet_trainer

pytestmark = pytest.mark.usefixtures("shared_cache")


@pytest.fixture(scope="module")
def permutation(tmp_path_factory, shared_table) -> str:
    """A permutation table of some of the rows, the last ones first."""
    uri = str(tmp_path_factory.mktemp("permutation") / "permutation.lance")
    dataset = lance.dataset(shared_table)
    ids = dataset.to_table(columns=[], with_row_id=True)["_rowid"]
    rows = {"row_id": ids.to_numpy()[::-1].astype(np.uint64)[:20]}
    rows["split_id"] = np.repeat([0, 1], [15, 5]).astype(np.uint64)
    lance.write_dataset(pa.table(rows), uri)
    return uri


# -- a checkpoint and back ----------------------------------------------------


MODULES = {
    "defaults": lambda table, _: {"source": table},
    "source": lambda table, _: {
        "source": LanceSource(table, version=1, filter="id < 100")
    },
    "lancedb": lambda table, _: {
        "source": LanceDBSource(table.rpartition("/")[0], "table")
    },
    "separate": lambda table, _: {
        "source": SeparateSources(train=LanceSource(table, filter="id > 9"), val=table)
    },
    "random": lambda table, _: {
        "source": table,
        "splits": RandomSplit({"train": 0.7, "val": 0.2}, clump_size=4, seed=3),
        "sampler": BlockShuffle(4, 32),
    },
    "hash": lambda table, _: {
        "source": table,
        "splits": HashSplit({"train": 8, "val": 2}, columns=("id", "name")),
        "sampler": Shuffle(),
    },
    "sequential": lambda table, _: {
        "source": table,
        "splits": SequentialSplit(fixed=["train", "val", "test"]),
        "sampler": Sequential(),
        "stage_splits": {"predict": ["val", "test"], "test": "test"},
    },
    "calculated": lambda table, _: {
        "source": table,
        "sampler": ShardedFragments(randomize=True, seed=2),
        "splits": CalculatedSplit("label", ["train", "val", "test"]),
    },
    "permutation": lambda _table, permutation: {
        "source": _table,
        "sampler": ShardedBatches(randomize=True),
        "splits": PermutationSplit(permutation, ["train", "val"]),
    },
    "all rows": lambda table, _: {
        "source": table,
        "splits": AllRows("everything"),
        "stage_splits": {"train": "everything", "val": "everything"},
    },
    "options": lambda table, _: {
        "source": table,
        "columns": {"id": "id", "vector": "vector", "double": "label * 2"},
        "global_batch_size": 20,
        "eval_batch_size": 7,
        "drop_last": True,
        "seed": 5,
        "with_row_id": True,
        "nulls": {"double": {"fill": 1}},
        "dataloader_kwargs": {"pin_memory": True, "prefetch_factor": 3},
    },
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_comes_back_from_its_checkpoint(table, permutation, tmp_path, name):
    arguments = MODULES[name](table, permutation)
    data = LanceDataModule(**arguments)
    path = saved(data, tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    held = checkpoint["datamodule_hyper_parameters"]
    assert plain_types(held)
    assert json.loads(json.dumps(held)) == held

    again = LanceDataModule.load_from_checkpoint(path)
    assert again.hparams == data.hparams
    assert again.split_names == data.split_names
    assert again.sampler == data.sampler
    assert again.columns == data.columns
    if name != "separate":
        assert again.splits == data.splits
    for split in data.split_names:
        assert again.plan(split) == data.plan(split)
        assert again.snapshot(split) == data.snapshot(split)

    def epoch(module):
        loader = module.train_dataloader()
        loader.set_epoch(1)
        return [batch["id"].tolist() for batch in loader]

    assert epoch(again) == epoch(data)
    # The plain dicts are arguments too, be it without Lightning.
    assert LanceDataModule(**held).hparams == data.hparams


def test_every_spec_of_the_package_is_tried_here(table, permutation):
    tried = {"ArrowSource"}  # asked for again, below
    for make in MODULES.values():
        text = str(LanceDataModule(**make(table, permutation)).hparams)
        tried |= {name for name in SPECS if f"lance_lightning.{name}'" in text}
    assert tried == set(SPECS)


def test_arguments_given_to_load_from_checkpoint_win(table, tmp_path):
    path = saved(LanceDataModule(table, batch_size=8), tmp_path)
    again = LanceDataModule.load_from_checkpoint(path, batch_size=4, num_workers=1)
    assert (again.batch_size, again.num_workers) == (4, 1)


def test_the_size_that_the_tuner_found_is_saved(table, tmp_path):
    finder = BatchSizeFinder(max_trials=2, steps_per_trial=1)
    data = LanceDataModule(table, global_batch_size=64)
    path = saved(data, tmp_path, callbacks=[finder])
    again = LanceDataModule.load_from_checkpoint(path)
    assert again.batch_size == data.batch_size == 4


class Format(str, enum.Enum):
    TORCH = "torch"


def test_numbers_and_names_of_other_kinds_become_plain(table, tmp_path):
    data = LanceDataModule(
        table,
        output_format=Format.TORCH,
        columns=("id", "vector"),
        nulls={"id": {"fill": np.int64(3)}, "vector": {"fill": np.float64(0.5)}},
        splits=RandomSplit({"train": np.float64(0.5)}),
        cache_dir=tmp_path / "cache",
    )
    assert plain_types(dict(data.hparams))
    torch.load(saved(data, tmp_path), weights_only=True)
    assert LanceDataModule.load_from_checkpoint(tmp_path / "run.ckpt").hparams == (
        data.hparams
    )


# -- what cannot be saved -----------------------------------------------------


def double(batch):
    return batch


def test_functions_and_tables_are_asked_for_again(table, tmp_path):
    arguments = {
        "source": ArrowSource(make_table(20)),
        "transform": {"train": double},
    }
    path = saved(LanceDataModule(**arguments), tmp_path)
    torch.load(path, weights_only=True)
    with pytest.raises(ConfigError) as caught:
        LanceDataModule.load_from_checkpoint(path)
    assert str(caught.value) == (
        "a checkpoint cannot hold source.table (pyarrow.lib.Table), transform.train "
        f"({__name__}.double): give source, transform again, as "
        "LanceDataModule.load_from_checkpoint(path, source=...) does"
    )
    again = LanceDataModule.load_from_checkpoint(path, **arguments)
    assert sorted(flat(b["id"].tolist() for b in again.train_dataloader())) == list(
        range(20)
    )


def test_a_permutation_table_in_memory_is_asked_for_again(table, permutation, tmp_path):
    rows = lance.dataset(permutation).to_table()
    data = LanceDataModule(table, splits=PermutationSplit(rows, ["train", "val"]))
    path = saved(data, tmp_path)
    with pytest.raises(ConfigError, match=r"splits\.table \(pyarrow\.lib\.Table\)"):
        LanceDataModule.load_from_checkpoint(path)


# -- loggers ------------------------------------------------------------------


def test_a_model_may_have_hyperparameters_of_the_same_names(table, tmp_path):
    class Model(TrainOnly):
        def __init__(self, batch_size, seed, source):
            super().__init__()
            self.save_hyperparameters()

    logger = CSVLogger(tmp_path)
    data = LanceDataModule(table, batch_size=8, seed=3)
    trainer = quiet_trainer(tmp_path, logger=logger, log_every_n_steps=1)
    trainer.fit(Model(batch_size=999, seed="x", source=None), datamodule=data)
    (path,) = tmp_path.rglob("hparams.yaml")
    logged = yaml.safe_load(path.read_text())
    assert (logged["batch_size"], logged["seed"], logged["source"]) == (999, "x", None)
    assert logged["datamodule"] == dict(data.hparams)
    assert logged["datamodule"]["batch_size"] == 8
    assert logged["datamodule"]["sampler"]["_target_"] == "lance_lightning.BlockShuffle"


def test_what_is_logged_is_what_the_module_was_made_with(table):
    data = LanceDataModule(table, batch_size=8)
    data.batch_size = 16
    assert data.hparams.batch_size == 16
    assert data.hparams_initial.datamodule["batch_size"] == 8
    data.hparams_initial.datamodule["sampler"].clear()
    assert data.hparams_initial.datamodule["sampler"]


# -- Hydra's containers -------------------------------------------------------


def test_hydras_containers_are_taken_and_saved_as_plain(table, tmp_path):
    config = OmegaConf.create(
        {
            "source": {"_target_": "lance_lightning.LanceSource", "uri": table},
            "splits": {
                "_target_": "lance_lightning.SequentialSplit",
                "counts": {"train": 80, "val": 23},
            },
            "columns": ["id", "vector", "label"],
            "stage_splits": {"test": "val", "predict": ["train", "val"]},
            "nulls": {"label": {"fill": "${fill}"}},
            "sampler": {"_target_": "lance_lightning.BlockShuffle", "block_size": 2},
            "dataloader_kwargs": {"pin_memory": False},
            "fill": 7,
        }
    )
    arguments = {name: config[name] for name in config if name != "fill"}
    data = LanceDataModule(**arguments)
    assert plain_types(dict(data.hparams))
    assert data.hparams["columns"] == ["id", "vector", "label"]
    assert data.hparams["nulls"] == {"label": {"fill": 7}}
    assert data.splits == SequentialSplit(counts={"train": 80, "val": 23})
    assert data.sampler == BlockShuffle(2)
    assert [len(loader) for loader in data.predict_dataloader()] == [3, 1]
    torch.load(saved(data, tmp_path), weights_only=True)
    assert LanceDataModule.load_from_checkpoint(tmp_path / "run.ckpt").hparams == (
        data.hparams
    )


def test_specs_take_hydras_containers_too(table):
    config = OmegaConf.create(
        {"shares": {"train": 8, "val": 2}, "columns": ["id"], "names": ["a", "b", "c"]}
    )
    specs = [
        HashSplit(config.shares, columns=config.columns),
        SequentialSplit(fixed=config.names),
        CalculatedSplit("label", config.names),
    ]
    for splits in specs:
        stages = {"train": splits.split_names[0]}
        data = LanceDataModule(table, splits=splits, stage_splits=stages)
        assert plain_types(dict(data.hparams))
    source = LanceSource(table, storage_options=OmegaConf.create({"region": "x"}))
    assert plain_types(dict(LanceDataModule(source).hparams))


def test_a_missing_value_of_a_config_is_said(table):
    with pytest.raises(Exception, match="Missing mandatory value"):
        LanceDataModule(table, columns=OmegaConf.create(["id", "???"]))
