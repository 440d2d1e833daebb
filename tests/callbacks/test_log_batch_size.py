"""``self.log`` weighs an epoch's mean with the rows of each batch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from lance_lightning import ArrowSource, LanceDataModule, SeparateSources, Sequential
from lance_lightning.callbacks.batch_size import LogBatchSize
from tests.helpers.trainers import quiet_trainer

MODES = ("max_size_cycle", "max_size", "min_size", "sequential")
# Ids 0..22 (batches of 10, 10, 3) and 23..29 (one of 7); the columns are named as the
# loaders are.
LENGTHS = {"id": 23, "other": 7}
FORMATS = {
    "torch": lambda batch: batch["id"],
    "torch_col": lambda batch: batch[0],
    "numpy": lambda batch: batch["id"],
    "arrow": lambda batch: np.array(batch["id"]),
}
COLLECTIONS = {
    "dict": lambda a, b: {"id": a, "other": b},
    "list": lambda a, b: [a, b],
    "nested": lambda a, b: {"id": [a], "other": {"id": b}},
    "tuple": lambda a, b: (a, {"other": b}),
}


def leaf(batch, collection):
    """Return the first batch in a collection of them that is one."""
    a, b = {
        "dict": lambda: (batch["id"], batch["other"]),
        "list": lambda: batch,
        "nested": lambda: (batch["id"][0], batch["other"]["id"]),
        "tuple": lambda: (batch[0], batch[1]["other"]),
    }[collection]()
    return b if a is None else a


def source(start, stop):
    ids = np.arange(start, stop)
    return ArrowSource(pa.table({"id": ids, "other": -ids}))


class Data(LanceDataModule):
    """Gives every stage both splits, in a collection."""

    def __init__(self, collection, mode=None, torchs=None, output_format="torch"):
        super().__init__(
            SeparateSources(id=source(0, 23), other=source(23, 30)),
            batch_size=10,
            sampler=Sequential(),
            output_format=output_format,
            stage_splits={stage: ["id", "other"] for stage in ("train", "val", "test")},
        )
        self.collection, self.mode, self.torchs = collection, mode, torchs

    def collected(self, loaders):
        if self.torchs is not None:
            loaders[self.torchs] = torch_loader(list(LENGTHS)[self.torchs])
        found = COLLECTIONS[self.collection](*loaders)
        return found if self.mode is None else CombinedLoader(found, self.mode)

    def train_dataloader(self):
        if self.mode == "sequential":  # fit has no such mode
            return super().train_dataloader()[0]
        return self.collected(super().train_dataloader())

    def val_dataloader(self):
        return self.collected(super().val_dataloader())

    def test_dataloader(self):
        return self.collected(super().test_dataloader())


def torch_loader(split):
    start = 0 if split == "id" else LENGTHS["id"]
    rows = [{"id": i, "other": -i} for i in range(start, start + LENGTHS[split])]
    return DataLoader(rows, batch_size=10)


class Logger(LightningModule):
    """Logs the mean id of each batch, and remembers what it should come to."""

    def __init__(self, ids, part):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.ids, self.part = ids, part
        self.rows: dict[str, list[int]] = {}

    def log_mean(self, name, batch, loader=None):
        ids = [int(i) for i in self.ids(self.part(batch))]
        key = name if loader is None else f"{name}/dataloader_idx_{loader}"
        self.rows.setdefault(key, []).extend(ids)
        self.log(name, float(np.mean(ids)), on_step=False, on_epoch=True)

    def training_step(self, batch, batch_idx):
        self.log_mean("train", batch)
        return self.weight * 1.0

    def validation_step(self, batch, batch_idx, dataloader_idx=None):
        self.log_mean("val", batch, dataloader_idx)

    def test_step(self, batch, batch_idx, dataloader_idx=None):
        self.log_mean("test", batch, dataloader_idx)

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=0.0)


def check(data, logger, tmp_path, callbacks=()):
    trainer = quiet_trainer(tmp_path, callbacks=list(callbacks))
    trainer.fit(logger, datamodule=data)
    found = {name: value.item() for name, value in trainer.callback_metrics.items()}
    for tested in trainer.test(logger, datamodule=data, verbose=False):
        found |= tested
    expected = {
        name: pytest.approx(np.mean(rows)) for name, rows in logger.rows.items()
    }
    assert len(expected) >= 3
    assert found == expected


class FromBoth(Logger):
    """Trains on both loaders at once, and evaluates on one after the other."""

    def __init__(self, ids, collection):
        super().__init__(ids, None)
        self.collection = collection

    def log_mean(self, name, batch, loader=None):
        both = (lambda b: leaf(b, self.collection)) if name == "train" else None
        self.part = both or (lambda b: b)
        super().log_mean(name, batch, loader)


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize("mode", [None, *MODES])
def test_loaders_in_any_collection_weigh_with_their_rows(tmp_path, collection, mode):
    data = Data(collection, mode)
    if mode is None:
        logger = FromBoth(FORMATS["torch"], collection)
    elif mode == "sequential":
        logger = Logger(FORMATS["torch"], lambda batch: batch)
    else:
        logger = Logger(FORMATS["torch"], lambda batch: leaf(batch, collection))
    check(data, logger, tmp_path)


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("mode", MODES)
def test_every_format_weighs_in_every_mode(tmp_path, output_format, mode):
    data = Data("list", mode, output_format=output_format)
    part = (lambda b: b) if mode == "sequential" else (lambda b: leaf(b, "list"))
    check(data, Logger(FORMATS[output_format], part), tmp_path)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`")
@pytest.mark.parametrize("torchs", [0, 1])
@pytest.mark.parametrize("mode", MODES)
def test_loaders_of_torchs_may_stand_beside_ours(tmp_path, torchs, mode):
    data = Data("dict", mode, torchs)
    part = (lambda b: b) if mode == "sequential" else (lambda b: leaf(b, "dict"))
    check(data, Logger(FORMATS["torch"], part), tmp_path)


class LogsToo(Callback):
    """Logs in the hooks that come before a step, as the model does in it."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        mean = float(np.mean(batch[0]["id"].numpy()))
        self.log("callback", mean, on_step=False, on_epoch=True)


def test_a_callback_of_the_users_logs_with_the_right_size(tmp_path):
    data = Data("list")
    trainer = quiet_trainer(tmp_path, callbacks=[LogsToo()], limit_val_batches=0)
    trainer.fit(Logger(FORMATS["torch"], lambda b: b[0]), datamodule=data)
    assert isinstance(trainer.callbacks[0], LogBatchSize)
    assert trainer.callback_metrics["callback"].item() == pytest.approx(11.0)


def test_no_callback_runs_a_hook_twice_because_it_asks_for_loaders(table, tmp_path):
    class Asks(Callback):
        called = 0

        def on_fit_start(self, trainer, pl_module):
            self.called += 1
            trainer.datamodule.train_dataloader()

    asks = Asks()
    trainer = quiet_trainer(tmp_path, callbacks=[asks], limit_val_batches=0)
    data = LanceDataModule(table, columns=["id"], stage_splits={"val": "train"})
    trainer.fit(Logger(FORMATS["torch"], lambda b: b), datamodule=data)
    assert asks.called == 1
    assert sum(isinstance(each, LogBatchSize) for each in trainer.callbacks) == 1
