"""Prediction writers get the place of each row in its split."""

from __future__ import annotations

import pytest
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.overrides.distributed import _IndexBatchSamplerWrapper

from lance_lightning import LanceDataModule
from lance_lightning.callbacks.prediction import PredictedRows
from tests.helpers.fits import ALL, PARTS
from tests.helpers.models import Recorder
from tests.helpers.tables import flat
from tests.helpers.trainers import quiet_trainer

pytestmark = pytest.mark.usefixtures("shared_cache")


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
