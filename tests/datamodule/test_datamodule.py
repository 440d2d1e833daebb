"""Every stage sees its split's rows, exactly once, with or without a Trainer."""

from __future__ import annotations

import copy
import pickle

import lance
import lightning as L
import pytest
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from torch.utils.data import DataLoader

from lance_lightning import (
    AllRows,
    ArrowSource,
    CalculatedSplit,
    ConfigError,
    LanceDataModule,
    LanceSource,
    RandomSplit,
    SeparateSources,
    SequentialSplit,
    SourceError,
)
from tests.helpers.models import Recorder
from tests.helpers.tables import flat, make_table, write_table
from tests.helpers.trainers import quiet_trainer

STAGES = ("train", "val", "test", "predict")
SPLITS = SequentialSplit(counts={"train": 61, "val": 21, "test": 11, "predict": 10})
IDS = {
    "train": list(range(61)),
    "val": list(range(61, 82)),
    "test": list(range(82, 93)),
    "predict": list(range(93, 103)),
}


pytestmark = pytest.mark.usefixtures("shared_cache")


class Checker(Recorder):
    """Holds every batch against the table, and keeps which loader it came from."""

    def __init__(self) -> None:
        super().__init__()
        self.loaders: dict[str, dict[int, list[int]]] = {stage: {} for stage in STAGES}

    def step(self, batch, stage, dataloader_idx=0):
        check_values(batch)
        ids = self.loaders[stage].setdefault(dataloader_idx, [])
        ids += batch["id"].tolist()
        return super().step(batch, stage)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", self.step(batch, "val", dataloader_idx))

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("test_loss", self.step(batch, "test", dataloader_idx))

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        self.step(batch, "predict", dataloader_idx)
        return batch["id"]


class TrainOnly(L.LightningModule):
    """A model that only trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.ids: list[int] = []

    def training_step(self, batch, batch_idx):
        self.ids += batch["id"].tolist()
        return self.layer(batch["vector"]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def check_values(batch) -> None:
    ids = batch["id"]
    assert torch.equal(batch["label"], ids % 3)
    assert torch.equal(batch["vector"], (ids[:, None] * 4 + torch.arange(4)).float())
    assert batch["name"] == [f"row-{i}" for i in ids.tolist()]


def run_all(data, tmp_path, **options) -> Checker:
    """Fit, validate, test and predict with one trainer."""
    model = Checker()
    trainer = quiet_trainer(tmp_path, **options)
    trainer.fit(model, datamodule=data)
    trainer.validate(model, datamodule=data, verbose=False)
    trainer.test(model, datamodule=data, verbose=False)
    trainer.predict(model, datamodule=data)
    return model


# -- stages and splits --------------------------------------------------------


def test_every_stage_sees_its_splits_rows_once(table, tmp_path):
    data = LanceDataModule(table, splits=SPLITS, batch_size=8)
    seen = run_all(data, tmp_path, max_epochs=2).seen
    epochs = [flat(seen["train"][:8]), flat(seen["train"][8:])]
    assert [sorted(epoch) for epoch in epochs] == [IDS["train"]] * 2
    assert epochs[0] != epochs[1]
    assert [flat(seen["val"][i : i + 3]) for i in (0, 3, 6)] == [IDS["val"]] * 3
    assert flat(seen["test"]) == IDS["test"]
    assert flat(seen["predict"]) == IDS["predict"]


def test_the_shares_of_a_random_split_are_disjoint_and_cover_the_table(table, tmp_path):
    splits = RandomSplit({"train": 0.6, "val": 0.2, "test": 0.1, "predict": 0.1})
    seen = run_all(LanceDataModule(table, splits=splits), tmp_path).seen
    seen["val"] = seen["val"][: len(seen["val"]) // 2]  # in fit, and after it
    assert sorted(flat(flat(seen[stage]) for stage in STAGES)) == list(range(103))


def test_evaluation_batches_have_a_size_of_their_own(table, tmp_path):
    data = LanceDataModule(table, splits=SPLITS, batch_size=8, eval_batch_size=20)
    seen = run_all(data, tmp_path).seen
    assert [len(batch) for batch in seen["train"]] == [8] * 7 + [5]
    assert [len(batch) for batch in seen["val"][:2]] == [20, 1]


def test_a_global_batch_is_this_ranks_batch_on_one_process(table, tmp_path):
    data = LanceDataModule(table, splits=SPLITS, global_batch_size=16)
    seen = run_all(data, tmp_path).seen
    assert [len(batch) for batch in seen["train"]] == [16, 16, 16, 13]
    assert [len(batch) for batch in seen["test"]] == [11]


def test_fit_without_a_val_split_skips_validation(table, tmp_path):
    data = LanceDataModule(table)
    model = TrainOnly()
    quiet_trainer(tmp_path, num_sanity_val_steps=2).fit(model, datamodule=data)
    assert sorted(model.ids) == list(range(103))

    # Of a model that could validate Lightning says so itself, and no more than that.
    model = Recorder()
    with pytest.warns(PossibleUserWarning, match="have no `val_dataloader`") as caught:
        quiet_trainer(tmp_path, num_sanity_val_steps=2).fit(model, datamodule=data)
    assert [each for each in caught if each.category is not FutureWarning] == [
        caught.pop(PossibleUserWarning)
    ]
    assert sorted(flat(model.seen["train"])) == list(range(103))
    assert model.seen["val"] == []


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("taken_away", [False, True])
def test_a_stage_without_a_split_names_the_splits_there_are(
    table, tmp_path, stage, taken_away
):
    name = {"fit": "train", "validate": "val"}.get(stage, stage)
    left = "test" if stage == "predict" else "predict"
    splits = AllRows(left)
    if taken_away:  # as Hydra does it
        splits = SequentialSplit({name: None, left: 1.0})
    data = LanceDataModule(table, splits=splits)
    run = getattr(quiet_trainer(tmp_path), stage)
    model = TrainOnly() if stage == "fit" else Recorder()
    with pytest.raises(ConfigError) as raised:
        run(model, datamodule=data)
    assert f"no split serves the stage {name!r}" in str(raised.value)
    assert f"splits there are: {left};" in str(raised.value)
    assert f"stage_splits={{{name!r}: {left!r}}}" in str(raised.value)
    again = LanceDataModule(table, splits=splits, stage_splits={name: left})
    if stage != "fit":
        run(model, datamodule=again)
        assert sorted(flat(model.seen[name])) == list(range(103))


@pytest.mark.parametrize(
    ("names", "named"),
    [(["train"], "train"), (["train", "val"], "val"), (["val", "test"], "test")],
)
def test_a_stage_without_a_split_is_shown_one_that_is_held_out(table, names, named):
    counts = dict.fromkeys(names, 103 // len(names))
    data = LanceDataModule(table, splits=SequentialSplit(counts=counts))
    with pytest.raises(ConfigError, match=f"stage_splits={{'predict': '{named}'}}"):
        data.predict_dataloader()


def test_several_training_loaders_are_told_in_the_log(table, caplog):
    data = LanceDataModule(
        table, splits=SPLITS, stage_splits={"train": ["train", "val"], "val": ["test"]}
    )
    with caplog.at_level("INFO"):
        data.val_dataloader()
        assert "is a list" not in caplog.text
        data.train_dataloader()
    assert "training_step gets a list of 2 batches, one per split: train, val" in (
        caplog.text
    )


def test_a_stage_can_be_served_by_another_split(table, tmp_path):
    data = LanceDataModule(
        table,
        splits=SequentialSplit(counts={"train": 61, "val": 21, "test": 21}),
        stage_splits={"val": "train", "predict": "test"},
    )
    seen = run_all(data, tmp_path).seen
    assert flat(seen["val"]) == IDS["train"] * 2
    assert flat(seen["predict"]) == flat(seen["test"]) == list(range(82, 103))


def test_a_stage_can_have_several_loaders(table, tmp_path):
    data = LanceDataModule(
        table,
        splits=SPLITS,
        batch_size=8,
        stage_splits={
            "val": ["val", "test"],
            "test": ["test"],
            "predict": ["val", "predict", "test"],
        },
    )
    assert isinstance(data.test_dataloader(), list)
    loaders = run_all(data, tmp_path).loaders
    assert loaders["val"] == {0: IDS["val"] * 2, 1: IDS["test"] * 2}
    assert loaders["test"] == {0: IDS["test"]}
    wanted = {0: IDS["val"], 1: IDS["predict"], 2: IDS["test"]}
    assert loaders["predict"] == wanted


def test_an_empty_list_takes_a_stage_its_loader(table, tmp_path):
    data = LanceDataModule(table, splits=SPLITS, stage_splits={"test": []})
    with pytest.raises(ConfigError, match="no split serves the stage 'test'"):
        quiet_trainer(tmp_path).test(Recorder(), datamodule=data)


def test_several_training_loaders_come_side_by_side(table, tmp_path):
    class Both(TrainOnly):
        def training_step(self, batch, batch_idx):
            for each in batch:
                check_values(each)
            self.ids.append([each["id"].tolist() for each in batch])
            return self.layer(batch[0]["vector"]).mean()

    data = LanceDataModule(
        table,
        splits=SequentialSplit(counts={"long": 61, "short": 21}),
        batch_size=7,
        stage_splits={"train": ["long", "short"]},
    )
    model = Both()
    quiet_trainer(tmp_path).fit(model, datamodule=data)
    assert sorted(flat(long for long, _ in model.ids)) == IDS["train"]
    short = flat(short for _, short in model.ids)  # 3 batches, in a cycle of 9
    epochs = [short[at : at + 21] for at in (0, 21, 42)]
    assert [sorted(epoch) for epoch in epochs] == [IDS["val"]] * 3
    assert epochs[0] != epochs[1]


def test_separate_sources_serve_a_split_each(table, tmp_path):
    other = write_table(tmp_path / "other.lance", 17)
    data = LanceDataModule(
        SeparateSources(
            train=LanceSource(table, filter="id % 2 = 0"),
            val=other,
            predict=ArrowSource(make_table(5, start=2)),
        ),
        batch_size=8,
        stage_splits={"test": "val"},
    )
    seen = run_all(data, tmp_path).seen
    assert sorted(flat(seen["train"])) == list(range(0, 103, 2))
    assert flat(seen["val"]) == list(range(17)) * 2
    assert flat(seen["test"]) == list(range(17))
    assert flat(seen["predict"]) == [2, 3, 4, 5, 6]


def test_a_filter_and_a_calculated_split_choose_the_rows(table, tmp_path):
    data = LanceDataModule(
        LanceSource(table, filter="id >= 10"),
        splits=CalculatedSplit("label", ["train", "val", "test"]),
        stage_splits={"predict": "test"},
    )
    seen = run_all(data, tmp_path).seen
    kept = range(10, 103)
    assert sorted(flat(seen["train"])) == [i for i in kept if i % 3 == 0]
    assert flat(seen["test"]) == [i for i in kept if i % 3 == 2]


def test_once_pinned_a_version_stays_for_the_modules_life(tmp_path):
    table = write_table(tmp_path / "table.lance", 103)
    data = LanceDataModule(
        table, splits=AllRows("test"), stage_splits={"train": "test"}
    )
    model = TrainOnly()
    quiet_trainer(tmp_path).fit(model, datamodule=data)
    lance.write_dataset(make_table(50, start=103), table, mode="append")
    recorder = Recorder()
    quiet_trainer(tmp_path).test(recorder, datamodule=data, verbose=False)
    assert flat(recorder.seen["test"]) == list(range(103))
    assert data.snapshot().version == 1


# -- without a Trainer --------------------------------------------------------


def test_the_module_works_in_a_plain_loop(table):
    data = LanceDataModule(table, splits=SPLITS, batch_size=8)
    data.prepare_data()
    data.setup("fit")
    epochs = []
    for _ in range(2):
        batches = list(data.train_dataloader())
        for batch in batches:
            check_values(batch)
        epochs.append(flat(batch["id"].tolist() for batch in batches))
    assert [sorted(epoch) for epoch in epochs] == [IDS["train"]] * 2
    assert epochs[0] != epochs[1]  # a new loader goes on counting
    for stage in STAGES[1:]:
        loader = getattr(data, f"{stage}_dataloader")()
        assert flat(batch["id"].tolist() for batch in loader) == IDS[stage]
    data.teardown("fit")


def test_loaders_can_be_asked_for_without_setup(table):
    data = LanceDataModule(table)
    assert len(data.train_dataloader()) == 4
    assert data.plan("train").num_rows == 103


def test_the_module_works_with_fabric(table):
    fabric = L.Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    data = LanceDataModule(table, splits=SPLITS, batch_size=8)
    data.setup("fit")
    layer = torch.nn.Linear(4, 1)
    model, optimizer = fabric.setup(layer, torch.optim.SGD(layer.parameters(), lr=0.0))
    ids = []
    for batch in data.train_dataloader():
        batch = fabric.to_device(batch)
        check_values(batch)
        ids += batch["id"].tolist()
        fabric.backward(model(batch["vector"]).mean())
        optimizer.step()
    assert sorted(ids) == IDS["train"]
    with pytest.raises(TypeError, match="setup_dataloaders"):
        fabric.setup_dataloaders(data.train_dataloader())


# -- subclasses, copies -------------------------------------------------------


class OwnSetup(LanceDataModule):
    """A user's subclass that forgets to call the base class's setup."""

    def setup(self, stage=None):
        self.ready = True


class OwnHooks(LanceDataModule):
    """A user's subclass that brings validation data of its own."""

    def val_dataloader(self):
        ids = torch.arange(6)
        rows = [{"id": i, "vector": torch.zeros(4)} for i in ids]
        return DataLoader(rows, batch_size=4)

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return {**batch, "moved": batch["id"]}


def test_a_subclass_may_have_a_setup_of_its_own(table, tmp_path):
    data = OwnSetup(table, splits=SPLITS)
    seen = run_all(data, tmp_path).seen
    assert data.ready
    assert flat(seen["predict"]) == IDS["predict"]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_subclasss_own_hooks_stay(table, tmp_path):
    class Moved(Recorder):
        def step(self, batch, stage):
            assert "moved" in batch
            return super().step(batch, stage)

    model = Moved()
    quiet_trainer(tmp_path).fit(model, datamodule=OwnHooks(table))
    assert flat(model.seen["val"]) == list(range(6))
    assert sorted(flat(model.seen["train"])) == list(range(103))


@pytest.mark.parametrize(
    "copied",
    [lambda data: pickle.loads(pickle.dumps(data)), copy.deepcopy, copy.copy],
    ids=["pickle", "deepcopy", "copy"],
)
def test_a_copy_reads_the_same_rows(table, tmp_path, copied):
    def epochs(data) -> list[list[int]]:
        loader = data.train_dataloader()
        loader.set_epoch(0)
        return [flat(b["id"].tolist() for b in loader) for _ in range(2)]

    splits = SequentialSplit(counts={"train": 61, "test": 21})
    data = LanceDataModule(table, splits=splits)
    copies = [copied(data)]
    data.setup("fit")
    copies.append(copied(data))
    model = TrainOnly()
    quiet_trainer(tmp_path).fit(model, datamodule=data)
    copies.append(copied(data))
    expected = epochs(data)
    assert model.ids == expected[0]
    for each in copies:
        model = TrainOnly()
        quiet_trainer(tmp_path, num_sanity_val_steps=2).fit(model, datamodule=each)
        assert sorted(model.ids) == IDS["train"]
        assert epochs(each) == expected
        assert each.hparams == data.hparams
        # What has no split still has no loader: fit skips it.
        with pytest.raises(ConfigError, match="no split serves the stage 'val'"):
            each.val_dataloader()


def test_a_copy_leaves_the_trainer_behind(table, tmp_path):
    data = LanceDataModule(table)
    quiet_trainer(tmp_path).fit(TrainOnly(), datamodule=data)
    assert data.trainer is not None
    assert copy.deepcopy(data).trainer is None
    assert len(pickle.dumps(data)) < 16_000


def test_a_pickled_module_keeps_the_pinned_version(tmp_path):
    table = write_table(tmp_path / "table.lance", 103)
    data = LanceDataModule(table)
    data.setup("fit")
    lance.write_dataset(make_table(50, start=103), table, mode="append")
    there = pickle.loads(pickle.dumps(data))
    assert there.snapshot().version == 1
    assert sorted(flat(b["id"].tolist() for b in there.train_dataloader())) == list(
        range(103)
    )


def test_text_says_what_is_read(table):
    data = LanceDataModule(table, splits=SPLITS)
    assert str(data) == f"LanceDataModule({table}; splits train, val, test, predict)"


def test_the_first_line_says_version_splits_and_training_steps(table, tmp_path, caplog):
    data = LanceDataModule(table, splits=SPLITS, batch_size=8)
    with caplog.at_level("INFO"):
        quiet_trainer(tmp_path, num_sanity_val_steps=1).fit(Recorder(), datamodule=data)
    said = [line for line in caplog.messages if line.startswith("Lance data: ")]
    assert said == [
        f"Lance data: {table}, version 1; splits: train 61 rows, val 21 rows, test 11 "
        "rows, predict 10 rows; train: 8 steps of 8 rows per rank"
    ]


def test_a_table_that_is_gone_stops_the_run_and_not_the_process(tmp_path):
    data = LanceDataModule(str(tmp_path / "none.lance"))
    with pytest.raises(SourceError, match=r"none\.lance"):
        quiet_trainer(tmp_path).fit(TrainOnly(), datamodule=data)
