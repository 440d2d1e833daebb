"""What Lightning's users do with a data module, each with the real Trainer."""

from __future__ import annotations

import dataclasses
import warnings
from collections import namedtuple

import lance
import lightning as L
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from conftest import Recorder, flat, quiet_trainer
from lightning.pytorch.callbacks import BasePredictionWriter, BatchSizeFinder
from lightning.pytorch.overrides.distributed import _IndexBatchSamplerWrapper
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader

from lance_lightning import BlockShuffle, LanceDataModule, Sequential, SequentialSplit
from lance_lightning.callbacks.batch_size import LogBatchSize
from lance_lightning.callbacks.prediction import PredictedRows
from lance_lightning.types import OUTPUT_FORMATS

ROWS = 103
ALL = {"val": "train", "test": "train", "predict": "train"}  # needs no builder


pytestmark = pytest.mark.usefixtures("shared_cache")


def orders(data, epochs: int) -> list[list[list[int]]]:
    """Return the batches of epochs as a module without a trainer gives them."""
    loader = data.train_dataloader()
    return [[batch["id"].tolist() for batch in loader] for _ in range(epochs)]


def fit(data, tmp_path, **options) -> Recorder:
    model = Recorder()
    quiet_trainer(tmp_path, **options).fit(model, datamodule=data)
    return model


# -- how much of an epoch -----------------------------------------------------


@pytest.mark.parametrize("sampler", [BlockShuffle(), Sequential()])
@pytest.mark.parametrize("overfit", [3, 0.25])
def test_overfitting_trains_on_the_same_rows_in_every_epoch(
    table, tmp_path, sampler, overfit
):
    def data():
        return LanceDataModule(
            table, sampler=sampler, batch_size=8, stage_splits={"val": "train"}
        )

    model = fit(data(), tmp_path, overfit_batches=overfit, max_epochs=3)
    first = orders(data(), 1)[0][:3]
    assert model.seen["train"] == first * 3
    assert flat(model.seen["val"]) == list(range(24)) * 3


def test_a_fit_after_overfitting_is_shuffled_again(table, tmp_path):
    data = LanceDataModule(table, batch_size=8, stage_splits={"val": "train"})
    fit(data, tmp_path, overfit_batches=2, max_epochs=2)
    seen = fit(data, tmp_path, max_epochs=2).seen["train"]
    assert sorted(flat(seen[:13])) == sorted(flat(seen[13:])) == list(range(ROWS))
    assert seen[:13] != seen[13:]


@pytest.mark.parametrize(("limit", "steps"), [(3, 3), (0.5, 6), (1, 1), (100, 13)])
def test_a_limit_takes_the_first_batches_of_each_epoch(table, tmp_path, limit, steps):
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    names = ("train", "val", "test", "predict")
    options = {f"limit_{name}_batches": limit for name in names}
    trainer = quiet_trainer(tmp_path, max_epochs=2, **options)
    model = Recorder()
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    trainer.predict(model, datamodule=data)
    whole = orders(LanceDataModule(table, batch_size=8), 2)
    assert model.seen["train"] == whole[0][:steps] + whole[1][:steps]
    rows = min(ROWS, steps * 8)
    assert flat(model.seen["val"]) == list(range(rows)) * 2
    assert flat(model.seen["test"]) == list(range(rows))
    assert flat(model.seen["predict"]) == list(range(rows))


@pytest.mark.parametrize(("interval", "times"), [(0.25, 4), (5, 2), (1.0, 1)])
def test_validation_runs_whole_within_an_epoch(table, tmp_path, interval, times):
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    model = fit(data, tmp_path, val_check_interval=interval)
    assert flat(model.seen["val"]) == list(range(ROWS)) * times
    assert sorted(flat(model.seen["train"])) == list(range(ROWS))


def test_validation_can_count_steps_over_epochs(table, tmp_path):
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    model = fit(
        data,
        tmp_path,
        val_check_interval=10,
        check_val_every_n_epoch=None,
        max_epochs=2,
    )
    assert flat(model.seen["val"]) == list(range(ROWS)) * 2
    assert model.seen["train"] == flat(orders(LanceDataModule(table, batch_size=8), 2))


def test_a_fast_dev_run_takes_one_batch_of_each(table, tmp_path):
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    model = fit(data, tmp_path, fast_dev_run=True)
    assert model.seen["val"] == [list(range(8))]
    assert model.seen["train"] == orders(LanceDataModule(table, batch_size=8), 1)[0][:1]


def test_the_sanity_check_costs_no_row(table, tmp_path):
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    model = fit(data, tmp_path, num_sanity_val_steps=2)
    assert flat(model.seen["val"]) == [*range(16), *range(ROWS)]
    assert model.seen["train"] == orders(LanceDataModule(table, batch_size=8), 1)[0]


@pytest.mark.parametrize("every", [1, 2])
def test_reloaded_loaders_go_on_with_the_next_epoch(table, tmp_path, every):
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    model = fit(data, tmp_path, reload_dataloaders_every_n_epochs=every, max_epochs=4)
    assert model.seen["train"] == flat(orders(LanceDataModule(table, batch_size=8), 4))
    assert flat(model.seen["val"]) == list(range(ROWS)) * 4


def test_gradients_can_be_accumulated(table, tmp_path):
    data = LanceDataModule(table, batch_size=8)
    model = fit_only(data, tmp_path, accumulate_grad_batches=4, max_epochs=2)
    assert model.seen["train"] == flat(orders(LanceDataModule(table, batch_size=8), 2))


def fit_only(data, tmp_path, **options) -> Recorder:
    """Fit a model that does not validate."""

    class TrainOnly(Recorder):
        validation_step = L.LightningModule.validation_step

    model = TrainOnly()
    quiet_trainer(tmp_path, **options).fit(model, datamodule=data)
    return model


def test_a_model_may_fetch_its_batches_itself(table, tmp_path):
    class Fetches(Recorder):
        validation_step = L.LightningModule.validation_step

        def training_step(self, dataloader_iter):
            batch, _, _ = next(dataloader_iter)
            loss = self.step(batch, "train")
            self.log("loss", loss, on_epoch=True, batch_size=len(batch["id"]))
            return loss

    model = Fetches()
    data = LanceDataModule(table, batch_size=8)
    trainer = quiet_trainer(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*dataloader_iter.*")
        trainer.fit(model, datamodule=data)
    assert model.seen["train"] == orders(LanceDataModule(table, batch_size=8), 1)[0]


# -- the batch-size finder ----------------------------------------------------

SIZES = {
    "given": {"batch_size": 4},
    "defaulted": {},
    "global": {"global_batch_size": 4},
}


@pytest.mark.parametrize(
    ("sizes", "mode"),
    [
        (SIZES["given"], "power"),
        pytest.param(SIZES["defaulted"], "power", marks=pytest.mark.slow),
        (SIZES["global"], "binsearch"),
    ],
)
def test_the_tuner_sets_the_batch_size(table, tmp_path, sizes, mode):
    data = LanceDataModule(table, stage_splits={"val": "train"}, **sizes)
    trainer = quiet_trainer(tmp_path, max_epochs=2)
    model = Recorder()
    found = Tuner(trainer).scale_batch_size(
        model, datamodule=data, mode=mode, max_trials=4, steps_per_trial=2, margin=0.0
    )
    assert found == 16
    assert data.batch_size == 16
    assert data.hparams["batch_size"] == 16
    assert data.hparams.get("global_batch_size") is None
    model.seen["train"].clear()
    trainer.fit(model, datamodule=data)
    assert model.seen["train"] == flat(orders(LanceDataModule(table, batch_size=16), 2))


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(SIZES["given"], id="given", marks=pytest.mark.slow),
        pytest.param(SIZES["defaulted"], id="defaulted"),
        pytest.param(SIZES["global"], id="global", marks=pytest.mark.slow),
    ],
)
def test_the_batch_size_finder_sets_the_batch_size(table, tmp_path, sizes):
    finder = BatchSizeFinder(max_trials=3, steps_per_trial=2)
    data = LanceDataModule(table, stage_splits={"val": "train"}, **sizes)
    model = fit(data, tmp_path, callbacks=[finder], max_epochs=2)
    assert finder.optimal_batch_size == data.batch_size == 8
    expected = flat(orders(LanceDataModule(table, batch_size=8), 2))
    assert model.seen["train"][-len(expected) :] == expected


def test_the_tuner_stops_at_the_size_of_the_split(table, tmp_path):
    data = LanceDataModule(table, stage_splits={"val": "train"})
    tuner = Tuner(quiet_trainer(tmp_path))
    assert tuner.scale_batch_size(Recorder(), datamodule=data, init_val=32) == 128


@pytest.mark.parametrize(
    "method",
    [
        "validate",
        pytest.param("test", marks=pytest.mark.slow),
        pytest.param("predict", marks=pytest.mark.slow),
    ],
)
def test_the_tuner_scales_evaluation_too(table, tmp_path, method):
    data = LanceDataModule(table, stage_splits=ALL)
    found = Tuner(quiet_trainer(tmp_path)).scale_batch_size(
        Recorder(), datamodule=data, method=method, max_trials=3, steps_per_trial=1
    )
    assert found == data.batch_size == 8


class ArrowLogger(L.LightningModule):
    """Logs a mean over Arrow batches, whose size Lightning cannot tell."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        ids = torch.tensor(batch["id"].to_pylist(), dtype=torch.float64)
        self.log("mean", ids.mean(), on_step=False, on_epoch=True)
        return self.weight * 1.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_logging_works_while_the_tuner_has_taken_all_callbacks_away(table, tmp_path):
    data = LanceDataModule(table, output_format="arrow")
    trainer = quiet_trainer(tmp_path)
    model = ArrowLogger()
    found = Tuner(trainer).scale_batch_size(
        model, datamodule=data, max_trials=2, steps_per_trial=2
    )
    assert found == 4
    trainer.fit(model, datamodule=data)
    assert trainer.callback_metrics["mean"].item() == pytest.approx(51.0)


# -- prediction writers -------------------------------------------------------


class Writer(BasePredictionWriter):
    """Keeps what it is given."""

    def __init__(self, interval) -> None:
        super().__init__(interval)
        self.batches: dict[int, list] = {}
        self.epoch = None

    def write_on_batch_end(
        self, trainer, model, prediction, indices, batch, batch_idx, dataloader_idx
    ):
        rows = (list(indices), prediction.tolist())
        self.batches.setdefault(dataloader_idx, []).append(rows)

    def write_on_epoch_end(self, trainer, model, predictions, indices):
        self.epoch = (predictions, indices)


PARTS = SequentialSplit(counts={"train": 61, "val": 25, "predict": 17})
START = {"val": 61, "predict": 86}


@pytest.mark.parametrize("interval", ["batch", "epoch", "batch_and_epoch"])
def test_a_prediction_writer_gets_each_rows_place_in_the_split(
    table, tmp_path, interval
):
    data = LanceDataModule(table, splits=PARTS, batch_size=8)
    writer = Writer(interval)
    quiet_trainer(tmp_path, callbacks=[writer]).predict(Recorder(), datamodule=data)
    expected = [list(range(0, 8)), list(range(8, 16)), [16]]
    if interval != "epoch":
        assert [indices for indices, _ in writer.batches[0]] == expected
        for indices, ids in writer.batches[0]:
            assert ids == [START["predict"] + place for place in indices]
    if interval != "batch":
        predictions, indices = writer.epoch
        assert indices == [expected]
        ids = [START["predict"] + place for place in flat(expected)]
        assert flat(batch.tolist() for batch in predictions) == ids


@pytest.mark.parametrize("limit", [1.0, 2])
def test_a_writer_gets_the_places_of_several_loaders(table, tmp_path, limit):
    names = ["predict", "val"]
    data = LanceDataModule(
        table, splits=PARTS, batch_size=8, stage_splits={"predict": names}
    )
    writer = Writer("batch_and_epoch")
    trainer = quiet_trainer(tmp_path, callbacks=[writer], limit_predict_batches=limit)
    trainer.predict(Recorder(), datamodule=data)
    for at, (name, rows) in enumerate(zip(names, (17, 25), strict=True)):
        read = rows if limit == 1.0 else 16
        places = flat(indices for indices, _ in writer.batches[at])
        assert places == list(range(read))
        ids = flat(ids for _, ids in writer.batches[at])
        assert ids == [START[name] + place for place in places]
        assert flat(writer.epoch[1][at]) == places


def test_lightning_still_takes_the_indices_from_its_private_class(table):
    # `PredictedRows` leaves the base class's __init__ out: this is all of it.
    wrapped = _IndexBatchSamplerWrapper(type("Sampler", (list,), {"batch_size": 8})())
    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    rows = data.predict_dataloader().batch_sampler
    assert isinstance(rows, PredictedRows)
    assert isinstance(rows, _IndexBatchSamplerWrapper)
    missing = set(vars(wrapped)) - set(vars(rows))
    assert missing <= {"_batch_sampler", "_iterator", "_sampler", "sampler"}, missing
    indices = rows.seen_batch_indices
    assert len(indices) == 13
    assert indices[1] == list(range(8, 16))
    assert indices[-2:] == [list(range(88, 96)), list(range(96, 103))]


# -- the mean that self.log gives ---------------------------------------------


def ids_of(batch, output_format: str) -> torch.Tensor:
    if output_format == "torch_row":
        return batch[:, 0].double()
    if output_format == "torch_col":
        return batch[0].double()
    ids = batch["id"]
    if output_format == "arrow":
        ids = ids.to_pylist()
    return torch.tensor(list(ids), dtype=torch.float64)


class MeanLogger(L.LightningModule):
    """Logs the mean id of each batch; the mean over rows is 51."""

    def __init__(self, ids=ids_of, output_format="torch") -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.ids = ids
        self.format = output_format

    def log_mean(self, name, batch):
        mean = self.ids(batch, self.format).mean()
        self.log(name, mean, on_step=False, on_epoch=True)

    def training_step(self, batch, batch_idx):
        self.log_mean("train", batch)
        return self.weight * 1.0

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log_mean("val", batch)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.log_mean("test", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def means(model, data, tmp_path) -> dict[str, float]:
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model, datamodule=data)
    found = {name: value.item() for name, value in trainer.callback_metrics.items()}
    (tested,) = trainer.test(model, datamodule=data, verbose=False)
    return {**found, **tested}


EVERY_STAGE = dict.fromkeys(("train", "val", "test"), pytest.approx(51.0))


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_a_logged_mean_is_the_mean_over_rows(table, tmp_path, output_format):
    columns = ["id", "label", "vector", "name"]
    if output_format in ("torch_row", "torch_col"):
        columns = columns[:2]
    data = LanceDataModule(
        table,
        columns=columns,
        output_format=output_format,
        batch_size=40,  # 23 rows are left for the last batch
        sampler=Sequential(),
        stage_splits=ALL,
    )
    model = MeanLogger(output_format=output_format)
    assert means(model, data, tmp_path) == EVERY_STAGE


@dataclasses.dataclass
class Sample:
    x: torch.Tensor
    y: torch.Tensor


class Opaque:
    """A batch that does not tell its size."""

    def __init__(self, ids) -> None:
        self.ids = ids


def as_pair(batch):
    return batch["vector"], batch["id"]


def as_dataclass(batch):
    return Sample(batch["vector"], batch["id"])


def as_opaque(batch):
    return Opaque(batch["id"])


def same(batch):
    return batch


def doubled_columns(batch):
    return torch.cat([batch, batch])


def even(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.filter(pc.equal(pc.bit_wise_and(batch["id"], 1), 0))


TRANSFORMED = {
    "dict": ({"transform": same}, lambda b, _: b["id"].double()),
    "tuple": ({"transform": as_pair}, lambda b, _: b[1].double()),
    "dataclass": ({"transform": as_dataclass}, lambda b, _: b.y.double()),
    "opaque": ({"transform": as_opaque}, lambda b, _: b.ids.double()),
    "collate": (
        {"collate_fn": list},
        lambda b, _: torch.stack([row["id"] for row in b]).double(),
    ),
    "torch_col": (
        {
            "transform": doubled_columns,
            "output_format": "torch_col",
            "columns": ["id", "label"],
        },
        lambda b, _: b[0].double(),
    ),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_a_logged_mean_is_right_with_the_users_transform(table, tmp_path, name):
    functions, ids = TRANSFORMED[name]
    data = LanceDataModule(
        table, batch_size=40, sampler=Sequential(), stage_splits=ALL, **functions
    )
    assert means(MeanLogger(ids), data, tmp_path) == EVERY_STAGE


def test_a_transform_of_one_stage_leaves_the_others_mean_alone(table, tmp_path):
    data = LanceDataModule(
        table,
        batch_size=40,
        sampler=Sequential(),
        stage_splits=ALL,
        columns=["id", "label"],
        output_format="torch_col",
        transform={"train": same},
    )
    model = MeanLogger(output_format="torch_col")
    assert means(model, data, tmp_path) == EVERY_STAGE


def test_rows_that_a_transform_drops_do_not_weigh(table, tmp_path):
    data = LanceDataModule(
        table,
        batch_size=40,
        sampler=Sequential(),
        stage_splits=ALL,
        arrow_transform=even,
    )
    found = means(MeanLogger(), data, tmp_path)
    assert found == EVERY_STAGE  # the mean of 0, 2, ..., 102


def test_several_loaders_weigh_each_with_its_own_rows(table, tmp_path):
    data = LanceDataModule(
        table,
        splits=PARTS,
        batch_size=10,
        stage_splits={"val": ["val", "predict"], "train": ["predict", "train"]},
        sampler=Sequential(),
    )
    model = MeanLogger(lambda b, _: (b[0] if isinstance(b, list) else b)["id"].double())
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model, datamodule=data)
    found = {name: value.item() for name, value in trainer.callback_metrics.items()}
    # Of the 7 steps 4 have the first ten rows of "predict", 3 the other seven.
    weighed = (4 * 10 * 90.5 + 3 * 7 * 99.0) / (4 * 10 + 3 * 7)
    assert found["train"] == pytest.approx(weighed)
    assert found["val/dataloader_idx_0"] == pytest.approx(73.0)
    assert found["val/dataloader_idx_1"] == pytest.approx(94.0)


def test_a_size_that_the_model_gives_wins(table, tmp_path):
    class Own(MeanLogger):
        def log_mean(self, name, batch):
            mean = self.ids(batch, "torch").mean()
            self.log(name, mean, on_step=False, on_epoch=True, batch_size=1)

    data = LanceDataModule(table, batch_size=40, sampler=Sequential(), stage_splits=ALL)
    unweighted = np.mean([19.5, 59.5, 91.0])
    assert means(Own(), data, tmp_path) == dict.fromkeys(
        ("train", "val", "test"), pytest.approx(unweighted)
    )


def test_loaders_of_others_are_left_to_lightning(table, tmp_path):
    data = LanceDataModule(
        table, output_format="torch_col", columns=["id", "label"], stage_splits=ALL
    )
    trainer = quiet_trainer(tmp_path)
    trainer.fit(MeanLogger(output_format="torch_col"), datamodule=data)
    rows = [{"id": torch.tensor(i)} for i in range(10)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        loader = DataLoader(rows, batch_size=4)
        (found,) = trainer.test(MeanLogger(), dataloaders=loader, verbose=False)
    assert found["test"] == pytest.approx(4.5)
    assert sum(isinstance(each, LogBatchSize) for each in trainer.callbacks) == 1


# -- moving to the device -----------------------------------------------------

Pair = namedtuple("Pair", ["x", "text"])


class Movable:
    """Moves itself, as a tokenizer's BatchEncoding does."""

    def __init__(self, device="cpu") -> None:
        self.device = device

    def to(self, device, **options):
        return Movable(str(device))


def test_tensors_are_moved_out_of_any_nesting(table):
    data = LanceDataModule(table)
    there = torch.device("meta")
    x = torch.zeros(2)
    batch = {
        "list": [x, (x, {"deep": x})],
        "pair": Pair(x, "text"),
        "sample": Sample(x, x),
        "own": Movable(),
    }
    moved = data.transfer_batch_to_device(batch, there, 0)
    assert moved["list"][0].device == there
    assert moved["list"][1][0].device == there
    assert moved["list"][1][1]["deep"].device == there
    assert isinstance(moved["pair"], Pair)
    assert moved["pair"].x.device == there
    assert moved["pair"].text == "text"
    assert isinstance(moved["sample"], Sample)
    assert moved["sample"].x.device == moved["sample"].y.device == there
    assert moved["own"].device == "meta"
    assert x.device.type == "cpu"
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    assert data.transfer_batch_to_device(packed, there, 0).data.device == there


@pytest.mark.parametrize(
    "leaf",
    [
        b"bytes",
        "text",
        pa.record_batch({"id": [1]}),
        pa.table({"id": [1]}),
        pa.array([1]),
        pl.DataFrame({"id": [1]}),
        pd.DataFrame({"id": [1]}),
        np.arange(3),
        None,
        3,
    ],
    ids=lambda leaf: type(leaf).__name__,
)
def test_what_holds_no_tensor_is_handed_on_as_it_is(table, leaf):
    data = LanceDataModule(table)
    batch = {"leaf": leaf, "x": torch.zeros(2)}
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved["leaf"] is leaf
    assert data.transfer_batch_to_device(leaf, torch.device("meta"), 0) is leaf


class Counted(bytes):
    """Bytes that count who walks them."""

    walked = 0

    def __iter__(self):
        Counted.walked += 1
        return super().__iter__()

    def __getitem__(self, at):
        Counted.walked += 1
        return super().__getitem__(at)


def test_bytes_are_not_walked_on_the_way_to_the_device(table, tmp_path):
    # Lightning alone looks at each byte: 32 values of 50 KB take 1.7 seconds.
    values = [Counted(50_000) for _ in range(32)]
    batch = {"image": values, "x": torch.zeros(32)}
    Counted.walked = 0
    moved = LanceDataModule(table).transfer_batch_to_device(
        batch, torch.device("meta"), 0
    )
    assert Counted.walked == 0
    assert moved["image"] is values

    def add_images(found):
        return {**found, "image": [Counted(50_000) for _ in found["id"]]}

    fit_only(LanceDataModule(table, transform=add_images), tmp_path)
    assert Counted.walked == 0


def test_a_models_own_transfer_is_used(table, tmp_path):
    class Own(Recorder):
        moved = 0

        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            Own.moved += 1
            return super().transfer_batch_to_device(batch, device, dataloader_idx)

    data = LanceDataModule(table, batch_size=8, stage_splits=ALL)
    model, trainer = Own(), quiet_trainer(tmp_path)
    # That the model's is used is what Lightning tells, of any data module.
    with pytest.warns(UserWarning, match="implementation from `LightningModule`"):
        trainer.fit(model, datamodule=data)
    assert Own.moved == 26
    assert sorted(flat(model.seen["train"])) == list(range(ROWS))
    fit(data, tmp_path)  # and the next model's is not
    assert Own.moved == 26


def test_many_small_fragments_are_a_warning_with_the_remedy(tmp_path):
    for rows, told in ((100, True), (99, False)):  # a row each
        path = str(tmp_path / f"{rows}.lance")
        table = pa.table({"id": range(rows)})
        lance.write_dataset(table, path, max_rows_per_file=1)
        data = LanceDataModule(path, batch_size=10)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data.train_dataloader()
        said = [str(one.message) for one in caught if "fragments" in str(one.message)]
        assert len(said) == told
        if told:
            assert "100 fragments" in said[0]
            assert "compact_files()" in said[0]
