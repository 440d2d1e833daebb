"""LanceDataModule under LightningCLI: a YAML, and overrides on the command line."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
import yaml
from conftest import Recorder
from jsonargparse import ActionConfigFile
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from processes import EXAMPLES, run_script

import lance_lightning
from lance_lightning import ConfigError, LanceDataModule, LanceSource, RandomSplit
from lance_lightning.frozen import values_of

# Lightning 2.6.6 calls what jsonargparse 4.53 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


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


# -- every argument, by YAML and by command line -----------------------------------


def plus_one(batch):
    return {**batch, "id": batch["id"] + 1}


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
    for kind in (LightningDataModule, Saving):
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
    for kind in (LightningDataModule, own):
        found = kind.load_from_checkpoint("run.ckpt", weights_only=True)
        assert type(found) is own
        assert (found.sampler, found.seed) == (lance_lightning.Shuffle(), 3)
        assert (found.splits, found.batch_size) == (cli.datamodule.splits, 7)
        assert batches(found) == batches(
            LanceDataModule(
                table, splits=found.splits, sampler="shuffle", seed=3, batch_size=7
            )
        )
    other = LightningDataModule.load_from_checkpoint("run.ckpt", transform=plus_one)
    assert other._config.transforms["train"].transform is plus_one
    assert "_instantiator" not in cli.datamodule.hparams_initial["datamodule"]
