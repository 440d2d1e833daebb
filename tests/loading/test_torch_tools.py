"""What torch's documents name, beside this package: each means what it means there."""

from __future__ import annotations

from functools import partial

import pyarrow as pa
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    TensorDataset,
    default_collate,
    default_convert,
)
from torch.utils.data._utils.collate import collate, default_collate_fn_map
from torch.utils.data.datapipes.iter import IterableWrapper
from torch.utils.data.datapipes.map import SequenceWrapper

from lance_lightning import ArrowSource, LanceDataModule
from tests.helpers.own_batches import with_worker
from tests.helpers.tables import flat

ROWS = list(range(103))


def batches(table, **options):
    defaults = {"columns": ["id", "name"], "batch_size": 10}
    data = LanceDataModule(table, **{**defaults, **options})
    return list(data.train_dataloader())


def joined(batch, *, collate_fn_map=None):
    return "|".join(batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_get_worker_info_is_torchs(table, workers):
    found = batches(table, transform=with_worker, num_workers=workers)
    expected = (0, 1) if workers else None
    assert {batch["worker"] for batch in found} == {expected}
    assert sorted(flat(batch["id"].tolist() for batch in found)) == ROWS


def test_default_convert_gives_a_list_of_rows(table):
    found = batches(table, collate_fn=default_convert, output_format="python")
    assert isinstance(found[0], list)
    assert sorted(row["id"] for batch in found for row in batch) == ROWS


def test_default_collate_is_the_default_of_python(table):
    found = batches(table, collate_fn=default_collate, output_format="python")
    plain = batches(table, output_format="python")
    for one, other in zip(found, plain, strict=True):
        assert one["id"].tolist() == other["id"].tolist()
        assert one["name"] == other["name"]


def test_a_collate_fn_map_of_the_users(table):
    function = partial(collate, collate_fn_map={**default_collate_fn_map, str: joined})
    for batch in batches(table, collate_fn=function):
        names = [f"row-{i}" for i in batch["id"].tolist()]
        assert batch["name"] == "|".join(names)


def test_a_tensor_dataset_is_a_table_in_memory(table):
    x, y = torch.arange(20), torch.arange(20) * 2
    theirs = list(DataLoader(TensorDataset(x, y), batch_size=8))
    source = ArrowSource(pa.table({"x": x.numpy(), "y": y.numpy()}))
    ours = batches(source, columns=["x", "y"], batch_size=8, sampler=range(20))
    for (a, b), batch in zip(theirs, ours, strict=True):
        assert torch.equal(a, batch["x"])
        assert torch.equal(b, batch["y"])


@pytest.mark.filterwarnings("ignore:.*datapipes.*deprecated")
def test_datapipes_take_both_kinds_of_data_set(table):
    data = LanceDataModule(table, columns=["id"], batch_size=10)
    rows = IterableWrapper(data.iterable_dataset("train"), deepcopy=False)
    assert sorted(flat(batch["id"].tolist() for batch in rows)) == ROWS
    samples = SequenceWrapper(data.dataset("train"), deepcopy=False)
    assert int(samples.map(lambda row: row["id"])[7]) == 7
