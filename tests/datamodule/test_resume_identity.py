"""Which rows a checkpoint is read with after the table has changed."""

from __future__ import annotations

import logging
import shutil
from datetime import timedelta

import lance
import pyarrow as pa
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from lance_lightning import (
    AllRows,
    ArrowSource,
    BlockShuffle,
    LanceDataModule,
    LanceDBSource,
    LanceSource,
    RandomSplit,
    SeparateSources,
    Shuffle,
    StateError,
)
from lance_lightning.datamodule.checkpoint import saved_source
from lance_lightning.tables.identity import Identity
from lance_lightning.tables.snapshot import Snapshot
from tests.helpers.resuming import SPLITS, Resumable, Runs, SaveFrom
from tests.helpers.tables import flat, make_table, write_table

ROWS = 37
STEPS = 10  # of an epoch
DONE = 12  # batches before the checkpoint: two of the second epoch
# One split that serves every stage: nothing has to be built.
EVERYWHERE = {
    "splits": AllRows("all"),
    "stage_splits": dict.fromkeys(["train", "val", "test", "predict"], "all"),
}


def append(uri):
    lance.write_dataset(make_table(20, start=ROWS), uri, mode="append")


def delete(uri):
    lance.dataset(uri).delete("id % 3 = 0")


def update(uri):
    lance.dataset(uri).update({"label": "label + 1", "id": "id + 1000"})


def compact(uri):
    delete(uri)
    lance.dataset(uri).optimize.compact_files()


def overwrite(uri):
    """Write other rows, without the column that is trained on."""
    table = make_table(50).drop_columns(["vector"])
    lance.write_dataset(table, uri, mode="overwrite")


def clean_up(uri):
    append(uri)
    lance.dataset(uri).cleanup_old_versions(timedelta(0))


def write_anew(uri):
    shutil.rmtree(uri)
    write_table(uri, ROWS, rows_per_file=10)


CHANGES = [append, delete, update, compact, overwrite]
LOSSES = [clean_up, write_anew]


def runs_on(folder, source) -> Runs:
    return Runs(folder, source, dict(EVERYWHERE))


@pytest.fixture
def runs(tmp_path) -> Runs:
    return runs_on(tmp_path, write_table(tmp_path / "t.lance", ROWS, rows_per_file=10))


@pytest.fixture
def said(caplog):
    """What our own lines of the log say."""
    caplog.set_level(logging.INFO)

    def lines():
        return [r.getMessage() for r in caplog.records if "Lance data" in r.message]

    return lines


def broken_off(runs: Runs, **module):
    """Return the path of a checkpoint in mid-epoch, and all rows up to the end."""
    saver = SaveFrom(runs.folder, ("on_train_batch_end",), done={DONE})
    rows = runs.rows(callbacks=[saver], module=module, max_epochs=2)
    return saver.saved[0].path, rows


# -- fit -------------------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_fit_goes_on_with_the_same_rows_of_a_changed_table(runs, change):
    ckpt, rows = broken_off(runs)
    change(runs.uri)
    assert runs.rows(ckpt, max_epochs=2) == rows[DONE:]


def test_fit_goes_on_from_the_end_of_an_epoch_of_a_changed_table(runs):
    saver = SaveFrom(runs.folder, ("on_train_epoch_end",))
    rows = runs.rows(callbacks=[saver], max_epochs=2)
    delete(runs.uri)
    assert runs.rows(saver.saved[0].path, max_epochs=2) == rows[STEPS:]


def test_the_splits_of_a_changed_table_stay(runs):
    runs.module = {"splits": SPLITS}
    saver = SaveFrom(runs.folder, ("on_train_batch_end",), done={8})
    unbroken = runs.fit(callbacks=[saver], max_epochs=2)
    append(runs.uri)
    resumed = runs.fit(saver.saved[0].path, max_epochs=2)
    assert resumed.seen["train"] == unbroken.seen["train"][8:]
    assert resumed.validations == unbroken.validations[1:]


@pytest.mark.parametrize("carry", [shutil.move, shutil.copytree])
def test_fit_goes_on_at_another_uri_and_says_so(runs, tmp_path, said, carry):
    ckpt, rows = broken_off(runs)
    other = str(tmp_path / "scratch.lance")
    carry(runs.uri, other)
    append(other)
    assert runs_on(tmp_path, other).rows(ckpt, max_epochs=2) == rows[DONE:]
    (line,) = [line for line in said() if "another URI" in line]
    assert runs.uri in line
    assert other in line


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_fit_stops_where_the_rows_are_gone(runs, loss):
    ckpt, _ = broken_off(runs)
    loss(runs.uri)
    with pytest.raises(StateError) as caught:
        runs.fit(ckpt, max_epochs=2)
    message = str(caught.value)
    assert f"in the checkpoint: {runs.uri}, version 1" in message
    assert f"configured: {runs.uri}, version" in message
    assert "dataset.tags.create(name, version)" in message
    assert "model = Model.load_from_checkpoint(path), and call fit without" in message


def test_a_tag_keeps_the_rows_of_a_checkpoint(runs):
    lance.dataset(runs.uri).tags.create("training", 1)
    ckpt, rows = broken_off(runs)
    append(runs.uri)
    lance.dataset(runs.uri).cleanup_old_versions(
        timedelta(0), error_if_tagged_old_versions=False
    )
    assert runs.rows(ckpt, max_epochs=2) == rows[DONE:]


def test_fit_stops_at_another_table(runs, tmp_path):
    ckpt, _ = broken_off(runs)
    other = write_table(tmp_path / "other.lance", ROWS, rows_per_file=10)
    with pytest.raises(StateError, match="was trained on another table") as caught:
        runs_on(tmp_path, other).fit(ckpt, max_epochs=2)
    assert runs.uri in str(caught.value)
    assert other in str(caught.value)


@pytest.mark.parametrize("named", [{"version": 2}, {"tag": "two"}])
def test_fit_stops_where_another_version_is_asked_for(runs, named):
    ckpt, _ = broken_off(runs)
    append(runs.uri)
    lance.dataset(runs.uri).tags.create("two", 2)
    runs.uri = LanceSource(runs.uri, **named)
    with pytest.raises(StateError, match="version=1"):
        runs.fit(ckpt, max_epochs=2)


def test_fit_goes_on_where_its_own_version_is_asked_for(runs):
    ckpt, rows = broken_off(runs)
    append(runs.uri)
    runs.uri = LanceSource(runs.uri, version=1)
    assert runs.rows(ckpt, max_epochs=2) == rows[DONE:]


def test_fit_goes_on_with_a_branch(runs):
    dataset = lance.dataset(runs.uri)
    branch = dataset.create_branch("mine")
    branch.delete("id = 5")
    runs.uri = LanceSource(runs.uri, branch="mine")
    ckpt, rows = broken_off(runs)
    lance.dataset(runs.uri.uri).checkout_version(("mine", None)).delete("id = 6")
    assert runs.rows(ckpt, max_epochs=2) == rows[DONE:]


def test_fit_goes_on_with_a_lancedb_table(tmp_path):
    import lancedb

    table = lancedb.connect(tmp_path / "db").create_table("digits", make_table(ROWS))
    runs = runs_on(tmp_path, LanceDBSource(str(tmp_path / "db"), "digits"))
    ckpt, rows = broken_off(runs)
    table.add(make_table(9, start=100))
    table.delete("id = 3")
    assert runs.rows(ckpt, max_epochs=2) == rows[DONE:]


def test_fit_goes_on_with_a_table_in_memory_of_the_same_content(tmp_path):
    ckpt, rows = broken_off(runs_on(tmp_path, ArrowSource(make_table(ROWS))))
    half = make_table(ROWS).slice(0, 20), make_table(ROWS).slice(20)
    same = runs_on(tmp_path, ArrowSource(pa.concat_tables(half)))
    assert same.rows(ckpt, max_epochs=2) == rows[DONE:]
    other = runs_on(tmp_path, ArrowSource(make_table(ROWS, start=1)))
    with pytest.raises(StateError, match="another table"):
        other.fit(ckpt, max_epochs=2)


def test_each_of_several_sources_goes_on_at_its_version(tmp_path):
    uris = [write_table(tmp_path / f"{name}.lance", 23) for name in ("train", "val")]
    sources = SeparateSources(train=uris[0], val=uris[1])
    runs = runs_on(tmp_path, sources)
    runs.module = {"splits": AllRows("train")}
    saver = SaveFrom(runs.folder, ("on_train_batch_end",), done={8})
    rows = runs.rows(callbacks=[saver], max_epochs=2)
    ckpt = saver.saved[0].path
    for uri in uris:
        append(uri)
    resumed = runs.fit(ckpt, max_epochs=2)
    assert resumed.seen["train"] == rows[8:]
    assert sorted(flat(resumed.validations[0])) == list(range(23))
    runs.uri = uris[0]
    with pytest.raises(StateError, match=r"each of \['train', 'val'\].*one source"):
        runs.fit(ckpt, module={"stage_splits": {"val": "train"}}, max_epochs=2)
    runs.uri = SeparateSources(train=uris[0], val=uris[1], test=uris[1])
    with pytest.raises(StateError, match=r"\['train', 'val'\].*'test', 'train', 'val'"):
        runs.fit(ckpt, max_epochs=2)


# -- what else must be the same --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module", "here"),
    [
        ("seed", {"seed": 1}, "1"),
        ("splits", {"splits": RandomSplit({"all": 1.0})}, "'RandomSplit'"),
        ("filter", {"filter": "id >= 0"}, "'id >= 0'"),
        ("sampler", {"sampler": Shuffle()}, "'Shuffle'"),
        ("sampler", {"sampler": BlockShuffle(2, 16)}, "'block_size': 2,"),
    ],
)
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_epoch_end"])
def test_fit_stops_where_the_order_would_be_another(runs, name, module, here, hook):
    saver = SaveFrom(runs.folder, (hook,))
    runs.fit(callbacks=[saver], max_epochs=2)
    module = dict(module)
    uri = LanceSource(runs.uri, filter=module.pop("filter", None))
    with pytest.raises(StateError) as caught:
        runs_on(runs.folder, uri).fit(saver.saved[0].path, module=module, max_epochs=2)
    (line,) = [
        line
        for line in str(caught.value).splitlines()
        if line.startswith(f"  {name}: ")
    ]
    there, _, configured = line.partition(" in the checkpoint, ")
    assert here in configured
    assert here not in there
    assert "restore these settings" in str(caught.value)


def test_fit_stops_where_training_has_other_splits(runs):
    both = RandomSplit(counts={"a": 20, "b": 10, "val": 7})
    runs.module = {"splits": both, "stage_splits": {"train": "a"}}
    saver = SaveFrom(runs.folder, ("on_train_batch_end",))
    runs.fit(callbacks=[saver], max_epochs=1)
    ckpt = saver.saved[0].path
    module = {"splits": both, "stage_splits": {"train": "b"}}
    with pytest.raises(StateError, match="split: 'a' in the checkpoint, 'b' here"):
        runs.fit(ckpt, module=module, max_epochs=2)
    module["stage_splits"] = {"train": ["a", "b"]}
    with pytest.raises(StateError, match=r"the splits \['a'\].*has \['a', 'b'\]"):
        runs.fit(ckpt, module=module, max_epochs=2)


def test_sizes_that_were_left_open_are_the_checkpoints(runs):
    open_ = BlockShuffle(buffer_size=16)
    fixed = BlockShuffle(block_size=2, buffer_size=16)
    rows = runs.rows(module={"sampler": fixed}, max_epochs=2)
    assert rows != runs.rows(module={"sampler": open_}, max_epochs=2)
    ckpt, _ = broken_off(runs, sampler=fixed)
    assert runs.rows(ckpt, module={"sampler": open_}, max_epochs=2) == rows[DONE:]
    assert (
        runs.rows(ckpt, module={"sampler": BlockShuffle()}, max_epochs=2) == rows[DONE:]
    )


def test_other_columns_do_not_change_the_order(runs):
    # The wider the rows, the smaller BlockShuffle's blocks, were they derived anew.
    sampler = BlockShuffle()
    narrow = {"columns": ["id", "vector"], "sampler": sampler}
    wide = {"columns": ["id", "vector", "name", "label"], "sampler": sampler}
    ckpt, rows = broken_off(runs, **narrow)
    assert runs.rows(ckpt, module=wide, max_epochs=2) == rows[DONE:]


# -- validate, test, predict -----------------------------------------------------------

STAGES = {"validate": "val", "test": "test", "predict": "predict"}


def evaluated(runs: Runs, stage: str, ckpt=None) -> list[int]:
    """Run a stage with a new data module and return the ids it saw."""
    model = Resumable()
    options = (
        {"return_predictions": False} if stage == "predict" else {"verbose": False}
    )
    run = getattr(runs.trainer_of(), stage)
    run(model, datamodule=runs.data(), ckpt_path=ckpt, **options)
    seen = model.validations[0] if stage == "validate" else model.seen[STAGES[stage]]
    return flat(seen)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_reads_the_checkpoints_version(runs, stage, change):
    ckpt, _ = broken_off(runs)
    before = evaluated(runs, stage)
    change(runs.uri)
    assert evaluated(runs, stage, ckpt) == before


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_stops_where_the_rows_are_gone(runs, stage, loss):
    ckpt, _ = broken_off(runs)
    loss(runs.uri)
    with pytest.raises(StateError, match=r"dataset\.tags\.create"):
        evaluated(runs, stage, ckpt)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_on_another_table_says_so(runs, tmp_path, said, stage):
    ckpt, _ = broken_off(runs)
    other = runs_on(tmp_path, write_table(tmp_path / "other.lance", ROWS + 1))
    before = evaluated(other, stage)
    assert evaluated(other, stage, ckpt) == before
    (line,) = [line for line in said() if "another table than" in line]
    assert runs.uri in line
    assert other.uri in line


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_at_a_version_that_is_asked_for_says_so(runs, said, stage):
    ckpt, _ = broken_off(runs)
    append(runs.uri)
    runs.uri = LanceSource(runs.uri, version=2)
    assert evaluated(runs, stage, ckpt) == evaluated(runs, stage)
    assert len([line for line in said() if "configured version, not" in line]) == 1


@pytest.mark.parametrize(
    "change", [append, delete, update, *LOSSES], ids=lambda change: change.__name__
)
def test_prediction_reads_what_is_configured_and_says_so(runs, said, change):
    ckpt, _ = broken_off(runs)
    change(runs.uri)
    assert evaluated(runs, "predict", ckpt) == evaluated(runs, "predict")
    assert len([line for line in said() if "other rows than those" in line]) == 1


def test_prediction_on_what_was_trained_on_says_nothing(runs, said):
    ckpt, _ = broken_off(runs)
    evaluated(runs, "predict", ckpt)
    assert not [line for line in said() if "in the checkpoint" in line]


def test_prediction_on_another_table_says_so(runs, tmp_path, said):
    ckpt, _ = broken_off(runs)
    other = runs_on(tmp_path, write_table(tmp_path / "other.lance", ROWS + 1))
    assert evaluated(other, "predict", ckpt) == evaluated(other, "predict")
    assert len([line for line in said() if "other rows than those" in line]) == 1


def test_a_module_from_a_checkpoint_reads_its_version(runs):
    ckpt, _ = broken_off(runs)
    append(runs.uri)
    data = LanceDataModule.load_from_checkpoint(ckpt)
    assert data.snapshot().version == 1
    ids = flat(batch["id"].tolist() for batch in data.val_dataloader())
    assert ids == flat(batch["id"].tolist() for batch in data.val_dataloader())
    assert ids == list(range(ROWS))
    assert runs.data().snapshot().version == 2


def test_a_version_once_pinned_stays(runs):
    data, model = runs.data(), Resumable()
    trainer = runs.trainer_of(max_epochs=1)
    trainer.fit(model, datamodule=data)
    append(runs.uri)
    trainer.test(model, datamodule=data, verbose=False)
    assert flat(model.seen["test"]) == flat(model.validations[0])


# -- loaders that are asked for before the checkpoint is restored ----------------------


class Late(SingleDeviceStrategy):
    """Restores after the optimizers are made, as FSDP and DeepSpeed do."""

    @property
    def restore_checkpoint_after_setup(self):
        return True


class Planning(Resumable):
    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


def test_fit_goes_on_where_loaders_come_before_the_state(runs):
    runs.model = Planning
    unbroken = runs.rows(max_epochs=2)
    for hook, done in (("on_train_batch_end", DONE), ("on_train_epoch_end", STEPS)):
        saver = SaveFrom(runs.folder, (hook,), done={done})
        runs.fit(callbacks=[saver], max_epochs=2)
        rows = runs.rows(saver.saved[0].path, strategy=Late("cpu"), max_epochs=2)
        assert rows == unbroken[done:]


def test_loaders_that_come_before_the_state_ask_for_its_version(runs):
    runs.model = Planning
    ckpt, rows = broken_off(runs)
    append(runs.uri)
    assert runs.rows(ckpt, max_epochs=2) == rows[DONE:]  # restored before
    with pytest.raises(StateError, match="set version=1"):
        runs.fit(ckpt, strategy=Late("cpu"), max_epochs=2)
    runs.uri = LanceSource(runs.uri, version=1)
    assert runs.rows(ckpt, strategy=Late("cpu"), max_epochs=2) == rows[DONE:]


# -- secrets ---------------------------------------------------------------------------


def test_a_checkpoint_holds_no_secret(runs):
    runs.uri = LanceSource(
        runs.uri, storage_options={"aws_secret_access_key": "hunter2"}
    )
    ckpt, _ = broken_off(runs)
    assert b"hunter2" not in ckpt.read_bytes()
    assert "hunter2" not in str(torch.load(ckpt, weights_only=True))


def test_a_uris_secrets_are_not_saved():
    uri = "s3://user:hunter2@bucket/t.lance?token=tok3n"
    snapshot = Snapshot(uri, 1, None, {"key": "AKIA"}, Identity(1, "a", "b"))
    state = saved_source(snapshot).to_plain()
    assert state["uri"] == "s3://bucket/t.lance"
    assert not any(secret in str(state) for secret in ("hunter2", "tok3n", "AKIA"))
