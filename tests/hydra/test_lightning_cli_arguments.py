"""Every argument under LightningCLI, by YAML and by command line."""

import inspect
import re

import lance
import pyarrow as pa
import pytest
import yaml
from jsonargparse import ActionConfigFile
from lightning.pytorch.cli import LightningArgumentParser

import lance_lightning
from lance_lightning import LanceDataModule, LanceSource, RandomSplit
from lance_lightning.frozen import values_of
from tests.helpers.functions import plus_one

# Lightning 2.6.6 calls what jsonargparse 4.53 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Plus:
    """Adds to the ids.

    Args:
        n: How much.
    """

    def __init__(self, n: int = 1) -> None:
        self.n = n

    def __call__(self, batch):
        return {**batch, "id": batch["id"] + self.n}

    def __eq__(self, other):
        return type(other) is Plus and other.n == self.n

    __hash__ = object.__hash__


HERE = __name__
YAML = "data: {source: TABLE, "


@pytest.fixture
def parse(table, tmp_path, monkeypatch, capsys):
    """Return a function that makes a module as LightningCLI does, or prints it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["app.py"])
    lance.write_dataset(lance.dataset(table).to_table(), tmp_path / "db" / "t.lance")

    def parsed(arguments, printed=False):
        arguments = [each.replace("TABLE", table) for each in arguments]
        for at, each in enumerate(arguments):
            if each.startswith(("data:", "# lightning")):
                (tmp_path / f"{at}.yaml").write_text(each)
                arguments[at] = f"--config={at}.yaml"

        parser = LightningArgumentParser()
        parser.add_argument("--config", action=ActionConfigFile)
        parser.add_lightning_class_args(LanceDataModule, "data")

        def made():
            found = parser.parse_args([*arguments, *["--print_config"] * printed])
            return parser.instantiate_classes(found).data

        if not printed:
            return made()
        with pytest.raises(SystemExit) as caught:
            made()
        text = capsys.readouterr()
        assert caught.value.code == 0, text.err
        return text.out

    return parsed


def named(cls, *arguments):
    """Return the arguments that choose a class and give its own."""
    group = "splits" if cls.endswith("Split") or cls == "AllRows" else "sampler"
    return [f"--data.{group}={cls}", *(f"--data.{group}.{each}" for each in arguments)]


SHARES = {"train": 0.75, "val": 0.25}
SOURCE = "--data.source=TABLE"
FUNCTIONS = {
    f"--data.transform={HERE}.plus_one": plus_one,
    f"--data.transform={HERE}.Plus": Plus(),
    f"--data.transform={HERE}.Plus --data.transform.n=5": Plus(5),
    f"--data.transform.class_path={HERE}.Plus --data.transform.init_args.n=5": Plus(5),
    f"--data.transform.train={HERE}.plus_one": {"train": plus_one},
    f"--data.transform.train={HERE}.plus_one --data.transform.val={HERE}.Plus": {
        "train": plus_one,
        "val": Plus(),
    },
}
YAML_FUNCTIONS = {
    f"transform: {HERE}.plus_one": plus_one,
    f"transform: {{class_path: {HERE}.Plus, init_args: {{n: 5}}}}": Plus(5),
    f"transform: {{train: {HERE}.plus_one}}": {"train": plus_one},
    f"transform: {{val: {{class_path: {HERE}.Plus, init_args: {{n: 5}}}}}}": {
        "val": Plus(5)
    },
}
STAGES = ("train", "val", "test", "predict")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        *[([SOURCE, *key.split()], value) for key, value in FUNCTIONS.items()],
        *[([f"{YAML}{key}}}"], value) for key, value in YAML_FUNCTIONS.items()],
    ],
)
def test_functions_are_named_by_their_path(parse, arguments, wanted):
    by_stage = wanted if isinstance(wanted, dict) else dict.fromkeys(STAGES, wanted)
    printed = parse(arguments, printed=True)
    for data in (parse(arguments), parse([printed])):
        for stage in STAGES:
            assert data._config.transforms[stage].transform == by_stage.get(stage)
    assert parse([printed], printed=True) == printed


def test_every_function_is_named_by_its_path(parse):
    names = ("arrow_transform", "sample_transform", "collate_fn")
    data = parse([SOURCE, *(f"--data.{name}={HERE}.plus_one" for name in names)])
    assert all(
        getattr(data._config.transforms["train"], name) is plus_one for name in names
    )


def test_a_wrong_stage_or_function_is_an_error_that_names_it(parse, capsys):
    for wrong in (f"--data.transform.tain={HERE}.plus_one", "--data.transform=no.such"):
        with pytest.raises(SystemExit):
            parse([SOURCE, wrong])
        name = wrong.rpartition("=")[2] if "such" in wrong else "tain"
        assert name in capsys.readouterr().err


VALUES = {
    "nulls": {
        "--data.nulls=mask": "mask",
        "--data.nulls.fill=0": {"fill": 0},
        "--data.nulls={id: mask}": {"id": "mask"},
        "--data.nulls={id: {fill: 0}}": {"id": {"fill": 0}},
    },
    "ragged": {
        "--data.ragged=list": "list",
        "--data.ragged.pad=0 --data.ragged.multiple=8": {"pad": 0, "multiple": 8},
        "--data.ragged.id=list": {"id": "list"},
    },
    "dtype": {
        "--data.dtype=float32": "float32",
        "--data.dtype={id: float32}": {"id": "float32"},
        "--data.dtype.id=float32": {"id": "float32"},
    },
    "decoders": {
        "--data.decoders=image": "image",
        f"--data.decoders={HERE}.plus_one": plus_one,
        "--data.decoders.id=image": {"id": "image"},
        f"--data.decoders.id={HERE}.plus_one": {"id": plus_one},
    },
}


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [(name, *pair) for name, values in VALUES.items() for pair in values.items()],
)
def test_what_the_format_is_told(parse, name, arguments, wanted):
    arguments = [SOURCE, *re.split(r" (?=--)", arguments)]
    printed = parse(arguments, printed=True)
    for data in (parse(arguments), parse([printed])):
        assert getattr(data._config.format, name) == wanted
    assert parse([printed], printed=True) == printed


@pytest.mark.parametrize(
    "arguments",
    [
        named("AllRows", "name=val"),
        named("RandomSplit", "ratios={train: 0.75, val: 0.25}", "seed=3"),
        named("SequentialSplit", "counts.train=4", "counts.val=2"),
        named("HashSplit", "split_weights={train: 9}", "columns=[id]"),
        named("CalculatedSplit", "calculation=0", "split_names=[train]"),
        named("CalculatedSplit", "calculation=id % 2", "split_names=[train, val]"),
        named("PermutationSplit", "table=order.lance", "split_names=[train]"),
        named("BlockShuffle", "block_size=4"),
        named("Shuffle"),
        named("Sequential"),
        named("ShardedFragments", "randomize=true"),
        named("ShardedBatches", "seed=3"),
    ],
    ids=" ".join,
)
def test_splits_and_samplers_are_named_by_their_class(parse, tmp_path, arguments):
    order = {"row_id": pa.array(range(103), "uint64"), "split_id": [0] * 103}
    lance.write_dataset(pa.table(order), tmp_path / "order.lance")
    group, name = arguments[0].removeprefix("--data.").split("=")
    printed = parse([SOURCE, *arguments], printed=True)
    data = parse([SOURCE, *arguments])
    assert type(getattr(data, group)) is getattr(lance_lightning, name)
    assert getattr(parse([printed]), group) == getattr(data, group)
    values = values_of(getattr(data, group))
    for each in arguments[1:]:
        key, value = each.removeprefix(f"--data.{group}.").split("=")
        if "." not in key and key != "columns" and key != "split_names":
            assert str(values[key]) == str(yaml.safe_load(value))


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--data.sampler=shuffle"], lance_lightning.Shuffle()),
        (["--data.splits={train: 0.75, val: 0.25}"], RandomSplit(SHARES)),
        (["--data.splits.train=0.75", "--data.splits.val=0.25"], RandomSplit(SHARES)),
        ([f"{YAML}splits: {SHARES}}}"], RandomSplit(SHARES)),
        ([f"{YAML}sampler: sharded_batches}}"], lance_lightning.ShardedBatches()),
    ],
)
def test_short_forms_work_on_the_command_line(parse, arguments, wanted):
    arguments = arguments if "TABLE" in arguments[0] else [SOURCE, *arguments]
    printed = parse(arguments, printed=True)
    for data in (parse(arguments), parse([printed])):
        assert wanted in (data.splits, data.sampler)


def test_sources_are_named_by_their_class(parse, table):
    def of(*arguments):
        printed = parse(list(arguments), printed=True)
        found, again = parse(list(arguments)), parse([printed])
        assert found._config.sources == again._config.sources
        return found._config.sources

    filtered = "--data.source.filter=id < 9"
    lance_ = ["--data.source", "LanceSource", "--data.source.uri", "TABLE"]
    assert of(*lance_, filtered) == {"": LanceSource(table, filter="id < 9")}
    database = ["--data.source=LanceDBSource", "--data.source.uri=db"]
    assert of(*database, "--data.source.table=t")[""].table == "t"
    each = ["--data.source=SeparateSources", "--data.source.train=TABLE"]
    assert of(*each, "--data.source.val=TABLE") == dict.fromkeys(
        ("train", "val"), LanceSource(table)
    )
    nested = "{class_path: LanceSource, init_args: {uri: TABLE, version: 1}}"
    yaml = "data: {source: {class_path: SeparateSources, init_args: {train: NESTED}}}"
    found = of(yaml.replace("NESTED", nested))
    assert found == {"train": LanceSource(table, version=1)}


@pytest.mark.parametrize("name", ["RandomSampler", "torch.utils.data.RandomSampler"])
def test_a_sampler_of_torch_is_made_for_the_split(parse, name):
    data = parse([SOURCE, f"--data.sampler={name}", "--data.sampler.num_samples=7"])
    ids = [row for batch in data.train_dataloader() for row in batch["id"].tolist()]
    assert len(set(ids)) == 7


def test_the_other_arguments_keep_their_types(parse):
    arguments = [
        SOURCE,
        "--data.columns={id: id, twice: label * 2}",
        "--data.stage_splits.predict=[train, train]",
        "--data.dataloader_kwargs.pin_memory=true",
        "--data.global_batch_size=12",
        "--data.cache_dir=cache",
        "--data.cache_bytes=1000000",
    ]
    printed = parse(arguments, printed=True)
    for data in (parse(arguments), parse([printed])):
        assert data.columns == {"id": "id", "twice": "label * 2"}
        assert data._config.stage_splits["predict"] == ["train", "train"]
        assert data._config.dataloader_kwargs["pin_memory"] is True
        assert data.batch_size == 12
        assert data.cache_bytes == 1_000_000


def test_a_key_of_another_class_is_an_error_that_names_both(parse, capsys):
    with pytest.raises(SystemExit):
        parse([SOURCE, "--data.splits=HashSplit", "--data.splits.ratios={train: 1}"])
    text = capsys.readouterr().err
    assert "HashSplit" in text
    assert "ratios" in text


def test_the_help_says_what_each_argument_takes(parse, capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in inspect.signature(LanceDataModule).parameters:
        assert f"--data.{name} " in text
    assert "Callable[[Any], Any]" in text
    for name in ("RandomSplit", "CalculatedSplit", "Shuffle", "ShardedBatches"):
        assert f"lance_lightning.{name}" in text
    for inner in ("_Pinned", "PermutationSource", "lance_lightning.samplers.builtin."):
        assert inner not in text
