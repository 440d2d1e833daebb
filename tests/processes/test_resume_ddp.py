"""Runs on two gloo processes go on, on as many or on another number of them."""

from __future__ import annotations

import json

import pytest

from lance_lightning import RandomSplit, StateError
from tests.helpers.processes import fail_ranks, run_ranks
from tests.helpers.resuming import Runs, Saved, SaveFrom
from tests.helpers.tables import write_table

STEPS = 8  # of an epoch: 62 rows in global batches of 8
GLOBAL = {"global_batch_size": 8, "batch_size": None}
MIDDLE, END = ("on_train_batch_end", 11), ("on_train_epoch_end", 8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    """Runs of one process that are configured as those of the app."""
    folder = tmp_path_factory.mktemp("ddp")
    uri = write_table(folder / "t.lance", 103, rows_per_file=30)
    splits = RandomSplit({"train": 0.6, "val": 0.3, "test": 0.1})
    return Runs(folder, uri, {"splits": splits, **GLOBAL})


@pytest.fixture(scope="module")
def unbroken(runs):
    """The rows of each global batch, as one process reads them."""
    return [sorted(batch) for (batch,) in runs.rows(max_epochs=4)]


def on_two(runs: Runs, out, *options: str, module=GLOBAL, **trainer) -> list:
    """Fit on two processes and return what each wrote."""
    options += ("--module", json.dumps(module), "--trainer", json.dumps(trainer))
    ranks = run_ranks(runs.uri, out, "--stages", "fit", *options)
    assert len(ranks) == 2
    return ranks


def global_batches(ranks: list) -> list[list[int]]:
    """Return the rows of each step over all ranks."""
    both = zip(*(rank["seen"]["train"] for rank in ranks), strict=True)
    return [sorted(row for batch in batches for row in batch) for batches in both]


@pytest.fixture(scope="module")
def saved_by_two(runs, unbroken, tmp_path_factory):
    """Checkpoints of a run on two processes that stops in mid-epoch."""
    out = tmp_path_factory.mktemp("two")
    hooks, done = zip(MIDDLE, END, strict=True)
    save = json.dumps({"hooks": hooks, "done": done})
    ranks = on_two(runs, out, "--save", save, max_epochs=-1, max_steps=13)
    assert global_batches(ranks) == unbroken[:13]
    assert ranks[0]["state"] == ranks[1]["state"]
    assert ranks[0]["state"]["train"][0]["batch"] == 13 - STEPS
    return {
        (hook, n): Saved(hook, n, next(out.glob(f"*{hook}-{n}.ckpt")))
        for hook, n in (MIDDLE, END)
    }


@pytest.mark.parametrize("where", [MIDDLE, END], ids=["middle", "end"])
def test_two_processes_go_on_as_one(runs, unbroken, saved_by_two, where):
    saved = saved_by_two[where]
    rows = runs.rows(saved.path, max_epochs=4)
    assert [sorted(batch) for (batch,) in rows] == unbroken[saved.done :]


@pytest.mark.slow
def test_one_process_goes_on_as_two(runs, unbroken, tmp_path):
    saver = SaveFrom(tmp_path, (MIDDLE[0],), done={MIDDLE[1]})
    runs.fit(callbacks=[saver], max_epochs=2)
    ranks = on_two(runs, tmp_path, "--ckpt", str(saver.saved[0].path), max_epochs=3)
    assert global_batches(ranks) == unbroken[MIDDLE[1] : 3 * STEPS]


@pytest.mark.slow
@pytest.mark.parametrize("where", [MIDDLE, END], ids=["middle", "end"])
@pytest.mark.parametrize("workers", [0, 1])
def test_two_processes_go_on_as_two(
    runs, unbroken, saved_by_two, tmp_path, where, workers
):
    saved = saved_by_two[where]
    module = {**GLOBAL, "num_workers": workers}
    options = ("--ckpt", str(saved.path))
    ranks = on_two(runs, tmp_path, *options, module=module, max_epochs=3)
    assert global_batches(ranks) == unbroken[saved.done : 3 * STEPS]


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 24}]
)
def test_two_processes_go_on_from_any_hook(runs, unbroken, tmp_path, limits):
    save = json.dumps({"done": [0, 7, 8, 11]})
    ranks = on_two(runs, tmp_path, "--save", save, **limits)
    assert global_batches(ranks) == unbroken[:24]
    found = sorted(tmp_path.glob("*.ckpt"))
    assert len(found) > 30
    for path in found:
        _, hook, done = path.stem.split("-")
        rows = [sorted(batch) for (batch,) in runs.rows(path, max_epochs=4)]
        assert rows == unbroken[int(done) :][: len(rows)], path.stem
        assert len(rows) >= 32 - int(done) - STEPS * (hook == "on_train_epoch_start")


def test_the_middle_of_an_epoch_asks_for_the_same_global_batch(runs, saved_by_two):
    ckpt = saved_by_two[MIDDLE].path
    with pytest.raises(StateError) as caught:
        runs.fit(
            ckpt, module={"batch_size": 4, "global_batch_size": None}, max_epochs=3
        )
    message = str(caught.value)
    assert "batch 3 of 8 rows over all ranks" in message
    assert "a global batch has 4 rows" in message
    assert "set global_batch_size=8" in message


@pytest.mark.slow
def test_every_rank_stops_at_another_global_batch(runs, saved_by_two, tmp_path):
    options = ["--ckpt", str(saved_by_two[MIDDLE].path), "--stages", "fit"]
    options += ["--module", '{"batch_size": 8}', "--trainer", '{"max_epochs": 3}']
    message = fail_ranks(runs.uri, tmp_path, *options)
    assert "set global_batch_size=8" in message


@pytest.mark.parametrize(
    ("trainer", "steps"), [({}, 16), ({"limit_train_batches": 5}, 5)]
)
def test_the_end_of_an_epoch_goes_on_with_another_global_batch(
    runs, saved_by_two, trainer, steps
):
    module = {"batch_size": 4, "global_batch_size": None}
    unbroken = runs.rows(module=module, max_epochs=3, **trainer)
    assert len(unbroken) == 3 * steps
    ckpt = saved_by_two[END].path
    assert runs.rows(ckpt, module=module, max_epochs=3, **trainer) == unbroken[steps:]
