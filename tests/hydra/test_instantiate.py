"""Specs given to `hydra.utils.instantiate` as objects are used, or refused."""

import copy
import dataclasses
import pickle
import re
from dataclasses import dataclass, field
from typing import Any

import lance
import pyarrow as pa
import pytest
from hydra import compose, initialize, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import UnsupportedValueType, ValidationError
from torch.utils.data import RandomSampler, SequentialSampler

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
from lance_lightning.datamodule.plain_specs import NAMES, SPECS
from lance_lightning.frozen import replace, values_of

ROWS = pa.table({"id": list(range(40))})
ORDER = pa.table(
    {
        "row_id": pa.array(range(40), "uint64"),
        "split_id": pa.array([0, 1] * 20, "uint64"),
    }
)
SECRET = "hunter2-hunter2"

SPLITS = [
    AllRows("val"),
    RandomSplit({"train": 0.5, "val": 0.5}, seed=7),
    HashSplit({"train": 3, "val": 1}, ["id"], discard_weight=2),
    SequentialSplit(fixed=["train", "val"]),
    CalculatedSplit("id % 2", ["train", "val"]),
    PermutationSplit(ORDER, ["train", "val"]),
]
SAMPLERS = [
    BlockShuffle(4, 320),
    Shuffle(),
    Sequential(),
    ShardedBatches(randomize=True, seed=3),
    ShardedFragments(seed=2),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("instantiate")
    lance.write_dataset(ROWS, found / "t.lance")
    return found


def sources(folder):
    stored = LanceSource(
        folder / "t.lance", filter="id < 30", storage_options={"secret_key": SECRET}
    )
    return [
        stored,
        LanceDBSource(folder, "t"),
        ArrowSource(ROWS),
        SeparateSources(train=stored, val=ArrowSource(ROWS)),
    ]


def config(folder, *overrides):
    """Return the node that a user's app hands to `instantiate`."""
    with initialize(version_base="1.3", config_path=None):
        uri = f"data.source.uri={folder}/t.lance"
        return compose(overrides=["+data=lance", uri, *overrides]).data


def source_of(data):
    sources = data._config.sources
    return sources if data._config.is_separate else sources[""]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_the_sampler_that_is_given_takes_the_place_of_the_configs(folder, sampler):
    for overrides in ([], ["data/sampler=sequential"], ["data/sampler=shuffle"]):
        data = instantiate(config(folder, *overrides), sampler=sampler)
        assert data.sampler == sampler
        assert type(data.sampler) is type(sampler)


@pytest.mark.parametrize("splits", SPLITS, ids=repr)
def test_the_splits_that_are_given_take_the_place_of_the_configs(folder, splits):
    data = instantiate(config(folder, "data/splits=random"), splits=splits)
    assert data.splits == splits
    assert type(data.splits) is type(splits)


@pytest.mark.parametrize("at", range(4))
def test_the_source_that_is_given_takes_the_place_of_the_configs(folder, at):
    source = sources(folder)[at]
    data = instantiate(config(folder), source=source)
    found = source_of(data)
    if isinstance(source, ArrowSource):
        assert found.table.equals(ROWS)
        assert list(data.dataset("train")[3].values()) == [3]
    else:
        assert found == (source.sources if data._config.is_separate else source)
    assert SECRET not in str(data.hparams) + repr(data) + repr(source)


def test_every_spec_of_the_package_is_given_here(folder):
    given = [*SPLITS, *SAMPLERS, *sources(folder)]
    assert {type(each).__name__ for each in given} == set(SPECS)


def arguments(folder):
    """Return specs of each kind for one module, which are no defaults."""
    return {
        "source": sources(folder)[0],
        "splits": RandomSplit({"train": 0.5, "val": 0.5}, seed=7),
        "sampler": BlockShuffle(4, 320),
        "stage_splits": {"predict": ["train", "val"]},
    }


def same(data, given):
    assert source_of(data) == given["source"]
    assert data.splits == given["splits"]
    assert data.sampler == given["sampler"]
    return True


TARGET = {"_target_": "lance_lightning.LanceDataModule"}


@dataclass
class Config:
    _target_: str = "lance_lightning.LanceDataModule"
    source: Any = None
    splits: Any = field(default_factory=lambda: RandomSplit({"train": 1.0}, seed=9))
    sampler: Any = field(default_factory=Shuffle)
    stage_splits: Any = None


@pytest.mark.parametrize("convert", ["none", "partial", "object", "all"])
@pytest.mark.parametrize("recursive", [True, False])
@pytest.mark.parametrize("partial", [True, False])
def test_specs_stay_as_they_are_whatever_instantiate_is_told(
    folder, convert, recursive, partial
):
    given = arguments(folder)
    told = {"_convert_": convert, "_recursive_": recursive, "_partial_": partial}
    node = config(folder)
    del node._convert_
    ways = [
        instantiate(node, **given, **told),
        instantiate(TARGET, **given, **told),
        instantiate({**TARGET, **given, **told}),
        instantiate(Config(**given), **told),
        instantiate(
            OmegaConf.create({**TARGET, **given}, flags={"allow_objects": True}), **told
        ),
    ]
    assert all(same(data() if partial else data, given) for data in ways)
    assert instantiate(Config, source=given["source"]).sampler == Shuffle()


def test_a_config_that_is_not_instantiated_at_once_makes_the_same_module(folder):
    node = config(folder, "data/sampler=sharded_batches", "data/splits=random")
    node.splits.ratios = {"train": 0.5, "val": 0.5}
    data = instantiate(node, _recursive_=False)
    assert data.hparams == instantiate(node).hparams


def test_a_spec_is_given_by_place(folder):
    source = sources(folder)[0]
    assert source_of(instantiate(TARGET, source)) == source
    node = {"_target_": "lance_lightning.SeparateSources", "val": ArrowSource(ROWS)}
    assert instantiate(node, train=source).sources["train"] == source


@pytest.mark.parametrize("given", [RandomSampler, SequentialSampler(range(40))])
def test_samplers_of_torch_are_handed_on(folder, given):
    data = instantiate(config(folder), sampler=given)
    assert type(data.sampler).__name__ == "TorchAdapter"
    ids = [n for batch in data.train_dataloader() for n in batch["id"].tolist()]
    assert sorted(ids) == list(range(40))


def test_what_omegaconf_cannot_hold_is_refused_by_name(folder):
    node = config(folder)
    with pytest.raises(UnsupportedValueType, match=r"'Shuffle'[\s\S]*sampler"):
        OmegaConf.create({"sampler": Shuffle()})
    with pytest.raises(UnsupportedValueType, match="'Shuffle'"):
        node.sampler = Shuffle()
    with pytest.raises(UnsupportedValueType, match="'RandomSplit'"):
        OmegaConf.structured(Config())
    for spec in (Shuffle(), BlockShuffle):
        with pytest.raises(ValidationError, match="Shuffle"):
            ConfigStore.instance().store(group="data/sampler", name="own", node=spec)


# -- frozen values -----------------------------------------------------------------


@pytest.mark.parametrize("spec", [*SPLITS, *SAMPLERS], ids=repr)
def test_a_spec_is_a_frozen_value(spec):
    again = type(spec)(**values_of(spec))
    assert again == spec
    assert pickle.loads(pickle.dumps(spec)) == copy.deepcopy(spec) == spec
    assert repr(again) == repr(spec)
    assert not dataclasses.is_dataclass(spec)  # or OmegaConf would merge it
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.seed = 8


def test_specs_of_other_values_are_others():
    assert BlockShuffle(4) != BlockShuffle(8)
    assert Shuffle() != Sequential()
    assert len({BlockShuffle(4), BlockShuffle(4), Shuffle()}) == 2
    assert replace(BlockShuffle(4), buffer_size=64) == BlockShuffle(4, 64)
    if hasattr(copy, "replace"):
        assert copy.replace(BlockShuffle(4), block_size=8) == BlockShuffle(8)


# -- keys of another class ---------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "chosen", "name", "key"),
    [
        ("splits: {ratios: {train: 1}}", "splits=all", "AllRows", "ratios"),
        ("splits: {ratios: {train: 1}}", "splits=hash", "HashSplit", "ratios"),
        ("sampler: {block_size: 8}", "sampler=shuffle", "Shuffle", "block_size"),
        ("source: {table: t}", "source=lance", "LanceSource", "table"),
        ("source: {uri: t}", "source=separate", "SeparateSources", "uri"),
    ],
)
def test_a_key_left_of_another_option_is_named_with_the_remedy(
    tmp_path, written, chosen, name, key
):
    (tmp_path / "train.yaml").write_text(
        f"defaults: [{{data: lance}}, _self_]\ndata: {{{written}}}\n"
    )
    group = chosen.partition("=")[0]
    more = {
        "HashSplit": ["data.splits.columns=[id]"],
        "LanceSource": ["data.source.uri=t.lance"],
        "SeparateSources": ["data.source.train=t.lance"],
    }.get(name, [])
    if group != "source":
        more.append("data.source.uri=t.lance")

    def made(*overrides):
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            overrides = [f"data/{chosen}", *more, *overrides]
            return instantiate(compose("train", overrides=overrides).data)

    with pytest.raises(InstantiationException) as caught:
        made()
    text = str(caught.value)
    assert f"{name} got an unexpected keyword argument '{key}'; it takes " in text
    assert f"full_key: data.{group}" in text
    (remedy,) = re.findall(r"remove it \((\S+) on Hydra's command line\)", text)
    assert remedy == f"~data.{group}.{key}"
    made(remedy)


def test_a_key_of_another_class_in_a_plain_dict_names_the_argument():
    left = {"_target_": "lance_lightning.HashSplit", "columns": ["id"], "ratios": {}}
    with pytest.raises(
        ConfigError,
        match=r"^splits: HashSplit got .*'ratios'; it takes split_weights, ",
    ):
        LanceDataModule("t.lance", splits=left)
    with pytest.raises(ConfigError, match=r"^splits: .*missing.*'columns'"):
        LanceDataModule("t.lance", splits={"_target_": "lance_lightning.HashSplit"})
    with pytest.raises(ConfigError, match=r"Shuffle got .*'seed'; it takes none"):
        Shuffle(seed=3)


# -- short forms -------------------------------------------------------------------


@pytest.mark.parametrize("argument", NAMES)
def test_the_short_names_are_those_of_the_hydra_options(argument):
    for name, kind in NAMES[argument].items():
        with initialize(version_base="1.3", config_path=None):
            data = compose(overrides=["+data=lance", f"data/{argument}={name}"]).data
        assert data[argument]._target_ == f"lance_lightning.{kind.__name__}"
    with initialize(version_base="1.3", config_path=None):
        options = GlobalHydra.instance().config_loader().get_group_options
        assert options(f"data/{argument}") == sorted(NAMES[argument])


@pytest.mark.parametrize("name", NAMES["sampler"])
def test_a_sampler_is_named_as_hydra_names_it(folder, name):
    sampler = NAMES["sampler"][name]()
    data = LanceDataModule(str(folder / "t.lance"), sampler=name)
    assert data.sampler == sampler
    assert data.hparams == LanceDataModule(folder / "t.lance", sampler=sampler).hparams
    assert instantiate(config(folder), sampler=name).sampler == sampler
    node = config(folder, f"data.sampler={name}")
    assert instantiate(node).sampler == sampler


@pytest.mark.parametrize(
    "shares", [{"train": 0.75, "val": 0.25}, {"train": 1}, {"train": 0.5, "val": None}]
)
def test_shares_are_a_random_split(folder, shares):
    data = LanceDataModule(folder / "t.lance", splits=shares)
    assert data.splits == RandomSplit(shares)
    again = LanceDataModule(**data.hparams)
    assert again.splits == data.splits
    own = {**TARGET, "source": str(folder / "t.lance"), "splits": shares}
    assert instantiate(OmegaConf.create(own)).splits == data.splits


def test_splits_with_defaults_have_a_short_name(folder):
    uri = folder / "t.lance"
    assert LanceDataModule(uri, splits="all").splits == AllRows()
    with pytest.raises(ConfigError, match=r"got 'random'.*one of ratios, counts"):
        LanceDataModule(uri, splits="random")
    with pytest.raises(ConfigError, match=r"got 'hash'.*missing.*'columns'"):
        LanceDataModule(uri, splits="hash")
    with pytest.raises(ConfigError, match=r"short names 'all', .*, got 'al'"):
        LanceDataModule(uri, splits="al")
    with pytest.raises(ConfigError, match=r"'shuffle', got 'shufle'"):
        LanceDataModule(uri, sampler="shufle")
    with pytest.raises(ConfigError, match=r"ratios sum to 1\.5"):
        LanceDataModule(uri, splits={"train": 1, "val": 0.5})


def test_shares_among_the_keys_of_another_option_are_told_the_option(folder):
    node = config(folder)
    with pytest.raises(InstantiationException) as caught:
        instantiate(node, splits={"train": 0.75, "val": 0.25})
    (remedy,) = re.findall(r"'(data\.splits\.ratios=.*?)'", str(caught.value))
    data = instantiate(config(folder, "data/splits=random", remedy))
    assert data.splits == RandomSplit({"train": 0.75, "val": 0.25})
