"""What is installed: the wheel's files, its public names, and the pins of `make`."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lance_lightning

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).parents[1]
SOURCES = REPO / "src"
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    command += ["--outdir", str(out), str(REPO)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (path,) = out.glob("*.whl")
    return path


def test_wheel_holds_every_source_file_and_no_more(wheel):
    held = zipfile.ZipFile(wheel).namelist()
    expected = {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "lance_lightning/py.typed" in expected
    assert "hydra_plugins/lance_lightning/conf/data/lance.yaml" in expected
    assert {name for name in held if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)


def test_hydra_finds_the_group_from_the_wheel(wheel, tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--no-index", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (tmp_path / "train.yaml").write_text("defaults: [{data: lance}, _self_]\n")
    code = (
        "import json, sys\n"
        "sources, config_dir = sys.argv[1:]\n"
        "sys.path = [path for path in sys.path if path != sources]\n"
        "from hydra import compose, initialize_config_dir\n"
        "from hydra.utils import instantiate\n"
        "import hydra_plugins.lance_lightning, lance_lightning\n"
        "with initialize_config_dir(config_dir, version_base='1.3'):\n"
        "    cfg = compose('train', ['data/splits=sequential'])\n"
        "files = [hydra_plugins.lance_lightning.__file__, lance_lightning.__file__]\n"
        "print(json.dumps([files, repr(instantiate(cfg.data.sampler)),"
        " cfg.data.splits._target_]))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(SOURCES), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert out.returncode == 0, out.stderr
    files, sampler, splits = json.loads(out.stdout)
    assert all(file.startswith(str(site)) for file in files), files
    assert sampler == "BlockShuffle(block_size=None, buffer_size=None)"
    assert splits == "lance_lightning.SequentialSplit"


def test_public_names_are_sorted_and_exist():
    names = lance_lightning.__all__
    assert names == sorted(names)
    for name in names:
        assert getattr(lance_lightning, name).__module__.startswith("lance_lightning.")
    with pytest.raises(AttributeError, match="no attribute 'Lance'"):
        lance_lightning.Lance  # noqa: B018


def test_every_direct_dependency_is_pinned_within_its_range():
    pins = {}
    for line in (REPO / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            assert re.fullmatch(r"==[^*+]+", str(pin.specifier)), line
            pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    extras = PROJECT["optional-dependencies"].values()
    for text in [
        *PROJECT["dependencies"],
        *(need for needs in extras for need in needs),
    ]:
        need = Requirement(text)
        assert need.specifier.contains(pins[canonicalize_name(need.name)]), text
