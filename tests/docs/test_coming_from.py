"""The programs in docs/, run as they stand."""

import io
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning import LanceDataModule
from lance_lightning.cli.command import main

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "coming_from.md").read_text("utf-8")
IDS = list(range(120))


def sections(page):
    """Return the Python code under each heading, in one piece."""
    found = {}
    for part in page.split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        code = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if code:
            found[title] = "\n".join(code)
    return found


SECTIONS = sections(PAGE)
COMMANDS = re.findall(r"^lance-lightning (.*)", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A folder with all that the programs name."""
    image = pytest.importorskip("PIL.Image")

    def png(i):
        out = io.BytesIO()
        image.new("RGB", (4, 4), (i, 0, 0)).save(out, "png")
        return out.getvalue()

    folder = tmp_path_factory.mktemp("tables")
    numbers = pa.table({"id": IDS, "label": [i % 3 for i in IDS]})
    prompts = numbers.append_column("prompt", pa.array([f"Prompt {i}" for i in IDS]))
    lance.write_dataset(numbers, folder / "numbers.lance")
    datasets = pytest.importorskip("datasets")
    # As Lance's documents make it: a Hugging Face dataset with images.
    prompts = datasets.Dataset(prompts).add_column(
        "image", [{"bytes": png(i), "path": None} for i in IDS]
    )
    prompts = prompts.cast_column("image", datasets.Image())
    lance.write_dataset(prompts, folder / "prompts.lance", max_rows_per_file=25)
    lancedb.connect(folder / "db").create_table("items", numbers)
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["cat", "dog", "bird"]),
    }
    rows = {"image": [{"bytes": png(i)} for i in IDS], "label": [i % 3 for i in IDS]}
    pets = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    pets.save_to_disk(folder / "my_dataset")
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "0.tar", "w") as tar:
        for i in IDS:
            for ending, content in {"cls": str(i).encode(), "jpg": png(i)}.items():
                member = tarfile.TarInfo(f"{i:03}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in COMMANDS:
            assert main(shlex.split(command)) == 0
    return folder


@pytest.fixture
def run(tables, monkeypatch):
    """Return a function that runs a section and returns its names."""
    monkeypatch.chdir(tables)

    def ran(title):
        names = {"__name__": "program"}
        exec(compile(SECTIONS[title], title, "exec"), names)
        return names

    return ran


def column(data, name, split="train"):
    """Return a column of all batches, in the order of the loader."""
    data.setup("predict" if split == "predict" else "fit")
    loader = getattr(data, f"{split}_dataloader")()
    return np.concatenate([np.asarray(batch[name]) for batch in loader])


def test_every_section_is_run():
    assert list(SECTIONS) == [
        "A LanceDB table in a DataLoader",
        "A LanceDB permutation",
        "Output formats",
        "Selecting columns",
        "A Hugging Face dataset",
        "LanceDataset",
        "SafeLanceDataset and get_safe_loader",
        "Lance's samplers",
        "LanceDB's StreamingDataset",
        "MosaicML Streaming",
        "Samplers and data sets of torch",
        "WebDataset",
        "LitData",
    ]


def test_a_lancedb_table(run, capsys):
    names = run("A LanceDB table in a DataLoader")
    assert capsys.readouterr().out.count("torch.Size([256])") == 3
    assert sorted(column(names["data"], "id")) == IDS


def test_a_lancedb_permutation(run):
    names = run("A LanceDB permutation")
    data = LanceDataModule(names["Permutation"].identity(names["table"]))
    assert sorted(column(data, "id")) == IDS
    assert sorted(column(LanceDataModule(names["table"]), "id")) == IDS
    assert [len(column(names["data"], "id", split)) for split in ("train", "val")] == [
        *(96, 12)
    ]


def test_formats(run, capsys):
    names = run("Output formats")
    assert "torch.Size([2, 64])" in capsys.readouterr().out
    np.testing.assert_array_equal(names["batch"][0] % 3, names["batch"][1])


def test_columns(run, capsys):
    data = run("Selecting columns")["data"]
    assert "prompt " in capsys.readouterr().out
    seen = {}
    for batch in data.train_dataloader():
        seen.update(zip(batch["id"].tolist(), batch["text"], strict=True))
    assert seen == {i: f"prompt {i}" for i in IDS}


def test_a_hugging_face_dataset(run):
    names = run("A Hugging Face dataset")
    assert names["names"] == ["cat", "dog", "bird"]
    seen = []
    for batch in names["data"].train_dataloader():
        ids = batch["image"][:, 0, 0, 0].tolist()  # red says which it is
        assert batch["label"].tolist() == [i % 3 for i in ids]
        seen += ids
    assert sorted(seen) == IDS


def test_lance_dataset(run):
    names = run("LanceDataset")
    assert column(names["data"], "id", "predict").tolist() == IDS
    assert names["targets"].shape == (120, 3, 4, 4)
    assert names["targets"][:, 0, 0, 0].tolist() == IDS
    assert names["inputs"] == [f"Prompt {i}" for i in IDS]


@pytest.mark.slow
def test_the_safe_loader(tables):
    script = tables / "safe.py"
    script.write_text(SECTIONS["SafeLanceDataset and get_safe_loader"])
    out = subprocess.run(
        [sys.executable, str(script)],
        cwd=tables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "120"


def test_lances_samplers(run):
    names = run("Lance's samplers")
    assert sorted(column(names["data"], "id")) == IDS
    assert len(column(names["job"], "id")) == len(IDS) // 8


def test_lancedbs_streaming_dataset(run):
    names = run("LanceDB's StreamingDataset")
    found = [names["first"], *names["rest"]]
    assert sorted(np.concatenate([batch["id"] for batch in found])) == IDS
    assert len(names["loader"]) == len(found) == 4


def test_mosaicml_streaming(run):
    data = run("MosaicML Streaming")["data"]
    data.setup("fit")
    for batch in data.train_dataloader():
        lengths = batch["tokens_lengths"]
        assert ((lengths == 3) == (batch["class"] == 0)).all()
    assert column(data, "class").sum() == 100


def test_torchs_samplers_and_data_sets(run, capsys):
    names = run("Samplers and data sets of torch")
    assert capsys.readouterr().out == "120 tensor(0) tensor(119)\n"
    assert [int(names["some"][i]["id"]) for i in range(10)] == IDS[:10]
    drawn = column(names["data"], "id")
    assert len(drawn) == 500
    assert set(drawn) <= set(IDS)


def test_webdataset(run):
    names = run("WebDataset")
    names["data"].setup("fit")
    labels = []
    for batch in names["data"].train_dataloader():
        assert batch["image"].shape[1:] == (3, 4, 4)
        assert batch["image"][:, 0, 0, 0].tolist() == batch["label"].tolist()
        labels += batch["label"].tolist()
    assert sorted(labels) == IDS


def test_litdata(run):
    data = run("LitData")["data"]
    found = column(data, "index")
    assert len(found) == 15 * 64
    assert len(set(found)) == len(found)


def test_the_import_page_lists_every_format_and_its_program_runs(tmp_path, monkeypatch):
    from lance_lightning.importing.detect import FORMATS

    page = (DOCS / "import.md").read_text("utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` ", page, re.MULTILINE)) == list(FORMATS)
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("flights.csv").write_text("id\n1\n2\n")
    names = {}
    exec(code, names)
    assert names["rows"] == lance.dataset("flights.lance").count_rows() == 2


@pytest.mark.parametrize("page", ["coming_from.md", "import.md"])
def test_links_lead_to_pages(page):
    links = re.findall(r"\]\(([^)#:]+)", (DOCS / page).read_text("utf-8"))
    assert [link for link in links if not (DOCS / link).is_file()] == []
