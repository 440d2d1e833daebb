"""Batches hold the table's rows, in every format, with and without workers."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch

from lance_lightning import (
    BlockShuffle,
    ConfigError,
    LanceDataModule,
    Sequential,
    Shuffle,
    TransformError,
)
from lance_lightning.loading.clock import EpochClock
from lance_lightning.loading.loader import LanceDataLoader
from lance_lightning.loading.window_grid import WindowGrid
from lance_lightning.reading.memory import BufferPool
from lance_lightning.types import OUTPUT_FORMATS
from tests.helpers.own_batches import (
    augment,
    double,
    fail_on_50,
    jitter,
    keep_even,
    with_a_lambda,
)
from tests.helpers.tables import flat, make_table, write_table

WORKERS = [0, 2]


def pickle_copy(value):
    return pickle.loads(pickle.dumps(value))


def rows_of(batch, output_format: str) -> list[dict]:
    """Return a batch of `make_table`'s columns as Python rows."""
    if output_format == "arrow":
        return batch.to_pylist()
    if output_format == "polars":
        return batch.to_dicts()
    if output_format == "pandas":
        return batch.to_dict("records")
    if output_format in ("torch_row", "torch_col"):
        rows = batch if output_format == "torch_row" else batch.T
        return [{"id": int(row[0]), "label": int(row[1])} for row in rows]
    if output_format == "python":
        # torch's default collate turns a list of lists on its side.
        batch = dict(batch)
        if "vector" in batch:
            batch["vector"] = torch.stack(batch["vector"], dim=1)
    columns = {
        name: value.tolist() if hasattr(value, "tolist") else list(value)
        for name, value in batch.items()
    }
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def plain(row: dict) -> dict:
    return {
        name: list(value) if isinstance(value, (list, tuple, np.ndarray)) else value
        for name, value in row.items()
    }


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize("num_workers", WORKERS)
@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_every_format_gives_the_tables_values(table, output_format, num_workers):
    check_format(table, output_format, num_workers)


@pytest.mark.parametrize("output_format", ["torch", "arrow", "pandas"])
def test_spawned_workers_give_the_tables_values(table, output_format):
    check_format(table, output_format, 1)


def check_format(table, output_format, num_workers):
    """Compare two epochs with what the table holds."""
    columns = ["id", "label", "vector", "name"]
    if output_format in ("torch_row", "torch_col"):
        columns = columns[:2]
    data = LanceDataModule(
        table,
        columns=columns,
        output_format=output_format,
        batch_size=16,
        num_workers=num_workers,
    )
    there = {
        row["id"]: {name: row[name] for name in columns}
        for row in make_table(103).to_pylist()
    }
    loader = data.train_dataloader()
    epochs = []
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader) == 7
        rows = [plain(row) for each in batches for row in rows_of(each, output_format)]
        assert len(rows) == 103
        assert {row["id"]: row for row in rows} == there
        epochs.append([row["id"] for row in rows])
    assert epochs[0] != epochs[1]
    data.teardown()


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize("sampler", [BlockShuffle(4, 32), Shuffle(), Sequential()])
def test_workers_change_nothing(table, sampler):
    orders = []
    for num_workers in WORKERS:
        data = LanceDataModule(
            table, sampler=sampler, batch_size=8, num_workers=num_workers
        )
        loader = data.train_dataloader()
        orders.append([flat(b["id"].tolist() for b in loader) for _ in range(2)])
        data.teardown()
    assert orders[0] == orders[1]


def test_an_early_break_leaves_the_next_epoch_whole(table):
    for num_workers in WORKERS:
        data = LanceDataModule(table, batch_size=4, num_workers=num_workers)
        loader = data.train_dataloader()
        for batch in loader:
            first = batch["id"].tolist()
            break
        second = flat(b["id"].tolist() for b in loader)
        assert len(first) == 4
        assert sorted(second) == list(range(103))
        data.teardown()


def test_batches_do_not_change_when_later_ones_are_read(table):
    data = LanceDataModule(table, batch_size=8)
    kept = list(data.train_dataloader())
    for batch in kept:
        expected = batch["id"][:, None] * 4 + torch.arange(4)
        assert torch.equal(batch["vector"], expected.float())


class Counted(BufferPool):
    """Counts the windows whose memory is held at once, by their first column."""

    held = most = 0

    def take(self, size, part=0):
        self.held += part == 0
        self.most = max(self.most, self.held)
        return super().take(size, part)

    def _give_back(self, memory, part):
        self.held -= part == 0
        super()._give_back(memory, part)


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_two_windows_are_held_at_once_not_three(tmp_path, looks_ahead):
    uri = write_table(tmp_path / "t.lance", 4096)
    data = LanceDataModule(uri, batch_size=8, columns=["id", "vector"])
    made = data.train_dataloader()
    sizes = dataclasses.replace(made.reader.sizes, grid=WindowGrid(32))
    reader = dataclasses.replace(made.reader, sizes=sizes)
    loader = LanceDataLoader(reader, clock=EpochClock())
    loader._pool = pool = Counted()
    ids, before = [], None
    for batch in loader:  # Lightning trains on the batch before
        ids += batch["id"].tolist()
        before = batch if looks_ahead else None
        # The reader is as far as it gets by itself.
        loader._threads.pool("windows").submit(int).result()
    del batch, before
    assert sorted(ids) == list(range(4096))
    assert pool.most == 2
    assert pool.held == 0


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize("copied", [pickle_copy, copy.deepcopy])
def test_a_loader_whose_workers_run_can_be_copied(table, copied):
    data = LanceDataModule(table, batch_size=10, num_workers=1, columns=["id"])
    loader = data.train_dataloader()
    batches = iter(loader)
    ids = next(batches)["id"].tolist()
    other = copied(loader)
    ids += flat(batch["id"].tolist() for batch in batches)  # its workers still serve it
    assert sorted(ids) == list(range(103))
    state = other.state_dict()
    assert (state["epoch"], state["batch"]) == (0, 1)  # as the loader was


def test_a_loader_is_sized_and_no_torch_loader(table):
    data = LanceDataModule(table, batch_size=10)
    loader = data.train_dataloader()
    assert not isinstance(loader, torch.utils.data.DataLoader)
    assert not hasattr(loader, "sampler")
    assert len(loader) == 11
    assert len(loader.dataset) == 103
    assert loader.batch_sampler.batch_size == 10


def test_drop_last_leaves_only_full_batches(table):
    data = LanceDataModule(table, batch_size=10, drop_last=True)
    sizes = [len(batch["id"]) for batch in data.train_dataloader()]
    assert sizes == [10] * 10


def test_evaluation_is_in_the_tables_order(table):
    data = LanceDataModule(table, batch_size=8, stage_splits={"val": "train"})
    ids = flat(batch["id"].tolist() for batch in data.val_dataloader())
    assert ids == list(range(103))


def test_a_loader_goes_on_where_its_state_stood(table):
    def loader():
        return LanceDataModule(table, batch_size=8).train_dataloader()

    whole = loader()
    epochs = [[b["id"].tolist() for b in whole] for _ in range(3)]
    for stop in range(14):
        broken = loader()
        for _ in range(stop // 13):
            list(broken)
        iterator = iter(broken)
        for _ in range(stop % 13):
            next(iterator)
        state = pickle.loads(pickle.dumps(broken.state_dict()))
        resumed = loader()
        resumed.load_state_dict(state)
        epoch = stop // 13
        assert [b["id"].tolist() for b in resumed] == epochs[epoch][stop % 13 :]
        assert [b["id"].tolist() for b in resumed] == epochs[epoch + 1]


def test_set_epoch_gives_that_epochs_order(table):
    loader = LanceDataModule(table, batch_size=8).train_dataloader()
    epochs = [flat(b["id"].tolist() for b in loader) for _ in range(3)]
    loader.set_epoch(1)
    assert flat(b["id"].tolist() for b in loader) == epochs[1]


def test_what_a_worker_gets_is_small_for_five_million_rows(tmp_path):
    ids = pa.table({"id": np.arange(5_000_000, dtype=np.int64)})
    lance.write_dataset(ids, str(tmp_path / "t.lance"))
    data = LanceDataModule(str(tmp_path / "t.lance"), batch_size=256, num_workers=0)
    assert len(pickle.dumps(data.train_dataloader().reader)) < 16_000


def test_a_worker_imports_neither_lightning_nor_hydra_nor_lancedb(tmp_path):
    uri = write_table(tmp_path / "t.lance", 103)
    (tmp_path / "functions.py").write_text(
        "import sys\n\n\ndef loaded(batch):\n"
        "    names = ('lightning', 'pytorch_lightning', 'hydra', 'lancedb', 'torch',"
        " 'lance')\n"
        "    return [name for name in names if name in sys.modules]\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n\n\ndef main():\n"
        "    from functions import loaded\n"
        "    from lance_lightning import LanceDataModule\n"
        "    data = LanceDataModule(sys.argv[1], num_workers=1, transform=loaded)\n"
        "    print(next(iter(data.train_dataloader())))\n"
        "    assert 'lightning' in sys.modules\n\n\n"
        "if __name__ == '__main__':\n    main()\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), uri], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['torch', 'lance']"


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize("num_workers", WORKERS)
def test_the_users_functions_run_on_every_batch(table, num_workers):
    def loader(**functions):
        data = LanceDataModule(
            table, batch_size=16, num_workers=num_workers, **functions
        )
        return data.train_dataloader()

    doubled = list(loader(transform=double))
    assert all(torch.equal(b["vector"][:, 0], b["id"] * 8.0) for b in doubled)
    even = flat(b["id"].tolist() for b in loader(arrow_transform=keep_even))
    assert sorted(even) == list(range(0, 103, 2))
    rows = list(loader(collate_fn=list))
    assert sorted(int(row["id"]) for batch in rows for row in batch) == list(range(103))


@pytest.mark.usefixtures("worker_kind")
def test_augmentation_is_the_same_for_any_worker_count(table):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    seen = []
    for num_workers, batch_size in ((0, 16), (2, 16), (0, 5)):
        data = LanceDataModule(
            table,
            sampler=Sequential(),
            batch_size=batch_size,
            num_workers=num_workers,
            sample_transform=augment,
        )
        loader = data.train_dataloader()
        noise = [torch.cat([b["noise"] for b in loader]) for _ in range(2)]
        assert not torch.equal(noise[0], noise[1])
        assert len(torch.unique(noise[0])) == 3 * 103
        seen.append(torch.stack(noise))
        data.teardown()
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize(
    "function", [{"sample_transform": augment}, {"transform": jitter}]
)
def test_augmentation_is_the_same_after_a_resume(table, function):
    def loader():
        return LanceDataModule(table, batch_size=16, **function).train_dataloader()

    whole = loader()
    expected = [[batch["noise"] for batch in whole] for _ in range(2)]
    for stop in range(7):
        resumed = loader()
        resumed.load_state_dict({**resumed.state_dict(), "epoch": 1, "batch": stop})
        found = [batch["noise"] for batch in resumed]
        assert len(found) == 7 - stop
        pairs = zip(found, expected[1][stop:], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(expected[0][0], expected[1][0])


def test_reading_leaves_the_global_generators_alone(table):
    import random

    for num_workers in WORKERS:
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
        data = LanceDataModule(table, num_workers=num_workers, transform=double)
        list(data.train_dataloader())
        data.teardown()
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == random.getstate()
        assert (before[2] == np.random.get_state()[1]).all()


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize("num_workers", WORKERS)
def test_a_failing_function_names_stage_batch_and_rows(table, num_workers):
    data = LanceDataModule(
        table,
        sampler=Sequential(),
        batch_size=16,
        num_workers=num_workers,
        transform=fail_on_50,
    )
    with pytest.raises(TransformError) as caught:
        list(data.train_dataloader())
    said = str(caught.value)
    assert "no such class" in said
    assert "stage 'train', epoch 0, batch 3" in said
    assert f"row ids [{(1 << 32) + 18}, " in said  # row 48 is row 18 of file 1
    data.teardown()


def test_functions_that_workers_cannot_get_are_refused(table):
    with pytest.raises(ConfigError, match=r"transform is .*lambda.* cannot be pickled"):
        LanceDataModule(table, num_workers=1, transform=lambda batch: batch)
    LanceDataModule(table, num_workers=0, transform=lambda batch: batch)


def test_a_function_of_a_notebook_is_refused(table, monkeypatch):
    namespace = {"__name__": "__main__"}
    exec("def mine(batch):\n    return batch", namespace)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(ConfigError, match="notebook"):
        LanceDataModule(table, num_workers=1, transform=namespace["mine"])


def test_too_little_shared_memory_is_said_before_workers_start(table, monkeypatch):
    import shutil

    small = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)
    data = LanceDataModule(table, num_workers=2)
    with pytest.raises(ConfigError, match="--shm-size"):
        data.train_dataloader()


def test_workers_end_with_their_loader_even_in_a_cycle(table):
    import gc
    import multiprocessing

    for wait in (True, False):
        data = LanceDataModule(table, batch_size=4, num_workers=2)
        loader = data.train_dataloader()
        loader.itself = loader  # only the garbage collector ends this
        iterator = iter(loader)
        if wait:
            next(iterator)
        else:
            loader._workers._answers = iter(loader._workers._start())  # still starting
        del data, loader, iterator
        gc.collect()
        # An older torch has told them to end and does not wait until they have.
        for worker in multiprocessing.active_children():
            worker.join(10)
        assert not multiprocessing.active_children()


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize("num_workers", WORKERS)
def test_lists_of_unequal_length_come_as_asked_for(tmp_path, num_workers):
    lists = [list(range(i % 5)) for i in range(40)]
    uri = str(tmp_path / "t.lance")
    lance.write_dataset(pa.table({"id": np.arange(40), "tokens": lists}), uri)
    options = {"batch_size": 8, "num_workers": num_workers}
    found = {}
    for batch in LanceDataModule(uri, **options).train_dataloader():
        for i, row, length in zip(*batch.values(), strict=True):
            found[int(i)] = row[: int(length)].tolist()
            assert not row[int(length) :].any()
    assert [found[i] for i in range(40)] == lists
    data = LanceDataModule(uri, ragged={"tokens": "values_offsets"}, **options)
    found = {}
    for batch in data.train_dataloader():
        bounds = batch["tokens_offsets"].tolist()
        for at, i in enumerate(batch["id"].tolist()):
            found[i] = batch["tokens"][bounds[at] : bounds[at + 1]].tolist()
    assert [found[i] for i in range(40)] == lists


def test_a_batch_that_cannot_be_sent_is_an_error_not_a_hang(table):
    data = LanceDataModule(table, num_workers=1, transform=with_a_lambda)
    with pytest.raises(TransformError, match="cannot be sent from a worker") as caught:
        next(iter(data.train_dataloader()))
    caught.value.with_traceback(None)
    del caught  # it holds the worker, which the garbage collector would wait for
    data.teardown()
