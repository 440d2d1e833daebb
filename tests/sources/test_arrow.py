"""Tables in memory as sources."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.sources.arrow import ArrowSource
from lance_lightning.tables.identity import content_digest
from tests.helpers.ten_rows import ids, read_elsewhere, run, table


def test_in_memory_table_is_read_from_the_cache(cache, tmp_path):
    source = ArrowSource(table())
    snapshot = source.resolve(cache)
    assert snapshot.open().to_table() == table()
    assert cache in Path(snapshot.uri).parents
    assert read_elsewhere(snapshot, tmp_path) == str(list(range(10)))
    snapshot.verify()
    assert source.describe() == "arrow table of 10 rows"
    assert snapshot == ArrowSource(table()).resolve(cache, version=1)
    with pytest.raises(SourceError, match="version 2"):
        source.resolve(cache, version=2)


RESOLVE = """
import sys, pathlib
import pyarrow as pa
from lance_lightning.sources import ArrowSource
rows = pa.table({"id": range(10), "text": [None, "a"] * 5, "list": [[1], None] * 5})
snapshot = ArrowSource(rows).resolve(pathlib.Path(sys.argv[1]))
print(snapshot.identity)
"""


def test_identity_of_an_in_memory_table_is_its_content(tmp_path):
    first = run(RESOLVE, str(tmp_path / "one"))
    assert first == run(RESOLVE, str(tmp_path / "other"))
    other = ArrowSource(table(1)).resolve(tmp_path / "one")
    assert str(other.identity) != first


def many_types() -> pa.Table:
    rng = np.random.Generator(np.random.Philox(key=3))
    numbers = rng.integers(0, 100, 24)
    hole = [None if i % 5 == 2 else i for i in range(24)]

    def each(make):
        return [None if i is None else make(i) for i in hole]

    maps = pa.map_(pa.string(), pa.int8())
    return pa.table(
        {
            "int": numbers,
            "null_int": pa.array(hole),
            "half": pa.array(each(float), pa.float16()),
            "bool": each(lambda i: i % 3 == 0),
            "text": each(lambda i: "x" * i),
            "large": pa.array(each(str), pa.large_string()),
            "bytes": each(lambda i: bytes([i])),
            "fixed_bytes": pa.array(each(lambda i: bytes([i, i])), pa.binary(2)),
            "list": each(lambda i: list(range(i % 3))),
            "lists": each(lambda i: [[i], None, []]),
            "vector": pa.array(each(lambda i: [i, None]), pa.list_(pa.float32(), 2)),
            "struct": each(lambda i: {"a": i, "b": None if i % 2 else "b"}),
            "map": pa.array(each(lambda i: [("k", i)]), maps),
            "kind": pa.array(each(lambda i: f"k{i % 3}")).dictionary_encode(),
            "null": pa.nulls(24),
            "when": pa.array(each(int), pa.timestamp("us", tz="UTC")),
        }
    )


def test_chunks_and_offsets_do_not_change_the_content():
    rows = many_types()
    expected = content_digest(rows)
    for size in (1, 5, 7, 23):
        chunks = [rows.slice(i, size) for i in range(0, 24, size)]
        assert content_digest(pa.concat_tables(chunks)) == expected
    padded = pa.concat_tables([rows.slice(3, 5), rows]).combine_chunks()
    assert content_digest(padded.slice(5)) == expected
    batches = rows.to_batches(max_chunksize=9)
    assert content_digest(pa.Table.from_batches(batches)) == expected


def test_every_value_is_part_of_the_content():
    rows = many_types()
    seen = {content_digest(rows)}
    for i, name in enumerate(rows.column_names):
        if name == "null":
            continue
        values = rows[name].to_pylist()
        values[0], values[4] = values[4], values[0]
        swapped = pa.array(values, rows.schema.field(i).type)
        seen.add(content_digest(rows.set_column(i, name, swapped)))
        values[0] = None
        hollow = pa.array(values, rows.schema.field(i).type)
        seen.add(content_digest(rows.set_column(i, name, hollow)))
    assert len(seen) == 1 + 2 * (rows.num_columns - 1)
    seen.add(content_digest(rows.slice(1)))
    seen.add(content_digest(rows.rename_columns([f"{n}_" for n in rows.column_names])))
    seen.add(content_digest(rows.replace_schema_metadata({"k": "v"})))
    assert len(seen) == 4 + 2 * (rows.num_columns - 1)


def test_bytes_under_a_null_are_not_content():
    mask = pa.py_buffer(bytes([0b101]))
    same = [
        pa.Array.from_buffers(pa.int64(), 3, [mask, pa.py_buffer(np.array(values))])
        for values in ([1, 7, 3], [1, 8, 3])
    ]
    assert same[0].to_pylist() == same[1].to_pylist() == [1, None, 3]
    assert len({content_digest(pa.table({"x": values})) for values in same}) == 1
    within = [pa.StructArray.from_arrays([a], ["a"]) for a in same]
    assert len({content_digest(pa.table({"x": values})) for values in within}) == 1


def test_empty_and_chunkless_tables_have_the_same_content():
    empty = table().slice(0, 0)
    assert content_digest(empty) == content_digest(empty.schema.empty_table())
    assert content_digest(empty) != content_digest(table())


def test_extension_arrays_are_content(cache):
    rows = [
        pa.table({"t": pa.FixedShapeTensorArray.from_numpy_ndarray(values)})
        for values in (np.zeros((3, 2, 2), "f4"), np.ones((3, 2, 2), "f4"))
    ]
    assert content_digest(rows[0]) != content_digest(rows[1])
    snapshot = ArrowSource(rows[1]).resolve(cache)
    assert snapshot.open().to_table()["t"].to_pylist() == rows[1]["t"].to_pylist()


def test_types_that_lance_does_not_store_are_named(cache):
    runs = pa.RunEndEncodedArray.from_arrays([2, 5], [1, 2])
    with pytest.raises(SourceError, match=r"column 'runs'.*run_end.*cast"):
        ArrowSource(pa.table({"runs": runs})).resolve(cache)
    small = pa.table({"m": pa.nulls(2, pa.month_day_nano_interval())})
    with pytest.raises(SourceError, match=r"Interval.*cast"):
        ArrowSource(small).resolve(cache)
    assert not [p for p in (cache / "tables").iterdir() if not p.name.endswith(".lock")]


def test_racing_processes_store_an_in_memory_table_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(2) as pool:
        asked = [pool.apply_async(resolve_there, (tmp_path,)) for _ in range(4)]
        found = [answer.get(60) for answer in asked]
    assert len(set(found)) == 1
    folders = [p for p in (tmp_path / "tables").iterdir() if p.is_dir()]
    assert [str(folder) for folder in folders] == [found[0][0]]


def resolve_there(cache):
    snapshot = ArrowSource(table()).resolve(cache)
    return snapshot.uri, snapshot.identity


def test_arrow_source_is_copied_and_pickled(cache):
    batch = table().to_batches()[0]
    source = ArrowSource(batch, filter="id > 3")
    assert copy.deepcopy(source) is source
    again = pickle.loads(pickle.dumps(source))
    assert again.filter == "id > 3"
    assert again.resolve(cache) == source.resolve(cache)


def test_lancedb_table_in_memory_is_read_at_once(cache):
    lancedb = pytest.importorskip("lancedb")
    made = lancedb.connect("memory://").create_table("t", table())
    made.delete("id = 3")
    source = ArrowSource(made)
    made.add(table(10))
    expected = [i for i in range(10) if i != 3]
    assert ids(source.resolve(cache)) == expected
    assert ids(pickle.loads(pickle.dumps(source)).resolve(cache)) == expected


def test_what_is_no_table_in_memory_says_what_to_use(database):
    stored = database.create_table("t", table())
    with pytest.raises(ConfigError, match="LanceDBSource"):
        ArrowSource(stored)
    for wrong in ("t.lance", [1], {"id": [1]}):
        with pytest.raises(ConfigError, match="ArrowSource takes"):
            ArrowSource(wrong)
    with pytest.raises(ConfigError, match="without columns"):
        ArrowSource(pa.table({}))
