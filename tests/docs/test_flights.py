"""The example on flights: nulls, words and times of a real table, to tensors."""

import datetime as dt
import re

import lance
import numpy as np
import pyarrow.compute as pc
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from tests.helpers.processes import EXAMPLES, run_script
from tests.helpers.trainers import quiet_trainer

CONFIGS = EXAMPLES.parent / "configs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder that holds `data/flights.lance`."""
    folder = tmp_path_factory.mktemp("work")
    run_script(folder, EXAMPLES / "make_flights.py").check_returncode()
    return folder


@pytest.fixture
def parts(folder, monkeypatch):
    """Return a function from overrides to the config's data module and model."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def made(*overrides):
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = compose("flights", overrides=list(overrides))
        return instantiate(cfg.data), instantiate(cfg.model)

    return made


def table(folder, **options):
    return lance.dataset(folder / "data" / "flights.lance").to_table(**options)


def test_every_flight_is_written_once_with_its_own_values(folder):
    found = table(folder, columns=["id", "carrier", "flight", "tailnum", "time_hour"])
    assert found["id"].to_pylist() == list(range(336_776))
    assert found.slice(0, 1).to_pylist() == [
        {
            "id": 0,
            "carrier": "UA",
            "flight": 1545,
            "tailnum": "N14228",
            "time_hour": dt.datetime(2013, 1, 1, 10, tzinfo=dt.timezone.utc),
        }
    ]
    assert found["tailnum"].null_count == 2512
    again = run_script(folder, EXAMPLES / "make_flights.py")
    assert "is there: 336776 rows" in again.stdout, again.stderr


def test_splits_share_the_flights_that_arrived(parts, folder):
    data, _ = parts(
        "data.columns=[id]", "data.nulls=error", "data.arrow_transform=null"
    )
    data.setup("fit")
    loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    ids = np.concatenate([batch["id"] for each in loaders for batch in each])
    arrived = table(folder, columns=["id"], filter="arr_delay IS NOT NULL")["id"]
    assert len(arrived) == 327_346
    np.testing.assert_array_equal(np.sort(ids), arrived)


def test_a_few_steps_train_on_the_rows_of_the_table(parts, folder, tmp_path):
    data, model = parts("data.batch_size=256")
    seen = []
    step = model.training_step

    def recorded(batch, batch_idx):
        seen.append({name: value.clone() for name, value in batch.items()})
        return step(batch, batch_idx)

    model.training_step = recorded
    trainer = quiet_trainer(tmp_path, limit_train_batches=8, limit_val_batches=2)
    trainer.fit(model, datamodule=data)

    got = {name: np.concatenate([each[name] for each in seen]) for name in seen[0]}
    assert len(got["id"]) == len(set(got["id"])) == 8 * 256
    rows = table(folder).take(got["id"])
    for name in ("arr_delay", "dep_delay", "distance"):
        np.testing.assert_array_equal(got[name], rows[name])
    seconds = rows["time_hour"].cast("int64")
    np.testing.assert_array_equal(got["time_hour"], seconds)
    for name in ("carrier", "origin", "dest"):
        words = sorted(pc.unique(table(folder, columns=[name])[name]).to_pylist())
        numbers = [words.index(word) + 1 for word in rows[name].to_pylist()]
        np.testing.assert_array_equal(got[name], numbers)
    assert rows["plane_year"].null_count > 0
    np.testing.assert_array_equal(got["plane_year_mask"], rows["plane_year"].is_valid())
    for name, value in {"plane_year": 0, "pressure": 1018.0, "temp": 57.0}.items():
        np.testing.assert_array_equal(got[name], rows[name].fill_null(value))


@pytest.mark.slow
def test_the_example_beats_the_mean_after_few_steps(folder):
    quick = ("trainer.enable_progress_bar=false", "+trainer.limit_train_batches=60")
    quick += ("+trainer.limit_val_batches=1",)
    out = run_script(folder, EXAMPLES / "flights.py", *quick)
    assert out.returncode == 0, out.stderr
    (found,) = re.findall(r"test error: (\S+) .*mean delay: (\S+)", out.stdout)
    error, of_mean = map(float, found)
    assert error < 25 < 40 < of_mean
