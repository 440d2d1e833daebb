"""LanceDB's own tables and permutations are taken as they are, with their meaning."""

from __future__ import annotations

import functools
import pickle

import lancedb
import lightning as L
import numpy as np
import pyarrow as pa
import pytest
from lancedb.permutation import Permutation, Permutations, permutation_builder

from lance_lightning import (
    AllRows,
    LanceDataModule,
    LanceDBSource,
    LanceSource,
    RandomSplit,
    SeparateSources,
    Sequential,
)
from lance_lightning.errors import ConfigError, SourceError, StateError
from lance_lightning.sources import lancedb_internals as objects
from lance_lightning.types import OUTPUT_FORMATS
from tests.helpers.models import Recorder
from tests.helpers.tables import flat, make_table
from tests.helpers.trainers import quiet_trainer


@pytest.fixture
def db(tmp_path):
    return lancedb.connect(tmp_path / "db")


@pytest.fixture
def table(db):
    made = db.create_table("t", make_table(60))
    made.add(make_table(43, start=60))
    return made


class Trains(Recorder):
    """Has no validation, of which Lightning would say that it has no loader."""

    validation_step = L.LightningModule.validation_step


def in_order(source, **options) -> LanceDataModule:
    """Return a module that hands rows out in the source's order."""
    options = {"sampler": Sequential(), "batch_size": 16, **options}
    return LanceDataModule(source, **options)


def ids(data: LanceDataModule, stage: str = "train") -> list[int]:
    loader = getattr(data, f"{stage}_dataloader")()
    return flat(batch["id"].tolist() for batch in loader)


def ids_of(permutation) -> list[int]:
    """Return what LanceDB itself reads."""
    batches = list(permutation.with_format("arrow").iter(7))
    return [i for batch in batches for i in batch["id"].to_pylist()]


def trained_until(step: int, data: LanceDataModule, folder) -> tuple[str, list[int]]:
    """Train up to a step within the epoch; return its checkpoint and the rows seen."""
    model = Trains()
    saved = str(folder / "saved.ckpt")

    class Saving(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == step:
                trainer.save_checkpoint(saved)

    quiet_trainer(folder, max_steps=step, callbacks=[Saving()]).fit(
        model, datamodule=data
    )
    return saved, flat(model.seen["train"])


def resumed(saved: str, data: LanceDataModule, folder) -> list[int]:
    """Return the rows that a resumed run sees up to the end of the epoch."""
    model = Trains()
    quiet_trainer(folder).fit(model, datamodule=data, ckpt_path=saved)
    return flat(model.seen["train"])


# -- tables --------------------------------------------------------------------


def test_a_table_is_read_at_the_version_it_has(table):
    data = in_order(table)
    table.add(make_table(10, start=1000))
    table.delete("id < 50")
    assert ids(data) == list(range(103))
    assert data.snapshot().version == 2
    assert ids(in_order(table)) == [*range(50, 103), *range(1000, 1010)]


def test_a_checked_out_table_is_read_at_that_version(table):
    table.tags.create("first", 1)
    table.checkout(1)
    assert ids(in_order(table)) == list(range(60))
    table.checkout_latest()
    table.checkout("first")
    assert ids(in_order(table)) == list(range(60))


def test_a_branch_is_read_as_a_branch(table):
    branch = table.branches.create("dev")
    branch.add(make_table(5, start=500))
    table.add(make_table(5, start=900))  # the same version, other rows
    data = in_order(branch)
    branch.add(make_table(5, start=600))
    assert ids(data) == [*range(103), *range(500, 505)]
    assert data.snapshot().branch == "dev"
    branch.checkout(branch.version - 2)
    assert ids(in_order(branch)) == list(range(103))


def test_a_table_of_a_namespace_is_read(db):
    db.create_namespace(["a"])
    db.create_namespace(["a", "b"])
    made = db.create_table("t", make_table(20), namespace_path=["a", "b"])
    assert ids(in_order(made)) == list(range(20))


def test_a_table_opened_by_a_namespace_client_is_read(tmp_path):
    connection = lancedb.connect_namespace("dir", {"root": str(tmp_path / "ns")})
    made = connection.create_table("t", make_table(20))
    made.add(make_table(5, start=20))
    made.checkout(1)
    assert ids(in_order(made)) == list(range(20))
    made.checkout_latest()
    assert ids(in_order(made)) == list(range(25))


def test_storage_options_of_the_connection_are_kept(tmp_path):
    options = {"some_option": "planted-0123456789"}
    connection = lancedb.connect(tmp_path / "db", storage_options=options)
    made = connection.create_table("t", make_table(20))
    data = in_order(made)
    assert data.snapshot().storage_options == options
    assert "planted" not in str(data.hparams)


def test_a_table_in_memory_is_copied_once(tmp_path):
    made = lancedb.connect("memory://").create_table("t", make_table(50))
    made.delete("id % 10 = 3")
    data = in_order(made)
    made.add(make_table(10, start=100))
    assert ids(data) == [i for i in range(50) if i % 10 != 3]


def test_a_table_in_memory_has_a_bound(monkeypatch):
    made = lancedb.connect("memory://").create_table("t", make_table(50))
    monkeypatch.setattr(objects, "MEMORY_BYTES", 100)
    for source in (made, Permutation.identity(made)):
        with pytest.raises(SourceError, match=r"'t' is held in memory .* in a folder"):
            LanceDataModule(source)


def test_a_table_is_split_like_its_dataset(table):
    splits = RandomSplit({"train": 0.7, "val": 0.3}, seed=3)
    data = in_order(table, splits=splits)
    same = in_order(LanceSource(table.uri), splits=splits)
    assert ids(data) == ids(same)
    assert ids(data, "val") == ids(same, "val")


def test_a_table_is_resumed_at_the_version_of_the_checkpoint(table, tmp_path):
    saved, seen = trained_until(3, LanceDataModule(table, batch_size=16), tmp_path)
    table.add(make_table(50, start=200))
    seen += resumed(saved, LanceDataModule(table, batch_size=16), tmp_path)
    assert sorted(seen) == list(range(103))
    again = LanceDataModule.load_from_checkpoint(saved)
    assert again.snapshot().uri == table.uri
    assert again.hparams["source"]["_target_"] == "lance_lightning.LanceSource"


def test_a_checked_out_version_is_one_that_was_asked_for(table, tmp_path):
    saved, _ = trained_until(2, LanceDataModule(table, batch_size=16), tmp_path)
    table.checkout(1)
    with pytest.raises(StateError, match=r"(?s)another version .* set version=2"):
        resumed(saved, LanceDataModule(table, batch_size=16), tmp_path)


@pytest.mark.usefixtures("worker_kind")
def test_workers_read_a_table(table):
    data = in_order(table, num_workers=1)
    assert ids(data) == list(range(103))
    data.teardown()


# -- permutations --------------------------------------------------------------


def test_an_identity_is_the_table(table):
    table.delete("id % 7 = 0")
    data = in_order(Permutation.identity(table))
    table.add(make_table(10, start=1000))  # LanceDB's own would have these too
    assert ids(data) == [i for i in range(103) if i % 7]


def test_an_identity_is_split_like_its_table(table):
    splits = RandomSplit({"train": 0.7, "val": 0.3})
    data = in_order(Permutation.identity(table), splits=splits)
    assert ids(data, "val") == ids(in_order(table, splits=splits), "val")


def test_a_split_keeps_rows_and_order_of_the_permutation(table):
    table.delete("id % 7 = 0")
    made = (
        permutation_builder(table)
        .split_random(ratios=[0.6, 0.4], seed=1, split_names=["a", "b"])
        .shuffle(seed=2)
        .execute()
    )
    expected = {
        name: ids_of(Permutation.from_tables(table, made, name)) for name in ("a", "b")
    }
    train = Permutation.from_tables(table, made, "a")
    val = Permutation.from_tables(table, made, 1)
    data = in_order(SeparateSources(train=train, val=val))
    table.add(make_table(10, start=1000))
    table.delete("id < 20")
    assert ids(data) == expected["a"]
    assert ids(data, "val") == expected["b"]
    assert expected["a"] != sorted(expected["a"])
    assert sorted(expected["a"] + expected["b"]) == [i for i in range(103) if i % 7]
    later = in_order(Permutation.from_tables(table, made, "a"))
    assert ids(later) == expected["a"]
    assert later.snapshot().version == 3


def test_a_permutation_of_permutations_is_one_source(table):
    made = permutation_builder(table).split_random(
        ratios=[0.5, 0.5], seed=1, split_names=["train", "val"]
    )
    both = Permutations(table, made.execute())
    data = in_order(SeparateSources(train=both["train"], val=both["val"]))
    assert sorted(ids(data) + ids(data, "val")) == list(range(103))
    with pytest.raises(ConfigError, match=r"permutations\['train'\]"):
        LanceDataModule(both)


def test_a_permutation_of_a_branch_reads_the_branch(table):
    branch = table.branches.create("dev")
    branch.add(make_table(5, start=500))
    table.add(make_table(5, start=900))
    made = permutation_builder(branch).shuffle(seed=1).execute()
    permutation = Permutation.from_tables(branch, made)
    expected = ids_of(permutation)
    assert ids(in_order(permutation)) == expected
    assert sorted(expected) == [*range(103), *range(500, 505)]
    # LanceDB forgets the branch of a permutation's copy; its table recorded it.
    assert ids(in_order(permutation.select_columns(["id"]))) == expected


@pytest.mark.parametrize(("skip", "take"), [(5, None), (None, 8), (5, 8)])
def test_skip_and_take_leave_rows_out(table, skip, take):
    table.delete("id % 7 = 0")
    made = permutation_builder(table).shuffle(seed=4).execute()
    for whole in (
        Permutation.identity(table),
        Permutation.from_tables(table, made),
    ):
        part = whole if skip is None else whole.with_skip(skip)
        part = part if take is None else part.with_take(take)
        last = None if take is None else (skip or 0) + take
        assert ids(in_order(part)) == ids(in_order(whole))[skip:last]


def test_a_permutation_without_rows_says_so(table):
    made = permutation_builder(table).shuffle(seed=4).execute()
    none = Permutation.from_tables(table, made).with_take(0)
    with pytest.raises(ConfigError, match=r"split 0, skip 0, take 0.* has no row"):
        in_order(none)


def test_selected_and_renamed_columns_are_what_a_batch_has(table):
    permutation = (
        Permutation.identity(table)
        .remove_columns(["name"])
        .rename_columns({"vector": "x", "label": "id2"})
        .select_columns(["x", "id"])
        .rename_column("id", "key")
    )
    (batch, *_) = in_order(permutation).train_dataloader()
    assert list(batch) == ["x", "key"]
    assert batch["key"].tolist() == list(range(16))
    assert batch["x"].shape == (16, 4)
    with pytest.raises(ConfigError, match=r"selects or renames columns .*leave col"):
        in_order(permutation, columns=["x"])
    (batch, *_) = in_order(
        Permutation.identity(table), columns=["id"]
    ).train_dataloader()
    assert list(batch) == ["id"]


def test_swapped_names_are_not_mistaken_for_each_other(db):
    made = db.create_table("s", pa.table({"a": range(40), "b": range(100, 140)}))
    swapped = Permutation.identity(made).rename_columns({"a": "c", "b": "a"})
    swapped = swapped.rename_column("c", "b")
    (batch, *_) = in_order(swapped).train_dataloader()
    assert batch["a"].tolist() == list(range(100, 116))
    assert batch["b"].tolist() == list(range(16))


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_the_format_of_a_permutation_is_the_default(table, name):
    """It also fails when LanceDB gives its transforms other names."""
    permutation = Permutation.identity(table).select_columns(["id"]).with_format(name)
    data = in_order(permutation)
    # What LanceDB has without with_format() too.
    assert data.output_format == ("torch" if name == "python" else name)
    assert next(iter(data.train_dataloader())) is not None
    assert in_order(permutation, output_format=name).output_format == name
    if name != "python":
        other = "torch" if name == "arrow" else "arrow"
        with pytest.raises(ConfigError, match="one output format"):
            in_order(permutation, output_format=other)


def test_permutations_of_two_formats_do_not_go_together(table):
    whole = Permutation.identity(table)
    pair = {"train": whole.with_format("arrow"), "val": whole.with_format("polars")}
    with pytest.raises(ConfigError, match="'arrow', 'polars'"):
        LanceDataModule(SeparateSources(**pair))


def test_a_transform_of_its_own_is_refused(table):
    permutation = Permutation.identity(table).with_transform(len)
    with pytest.raises(ConfigError, match=r"'len'.*output_format='arrow'"):
        LanceDataModule(permutation)


def test_a_permutation_is_not_split_again(table):
    made = permutation_builder(table).shuffle(seed=4).execute()
    permutation = Permutation.from_tables(table, made)
    with pytest.raises(ConfigError, match="one split already"):
        LanceDataModule(permutation, splits=RandomSplit({"train": 0.5}))
    data = in_order(permutation, splits=AllRows("val"))
    assert sorted(ids(data, "val")) == list(range(103))


def test_a_permutation_in_memory_keeps_its_rows_and_order():
    made = lancedb.connect("memory://").create_table("t", make_table(50))
    made.delete("id % 10 = 3")
    live = [i for i in range(50) if i % 10 != 3]
    rows = permutation_builder(made).shuffle(seed=4).execute()
    shuffled = Permutation.from_tables(made, rows)
    assert sorted(ids(in_order(shuffled))) == live
    assert ids(in_order(shuffled)) != live
    data = in_order(shuffled)
    made.add(make_table(10, start=100))
    made.delete("id < 10")
    assert ids(data) == ids(in_order(Permutation.from_tables(made, rows)))
    whole = lancedb.connect("memory://").create_table("t", make_table(50))
    rows = permutation_builder(whole).shuffle(seed=4).execute()
    part = Permutation.from_tables(whole, rows).rename_column("id", "key")
    (batch, *_) = in_order(part).train_dataloader()
    order = rows.to_arrow()["row_id"].to_pylist()
    assert batch["key"].tolist() == order[:16]


@pytest.mark.parametrize(
    "copied",
    [
        lambda p: p.with_format("torch"),
        lambda p: p.with_batch_size(7),
        lambda p: p.select_columns(["id"]),
    ],
)
@pytest.mark.parametrize("made", ["all", "filtered", "fragments"])
def test_a_copy_in_memory_is_read_only_where_its_row_ids_prove_the_rows(made, copied):
    """LanceDB copies the base here, and reads the rows that the ids then mean."""
    base = lancedb.connect("memory://").create_table("t", make_table(50))
    builder = permutation_builder(base)
    if made == "fragments":
        base.add(make_table(10, start=50))
    else:
        base.delete("id < 10")
    if made == "filtered":  # ids 10 to 29, all of which the copy of 40 rows has too
        builder = builder.filter("id < 30")
    permutation = Permutation.from_tables(base, builder.shuffle(seed=0).execute())
    kept = {"all": range(10, 50), "filtered": range(10, 30), "fragments": range(60)}
    assert sorted(ids(in_order(permutation))) == list(kept[made])
    with pytest.raises(SourceError, match=r"cannot be proved.*table in a folder, or"):
        in_order(copied(permutation))


def test_row_ids_of_a_table_in_memory_are_not_a_column():
    base = lancedb.connect("memory://").create_table("t", make_table(50))
    selected = Permutation.identity(base).select_columns(["id", "_rowid"])
    with pytest.raises(ConfigError, match=r"selects _rowid.*leave it out"):
        in_order(selected)


def open_table(folder: str, name: str):
    return lancedb.connect(folder).open_table(name)


def test_a_permutation_with_a_connection_factory_is_read(table, tmp_path):
    factory = functools.partial(open_table, str(tmp_path / "db"))
    permutation = Permutation.identity(factory("t")).with_connection_factory(factory)
    assert ids(in_order(permutation)) == list(range(103))


def test_a_module_of_live_objects_goes_to_spawned_processes(table):
    made = permutation_builder(table).shuffle(seed=4).execute()
    data = in_order(
        SeparateSources(train=Permutation.from_tables(table, made), val=table)
    )
    there = pickle.loads(pickle.dumps(data))
    assert ids(there) == ids(data) != list(range(103))
    assert ids(there, "val") == list(range(103))


def test_other_row_ids_than_the_tables_are_found_out(db, table):
    made = permutation_builder(table).shuffle(seed=4).execute()
    rows = made.to_arrow().replace_schema_metadata(None)
    foreign = db.create_table("p", rows.set_column(0, "row_id", [np.arange(500, 603)]))
    with pytest.raises((SourceError, ValueError), match="not in"):
        ids(in_order(Permutation.from_tables(table, foreign)))


@pytest.mark.usefixtures("worker_kind")
def test_a_permutation_trains_resumes_and_crosses_to_workers(table, tmp_path):
    made = permutation_builder(table).shuffle(seed=4).execute()
    permutation = Permutation.from_tables(table, made).select_columns(["id", "vector"])
    data = LanceDataModule(permutation, batch_size=16, num_workers=1)
    saved, seen = trained_until(3, data, tmp_path)
    seen += resumed(saved, LanceDataModule(permutation, batch_size=16), tmp_path)
    assert sorted(seen) == list(range(103))
    assert len(pickle.dumps(data.train_dataloader().reader)) < 4096
    with pytest.raises(ConfigError, match=r"cannot hold source .*PermutationSource"):
        LanceDataModule.load_from_checkpoint(saved)


def test_a_checkpoint_of_another_version_goes_by_the_permutations(table, tmp_path):
    made = permutation_builder(table).shuffle(seed=4).execute()
    first = Permutation.from_tables(table, made)
    saved, _ = trained_until(2, LanceDataModule(first, batch_size=16), tmp_path)
    table.add(make_table(20, start=200))
    made = permutation_builder(table).shuffle(seed=4).execute()
    later = Permutation.from_tables(table, made)
    with pytest.raises(StateError, match="does not belong to this configuration"):
        resumed(saved, LanceDataModule(later, batch_size=16), tmp_path)
    data = LanceDataModule(later, splits=AllRows("val"), batch_size=16)
    model = Recorder()
    quiet_trainer(tmp_path).validate(model, datamodule=data, ckpt_path=saved)
    assert len(flat(model.seen["val"])) == 123


def test_sources_by_name_and_live_objects_mix(table, tmp_path):
    other = LanceDBSource(tmp_path / "db", "t", version=1)
    data = in_order(SeparateSources(train=table, val=other))
    assert ids(data) == list(range(103))
    assert ids(data, "val") == list(range(60))
