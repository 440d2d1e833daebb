"""The sampler of docs/own_sampler.md resumes and is elastic, as it is written."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import lightning as L
import numpy as np
import pytest
from hydra.utils import instantiate

from lance_lightning import ConfigError, LanceDataModule, StateError, World
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


def test_hydra_makes_the_sampler_by_its_class(page):
    cfg = {
        "_target_": "lance_lightning.LanceDataModule",
        "source": "data/rows.lance",
        "sampler": {"_target_": "page.Rotate", "step": 3},
        "batch_size": 8,
    }
    loader = instantiate(cfg).train_dataloader()
    loader.set_epoch(2)
    assert flat(batch["id"].tolist() for batch in loader) == expected(2)


def test_batches_of_its_own_are_resumed_only_on_as_many_ranks(page):
    class Pairs(page.Rotated):
        batches_per_epoch = ROWS // 2

        def batches(self, numbers, epoch):
            rows = (2 * numbers[:, None] + np.arange(2)).reshape(-1)
            return self.indices(rows, epoch), np.full(len(numbers), 2)

    class InPairs(page.Rotate):
        def order_of(self, split):
            return Pairs(split.num_rows, split.seed, self.step)

    def loader(ranks: int):
        data = LanceDataModule(
            "data/rows.lance", sampler=InPairs(3), batch_size=2, world=World(0, ranks)
        )
        return data.train_dataloader()

    batches = [batch["id"].tolist() for batch in loader(2)]
    assert batches == [expected(0)[4 * t : 4 * t + 2] for t in range(ROWS // 4)]
    saved = {**loader(2).state_dict(), "batch": 3}
    restored = loader(2)
    restored.load_state_dict(saved)
    assert [batch["id"].tolist() for batch in restored] == batches[3:]
    with pytest.raises(StateError, match="world_size"):
        loader(3).load_state_dict(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": lambda self, positions, epoch: positions + 1}, "index 103 .*0 to"),
        ({"indices": lambda self, positions, epoch: positions - 1}, "index -1 .*0 to"),
        ({"share": "strides"}, "Wrong.share must be one of 'strided', 'contiguous'"),
        ({"rows_per_epoch": 1.5}, "Wrong.rows_per_epoch must be an integer, got 1.5"),
    ],
)
def test_an_order_that_cannot_work_is_an_error(page, change, message):
    kind = type("Wrong", (page.Rotated,), change)

    class Sampler:
        def order_of(self, split):
            order = object.__new__(kind)
            values = {"rows_per_epoch": ROWS, "seed": 0, "step": 1, **change}
            for name in ("rows_per_epoch", "seed", "step"):
                object.__setattr__(order, name, values[name])
            return order

    with pytest.raises(ConfigError, match=message):
        batches(Sampler())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_sampler_without_an_order_is_an_error(page, num_workers):
    class Sampler:
        def order_of(self, split):
            return None

    with pytest.raises(ConfigError, match="order_of returned None, which is no order"):
        batches(Sampler(), num_workers=num_workers)


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
