"""The Hydra groups that the package ships, and the recipes made of them."""

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import lance
import lightning as L
import numpy as np
import pyarrow as pa
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

import hydra_plugins.lance_lightning
import lance_lightning

REPO = Path(__file__).parents[2]
RECIPES = REPO / "configs"
README = (REPO / "README.md").read_text()
CONF = Path(hydra_plugins.lance_lightning.__file__).parent / "conf"
YAMLS = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))
OPTIONS = [(path.parts[-2], path.stem) for path in map(Path, YAMLS)]

# A mapping that has no default in Python: without one here, `data/splits=hash` would
# need two values on the command line. Kept small, since Hydra merges mappings.
FILLED_IN = {("data/splits/hash.yaml", "split_weights"): {"train": 9, "val": 1}}


def composed(directory, name, *overrides):
    with initialize_config_dir(str(directory), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def recipe(*overrides):
    return composed(RECIPES, "train", *overrides)


def run(code, cwd, *arguments):
    script = cwd / "app.py"
    script.write_text(code)
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def user_app(tmp_path):
    """A user's own project: the README's config, and a script that says what it is."""
    conf = tmp_path / "conf"
    conf.mkdir()
    (yaml,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert yaml.startswith("# conf/train.yaml\n")
    (conf / "train.yaml").write_text(yaml)
    code = (
        "import hydra, omegaconf\n"
        "@hydra.main(version_base='1.3', config_path='conf', config_name='train')\n"
        "def main(cfg):\n"
        "    print(omegaconf.OmegaConf.to_yaml(cfg))\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    return lambda *arguments: run(code, tmp_path, *arguments)


def test_every_group_has_its_options():
    groups = {}
    for group, option in OPTIONS:
        groups.setdefault(group, []).append(option)
    assert groups == {
        "data": ["lance"],
        "sampler": [
            "block_shuffle",
            "sequential",
            "sharded_batches",
            "sharded_fragments",
            "shuffle",
        ],
        "source": ["lance", "lancedb", "separate"],
        "splits": [
            "all",
            "calculated",
            "hash",
            "permutation",
            "random",
            "sequential",
        ],
    }


@pytest.mark.parametrize("name", YAMLS)
def test_keys_and_defaults_are_those_of_the_target(name):
    config = OmegaConf.to_container(OmegaConf.load(CONF / name))
    target = get_class(config.pop("_target_"))
    assert getattr(lance_lightning, target.__name__) is target
    assert config.pop("_convert_") == "all"
    groups = [
        key for part in config.pop("defaults", []) if part != "_self_" for key in part
    ]

    parameters = inspect.signature(target).parameters
    named = {n: p for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    if len(named) == len(parameters):
        assert {*groups, *config} == set(named)
    for key, parameter in named.items():
        if key in groups:
            continue
        default = "???" if parameter.default is parameter.empty else parameter.default
        default = [] if default == () else default  # YAML has no tuples
        assert config[key] == FILLED_IN.get((name, key), default), key


def test_chosen_options_are_the_defaults_of_the_module():
    parameters = inspect.signature(lance_lightning.LanceDataModule).parameters
    data = recipe("~experiment").data
    assert instantiate(data.splits) == parameters["splits"].default
    assert instantiate(data.sampler) == parameters["sampler"].default


@pytest.mark.parametrize("name", YAMLS)
def test_every_key_is_explained(name):
    text = (CONF / name).read_text()
    assert text.startswith("# ")
    for line in text.splitlines():
        key = line.partition(":")[0]
        if line and not line.startswith(("#", " ", "_")) and key != "defaults":
            assert "  # " in line, line


@pytest.mark.parametrize("name", YAMLS)
def test_interpolations_are_relative(name):
    for part in (CONF / name).read_text().split("${")[1:]:
        assert part.startswith(".")


def test_plugin_imports_only_hydra():
    code = (
        "import sys, hydra_plugins.lance_lightning\n"
        "print([m for m in ('lance', 'lancedb', 'lance_lightning', 'lightning',"
        " 'pyarrow', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr


def test_hydra_plugins_stays_a_namespace_package():
    assert not (CONF.parents[1] / "__init__.py").exists()


def test_any_app_knows_the_group(user_app):
    out = user_app("data.source.uri=elsewhere.lance", "data/sampler=shuffle")
    assert out.returncode == 0, out.stderr
    data = OmegaConf.create(out.stdout).data
    assert data._target_ == "lance_lightning.LanceDataModule"
    assert data.source.uri == "elsewhere.lance"
    assert data.columns == ["image", "label"]
    assert data.sampler._target_ == "lance_lightning.Shuffle"


def test_an_unknown_option_lists_what_exists(user_app):
    out = user_app("data/sampler=blocks")
    assert out.returncode == 1
    for option in ("block_shuffle", "sequential", "shuffle"):
        assert f"\t{option}" in out.stderr


def test_a_missing_value_names_its_key(tmp_path):
    (tmp_path / "train.yaml").write_text("defaults: [{data: lance}, _self_]\n")
    data = composed(tmp_path, "train").data
    with pytest.raises(Exception, match=r"data\.source\.uri"):
        instantiate(data)


def test_the_apps_own_option_of_the_same_name_wins(tmp_path):
    (tmp_path / "data" / "sampler").mkdir(parents=True)
    (tmp_path / "train.yaml").write_text("defaults: [{data: lance}, _self_]\n")
    own = "_target_: lance_lightning.Sequential\n"
    (tmp_path / "data" / "sampler" / "block_shuffle.yaml").write_text(own)
    data = composed(tmp_path, "train").data
    assert data.sampler == {"_target_": "lance_lightning.Sequential"}


def test_group_can_be_mounted_elsewhere(tmp_path):
    (tmp_path / "train.yaml").write_text("defaults: [{data@fit.data: lance}, _self_]\n")
    cfg = composed(
        tmp_path,
        "train",
        "data/sampler@fit.data.sampler=shuffle",
        "data/source@fit.data.source=lancedb",
        "fit.data.source.table=digits",
    )
    assert list(cfg) == ["fit"]
    assert cfg.fit.data.sampler._target_ == "lance_lightning.Shuffle"
    assert cfg.fit.data.source.table == "digits"


def test_two_modules_can_be_mounted_side_by_side(tmp_path):
    (tmp_path / "train.yaml").write_text(
        "defaults: [{data@small: lance}, {data@large: lance}, _self_]\n"
    )
    cfg = composed(tmp_path, "train", "data/sampler@large.sampler=sequential")
    assert cfg.small.sampler._target_ == "lance_lightning.BlockShuffle"
    assert cfg.large.sampler._target_ == "lance_lightning.Sequential"


@pytest.mark.parametrize("split", ["random", "sequential"])
def test_ratios_are_the_users_alone(split):
    cfg = recipe(f"data/splits={split}", "data.splits.ratios={train: 0.9, val: 0.1}")
    assert instantiate(cfg.data.splits).ratios == {"train": 0.9, "val": 0.1}


def test_null_removes_a_split():
    cfg = recipe("data.splits.ratios={train: 0.9, test: null}")
    assert instantiate(cfg.data.splits).split_names == ("train", "val")


def test_sweeping_the_modules_seed_leaves_the_splits_alone():
    first, second = (instantiate(recipe(f"data.seed={n}").data) for n in (1, 2))
    assert first.hparams.seed != second.hparams.seed
    assert first.hparams.splits == second.hparams.splits


@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu", "fsdp", "gpu"])
def test_trainer_recipes_hold_arguments_of_the_trainer(trainer):
    config = recipe(f"trainer={trainer}").trainer
    assert get_class(config._target_) is L.Trainer
    arguments = {key for key in config if not key.startswith("_")}
    assert arguments <= set(inspect.signature(L.Trainer).parameters)


@pytest.mark.parametrize(
    "choice",
    [
        path.relative_to(RECIPES).with_suffix("").as_posix().replace("/", ".")
        for path in sorted((RECIPES / "experiment").glob("*.yaml"))
    ],
)
def test_experiments_make_a_module(choice):
    group, option = choice.split(".")
    data = instantiate(recipe(f"{group}={option}").data)
    assert data.hparams.columns == ["image", "label"]


def test_an_experiment_can_be_overridden_by_group():
    cfg = recipe("experiment=full_shuffle", "data/sampler=sequential")
    assert cfg.data.sampler._target_ == "lance_lightning.Sequential"
    assert cfg.data.output_format == "arrow"


DEBUG = {
    "default": {"max_epochs": 1, "detect_anomaly": True},
    "fdr": {"fast_dev_run": True},
    "limit": {"max_epochs": 3, "limit_train_batches": 4, "limit_val_batches": 2},
    "overfit": {"overfit_batches": 3},
    "profiler": {"max_epochs": 1, "profiler": "simple"},
}


def test_every_debug_option_is_tested():
    assert {path.stem for path in (RECIPES / "debug").glob("*.yaml")} == set(DEBUG)


@pytest.mark.parametrize(("option", "settings"), DEBUG.items())
def test_debug_options_make_a_trainer_of_one_process(option, settings):
    chosen = ("experiment=full_shuffle", "trainer=ddp_cpu", "trainer.callbacks=null")
    cfg = recipe(*chosen, "trainer.default_root_dir=null", f"debug={option}")
    assert settings.items() <= cfg.trainer.items()
    assert instantiate(cfg.data).num_workers == 0
    assert cfg.data.sampler._target_ == "lance_lightning.Shuffle"
    assert instantiate(cfg.trainer).world_size == 1


def test_debug_options_leave_room_for_what_is_typed():
    cfg = recipe("debug=limit", "trainer.max_epochs=2", "data.num_workers=1")
    assert (cfg.trainer.max_epochs, cfg.data.num_workers) == (2, 1)
    assert cfg.trainer.limit_train_batches == 4


def test_shown_overrides_compose():
    with initialize_config_dir(str(RECIPES), version_base="1.3"):
        template = compose("train", return_hydra_config=True).hydra.help.template
    shown = template.split("== Examples ==")[1].split("==")[0].splitlines()
    shown += re.findall(r"^python examples/train.py (.*)", README, re.MULTILINE)
    for line in shown:
        parts = [part for part in shlex.split(line) if not part.startswith("--")]
        recipe(*(part.replace("data.seed=1,2", "data.seed=1") for part in parts))
    assert len(shown) > 10


# -- every option, run -----------------------------------------------------------


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A folder with `all.lance`, its halves, a database and a permutation table."""
    folder = tmp_path_factory.mktemp("tables")
    ids = np.arange(240)
    table = pa.table({"id": ids, "label": ids % 10, "fold": ids % 3})
    lance.write_dataset(table, folder / "all.lance")
    lance.write_dataset(table.slice(0, 200), folder / "low.lance")
    lance.write_dataset(table.slice(200), folder / "high.lance")
    lance.write_dataset(table, folder / "db" / "rows.lance")
    order = pa.table(
        {
            "row_id": pa.array(ids[::-1], "uint64"),
            "split_id": pa.array(ids % 2, "uint64"),
        }
    )
    lance.write_dataset(order, folder / "order.lance")
    return folder


def module(tables, *overrides):
    common = ("~experiment", f"data.cache_dir={tables}/cache")
    if not any(override.startswith("data/source=") for override in overrides):
        common += (f"data.source.uri={tables}/all.lance",)
    return instantiate(recipe(*common, *overrides).data)


def ids_by_split(data):
    """Return each split's ids, as the stage of that name delivers them."""
    data.prepare_data()
    data.setup("fit")
    found = {}
    for split in data.split_names:
        loader = getattr(data, f"{split}_dataloader")()
        found[split] = np.concatenate([np.asarray(batch["id"]) for batch in loader])
    return found


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [
        ("data/splits=all", {"train": 240}),
        ("data/splits=all data.splits.name=predict", {"predict": 240}),
        (
            "data/splits=random data.splits.ratios={train:0.5,val:0.25,test:0.25}",
            {"train": 120, "val": 60, "test": 60},
        ),
        (
            "data/splits=sequential data.splits.fixed=[train,val]",
            {"train": 120, "val": 120},
        ),
        ("data/splits=hash data.splits.columns=[id]", None),
        (
            "data/splits=calculated data.splits.calculation=fold"
            " data.splits.split_names=[train,val,test]",
            {"train": 80, "val": 80, "test": 80},
        ),
        (
            "data/splits=permutation data.splits.table={tables}/order.lance"
            " data.splits.split_names=[train,val]",
            {"train": 120, "val": 120},
        ),
        (
            "data/source=lancedb data.source.uri={tables}/db data.source.table=rows",
            {"train": 240},
        ),
        (
            "data/source=separate data.source.train={tables}/low.lance"
            " data.source.val={tables}/high.lance",
            {"train": 200, "val": 40},
        ),
        ("data/sampler=shuffle", {"train": 240}),
        ("data/sampler=sequential", {"train": 240}),
        ("data/sampler=sharded_batches data.sampler.randomize=true", {"train": 240}),
        ("data/sampler=sharded_fragments", {"train": 240}),
        ("data.output_format=arrow data.batch_size=7", {"train": 240}),
        ("data.columns={id:id,twice:label*2}", {"train": 240}),
    ],
)
def test_every_row_comes_once_with_any_option(tables, overrides, sizes):
    overrides = overrides.replace("{tables}", str(tables)).split()
    found = ids_by_split(module(tables, *overrides))
    if sizes is not None:
        assert {name: len(ids) for name, ids in found.items()} == sizes
    every = np.sort(np.concatenate(list(found.values())))
    np.testing.assert_array_equal(every, np.arange(240))


def test_columns_of_one_tensor(tables):
    data = module(tables, "data.output_format=torch_col", "data.columns=[id,label]")
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.shape == (2, 32)
    np.testing.assert_array_equal(batch[0] % 10, batch[1])
