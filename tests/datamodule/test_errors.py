"""What cannot work is said in one sentence: cause, consequence, remedy."""

from __future__ import annotations

import os
import re

import lance
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lance_lightning import (
    AllRows,
    CalculatedSplit,
    ConfigError,
    DataError,
    HashSplit,
    LanceDataModule,
    LanceDBSource,
    LanceLightningError,
    LanceSource,
    RandomSplit,
    SeparateSources,
    SequentialSplit,
    Shuffle,
    SourceError,
)
from lance_lightning.ordering.shares import TrainShare
from lance_lightning.ordering.world import World
from tests.helpers.models import Recorder
from tests.helpers.tables import make_table
from tests.helpers.trainers import quiet_trainer

COLUMNS = "'id', 'label', 'vector', 'name'"
STAGES = "'train', 'val', 'test', 'predict'"


pytestmark = pytest.mark.usefixtures("shared_cache")


def read(source, **options) -> None:
    """Go as far as the first question about rows."""
    data = LanceDataModule(source, **options)
    data.setup("fit")
    data.train_dataloader()


def source(kind, *more, **options):
    """Return a case that reads from a source made of the table."""
    return lambda table: read(kind(table, *more, **options))


def option(**options):
    """Return a case that reads the table with these options."""
    return lambda table: read(table, **options)


def folder(table: str) -> str:
    return os.path.dirname(table)


# Each case: what is done with the table, the class of the error, and what it says.
CASES = {
    # where the rows come from
    "no table": (
        lambda table: read(f"{table}-none"),
        SourceError,
        ["table.lance-none", "was not found", "check the URI"],
    ),
    "a folder of tables": (
        lambda table: read(folder(table)),
        SourceError,
        ["Lance datasets in that folder: 'table.lance'"],
    ),
    "no database": (
        source(lambda table: LanceDBSource(f"{table}-none", "digits")),
        SourceError,
        ["no LanceDB database at", "check the path"],
    ),
    "no table of that name": (
        source(lambda table: LanceDBSource(folder(table), "digits")),
        SourceError,
        ["'digits' was not found", "tables there are: 'table'"],
    ),
    "no such version": (
        source(LanceSource, version=7),
        SourceError,
        ["opening version 7 of", "versions there are: 1.", "or choose one"],
    ),
    "no such tag": (
        source(LanceSource, tag="best"),
        SourceError,
        ["no tag 'best'", "tags there are: none"],
    ),
    "no such branch": (
        source(LanceSource, branch="mine"),
        SourceError,
        ["no branch 'mine'", "leave branch out for main"],
    ),
    "a version as text": (
        source(LanceSource, version="1"),
        ConfigError,
        ["version must be an integer, got '1' (str)"],
    ),
    "no source": (lambda table: read(None), ConfigError, ["source must be a URI"]),
    "an array": (
        lambda table: read(make_table(3)["id"]),
        ConfigError,
        ["source must be", "got ChunkedArray"],
    ),
    "a data frame of several types a column": (
        lambda table: read(pd.DataFrame({"id": [1, "a"]})),
        ConfigError,
        ["the pandas DataFrame cannot be made an Arrow table", "one type each"],
    ),
    "a lazy frame of polars": (
        lambda table: read(pl.LazyFrame({"id": [1]})),
        ConfigError,
        ["got LazyFrame", "ArrowSource(frame.collect())"],
    ),
    "a mapping for a source": (
        lambda table: read({"uri": table}),
        ConfigError,
        ["source must be", "_target_", "lance_lightning.LanceSource"],
    ),
    # columns and SQL
    "an unknown column": (
        option(columns=["id", "lable"]),
        SourceError,
        ["unknown column 'lable'", "did you mean 'label'?", COLUMNS],
    ),
    "bad SQL in columns": (
        option(columns={"id": "id", "twice": "label +* 2"}),
        SourceError,
        ["'(label +* 2)' for 'twice'", "found: *", COLUMNS],
    ),
    "an unknown column in SQL": (
        option(columns={"twice": "lable * 2"}),
        SourceError,
        ["lable", "for 'twice'", COLUMNS],
    ),
    "bad SQL in a filter": (
        source(LanceSource, filter="id >>> 3"),
        SourceError,
        ["the filter 'id >>> 3'", "found: >", COLUMNS],
    ),
    "an unknown column in a filter": (
        source(LanceSource, filter="idd > 3"),
        SourceError,
        ["the filter 'idd > 3'", "No field named idd", COLUMNS],
    ),
    "a filter that is no condition": (
        source(LanceSource, filter="id"),
        SourceError,
        ["the filter 'id'", "does not return a boolean"],
    ),
    "columns as text": (
        option(columns="id"),
        ConfigError,
        ["columns must be a list of names or a mapping", "got 'id'"],
    ),
    "no column": (option(columns=[]), ConfigError, ["at least one name", "got []"]),
    "a column twice": (
        option(columns=["id", "id"]),
        ConfigError,
        ["columns names a column twice: ['id', 'id']"],
    ),
    "columns by number": (
        option(columns=[1]),
        ConfigError,
        ["names are text, got [1]", "leave columns out for all"],
    ),
    # splits and stages
    "shares above one": (
        lambda table: RandomSplit({"train": 0.9, "val": 0.2}),
        ConfigError,
        ["the ratios sum to 1.1", "train=0.9, val=0.2", "null removes a split"],
    ),
    "a share of nothing": (
        lambda table: RandomSplit({"train": 0.9, "val": 0}),
        ConfigError,
        ["the ratios of 'val' must be above 0"],
    ),
    "more rows than there are": (
        option(splits=SequentialSplit(counts={"train": 90, "val": 20})),
        ConfigError,
        ["counts name 110 rows (train=90, val=20)", "there are 103"],
    ),
    "a hash of no column": (
        option(splits=HashSplit({"train": 1}, columns=["idd"])),
        SourceError,
        ["unknown column 'idd'", COLUMNS],
    ),
    "a calculation of no column": (
        option(splits=CalculatedSplit("idd", ["train"])),
        SourceError,
        ["the calculation 'idd'", "No field named idd", COLUMNS],
    ),
    "splits as text": (
        option(splits="random"),
        ConfigError,
        ["splits must be one of AllRows, ", "RandomSplit", "got 'random'"],
    ),
    "splits as a mapping of text": (
        option(splits={"train": "most"}),
        ConfigError,
        ["splits must be one of", "or a mapping with a _target_"],
    ),
    "splits of separate sources": (
        lambda table: read(
            SeparateSources(train=table), splits=RandomSplit({"train": 1.0})
        ),
        ConfigError,
        ["separate sources are splits already", "leave splits out"],
    ),
    "no split serves a stage": (
        option(splits=AllRows("everything")),
        ConfigError,
        ["no split serves any stage", "stage_splits={'train': 'everything'}"],
    ),
    "an unknown split": (
        lambda table: LanceDataModule(table).plan("vall"),
        ConfigError,
        ["split must be one of 'train', got 'vall'"],
    ),
    "an unknown stage": (
        option(stage_splits={"training": "train"}),
        ConfigError,
        [f"the stage must be one of {STAGES}, got 'training'"],
    ),
    "an unknown split for a stage": (
        option(stage_splits={"val": "vall"}),
        ConfigError,
        ["stage_splits['val'] must be one of 'train', got 'vall'"],
    ),
    "an unknown split in a list": (
        option(stage_splits={"val": ["train", "vall"]}),
        ConfigError,
        ["stage_splits['val'] must be one of 'train', got 'vall'"],
    ),
    "stages as text": (
        option(stage_splits="train"),
        ConfigError,
        ["stage_splits must be a mapping from stage to split, got 'train'"],
    ),
    "a filter that keeps nothing": (
        source(LanceSource, filter="id < 0"),
        ConfigError,
        ["split 'train', stage 'train'", "no rows", "check its share and the filter"],
    ),
    "a split of no row": (
        option(splits=CalculatedSplit("1", ["train", "val"])),
        ConfigError,
        ["split 'train', stage 'train'", "the split has no rows"],
    ),
    # batches
    **{
        f"batch_size={value!r}": (option(batch_size=value), ConfigError, [said])
        for value, said in [
            (0, "batch_size must be at least 1, got 0"),
            (-1, "batch_size must be at least 1, got -1"),
            ("abc", "batch_size must be an integer, got 'abc' (str)"),
            (True, "batch_size must be an integer, got True (bool)"),
            (8.0, "batch_size must be an integer, got 8.0 (float)"),
        ]
    },
    "a global batch of nothing": (
        option(batch_size=None, global_batch_size=0),
        ConfigError,
        ["global_batch_size must be at least 1, got 0"],
    ),
    "an evaluation batch of nothing": (
        option(eval_batch_size=0),
        ConfigError,
        ["eval_batch_size must be at least 1, got 0"],
    ),
    "both batch sizes": (
        option(batch_size=8, global_batch_size=16),
        ConfigError,
        ["give one of them, got batch_size=8 and global_batch_size=16"],
    ),
    "a global batch that ranks cannot share": (
        lambda table: TrainShare(103, 5, World(0, 2), False, True),
        ConfigError,
        ["global_batch_size 5 is not a multiple of the world size 2", "give batch"],
    ),
    "less than one batch": (
        option(batch_size=200, drop_last=True),
        ConfigError,
        ["103 rows, fewer than one global batch of 200", "use drop_last=False"],
    ),
    "drop_last as text": (
        option(drop_last="false"),
        ConfigError,
        ["drop_last must be true or false, got 'false'"],
    ),
    "a seed as text": (option(seed="a"), ConfigError, ["seed must be an integer"]),
    "no seed": (option(seed=None), ConfigError, ["seed must be an integer, got None"]),
    "a sampler as text": (
        option(sampler="shufle"),
        ConfigError,
        ["sampler must be one of BlockShuffle, Sequential, Sharded", "got 'shufle'"],
    ),
    "a sampler's class": (
        option(sampler=Shuffle),
        ConfigError,
        ["sampler must be one of", "Shuffle'>"],
    ),
    "a source for a sampler": (
        option(sampler={"_target_": "lance_lightning.LanceSource", "uri": "x"}),
        ConfigError,
        ["sampler must be one of", "got LanceSource(uri='x')"],
    ),
    "a target of others": (
        option(sampler={"_target_": "torch.utils.data.RandomSampler"}),
        ConfigError,
        ["'torch.utils.data.RandomSampler'", "not one of lance_lightning's own"],
    ),
    "an argument that a spec does not take": (
        option(sampler={"_target_": "lance_lightning.BlockShuffle", "size": 3}),
        ConfigError,
        ["sampler: ", "unexpected keyword argument 'size'"],
    ),
    # formats and functions
    "an unknown format": (
        option(output_format="tensor"),
        ConfigError,
        ["output_format must be one of 'arrow', ", "'torch_row', got 'tensor'"],
    ),
    "text in one tensor": (
        option(output_format="torch_row"),
        DataError,
        ["column 'name' has type string", "columns=[...]"],
    ),
    "an unknown policy": (
        option(nulls="skip"),
        ConfigError,
        ["nulls must be 'error', 'mask' or", "got 'skip'"],
    ),
    "no function": (option(transform=3), ConfigError, ["transform must be callable"]),
    "a function of no stage": (
        option(transform={"training": len}),
        ConfigError,
        [f"transform: the stage must be one of {STAGES}, got 'training'"],
    ),
    "two ways to make a batch": (
        option(transform=len, collate_fn=len),
        ConfigError,
        ["cannot be used together", "do the work of transform in collate_fn"],
    ),
    # workers and folders
    "workers below none": (
        option(num_workers=-1),
        ConfigError,
        ["num_workers must be at least 0, got -1"],
    ),
    "workers as text": (
        option(num_workers="2"),
        ConfigError,
        ["num_workers must be an integer, got '2' (str)"],
    ),
    "an unknown option": (
        option(dataloader_kwargs={"prefetch": 2}),
        ConfigError,
        ["no option 'prefetch'", "there are: generator", "prefetch_factor"],
    ),
    "an option of ours": (
        option(dataloader_kwargs={"shuffle": True}),
        ConfigError,
        ["dataloader_kwargs['shuffle']", "use its argument 'sampler' instead"],
    ),
    "batches that torch makes": (
        option(dataloader_kwargs={"batch_size": None}),
        ConfigError,
        ["dataloader_kwargs['batch_size']", "use its argument 'batch_size' instead"],
    ),
    **{
        f"an order that depends on the workers, {value!r}": (
            option(dataloader_kwargs={"in_order": value}),
            ConfigError,
            [f"dataloader_kwargs['in_order'] is {value!r}", "which worker was faster"],
        )
        for value in (False, "yes", None)
    },
    "options as text": (
        option(dataloader_kwargs="pin_memory"),
        ConfigError,
        ["dataloader_kwargs must be a mapping", "got 'pin_memory'"],
    ),
    "no way to start workers": (
        option(dataloader_kwargs={"multiprocessing_context": 3}),
        ConfigError,
        ["multiprocessing_context must be 'spawn', 'forkserver'", "got 3"],
    ),
    "workers that are forked": (
        option(dataloader_kwargs={"multiprocessing_context": "fork"}),
        ConfigError,
        ["multiprocessing_context is 'fork'", "do not survive a fork", "leave the"],
    ),
    "a cache that is no folder": (
        option(cache_dir="s3://bucket/cache"),
        ConfigError,
        ["cache_dir must be a folder on this machine", "'s3://bucket/cache'"],
    ),
}


def check(error: LanceLightningError, kind: type, said: list[str]) -> None:
    assert type(error) is kind
    text = str(error)
    for part in said:
        assert part in text
    assert "\n" not in text
    assert len(text) < 600
    assert not re.search(r"\.rs:\d+|Traceback|object at 0x", text)


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_work_is_said(table, name):
    attempt, kind, said = CASES[name]
    with pytest.raises(LanceLightningError) as caught:
        attempt(table)
    check(caught.value, kind, said)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"columns": ["id", "lable"]}, SourceError, ["unknown column 'lable'"]),
        ({"batch_size": 200, "drop_last": True}, ConfigError, ["use drop_last=False"]),
        ({"splits": CalculatedSplit("1", ["train", "val"])}, ConfigError, ["no rows"]),
        ({"output_format": "torch_col"}, DataError, ["column 'name'"]),
    ],
)
def test_a_trainer_hands_the_error_on(table, tmp_path, options, kind, said):
    data = LanceDataModule(table, stage_splits={"val": "train"}, **options)
    trainer = quiet_trainer(tmp_path)
    with pytest.raises(LanceLightningError) as caught:
        trainer.fit(Recorder(), datamodule=data)
    check(caught.value, kind, said)


def test_a_global_batch_needs_no_batch_size(table):
    data = LanceDataModule(table, batch_size=None, global_batch_size=16)
    assert data.batch_size == 16


def test_null_takes_a_column_of_a_default_away(table):
    data = LanceDataModule(table, columns={"id": "id", "label": None})
    assert set(next(iter(data.train_dataloader()))) == {"id"}


def test_an_unknown_argument_is_pythons_own_error(table):
    with pytest.raises(TypeError, match="'batchsize'"):
        LanceDataModule(table, batchsize=3)


def test_values_that_a_format_cannot_hold_are_named(tmp_path):
    rows = {"id": np.arange(9), "x": pa.array([1, None, 3] * 3)}
    lance.write_dataset(pa.table(rows), str(tmp_path / "nulls.lance"))
    data = LanceDataModule(str(tmp_path / "nulls.lance"))
    with pytest.raises(DataError, match="column 'x'"):
        list(data.train_dataloader())
