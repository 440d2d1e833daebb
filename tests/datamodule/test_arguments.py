"""Numbers as arguments: numpy's become Python's own, and huge ones are refused."""

from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch

from lance_lightning import (
    BlockShuffle,
    ConfigError,
    HashSplit,
    LanceDataModule,
    LanceSource,
    RandomSplit,
    SequentialSplit,
    ShardedBatches,
    ShardedFragments,
)
from lance_lightning.ordering.world import World

WHOLE = (np.int64, np.int32, np.uint8)
SIZES = ("batch_size", "global_batch_size", "eval_batch_size", "cache_bytes")


@pytest.fixture
def uri(tmp_path):
    place = str(tmp_path / "rows.lance")
    lance.write_dataset(pa.table({"id": range(40)}), place)
    return place


def plain(value):
    """Tell whether there is nothing of numpy in a value, as deep as it goes."""
    if isinstance(value, dict):
        return all(map(plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return type(value) in (int, float, bool, str, type(None))


@pytest.mark.parametrize("kind", WHOLE)
def test_numpys_numbers_are_kept_as_pythons_own(uri, tmp_path, kind):
    given = {
        "eval_batch_size": kind(7),
        "num_workers": kind(0),
        "seed": kind(3),
        "drop_last": np.bool_(True),
        "with_row_id": np.bool_(False),
        "sampler": BlockShuffle(kind(2), kind(16)),
        "splits": RandomSplit({"train": np.float64(0.75)}, seed=kind(1)),
        "source": LanceSource(uri, version=kind(1)),
        "cache_dir": tmp_path,
    }
    for size in ("batch_size", "global_batch_size"):
        data = LanceDataModule(**given, **{size: kind(8)})
        data.setup("fit")
        assert [len(batch["id"]) for batch in data.train_dataloader()] == [8, 8, 8]
        for name in ("drop_last", "seed", "num_workers", "eval_batch_size"):
            assert plain(getattr(data, name))
        assert plain(dict(data.hparams))
        assert data.hparams["drop_last"] is True
        assert plain(data.state_dict())
        data.batch_size = kind(4)
        assert plain(dict(data.hparams))
        checkpoint = tmp_path / "hparams.pt"
        torch.save(dict(data.hparams), checkpoint)
        again = LanceDataModule(**torch.load(checkpoint, weights_only=True))
        assert again.batch_size == 4


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (lambda i: RandomSplit(counts={"a": i, "b": i}), {"counts": {"a": 2, "b": 2}}),
        (lambda i: RandomSplit(fixed=i), {"fixed": ("split_0", "split_1")}),
        (lambda i: RandomSplit({"a": 1}, clump_size=i, seed=i), {"clump_size": 2}),
        (lambda i: SequentialSplit(counts={"a": i}), {"counts": {"a": 2}}),
        (
            lambda i: HashSplit({"a": i}, ["id"], discard_weight=i),
            {"split_weights": {"a": 2}, "discard_weight": 2},
        ),
        (lambda i: BlockShuffle(i, i), {"block_size": 2, "buffer_size": 2}),
        (lambda i: ShardedFragments(np.bool_(True), i), {"randomize": True, "seed": 2}),
        (lambda i: ShardedBatches(np.bool_(False), i), {"randomize": False}),
        (lambda i: LanceSource("x", version=i), {"version": 2}),
        (lambda i: World(i, i + i), {"rank": 2, "size": 4}),
    ],
)
def test_specs_keep_numpys_numbers_as_pythons_own(spec, values):
    for kind in WHOLE:
        for name, expected in values.items():
            found = getattr(spec(kind(2)), name)
            assert found == expected
            assert plain(found)
            assert repr(spec(kind(2))) == repr(spec(2))


@pytest.mark.parametrize(
    "wrong", [np.bool_(True), np.float64(8), np.timedelta64(8), "8"]
)
def test_what_is_no_whole_number_is_refused_by_name(uri, wrong):
    for name in (*SIZES, "num_workers", "seed"):
        with pytest.raises(ConfigError, match=f"{name} must be an integer, got"):
            LanceDataModule(uri, **{name: wrong})
    for name in ("drop_last", "with_row_id"):
        with pytest.raises(ConfigError, match=f"{name} must be true or false"):
            LanceDataModule(uri, **{name: np.int64(1)})


def test_a_number_beyond_64_bits_is_refused_by_name(uri):
    for name in (*SIZES, "num_workers"):
        for huge in (2**63, 2**64, 2**70):
            with pytest.raises(
                ConfigError, match=f"{name} must be below 2..63, got {huge}"
            ):
                LanceDataModule(uri, **{name: huge})
    for seed in (2**64, -(2**63) - 1):
        with pytest.raises(
            ConfigError, match=r"seed must be (at least -92|below 2\*\*64)"
        ):
            LanceDataModule(uri, seed=seed)
        with pytest.raises(ConfigError, match="ShardedBatches: seed must be "):
            ShardedBatches(seed=seed)
    assert LanceDataModule(uri, seed=2**64 - 1).seed == 2**64 - 1
    for make, name in (
        (lambda i: RandomSplit(counts={"a": i}), "counts of 'a'"),
        (lambda i: RandomSplit({"a": 1}, clump_size=i), "clump_size"),
        (lambda i: RandomSplit(fixed=i), "fixed"),
        (lambda i: HashSplit({"a": 1}, ["id"], discard_weight=i), "discard_weight"),
        (lambda i: BlockShuffle(i), "block_size"),
        (lambda i: BlockShuffle(1, i), "buffer_size"),
        (lambda i: LanceSource(uri, version=i), "version"),
    ):
        with pytest.raises(ConfigError, match=f"{name} must be below"):
            make(2**63)
    with pytest.raises(ConfigError, match="multiple must be below"):
        LanceDataModule(uri, ragged={"pad": 0, "multiple": 2**31})


def test_sizes_whose_buffer_is_beyond_64_bits_say_so(uri, tmp_path):
    data = LanceDataModule(uri, sampler=BlockShuffle(2**62), cache_dir=tmp_path)
    data.setup("fit")
    with pytest.raises(ConfigError, match=r"buffer of .* choose smaller sizes"):
        data.train_dataloader()
    data = LanceDataModule(uri, batch_size=2**50, cache_dir=tmp_path)
    data.setup("fit")
    assert [len(batch["id"]) for batch in data.train_dataloader()] == [40]
