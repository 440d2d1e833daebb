"""Hyperparameters of a user's subclass."""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from omegaconf import OmegaConf

from lance_lightning import (
    ArrowSource,
    LanceDataModule,
    LanceSource,
    RandomSplit,
    Sequential,
    Shuffle,
)
from tests.helpers.hyperparameters import SECRET, plain_types, saved

pytestmark = pytest.mark.usefixtures("shared_cache")


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
