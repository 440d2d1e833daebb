"""What torch's DataLoader takes does here what it does there."""

from __future__ import annotations

import multiprocessing
import time

import pytest
import torch

from lance_lightning import LanceDataModule
from lance_lightning.formats.batches import page_locked
from lance_lightning.loading.torch_options import check_dataloader_kwargs
from tests.helpers.own_batches import OwnBatch, WriteWorker, slow
from tests.helpers.tables import flat


def module(uri, num_workers=2, **options):
    kwargs = options.pop("kwargs", {})
    options = {"batch_size": 8, "columns": ["id"], **options}
    return LanceDataModule(
        uri, num_workers=num_workers, dataloader_kwargs=kwargs, **options
    )


def ids(loader) -> list[int]:
    return flat(batch["id"].tolist() for batch in loader)


def test_workers_take_all_of_torchs_options(table, tmp_path):
    generator = torch.Generator().manual_seed(3)
    kwargs = {
        "generator": generator,
        "in_order": True,
        "multiprocessing_context": "spawn",
        "persistent_workers": False,
        "pin_memory": True,
        "prefetch_factor": 1,
        "timeout": 100,
        "worker_init_fn": WriteWorker(tmp_path),
    }
    # Small windows, so that there is something for each worker.
    options = {"transform": dict, "batch_size": 4}
    loader = module(table, kwargs=kwargs, **options).train_dataloader()
    alone = module(table, 0, **options).train_dataloader()
    state = torch.get_rng_state()
    assert ids(loader) == ids(alone)
    assert torch.equal(torch.get_rng_state(), state)
    written = [path.name for path in sorted(tmp_path.glob("worker-*"))]
    assert written == ["worker-0", "worker-1"]
    loader.close()


@pytest.mark.parametrize(
    "kind", [str, pytest.param(multiprocessing.get_context, marks=pytest.mark.slow)]
)
def test_workers_of_a_forkserver_read_the_same_rows(table, kind):
    kwargs = {"multiprocessing_context": kind("forkserver")}
    options = {"transform": dict, "batch_size": 4}
    alone = module(table, 0, **options).train_dataloader()
    loader = module(table, 1, kwargs=kwargs, **options).train_dataloader()
    for _ in range(2):
        assert ids(loader) == ids(alone)
    loader.close()


def test_without_workers_options_of_workers_mean_nothing(table, tmp_path):
    kwargs = {
        "in_order": True,
        "persistent_workers": True,
        "prefetch_factor": 4,
        "timeout": 1,
        "worker_init_fn": WriteWorker(tmp_path),
    }
    loader = module(table, 0, kwargs=kwargs).train_dataloader()
    assert sorted(ids(loader)) == list(range(103))
    assert list(tmp_path.glob("worker-*")) == []


def test_a_worker_that_takes_too_long_raises(table):
    data = module(table, 1, kwargs={"timeout": 1}, transform=slow)
    loader = data.train_dataloader()
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match="timed out after 1"):
        next(iter(loader))
    loader.close()
    assert time.monotonic() - begin < 30


def test_an_older_torch_is_not_given_what_it_does_not_know():
    assert check_dataloader_kwargs({"in_order": True, "timeout": 3}) == {"timeout": 3}


def test_batches_of_the_users_own_type_pin_themselves():
    batch = page_locked(OwnBatch([1, 2]))
    assert batch.pinned
    assert batch.rows == [1, 2]
    assert page_locked({"text": ["a"], "raw": b"b"}) == {"text": ["a"], "raw": b"b"}


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="pins for a GPU")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_come_pinned(table, num_workers):
    kwargs = {"pin_memory": True}
    for batch in module(table, num_workers, kwargs=kwargs).train_dataloader():
        assert batch["id"].is_pinned()
    options = {"collate_fn": OwnBatch, "kwargs": kwargs}
    for batch in module(table, num_workers, **options).train_dataloader():
        assert batch.pinned
