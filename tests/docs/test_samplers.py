"""What docs/samplers.md shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate

from tests.helpers.tables import flat, write_table

PAGE = Path(__file__).parents[2] / "docs" / "samplers.md"
TEXT = PAGE.read_text("utf-8")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    write_table(tmp_path / "data" / "rows.lance", 120, rows_per_file=30)
    monkeypatch.chdir(tmp_path)


def ids(data) -> list[int]:
    return flat(batch["id"].tolist() for batch in data.train_dataloader())


def test_every_snippet_gives_batches():
    snippets = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(snippets) == 7
    names: dict = {}
    read = []
    for snippet in snippets:
        for part in re.split(r"^(?=data = )", snippet, flags=re.MULTILINE):
            exec(part, names)
            if part.startswith("data = "):
                read.append(ids(names["data"]))
    filtered = [i for i in range(120) if i % 3]
    assert [sorted(rows) for rows in read[:2]] == [filtered] * 2
    assert [len(rows) for rows in read[2:]] == [50, 80, 120, 500, 120, 100, 120, 120]
    assert read[-2][:2] == [90, 91]
    assert len(names["some"]) == 10
    assert int(names["last"]["id"]) == 119
    assert len(names["both"]) == 95
    assert "labels" in names
    assert len(names["batches"]) == len(names["loader"]) == 4
    assert sum(len(batch) for batch in names["batches"]) == 120
    assert len(names["chained"]) == 8
    assert sum(len(batch["id"]) for batch in names["samples"]) == 120
    names["rows"].load_state_dict(names["state"])
    assert len(list(names["rows"])) == 4


def test_the_sampler_of_the_config_is_made():
    (config,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    data = {"_target_": "lance_lightning.LanceDataModule", "_convert_": "all"}
    data |= {"source": "data/rows.lance", **yaml.safe_load(config)["data"]}
    assert len(ids(instantiate(data))) == 500
