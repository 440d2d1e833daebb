"""What docs/types.md shows runs as it stands."""

from __future__ import annotations

import io
import re
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import torch
from PIL import Image

import lance_lightning

PAGE = Path(__file__).parents[2] / "docs" / "types.md"
TEXT = PAGE.read_text("utf-8")


def photo(i):
    out = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), i, np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_every_snippet_gives_batches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokens = pa.array([[1], [1, 2, 3, 4, 5], []], pa.list_(pa.int32()))
    texts = pa.table({"tokens": tokens, "label": pa.array([0, None, 1])})
    lance.write_dataset(texts, "data/texts.lance")
    photos = pa.table({"photo": [photo(i) for i in range(3)], "label": [0, 1, 0]})
    lance.write_dataset(photos, "data/photos.lance")
    snippets = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    batches = []
    for snippet in snippets:
        names = {"LanceDataModule": lance_lightning.LanceDataModule}
        exec(snippet, names)
        (batch,) = names["data"].train_dataloader()
        batches.append(batch)
    assert batches[0]["tokens"].shape == (3, 8)
    assert sorted(batches[0]["label"].tolist()) == [-1, 0, 1]
    assert batches[1]["photo"].shape == (3, 3, 4, 6)
    assert batches[1]["photo"].dtype == torch.uint8
