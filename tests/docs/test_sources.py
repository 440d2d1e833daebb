"""What docs/sources.md shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import lance
import lancedb
import pytest

from lance_lightning import LanceDataModule
from tests.helpers.lancedb_server import serving
from tests.helpers.tables import make_table

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"
KEY = "planted-key"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the tables that the page names."""
    rows = make_table(120)
    (tmp_path / "data").mkdir()
    lance.write_dataset(rows, str(tmp_path / "data" / "rows.lance"))
    database = lancedb.connect(tmp_path / "db")
    database.create_table("rows", rows)
    database.create_namespace(["team"])
    database.create_table("rows", rows, namespace_path=["team"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANCEDB_API_KEY", KEY)
    return tmp_path


def test_every_snippet_gives_batches(here):
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(snippets) == 12
    names: dict = {}
    with serving(here / "db", KEY) as server:
        where = f'host_override="{server.url}"'
        for snippet in snippets:
            code = snippet.replace('region="us-east-1"', where)
            code = code.replace('host_override="https://lancedb.example.com"', where)
            code = code.replace('api_key="..."', f'api_key="{KEY}"')
            read = []
            for part in re.split(r"^(?=data = )", code, flags=re.MULTILINE):
                exec(part, names)
                if part.startswith("data = "):
                    read.append(names["data"])
            assert read, snippet
            for data in read:
                assert isinstance(data, LanceDataModule)
                assert len(list(data.train_dataloader())) == len(
                    data.train_dataloader()
                )
