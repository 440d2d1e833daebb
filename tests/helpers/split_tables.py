"""Tables with deletions, and the ids of the rows of each split."""

from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.permutation import permutation_builder

from lance_lightning.sources.lance import LanceSource
from lance_lightning.splits.specs import (
    CalculatedSplit,
    HashSplit,
    RandomSplit,
    SequentialSplit,
)

FILTER = "id % 3 != 1"


def rows(start, stop):
    ids = range(start, stop)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "box": pa.array([{"left": i % 97} for i in ids]),
            "name": pa.array([f"n{i // 3}" for i in ids]).dictionary_encode(),
            "fold": pa.array([None if i % 5 == 0 else i % 4 for i in ids], pa.int8()),
        }
    )


def make_table(folder, name="base", **options):
    """Return a LanceDB table of 1,091 rows in three fragments, with deletions."""
    table = lancedb.connect(folder).create_table(name, rows(0, 500), **options)
    table.add(rows(500, 800))
    table.add(rows(800, 1200))
    table.delete("id % 11 = 3")
    return table


def pinned(table):
    return LanceSource(table.to_lance().uri).resolve(Path())


def ids_of(plan, snapshot):
    """Return the ids of a plan's rows, in its order."""
    there = snapshot.open().to_table(columns=["id"])["id"].to_numpy()
    return there[plan.offsets(np.arange(plan.num_rows))].tolist()


def ids_by_split(plans, snapshot):
    return {name: ids_of(plan, snapshot) for name, plan in plans.items()}


def ids_of_permutation(found, table, count):
    """Return the ids of each split of a permutation table, in its order."""
    there = table.to_lance().to_table(columns=["id", "_rowid"])
    id_of = dict(zip(there["_rowid"].to_pylist(), there["id"].to_pylist(), strict=True))
    pairs = list(
        zip(found["row_id"].to_pylist(), found["split_id"].to_pylist(), strict=True)
    )
    return [[id_of[row] for row, of in pairs if of == i] for i in range(count)]


CASES = {
    "random": (
        RandomSplit({"train": 0.7, "val": 0.2, "test": 0.1}, seed=3),
        None,
        lambda b: b.split_random(ratios=[0.7, 0.2, 0.1], seed=3),
    ),
    "random clumps, filtered": (
        RandomSplit(counts={"train": 500, "val": 100}, clump_size=10, seed=4),
        FILTER,
        lambda b: b.split_random(counts=[500, 100], seed=4, clump_size=10),
    ),
    "sequential": (
        SequentialSplit({"train": 0.8, "val": 0.2}),
        None,
        lambda b: b.split_sequential(ratios=[0.8, 0.2]),
    ),
    "sequential, filtered": (
        SequentialSplit(fixed=["train", "val", "test"]),
        FILTER,
        lambda b: b.split_sequential(fixed=3),
    ),
    "hash of several columns": (
        HashSplit({"train": 7, "val": 3}, ["name", "fold"]),
        None,
        lambda b: b.split_hash(["name", "fold"], [7, 3], discard_weight=0),
    ),
    "hash of a struct's field, filtered": (
        HashSplit({"train": 7, "val": 3}, ["box.left"], discard_weight=4),
        FILTER,
        lambda b: b.split_hash(["box.left"], [7, 3], discard_weight=4),
    ),
    "calculated": (
        CalculatedSplit("fold", ["train", "val", "test"]),
        None,
        lambda b: b.split_calculated("fold"),
    ),
    "calculated, filtered": (
        CalculatedSplit("(id + 1) % 5", ["train", "val"]),
        FILTER,
        lambda b: b.split_calculated("(id + 1) % 5"),
    ),
}


def shuffled(table, names=("train", "val")):
    builder = permutation_builder(table).split_random(
        ratios=[0.75, 0.25], seed=5, split_names=list(names) if names else None
    )
    return builder.shuffle(seed=6).execute()
