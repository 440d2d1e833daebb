"""The sampler of docs/own_sampler.md resumes and is elastic, as it is written."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import lightning as L
import pytest

from lance_lightning import LanceDataModule, StateError, World
from tests.helpers.models import Recorder
from tests.helpers.tables import flat, write_table
from tests.helpers.trainers import quiet_trainer

PAGE = Path(__file__).parents[2] / "docs" / "own_sampler.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
ROWS = 103


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page's code, as a module that workers could import."""
    (tmp_path / "data").mkdir()
    write_table(tmp_path / "data" / "rows.lance", ROWS, rows_per_file=30)
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for snippet in SNIPPETS:
        exec(snippet, vars(module))
    return module


def batches(sampler, epoch=0, **options) -> list[list[int]]:
    data = LanceDataModule(
        "data/rows.lance", sampler=sampler, **{"batch_size": 8, **options}
    )
    loader = data.train_dataloader()
    loader.set_epoch(epoch)
    return [batch["id"].tolist() for batch in loader]


def expected(epoch: int, step: int = 3) -> list[int]:
    return [(row + epoch * step) % ROWS for row in range(ROWS)]


def test_the_page_trains_in_the_order_that_it_says(page):
    assert flat(batch["id"].tolist() for batch in page.data.train_dataloader()) == (
        expected(0)
    )
    assert flat(batches(page.Rotate(3), epoch=2)) == expected(2)


def test_every_number_of_ranks_trains_on_the_same_global_batches(page):
    alone = batches(page.Rotate(3), batch_size=8)
    ranks = [
        batches(page.Rotate(3), batch_size=4, world=World(rank, 2)) for rank in (0, 1)
    ]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert sorted(flat(parts)) == sorted(whole)


def test_a_run_resumes_at_the_batch_where_it_was(page, tmp_path):
    def fit(step: int, *callbacks, **options):
        data = LanceDataModule(
            "data/rows.lance",
            sampler=page.Rotate(step),
            batch_size=8,
            stage_splits={"val": "train"},
        )
        model = Recorder()
        trainer = quiet_trainer(
            tmp_path,
            callbacks=[*callbacks],
            max_epochs=2,
        )
        trainer.fit(model, data, **options)
        return model.seen["train"]

    saved = str(tmp_path / "saved.ckpt")

    class SaveFifth(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 5:
                trainer.save_checkpoint(saved)

    seen = fit(3, SaveFifth())
    assert flat(seen) == [*expected(0), *expected(1)]
    assert fit(3, ckpt_path=saved) == seen[5:]
    with pytest.raises(StateError, match=r"'step': 3.*'step': 4"):
        fit(4, ckpt_path=saved)
