"""A batch crosses from a worker as it was, or raises: whichever batch it is."""

from __future__ import annotations

import gc
import pickle
import resource
from collections import namedtuple
from contextlib import contextmanager
from itertools import islice

import lance
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from lance_lightning import LanceDataModule, Sequential, TransformError, WorkerError
from lance_lightning.loading.held_blocks import MOST_HELD, Held
from lance_lightning.loading.sent_batches import OWN_BLOCKS, Message
from lance_lightning.loading.shared_pool import SharedPool
from tests.helpers.problem_batches import (
    BATCH,
    PROBLEMS,
    WINDOW,
    FailsToLoad,
    FailsToUnpickle,
    LocalError,
    Tagged,
    problem_batch,
    with_many_tensors,
    with_problems,
)

Pair = namedtuple("Pair", ["a", "b"])
LARGE = 2 << 20


def sent(*batches, pool=None, held=None) -> list:
    """Return batches after they were sent."""
    message = Message(pool or SharedPool())
    for batch in batches:
        message.add(batch)
    message = pickle.dumps(message.finish())
    return list(pickle.loads(message).unpack(held or Held()))


@contextmanager
def limited(kind: int, limit: int):
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@pytest.fixture(scope="module")
def ids(tmp_path_factory) -> str:
    rows = BATCH * WINDOW * (1 + len(PROBLEMS))
    uri = str(tmp_path_factory.mktemp("sent") / "t.lance")
    lance.write_dataset(pa.table({"id": np.arange(rows)}), uri)
    return uri


@pytest.fixture(scope="module")
def loader(ids):
    """A loader of one worker, which outlives what cannot be sent."""
    data = LanceDataModule(
        ids,
        sampler=Sequential(),
        transform=with_problems,
        batch_size=BATCH,
        num_workers=1,
    )
    with limited(resource.RLIMIT_FSIZE, 12 << 20):  # of shared memory, too
        loader = data.train_dataloader()
        next(iter(loader))
    yield loader
    loader.close()


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_batch_that_cannot_be_sent_is_an_error_whichever_it_is(loader, name):
    number = problem_batch(name)
    start = number - 2
    loader.load_state_dict({**loader.state_dict(), "epoch": 0, "batch": start})
    with pytest.raises(TransformError) as caught:
        list(islice(loader, WINDOW))
    said = str(caught.value)
    assert PROBLEMS[name][1] in said
    assert "cannot be sent from a worker" in said
    # The message as a whole is too large: its first batch is named.
    number = start if "--shm-size" in said else number
    assert f"stage 'train', epoch 0, batch {number}, rank 0" in said
    first = number * BATCH
    assert f"row ids {list(range(first, first + BATCH))}" in said


def test_a_worker_works_on_after_a_batch_that_it_could_not_send(loader):
    loader.load_state_dict({**loader.state_dict(), "epoch": 0, "batch": 3})
    batch = next(iter(loader))
    assert batch["id"].tolist() == list(range(3 * BATCH, 4 * BATCH))


@pytest.mark.parametrize("limit", [256, pytest.param(1024, marks=pytest.mark.slow)])
def test_hundreds_of_tensors_a_batch_cross_with_few_file_descriptors(ids, limit):
    data = LanceDataModule(
        ids,
        sampler=Sequential(),
        transform=with_many_tensors,
        batch_size=32,
        num_workers=1,
    )
    kept = []
    with limited(resource.RLIMIT_NOFILE, limit):
        for batch in data.train_dataloader():
            kept.append(batch)
            rows = batch["id"].tolist()
            assert [image.shape[1] - 100 for image in batch["images"]] == rows
            boxes = [boxes[7].boxes[8] for boxes in batch["targets"]]
            assert [len(box) for box in boxes] == rows
    assert sum(len(batch["id"]) for batch in kept) == 4 * 8 * 11
    for batch in kept:
        for row, image in zip(batch["id"].tolist(), batch["images"], strict=True):
            assert (image == row % 256).all()
        large = [int(value.sum(dtype=torch.int64)) >> 20 for value in batch["large"]]
        assert large == [row % 256 for row in batch["id"].tolist()[:3]]
    data.teardown()


def grid() -> torch.Tensor:
    return torch.arange(24.0).reshape(2, 3, 4)


BATCHES = {
    "plain": lambda: {"x": grid(), "n": 3, "text": ["a", "b"], "raw": b"raw"},
    "dtypes": lambda: [
        torch.ones(3).to(dtype)
        for dtype in (torch.bool, torch.bfloat16, torch.complex64, torch.uint16)
    ],
    "no values": lambda: [torch.empty(0), torch.empty(0, 3), torch.empty(2, 0, 4)],
    "no dimensions": lambda: (torch.tensor(3), torch.tensor(True)),
    "transposed": lambda: grid().transpose(0, 2),
    "a view with gaps": lambda: grid()[:, :, 1:3],
    "a view from the middle": lambda: grid()[1:],
    "expanded": lambda: torch.arange(3).expand(4, 3),
    "a lazy conjugate": lambda: torch.randn(3, dtype=torch.complex64).conj(),
    "large": lambda: torch.arange(LARGE, dtype=torch.uint8),
    "a parameter": lambda: torch.nn.Parameter(grid()),
    "a leaf that requires grad": lambda: grid().requires_grad_(),
    "a class of its own": lambda: grid().as_subclass(Tagged),
    "sparse": lambda: grid()[0].to_sparse(),
    "sparse rows": lambda: grid()[0].to_sparse_csr(),
    "named tuple": lambda: Pair(grid(), np.arange(3)),
    "numpy": lambda: [np.arange(6).reshape(2, 3).T, np.array(["a", None]), np.int8(3)],
    "numpy, a view": lambda: np.arange(10)[::3],
    "numpy, large": lambda: np.arange(LARGE // 8),
}


def same(one, other) -> bool:
    assert type(one) is type(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        return all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        assert one.requires_grad == other.requires_grad
        assert one.dtype == other.dtype
        assert one.layout == other.layout
        both = (one.detach(), other.detach())
        both = [x.to_dense() if x.layout is not torch.strided else x for x in both]
        return torch.equal(*both)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one == other


@pytest.mark.filterwarnings("ignore:Sparse")  # a beta, torch says
@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_crosses_as_it_was(name):
    batch = BATCHES[name]()
    for found in sent(batch, batch):
        assert same(batch, found)


def test_strides_stay_where_nothing_lies_between():
    batch = grid().transpose(0, 2)
    (found,) = sent(batch)
    assert found.stride() == batch.stride()
    found += 1  # and it can be written to


def test_what_has_no_values_crosses_too():
    (found,) = sent(torch.empty(3, device="meta"))
    assert found.device.type == "meta"
    assert found.shape == (3,)


def test_tables_cross_and_of_a_slice_only_its_rows():
    table = pa.table({"id": np.arange(100_000), "text": ["text"] * 100_000})
    rows = table.to_batches()[0]
    for whole in (table, rows):
        part = whole.slice(5, 10)
        message = Message(SharedPool())
        message.add(part)
        assert sum(map(len, message._batches[0])) < 5_000
        (found,) = sent(part)
        assert type(found) is type(part)
        assert found.equals(part)
        assert found.schema == part.schema
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    (found,) = sent(frame)
    pd.testing.assert_frame_equal(found, frame)
    (found,) = sent(pl.DataFrame({"a": [1, 2]}))
    assert found.equals(pl.DataFrame({"a": [1, 2]}))


class Celsius(pa.ExtensionType):
    """A type that Arrow's own format would not know."""

    def __init__(self) -> None:
        super().__init__(pa.float64(), "celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        return cls()


def test_columns_of_a_type_of_the_users_own_cross():
    array = pa.ExtensionArray.from_storage(Celsius(), pa.array([1.5, 2.5]))
    rows = pa.record_batch({"t": array})
    (found,) = sent(rows)
    assert found.schema.field("t").type == Celsius()
    assert found.equals(rows)


def in_use(pool: SharedPool) -> int:
    gc.collect()
    return sum(not block.is_free for block in blocks_of(pool))


def blocks_of(pool: SharedPool) -> list:
    return [block for blocks in pool._blocks.values() for block in blocks]


def images(size: int = LARGE) -> dict:
    return {
        "image": torch.zeros(size, dtype=torch.uint8),
        "label": torch.arange(40_000),
    }


def test_a_kept_label_keeps_no_image_and_no_shared_memory():
    pool = SharedPool()
    labels = [batch["label"] for batch in sent(*[images()] * 8, pool=pool)]
    assert in_use(pool) == 0
    assert all(label.untyped_storage().nbytes() == 320_000 for label in labels)


def test_a_large_value_is_not_copied_and_gives_its_memory_back():
    pool = SharedPool()
    (batch,) = sent(images(), pool=pool)
    blocks = [block for block in blocks_of(pool) if not block.is_free]
    assert len(blocks) == 1
    blocks[0].values[7] = 3
    part = batch["image"][5:9]
    del batch
    assert part.tolist() == [0, 0, 3, 0]
    assert in_use(pool) == 1
    del part
    assert in_use(pool) == 0
    sent(images(), pool=pool)
    assert len(blocks_of(pool)) == 2  # used again


def test_whoever_keeps_every_batch_fills_no_shared_memory():
    pool, held = SharedPool(64), Held()
    kept = [sent(images(), pool=pool, held=held) for _ in range(2 * MOST_HELD)]
    assert in_use(pool) == MOST_HELD
    del kept[: MOST_HELD // 2]
    assert in_use(pool) == MOST_HELD // 2
    kept.append(sent(images(), pool=pool, held=held))
    assert in_use(pool) == MOST_HELD // 2 + 1


def test_a_message_takes_few_file_descriptors():
    pool = SharedPool()
    batch = [torch.zeros(LARGE, dtype=torch.uint8) for _ in range(20)]
    found = sent(batch, pool=pool)[0]
    assert len(blocks_of(pool)) == 1 + OWN_BLOCKS
    assert same(found, batch)


def test_what_fails_gives_its_memory_back():
    pool = SharedPool()
    with limited(resource.RLIMIT_FSIZE, 4 << 20):
        message = Message(pool)
        message.add([torch.zeros(3 << 20, dtype=torch.uint8)] * 1)
        message.add(torch.zeros(8 << 20, dtype=torch.uint8))
        with pytest.raises(WorkerError, match=r"8 MB more of shared memory.*shm-size"):
            message.finish()
    with pytest.raises(KeyError), pool.blocks([LARGE]):
        raise KeyError("on the way")
    assert in_use(pool) == 0
    with pytest.raises(ZeroDivisionError):
        sent(images(), {**images(), "bad": FailsToUnpickle()}, pool=pool)
    assert in_use(pool) == 0


def test_batches_are_pinned_one_by_one_and_an_error_waits_its_turn():
    message = Message(SharedPool())
    message.add({"n": 1})
    message.add(FailsToUnpickle())
    batches = pickle.loads(pickle.dumps(message.finish())).pin_memory().unpack(Held())
    assert next(batches) == {"n": 1}
    with pytest.raises(ZeroDivisionError):
        next(batches)


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"transform": FailsToLoad()}, "cannot load what it was sent"),
        (
            {"dataloader_kwargs": {"worker_init_fn": LocalError()}},
            "a worker raised .*Hidden: only here",
        ),
    ],
)
def test_a_worker_that_cannot_begin_says_why(ids, options, said):
    data = LanceDataModule(ids, num_workers=1, **options)
    loader = data.train_dataloader()
    with pytest.raises(WorkerError, match=said):
        next(iter(loader))
    loader.close()
