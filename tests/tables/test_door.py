"""A read that fails says what was lost, why, and what to do, wherever it is."""

from __future__ import annotations

import datetime
import pickle
import re
import shutil
from pathlib import Path

import lance
import lance.sampler
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning import (
    CalculatedSplit,
    LanceDataModule,
    LanceSource,
    PermutationSplit,
    Sequential,
    SourceError,
    TransformError,
)
from lance_lightning.reading.memory import BufferPool
from lance_lightning.reading.threads import Threads
from lance_lightning.tables import open_datasets
from lance_lightning.tables.storage import read_table
from tests.helpers.bounds import set_bound
from tests.helpers.tables import make_table, write_table

ROWS, PER_FILE = 1200, 20


def clean_up(uri: str) -> None:
    lance.write_dataset(make_table(5), uri, mode="overwrite")
    newest = lance.dataset(uri)
    newest.cleanup_old_versions(
        older_than=datetime.timedelta(0), delete_unverified=True
    )


def optimize(uri: str) -> None:
    import lancedb

    lance.dataset(uri).delete("id % 2 = 0")
    path = Path(uri)
    table = lancedb.connect(path.parent).open_table(path.stem)
    table.optimize(
        cleanup_older_than=datetime.timedelta(milliseconds=1), delete_unverified=True
    )


def remove(uri: str) -> None:
    # At once: a read that fails in between finds a part of the table still there.
    gone = Path(uri).rename(Path(uri).with_name("removed"))
    shutil.rmtree(gone)


def lose_files(uri: str) -> None:
    for path in Path(uri, "data").iterdir():
        path.unlink()


def move_link(uri: str) -> None:
    """Let the link point to another table."""
    other = write_table(Path(uri).with_name("other.lance"), 300, PER_FILE)
    Path(uri).unlink()
    Path(uri).symlink_to(other)


LOSSES = {
    clean_up: r"version 1 was removed .*cleanup_old_versions.*table\.optimize\(\).*"
    r"lance\.dataset\(uri\)\.tags\.create\('training', 1\)",
    optimize: r"version 1 was removed .*tags\.create\('training', 1\)",
    remove: r"cannot be opened any more: the table was removed",
    lose_files: r"version 1 is listed still, but the file above is missing.*tag",
    move_link: r"another table lies at (.|\n)*pinned: (.|\n)*found: ",
}
SLOW = {optimize}  # it imports lancedb
lost = pytest.mark.parametrize(
    "lose",
    [
        pytest.param(lose, marks=[pytest.mark.slow] if lose in SLOW else [])
        for lose in LOSSES
    ],
    ids=lambda lose: lose.__name__,
)


@pytest.fixture
def uri(tmp_path) -> str:
    return write_table(tmp_path / "table.lance", ROWS, PER_FILE)


@pytest.fixture
def small_windows(monkeypatch):
    for name in ("WINDOW_BYTES", "PIECE_BYTES", "IN_ORDER_PIECE_BYTES"):
        set_bound(monkeypatch, name, 1000)


class ReadsIds(lance.sampler.Sampler):
    """Looks at the ids before it says which rows it takes."""

    def __call__(self, ds, *args, columns=None, **kwargs):
        assert ds.to_table(columns=["id"]).num_rows
        yield from ds.to_batches(columns=columns)


def linked(uri: str, lose) -> str:
    if lose is not move_link:
        return uri
    link = Path(uri).with_name("link.lance")
    link.symlink_to(uri)
    return str(link)


def losing(uri: str, lose, **options):
    """Return the error of an epoch whose table is lost after the first batch."""
    data = LanceDataModule(uri, sampler=Sequential(), batch_size=5, **options)
    data.setup("fit")
    batches = iter(data.train_dataloader())
    next(batches)
    lose(uri)
    with pytest.raises(SourceError) as caught:
        list(batches)
    data.teardown("fit")
    return str(caught.value)


@lost
def test_a_table_that_is_lost_in_mid_epoch_is_named_with_cause_and_remedy(
    uri, small_windows, lose
):
    uri = linked(uri, lose)
    said = losing(uri, lose, columns=["id", "vector"])
    assert f"{uri}, version 1" in said
    assert re.search(LOSSES[lose], said, re.DOTALL), said
    assert re.search(
        r"reading \d+ rows for batch.* of epoch 0, stage 'train', of", said
    )
    assert ".rs:" not in said


@pytest.mark.slow
def test_the_error_is_the_same_from_a_worker(uri, small_windows):
    said = losing(uri, clean_up, columns=["id", "vector"], num_workers=1)
    assert "version 1 was removed" in said
    assert "of epoch 0, stage 'train'" in said


def test_a_damaged_file_is_named_where_lance_panics(tmp_path):
    uri = str(tmp_path / "t.lance")
    texts = pa.table({"id": range(4000), "s": [f"text {i}" for i in range(4000)]})
    lance.write_dataset(texts, uri, max_rows_per_file=2000)
    table = LanceSource(uri).resolve(tmp_path / "cache")
    table.open().take([0, 3999])  # what a file says of itself is read once
    random = np.random.default_rng(1)
    for path in Path(uri, "data").iterdir():
        data = path.read_bytes()
        half = len(data) // 2
        path.write_bytes(data[:half] + random.bytes(len(data) - half))
    said = []
    for start in range(0, 4000, 500):
        rows = list(range(start, start + 500, 7))
        try:  # rows that lie before what is damaged can be read
            read_table(table, "reading", lambda found, rows=rows: found.take(rows))
        except SourceError as error:
            said.append(str(error))
    assert said
    for each in said:
        assert f"{uri}, version 1 failed: " in each
        assert "a file is damaged" in each


def test_every_way_to_read_goes_through_the_door(uri, tmp_path):
    source = LanceSource(uri, version=1)
    data = LanceDataModule(source, columns=["id", "vector"])
    rows = data.dataset()
    assert rows[0]["id"] == 0
    halves = CalculatedSplit("id % 2", ["train", "val"])
    made = {
        "measuring": {"columns": ["name"]},
        "the local copy": {"columns": ["id"], "cache_bytes": 1 << 20},
        "rows to split": {"splits": halves, "columns": ["id"]},
        "drawing epoch 0 with the sampler": {"sampler": ReadsIds(), "columns": ["id"]},
    }
    modules = {name: LanceDataModule(source, **made[name]) for name in made}
    for module in modules.values():
        module.setup("fit")
    ways = {name: module.train_dataloader for name, module in modules.items()}
    ways["of epoch 0, stage 'dataset'"] = lambda: rows[ROWS - 1]
    lose_files(uri)
    for name, read in ways.items():
        with pytest.raises(SourceError, match=r"(?s)version 1.*is missing") as caught:
            read()
        assert name in str(caught.value)


def test_a_permutation_table_is_read_through_the_door(uri, tmp_path):
    permutation = str(tmp_path / "p.lance")
    order = {
        "row_id": pa.array([3, 1], pa.uint64()),
        "split_id": pa.array([0, 0], pa.uint64()),
    }
    lance.write_dataset(pa.table(order), permutation)
    lose_files(permutation)
    with pytest.raises(SourceError, match=r"(?s)the permutation table of.*is missing"):
        PermutationSplit(permutation, ["train"])


def test_blobs_are_read_through_the_door(tmp_path):
    uri = str(tmp_path / "blobs.lance")
    blob = pa.field("blob", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    rows = [bytes([i]) * 1000 for i in range(20)]
    schema = pa.schema([pa.field("id", pa.int64()), blob])
    table = pa.table({"id": range(20), "blob": rows}, schema=schema)
    lance.write_dataset(table, uri)
    rows = LanceDataModule(uri).dataset()
    assert rows[3]["blob"] == bytes([3]) * 1000
    lose_files(uri)
    with pytest.raises(SourceError, match="is missing"):
        rows.__getitems__([1, 5, 9])


def fails(batch):
    raise ValueError("wrong labels")


def test_a_failing_function_is_told_though_its_row_ids_cannot_be_read(uri):
    data = LanceDataModule(uri, columns=["id"], transform=fails, batch_size=5)
    data.setup("fit")
    loader = data.train_dataloader()
    rows = [loader.reader.rows(0, 0, 1)]
    (window,) = loader.reader.read(rows, BufferPool(), Threads())
    window = loader.reader.convert(window)
    remove(uri)
    open_datasets.open_datasets.clear()  # row ids alone need no file
    with pytest.raises(TransformError, match=r"wrong labels.*row ids not known"):
        list(loader.reader.batches(window))


def test_what_is_no_failure_of_storage_comes_up_as_it_is(uri):
    table = LanceDataModule(uri).snapshot()

    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_table(table, "reading", interrupted)
    with pytest.raises(ZeroDivisionError):
        read_table(table, "reading", lambda _: 1 / 0)
    with pytest.raises(TransformError, match=r"^mine$"):
        read_table(table, "reading", lambda _: _raise(TransformError("mine")))


def _raise(error):
    raise error


def test_an_error_shows_no_secret(uri):
    table = LanceDataModule(
        LanceSource(uri, storage_options={"aws_secret_access_key": "hush-hush"})
    ).snapshot()
    table.open()

    def read(_):
        raise OSError("403 for key hush-hush")

    with pytest.raises(SourceError, match=r"403 for key \*\*\*") as caught:
        read_table(table, "reading rows", read)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


def test_a_value_that_an_expression_cannot_take_is_no_lost_table(tmp_path):
    uri = str(tmp_path / "t.lance")
    lance.write_dataset(pa.table({"id": range(8), "text": ["1"] * 7 + ["x"]}), uri)
    data = LanceDataModule(uri, columns={"n": "cast(text as int)"})
    with pytest.raises(SourceError, match="SQL expression among the columns"):
        data.dataset()[7]
