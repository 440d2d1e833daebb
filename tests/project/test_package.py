"""What is installed: the wheel's files, its public names, and the pins of `make`."""

import email
import json
import os
import re
import subprocess
import sys
import tarfile
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

REPO = Path(__file__).parents[2]
SOURCES = REPO / "src"
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]


LINK = re.compile(r"\]\(([^)\s]+)\)")


def built(kind, out):
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation"]
    command += ["--outdir", str(out), str(REPO)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(archive.read(name))


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


@pytest.mark.slow
def test_sdist_holds_the_docs_and_whatever_they_link_to(tmp_path):
    with tarfile.open(built("sdist", tmp_path)) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    docs = {path.relative_to(REPO) for path in REPO.glob("docs/**/*") if path.is_file()}
    docs |= {path.relative_to(REPO) for path in REPO.glob("*.md")}
    assert {path.as_posix() for path in docs} <= held
    for page in docs:
        for link in (
            LINK.findall((REPO / page).read_text()) if page.suffix == ".md" else ()
        ):
            if "://" not in link and not link.startswith("#"):
                path = os.path.normpath(page.parent / link.partition("#")[0])
                assert any(f"{name}/".startswith(f"{path}/") for name in held), link


def test_readme_links_are_absolute_and_lead_to_files_there_are(metadata):
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL"))
    assert list(urls) == ["Homepage", "Documentation", "Changelog", "Issues"]
    text = metadata.get_payload(decode=True).decode()
    assert text.strip() == (REPO / "README.md").read_text().strip()
    links = LINK.findall(text)
    links += [urls["Documentation"], urls["Changelog"]]
    inside = [link for link in links if link.startswith(urls["Homepage"])]
    assert all(link.startswith("https://") for link in links)
    assert len(inside) > 8
    for link in inside:
        kind, branch, path = link[len(urls["Homepage"]) + 1 :].split("/", 2)
        assert branch == "main"
        assert (REPO / path).is_dir() == (kind == "tree"), link
        assert (REPO / path).exists(), link


@pytest.mark.parametrize("command", [["-m", "lance_lightning"], None])
def test_the_version_is_one(metadata, command):
    program = Path(sys.executable).with_name("lance-lightning")
    start = [str(program)] if command is None else [sys.executable, *command]
    out = subprocess.run(
        [*start, "--version"], capture_output=True, text=True, timeout=60
    )
    assert out.stdout == f"lance-lightning {lance_lightning.__version__}\n"
    assert metadata["Version"] == lance_lightning.__version__


@pytest.mark.slow
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


def direct_dependencies():
    extras = PROJECT["optional-dependencies"].values()
    texts = [*PROJECT["dependencies"], *(need for needs in extras for need in needs)]
    return [Requirement(text) for text in texts]


def pins_of(constraints):
    pins = {}
    for line in (REPO / constraints).read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            assert re.fullmatch(r"==[^*+]+", str(pin.specifier)), line
            pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    return pins


def test_every_direct_dependency_is_pinned_within_its_range():
    pins = pins_of("constraints.txt")
    for need in direct_dependencies():
        assert need.specifier.contains(pins[canonicalize_name(need.name)]), need


def test_the_oldest_dependencies_are_the_lower_ends_of_the_ranges():
    pins = pins_of("constraints-oldest.txt")
    for need in direct_dependencies():
        (lower,) = (part for part in need.specifier if part.operator == ">=")
        assert pins[canonicalize_name(need.name)] == lower.version, need
