"""With cache_bytes the same rows come from local disk, memory-mapped."""

from __future__ import annotations

import shutil

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning import (
    BlockShuffle,
    ConfigError,
    HashSplit,
    LanceDataModule,
    RandomSplit,
    Sequential,
    Shuffle,
)
from lance_lightning.reading import row_cache as module

ROWS = 1000


@pytest.fixture
def uri(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("LANCE_LIGHTNING_CACHE_DIR", str(tmp_path / "cache"))
    ids = np.arange(ROWS)
    vector = pa.FixedSizeListArray.from_arrays(np.arange(4 * ROWS, dtype="float32"), 4)
    columns = {
        "id": ids,
        "vector": vector,
        "text": [f"row {i}" for i in ids],
        "maybe": pa.array([None if i % 3 else int(i) for i in ids]),
    }
    path = str(tmp_path / "t.lance")
    lance.write_dataset(pa.table(columns), path, max_rows_per_file=300)
    lance.dataset(path).delete("id % 7 = 3")
    return path


def module_of(uri: str, **options) -> LanceDataModule:
    options = {"batch_size": 16, "output_format": "arrow", **options}
    splits = RandomSplit({"train": 0.7, "val": 0.3})
    return LanceDataModule(uri, **{"splits": splits, **options})


def rows(loader) -> list[dict]:
    return [row for batch in loader for row in batch.to_pylist()]


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize(
    ("sampler", "num_workers"),
    [(BlockShuffle(), 0), (Shuffle(), 0), (Sequential(), 0), (Shuffle(), 1)],
)
def test_the_same_rows_come_in_the_same_order(uri, sampler, num_workers, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 4000)  # many record batches
    options = {"sampler": sampler, "num_workers": num_workers, "with_row_id": True}
    read = module_of(uri, **options)
    kept = module_of(uri, cache_bytes=1 << 20, **options)
    for stage in ("train_dataloader", "val_dataloader"):
        expected, loader = getattr(read, stage)(), getattr(kept, stage)()
        for _ in range(2):
            assert rows(loader) == rows(expected)
    read.teardown()
    kept.teardown()


def test_rows_are_read_from_the_copy_alone(uri):
    data = module_of(uri, cache_bytes=1 << 20)
    loader = data.train_dataloader()
    expected = sorted(row["id"] for row in rows(loader))
    shutil.rmtree(f"{uri}/data")
    assert sorted(row["id"] for row in rows(loader)) == expected
    assert len(expected) > 500


def test_another_table_split_or_column_is_another_copy(uri, tmp_path):
    def copies() -> int:
        return len(list((tmp_path / "cache").glob("rows-*")))

    for _ in range(2):
        module_of(uri, cache_bytes=1 << 20).train_dataloader()
    assert copies() == 1
    module_of(uri, cache_bytes=1 << 20).val_dataloader()
    assert copies() == 2
    module_of(uri, cache_bytes=1 << 20, columns=["id"]).train_dataloader()
    assert copies() == 3
    splits = HashSplit({"train": 1, "val": 1}, columns=["id"])
    module_of(uri, cache_bytes=1 << 20, splits=splits).train_dataloader()
    assert copies() == 4
    lance.dataset(uri).delete("id = 502")
    data = module_of(uri, cache_bytes=1 << 20)
    assert 502 not in {row["id"] for row in rows(data.train_dataloader())}
    assert copies() == 5


def test_a_split_beyond_the_bound_is_refused_before_it_is_written(uri, tmp_path):
    data = module_of(uri, cache_bytes=1000)
    with pytest.raises(ConfigError, match="and cache_bytes is 1000: allow more"):
        data.train_dataloader()
    assert not list((tmp_path / "cache").glob("rows-*"))
    for wrong in (0, "much", 1.5):
        with pytest.raises(ConfigError, match="cache_bytes"):
            module_of(uri, cache_bytes=wrong)


def test_a_permutation_of_another_order_is_kept_too(uri, tmp_path):
    import lancedb
    from lancedb.permutation import permutation_builder

    from lance_lightning import LanceDBSource, PermutationSplit

    db = lancedb.connect(tmp_path / "db")
    table = db.create_table("t", pa.table({"id": np.arange(ROWS)}))
    builder = permutation_builder(table).split_random(ratios=[0.5, 0.5], seed=3)
    permutation = builder.shuffle(seed=1).execute()
    options = {
        "splits": PermutationSplit(permutation, ["train", "val"]),
        "sampler": Sequential(),
        "batch_size": 16,
        "output_format": "arrow",
    }
    source = LanceDBSource(str(tmp_path / "db"), "t")
    expected = rows(LanceDataModule(source, **options).train_dataloader())
    kept = LanceDataModule(source, cache_bytes=1 << 20, **options)
    assert rows(kept.train_dataloader()) == expected
    assert expected != sorted(expected, key=lambda row: row["id"])


@pytest.mark.parametrize("cache_bytes", [None, 1 << 20])
def test_dictionaries_that_differ_between_fragments_are_read(
    tmp_path, cache_bytes, monkeypatch
):
    monkeypatch.setattr(module, "CHUNK_BYTES", 300)
    kind = pa.dictionary(pa.int8(), pa.string())
    for part in range(3):  # 300 values in all, more than an int8 can count
        words = [f"word {part} {i}" for i in range(100)]
        ids = np.arange(part * 100, part * 100 + 100)
        table = pa.table({"id": ids, "word": pa.array(words).dictionary_encode()})
        table = table.set_column(1, "word", table["word"].cast(kind))
        mode = "append" if part else "create"
        lance.write_dataset(table, str(tmp_path / "t.lance"), mode=mode)
    data = LanceDataModule(
        str(tmp_path / "t.lance"),
        sampler=Shuffle(),
        output_format="arrow",
        cache_bytes=cache_bytes,
        cache_dir=tmp_path / "cache",
    )
    found = {row["id"]: row["word"] for row in rows(data.train_dataloader())}
    assert found == {i: f"word {i // 100} {i % 100}" for i in range(300)}


def test_columns_in_another_order_are_another_copy(uri):
    for columns in ({"f": "id", "g": "id * 2"}, {"g": "id * 2", "f": "id"}):
        data = module_of(uri, columns=columns, cache_bytes=1 << 20)
        for batch in data.train_dataloader():
            assert batch.schema.names == list(columns)
            assert batch["g"].to_pylist() == [2 * i for i in batch["f"].to_pylist()]
