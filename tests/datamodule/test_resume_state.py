"""The state in a checkpoint, and a checkpoint without it."""

from __future__ import annotations

from dataclasses import replace

import lightning as L
import pyarrow as pa
import pytest
import torch

from lance_lightning import LanceDataModule
from lance_lightning.loading.clock import EpochClock
from lance_lightning.loading.loader import LanceDataLoader
from lance_lightning.loading.sizing import window_grid
from lance_lightning.loading.stream import Stream
from lance_lightning.ordering.shares import TrainShare
from lance_lightning.ordering.world import World
from lance_lightning.samplers.builtin import BlockShuffleOrder
from lance_lightning.tables.plan import range_plan
from tests.helpers.resume_cases import LIMITS, QUICK, TWO_LOADERS, dropped_by_lightning
from tests.helpers.resuming import BATCH, STEPS, Resumable, Runs, SaveFrom


class Renamed(LanceDataModule):
    """Lightning keys a data module's state by the name of its class."""


@pytest.mark.parametrize("limit", ["epochs", "steps"])
@pytest.mark.parametrize("module", [{}, TWO_LOADERS], ids=["one", "two"])
def test_without_our_state_the_trainers_count_is_the_position(
    runs, tmp_path, limit, module
):
    runs = Runs(runs.folder, runs.uri, module)
    unbroken = runs.rows(**LIMITS[limit])
    saver = SaveFrom(tmp_path, done={2, 6})
    runs.fit(callbacks=[saver], max_epochs=1)
    for saved in saver.saved:
        checkpoint = torch.load(saved.path, weights_only=True)
        checkpoint["Renamed"] = checkpoint.pop("LanceDataModule")
        torch.save(checkpoint, saved.path)
        with pytest.warns(UserWarning, match="holds no data state of LanceDataModule"):
            rows = runs.rows(saved.path, **LIMITS[limit])
        dropped = dropped_by_lightning(QUICK[limit], saved.hook, saved.done)
        assert len(rows) == len(unbroken) - saved.done - dropped
        assert rows == unbroken[saved.done :][: len(rows)], str(saved)


def test_another_loaders_state_is_left_alone(runs, tmp_path):
    class Rows(torch.utils.data.DataLoader):
        def state_dict(self):
            return {"rows": 3}

        def load_state_dict(self, state):
            raise AssertionError

    class Other(L.LightningDataModule):
        def train_dataloader(self):
            rows = [{"id": i, "vector": torch.zeros(4)} for i in range(24)]
            return Rows(rows, batch_size=BATCH)

    saver = SaveFrom(tmp_path, ("on_train_batch_end",), done={8})
    trainer = runs.trainer_of([saver], max_epochs=2)
    with pytest.warns(UserWarning, match="does not have many workers|validation_step"):
        trainer.fit(Resumable(), datamodule=Other())
    unbroken = runs.rows(max_epochs=3)
    with pytest.warns(UserWarning, match="holds no data state"):
        assert runs.rows(saver.saved[0].path, max_epochs=3) == unbroken[8:]


# -- the state -------------------------------------------------------------------------


def leaves(value):
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def test_the_state_is_small_and_plain(runs, tmp_path):
    saver = SaveFrom(tmp_path)
    runs.fit(callbacks=[saver], max_epochs=2)
    for saved in saver.saved:
        state = saved.state()  # loaded with weights_only=True
        kinds = {type(leaf) for leaf in leaves(state)}
        assert kinds <= {int, str, bool, type(None)}
        torch.save(state, tmp_path / "state.pt")
        assert (tmp_path / "state.pt").stat().st_size < 4096
        loader = torch.load(saved.path, weights_only=True)["loops"]["fit_loop"]
        assert {type(leaf) for leaf in leaves(loader)} <= {int, bool, str, type(None)}


def test_a_place_far_into_an_epoch_is_found_by_its_windows_alone(runs):
    counted: list[int] = []

    class Counting(BlockShuffleOrder):
        def indices(self, positions, epoch):
            counted.append(len(positions))
            return super().indices(positions, epoch)

    class Table:
        """A table of a billion rows in which each row holds its own offset."""

        is_local, uri, storage_options = True, "billion.lance", None

        def open(self):
            return self

        def describe(self):
            return "a table of a billion rows"

        def take(self, offsets, columns):
            return pa.table({"id": offsets})

    rows, batch, at = 1_000_000_000, 256, 1_000_000
    order = Counting(rows, 0, 64, 64 * batch * 8, batch)
    shard = TrainShare(rows, batch, World(), drop_last=False, strided=True)
    stream = Stream(range_plan("train", 0, rows), shard, order, seed=0)
    made = runs.data(columns=["id"]).train_dataloader().reader
    grid = window_grid(stream, 1 << 16)
    sizes = replace(made.sizes, row_bytes=1 << 16, grid=grid)
    reader = replace(made, snapshot=Table(), stream=stream, sizes=sizes)
    loader = LanceDataLoader(reader, clock=EpochClock())
    loader.load_state_dict({**loader.state_dict(), "epoch": 3, "batch": at})
    batches = iter(loader)
    first = next(batches)["id"].tolist()
    batches.close()
    assert first == stream.row_offsets(3, at, at + 1)[0].tolist()
    assert len(set(first)) == batch
    assert 0 < sum(counted) < 100 * batch  # its window, and those read ahead


def test_the_next_fit_of_a_module_that_was_resumed_is_whole(runs, tmp_path):
    saver = SaveFrom(tmp_path, ("on_train_batch_end",), {8})
    runs.fit(callbacks=[saver], max_epochs=2)
    (saved,) = saver.saved
    data = runs.data()
    trainer = runs.trainer_of(max_epochs=2)
    trainer.fit(runs.model(), datamodule=data, ckpt_path=saved.path)
    again = runs.model()
    runs.trainer_of(max_epochs=4).fit(again, datamodule=data)
    assert len(again.seen["train"]) == 4 * STEPS
