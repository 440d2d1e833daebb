"""A split as a torch data set: samples by index, and torch's own tools over it."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    StackDataset,
    Subset,
    default_collate,
    random_split,
)

from lance_lightning import (
    ConfigError,
    LanceDataModule,
    LanceMapDataset,
    LanceSource,
    PermutationSplit,
    RandomSplit,
)
from lance_lightning.reading import threads
from lance_lightning.types import OUTPUT_FORMATS
from tests.helpers.tables import flat, make_table

ROWS = 103


def dataset(uri, **options):
    return LanceDataModule(uri, **options).dataset()


def ids(samples) -> list[int]:
    return [int(sample["id"]) for sample in samples]


def test_a_sample_is_a_dict_of_one_rows_values(table):
    found = dataset(table)
    assert isinstance(found, Dataset)
    assert isinstance(found, LanceMapDataset)
    assert len(found) == ROWS
    for index in (0, 29, 30, 102):
        sample = found[index]
        assert sample["id"].dtype == torch.int64
        assert sample["id"].item() == index
        assert sample["label"].item() == index % 3
        assert sample["vector"].tolist() == [index * 4 + i for i in range(4)]
        assert sample["vector"].dtype == torch.float32
        assert sample["name"] == f"row-{index}"


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_every_format_has_samples(table, output_format):
    found = dataset(table, output_format=output_format, columns=["id", "label"])
    rows = make_table(ROWS).select(["id", "label"]).to_pylist()
    for index in (0, 102):
        sample = found[index]
        assert {name: int(value) for name, value in sample.items()} == rows[index]


@pytest.mark.parametrize("output_format", ["torch", "numpy", "python"])
def test_torchs_collate_makes_a_batch_of_samples(table, output_format):
    found = dataset(table, output_format=output_format, columns=["id", "name"])
    batch = default_collate(found.__getitems__([5, 7]))
    assert torch.as_tensor(batch["id"]).tolist() == [5, 7]
    assert batch["name"] == ["row-5", "row-7"]


def test_negative_indices_count_from_the_end(table):
    found = dataset(table)
    assert ids([found[-1], found[-ROWS]]) == [102, 0]


@pytest.mark.parametrize("index", [103, -104, 10**6])
def test_an_index_out_of_range_raises(table, index):
    found = dataset(table)
    with pytest.raises(IndexError, match=f"index {index} is not in .* 103 rows"):
        found[index]
    with pytest.raises(IndexError, match=f"index {index}"):
        found.__getitems__([0, index])


@pytest.mark.parametrize(
    "part",
    [
        slice(5),
        slice(-3, None),
        slice(100, 200),
        slice(None, None, -20),
        slice(9, 3),
        slice(None),
    ],
)
def test_slices_are_lists_of_samples(table, part):
    assert ids(dataset(table, columns=["id"])[part]) == list(range(ROWS))[part]


@pytest.mark.parametrize("index", [np.int64(7), torch.tensor(7), np.uint8(7)])
def test_numpys_and_torchs_integers_are_indices(table, index):
    assert ids([dataset(table)[index]]) == [7]


@pytest.mark.parametrize("index", ["7", 7.0, None])
def test_what_is_no_integer_is_no_index(table, index):
    with pytest.raises(TypeError):
        dataset(table)[index]


def test_samples_come_in_the_order_of_the_indices_and_may_repeat(table):
    wanted = [90, 3, 3, -1, 30, 0, 3]
    found = dataset(table).__getitems__(wanted)
    assert ids(found) == [index % ROWS for index in wanted]
    assert dataset(table).__getitems__([]) == []


def test_iteration_ends(table):
    assert ids(dataset(table, columns=["id"])) == list(range(ROWS))


def test_a_data_set_holds_its_split_alone(table, tmp_path):
    splits = RandomSplit({"train": 0.7, "val": 0.3})
    data = LanceDataModule(LanceSource(table, filter="id > 9"), splits=splits)
    parts = [ids(data.dataset(name)[:]) for name in ("train", "val")]
    assert sorted(flat(parts)) == list(range(10, ROWS))
    for name, part in zip(("train", "val"), parts, strict=True):
        plan = data.plan(name)
        assert part == plan.offsets(np.arange(plan.num_rows)).tolist()
    with pytest.raises(ConfigError, match="split must be one of 'train', 'val'"):
        data.dataset("test")


def test_the_order_of_a_permutation_is_kept(table, tmp_path):
    rows = lance.dataset(table).take([9, 50, 4], columns=["_rowid"])
    order = {"row_id": rows["_rowid"], "split_id": pa.array([0, 0, 0], pa.uint64())}
    lance.write_dataset(pa.table(order), tmp_path / "p.lance")
    splits = PermutationSplit(str(tmp_path / "p.lance"), ["train"])
    assert ids(dataset(table, splits=splits)[:]) == [9, 50, 4]


def test_rows_written_later_change_nothing(own_table):
    data = LanceDataModule(own_table)
    found = data.dataset()
    lance.write_dataset(make_table(10, start=500), own_table, mode="append")
    lance.dataset(own_table).delete("id < 50")
    assert len(found) == len(data.dataset()) == ROWS
    assert ids(pickle.loads(pickle.dumps(found))[:3]) == [0, 1, 2]


def test_reads_share_their_threads_and_their_memory(table, monkeypatch):
    made = []

    class Counting(threads.ThreadPoolExecutor):
        def __init__(self, *args, **kwargs):
            made.append(self)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(threads, "ThreadPoolExecutor", Counting)
    found = dataset(table)
    assert ids([found[i] for i in range(50)]) == list(range(50))
    assert len(made) == 1
    copied = pickle.loads(pickle.dumps(found))
    assert ids([copied[3], copied[4], found[5]]) == [3, 4, 5]
    assert len(made) == 2


def test_samples_that_are_kept_are_never_written_over(table):
    found = dataset(table)
    kept = [found[i] for i in range(60)] + found[60:]
    assert ids(kept) == list(range(ROWS))
    assert [sample["vector"].tolist() for sample in kept] == [
        [i * 4.0 + place for place in range(4)] for i in range(ROWS)
    ]


def test_many_threads_may_read_at_once(table):
    found = dataset(table)
    with ThreadPoolExecutor(8) as pool:
        samples = list(pool.map(found.__getitem__, [*range(ROWS)] * 3))
    assert ids(samples) == list(range(ROWS)) * 3
    assert all(s["vector"][0].item() == 4 * s["id"].item() for s in samples)


def test_the_pickle_is_small(table):
    assert len(pickle.dumps(dataset(table))) < 4000


def test_functions_are_the_loaders_and_not_run(table):
    found = dataset(table, transform=int)
    assert ids([found[3]]) == [3]


# -- torch's tools ----------------------------------------------------------------


def test_data_sets_of_torch_go_over_ours(table):
    found = dataset(table, columns=["id"])
    assert ids(Subset(found, [7, 5])) == [7, 5]
    both = ConcatDataset([found, Subset(found, range(10))])
    assert len(both) == 113
    assert ids([both[102], both[103], both[-1]]) == [102, 0, 9]
    stacked = StackDataset(a=found, b=found)
    assert stacked[4] == {"a": {"id": torch.tensor(4)}, "b": {"id": torch.tensor(4)}}
    assert len(stacked.__getitems__([1, 2])) == 2
    parts = random_split(found, [60, 43], torch.Generator().manual_seed(0))
    assert sorted(flat(map(ids, parts))) == list(range(ROWS))


def test_torchs_loader_batches_samples(table):
    found = dataset(table)
    batches = list(DataLoader(found, batch_size=16))
    assert flat(batch["id"].tolist() for batch in batches) == list(range(ROWS))
    assert batches[-1]["vector"].shape == (7, 4)
    assert batches[0]["name"][3] == "row-3"
    samples = list(DataLoader(found, batch_size=None, collate_fn=dict))
    assert ids(samples) == list(range(ROWS))


def test_torchs_loader_reads_with_spawned_workers(table):
    found = Subset(dataset(table, columns=["id"]), range(0, ROWS, 2))
    options = {"num_workers": 2, "multiprocessing_context": "spawn"}
    loader = DataLoader(found, batch_size=8, shuffle=True, **options)
    seen = flat(batch["id"].tolist() for batch in loader)
    assert sorted(seen) == list(range(0, ROWS, 2))
    assert seen != sorted(seen)


# Lance and, from 3.12 on, Python warn of the fork itself.
@pytest.mark.filterwarnings("ignore:lance is not fork-safe:UserWarning")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_worker_says_what_to_do(table):
    options = {"num_workers": 1, "multiprocessing_context": "fork"}
    loader = DataLoader(dataset(table), **options)
    with pytest.raises(ConfigError, match="multiprocessing_context='spawn'") as caught:
        next(iter(loader))
    caught.value.with_traceback(None)
    del caught  # it holds the worker, which the garbage collector would wait for
