"""What docs/resuming.md shows runs as it stands, and resumes exactly."""

from __future__ import annotations

import re
from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.utilities import CombinedLoader

from tests.helpers.resuming import Resumable, SaveFrom
from tests.helpers.tables import write_table
from tests.helpers.trainers import quiet_trainer

PAGE = Path(__file__).parents[2] / "docs" / "resuming.md"
SEVERAL, OF_THE_MODEL = re.findall(
    r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
)
HOOKS = ("on_train_batch_end", "on_after_backward", "on_train_epoch_end")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    write_table(folder / "text.lance", 23, rows_per_file=10)
    write_table(folder / "images.lance", 5)
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def shown(snippet: str) -> dict:
    names: dict = {}
    exec(snippet, names)
    return names


class Records(Resumable):
    """Keeps the ids of every part."""

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(
            {name: part and part["id"].tolist() for name, part in batch.items()}
        )
        return self.layer.weight.sum() * 0.0


def rows_of_several(folder, mode, ckpt=None, callbacks=(), **trainer):
    class Combined(shown(SEVERAL)["TextAndImages"]):
        def train_dataloader(self):
            loaders = super().train_dataloader()
            return CombinedLoader(loaders, mode) if mode else loaders

    model = Records()
    quiet_trainer(folder, callbacks=list(callbacks), max_epochs=3, **trainer).fit(
        model, datamodule=Combined(), ckpt_path=ckpt
    )
    return model.seen["train"]


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.parametrize(
    ("mode", "trainer"),
    [
        ("", {}),
        ("", {"limit_train_batches": 4}),
        ("min_size", {}),
        ("max_size", {}),
        ("max_size_cycle", {"overfit_batches": 2}),
    ],
)
def test_several_data_modules_in_one_resume_at_every_step(
    folder, tmp_path, mode, trainer
):
    unbroken = rows_of_several(folder, mode, **trainer)
    saver = SaveFrom(tmp_path, HOOKS)
    assert rows_of_several(folder, mode, None, [saver], **trainer) == unbroken
    steps = len(unbroken) // 3
    for saved in saver.saved:
        if saved.done < 2 * steps:
            rows = rows_of_several(folder, mode, saved.path, **trainer)
            assert rows == unbroken[saved.done :], str(saved)


def test_a_model_that_loads_its_own_data_resumes_at_every_step(folder, tmp_path):
    class Model(shown(OF_THE_MODEL)["Model"]):
        def __init__(self):
            super().__init__()
            self.seen = {"train": []}

        def training_step(self, batch, batch_idx):
            self.seen["train"].append(batch["id"].tolist())
            return super().training_step(batch, batch_idx)

    def rows(ckpt=None, callbacks=()):
        model = Model()
        trainer: L.Trainer = quiet_trainer(folder, callbacks=callbacks, max_epochs=3)
        trainer.fit(model, ckpt_path=ckpt)
        return model.seen["train"]

    unbroken = rows()
    saver = SaveFrom(tmp_path, HOOKS)
    assert rows(callbacks=[saver]) == unbroken
    for saved in saver.saved:
        if saved.done < 12:
            assert rows(saved.path) == unbroken[saved.done :], str(saved)
