"""Hyperparameters: plain, complete, without secrets, and a module made of them."""

from __future__ import annotations

import argparse
import enum
import json
import pickle

import lance
import lightning as L
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import yaml
from conftest import Recorder, flat, make_table, quiet_trainer
from lightning.pytorch.callbacks import BatchSizeFinder, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.model_helpers import is_overridden
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

SECRET = "hunter2-hunter2"


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


# -- secrets ------------------------------------------------------------------


def files_that_hold(secret: str, folder) -> list[str]:
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize("kind", ["lance", "lancedb", "separate"])
def test_a_secret_option_is_written_nowhere(
    table, tmp_path, monkeypatch, caplog, capsys, kind
):
    monkeypatch.setenv("LANCE_LIGHTNING_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    options = {"aws_secret_access_key": SECRET}
    source = {
        "lance": lambda: LanceSource(table, storage_options=options),
        "lancedb": lambda: LanceDBSource(
            table.rpartition("/")[0], "table", storage_options=options
        ),
        "separate": lambda: SeparateSources(
            train=LanceSource(table, storage_options=options)
        ),
    }[kind]()
    splits = {} if kind == "separate" else {"splits": SequentialSplit(fixed=["train"])}
    data = LanceDataModule(source, **splits)
    with caplog.at_level("DEBUG"):
        path = saved(
            data,
            tmp_path,
            enable_checkpointing=True,
            callbacks=[ModelCheckpoint(tmp_path / "saved", every_n_train_steps=1)],
            logger=CSVLogger(tmp_path / "logs"),
            log_every_n_steps=1,
        )
    assert len(list(tmp_path.rglob("*.ckpt"))) == 2
    assert len(list(tmp_path.rglob("hparams.yaml"))) == 1
    if kind != "separate":
        assert list((tmp_path / "cache").rglob("*.json"))
    assert files_that_hold(SECRET, tmp_path) == []
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capsys.readouterr())
    shown = [
        repr(source),
        str(data),
        repr(data),
        str(data.hparams),
        repr(data.plan("train")),
    ]
    shown += [repr(data.snapshot("train")), str(data.hparams_initial)]
    assert SECRET not in "".join(shown)
    # The environment holds it, so a pickle need not.
    pickled = pickle.dumps(data)
    assert SECRET.encode() not in pickled
    assert pickle.loads(pickled).snapshot("train") == data.snapshot("train")
    assert pickle.loads(pickled)._config.sources == data._config.sources

    with pytest.raises(ConfigError, match="a secret") as caught:
        LanceDataModule.load_from_checkpoint(path)
    assert "aws_secret_access_key" in str(caught.value)
    assert LanceDataModule.load_from_checkpoint(path, source=source).hparams == (
        data.hparams
    )


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://user:{SECRET}@bucket/table.lance",
        f"az://container/table.lance?sig={SECRET}",
    ],
)
def test_a_password_in_a_uri_is_kept_by_no_hyperparameter(uri, tmp_path):
    shown = uri.replace(f"user:{SECRET}@", "").partition("?")[0]
    sources = [uri, LanceSource(uri), SeparateSources(train=uri)]
    for source in sources:
        data = LanceDataModule(source)
        torch.save(dict(data.hparams), tmp_path / "hparams.pt")
        texts = [str(data), repr(data), str(data.hparams), str(data.hparams_initial)]
        assert all(SECRET not in text for text in texts)
        assert shown in str(data.hparams)
        assert files_that_hold(SECRET, tmp_path) == []
        with pytest.raises(ConfigError, match="a checkpoint cannot hold source") as e:
            LanceDataModule(**torch.load(tmp_path / "hparams.pt", weights_only=True))
        assert SECRET not in str(e.value)


# -- subclasses ---------------------------------------------------------------


class Digits(LanceDataModule):
    """The common subclass: a few arguments of its own."""

    def __init__(self, folder, batch_size=16, noise=0.5):
        splits = RandomSplit({"train": 0.8, "val": 0.2})
        super().__init__(f"{folder}/table.lance", splits=splits, batch_size=batch_size)
        self.save_hyperparameters()
        self.noise = noise


class Open(LanceDataModule):
    """A subclass that hands keywords on."""

    def __init__(self, folder, **kwargs):
        super().__init__(source=f"{folder}/table.lance", **kwargs)
        self.save_hyperparameters()


class Adds(LanceDataModule):
    """A subclass that adds an argument to those of the base class."""

    def __init__(self, *args, noise=0.5, **kwargs):
        super().__init__(*args, **kwargs)
        self.save_hyperparameters("noise")
        self.noise = noise


class Configured(LanceDataModule):
    """A subclass made of one config."""

    def __init__(self, config):
        super().__init__(config["source"], batch_size=config["batch_size"])
        self.save_hyperparameters({"config": config})


class OfFrame(LanceDataModule):
    """A subclass with an argument that cannot be compared."""

    def __init__(self, data_frame, batch_size=4):
        table = pa.Table.from_pandas(data_frame, preserve_index=False)
        super().__init__(ArrowSource(table), batch_size=batch_size)
        self.save_hyperparameters(ignore=["data_frame"])


SUBCLASSES = {
    "own arguments": lambda f: Digits(f, batch_size=8, noise=0.1),
    "keywords": lambda f: Open(f, batch_size=8, splits=RandomSplit({"train": 0.5})),
    "adds": lambda f: Adds(f"{f}/table.lance", noise=0.1, batch_size=8),
    "config": lambda f: Configured({"source": f"{f}/table.lance", "batch_size": 8}),
    "omegaconf": lambda f: Configured(
        OmegaConf.create({"source": f"{f}/table.lance", "batch_size": 8})
    ),
    "a spec": lambda f: Open(f, sampler=Sequential()),
}


@pytest.mark.parametrize("name", SUBCLASSES)
def test_a_subclass_comes_back_from_its_checkpoint(table, tmp_path, name):
    data = SUBCLASSES[name](table.rpartition("/")[0])
    path = saved(data, tmp_path)
    assert plain_types(
        torch.load(path, weights_only=True)["datamodule_hyper_parameters"]
    )
    again = type(data).load_from_checkpoint(path)
    assert again.hparams == data.hparams
    assert again.batch_size == data.batch_size
    assert again.sampler == data.sampler
    assert getattr(again, "noise", None) == getattr(data, "noise", None)
    assert again.plan("train") == data.plan("train")


def test_a_subclass_may_take_what_cannot_be_compared(tmp_path):
    data = OfFrame(pd.DataFrame({"id": range(9), "vector": [[0.0] * 4] * 9}))
    assert dict(data.hparams) == {"batch_size": 4}
    assert len(data.train_dataloader()) == 3


def test_a_namespace_of_arguments_is_saved_as_plain_values(table):
    class Parsed(LanceDataModule):
        def __init__(self, args):
            super().__init__(args.source)
            self.save_hyperparameters(args)

    args = argparse.Namespace(source=table, sampler=Shuffle(), n=np.int64(3))
    hparams = dict(Parsed(args).hparams)
    assert hparams["n"] == 3
    assert plain_types(hparams)


def test_a_subclasss_secrets_are_not_saved(table):
    class Remote(LanceDataModule):
        def __init__(self, uri, storage_options):
            super().__init__(LanceSource(uri, storage_options=storage_options))
            self.save_hyperparameters()

    data = Remote(f"s3://user:{SECRET}@bucket/t.lance", {"aws_token": SECRET})
    assert SECRET not in str(data.hparams) + str(data.hparams_initial)


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
