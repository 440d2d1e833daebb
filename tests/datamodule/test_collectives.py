"""No rank waits for another where it can come by itself."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import lance
import pyarrow as pa
import pytest
from lightning.pytorch import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer import call

from lance_lightning import ArrowSource, LanceDataModule, LanceSource, RandomSplit
from lance_lightning.datamodule import asked
from lance_lightning.datamodule.ranks import Ranks
from tests.helpers.models import Recorder
from tests.helpers.processes import APPS, free_port, of_rank, written
from tests.helpers.tables import flat, write_table
from tests.helpers.trainers import quiet_trainer

APP = APPS / "rank_zero_app.py"
PARTS = RandomSplit({"train": 0.6, "val": 0.3, "test": 0.1})
HOOKS = [name for name in dir(Callback) if name.startswith("on_")]


@pytest.mark.slow
def test_a_rank_that_asks_alone_hangs_no_other(tmp_path):
    uri = write_table(tmp_path / "t.lance", 103, 30)
    port = str(free_port())
    nodes = [
        subprocess.Popen(
            [sys.executable, str(APP), "--uri", uri, "--out", str(tmp_path)],
            env=of_rank(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, NODE_RANK=str(rank)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [node.communicate(timeout=240)[1][-3000:] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
            node.communicate()
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    hooks = (tmp_path / "asked").read_text().split()
    assert {"setup", "on_fit_start", "on_train_start", "on_validation_end"} < set(hooks)
    # Rank 1 pinned a newer version in prepare_data, which gave way to rank 0's.
    assert (tmp_path / "prepared-0").read_text() == "(1, 62)"
    assert (tmp_path / "prepared-1").read_text() == "(2, 67)"
    ranks = written(tmp_path)
    assert [rank["version"] for rank in ranks] == [1, 1]
    assert ranks[0]["digests"] == ranks[1]["digests"]
    seen = flat(batch for rank in ranks for batch in rank["seen"]["test"])
    assert len(seen) == len(set(seen)) == 10


class Counting(SingleDeviceStrategy):
    """One device that counts what would be a collective of ours on two."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.collectives = 0

    def broadcast(self, obj, src=0):
        self.collectives += 1
        return obj

    def reduce_boolean_decision(self, decision, all=True):
        caller = inspect.currentframe().f_back.f_globals["__name__"]
        self.collectives += caller.startswith("lance_lightning")
        return decision


class Asking(Callback):
    def __init__(self, ask) -> None:
        self.ask = ask
        self.asked: set[str] = set()
        for name in HOOKS:
            setattr(self, name, lambda *args, name=name, **_: self.question(name, args))

    def question(self, name, args):
        if name == "on_exception":
            return
        trainer = args[0]
        before = trainer.strategy.collectives
        self.ask(trainer.datamodule)
        assert trainer.strategy.collectives == before, name
        self.asked.add(name)


QUESTIONS = {
    "train": lambda data: len(data.train_dataloader()),
    "val": lambda data: next(iter(data.val_dataloader())),
    "test": lambda data: len(data.test_dataloader()),
    "predict": lambda data: data.predict_dataloader(),
    "snapshot": lambda data: data.snapshot(),
    "plan": lambda data: data.plan("test"),
    "dataset": lambda data: data.dataset("val")[0],
    "permutation": lambda data: data.permutation("val"),
    "state": lambda data: data.state_dict(),
    "setup": lambda data: data.setup("test"),
}


def test_no_question_in_a_callback_is_a_collective(table, tmp_path):
    data = LanceDataModule(
        table, splits=PARTS, batch_size=8, stage_splits={"predict": "test"}
    )
    strategy = Counting()
    asking = Asking(lambda data: [ask(data) for ask in QUESTIONS.values()])
    trainer = quiet_trainer(tmp_path, strategy=strategy, callbacks=[asking])
    trainer.fit(Recorder(), datamodule=data)
    assert strategy.collectives > 0  # where Lightning itself asks
    assert {"on_fit_start", "on_train_batch_start", "on_validation_end"} < asking.asked


def test_rank_zero_proposes_what_prepare_data_pinned(own_table, tmp_path):
    class Pinning(LanceDataModule):
        def prepare_data(self):
            before = self.trainer.strategy.collectives
            for ask in QUESTIONS.values():
                ask(self)
            assert self.trainer.strategy.collectives == before
            lance.dataset(own_table).delete("id < 50")

    data = Pinning(
        own_table, splits=PARTS, batch_size=8, stage_splits={"predict": "test"}
    )
    trainer = quiet_trainer(tmp_path, strategy=Counting())
    trainer.fit(Recorder(), datamodule=data)
    assert data.snapshot().version == 1 < lance.dataset(own_table).version
    assert data.snapshot().num_rows == 103


def test_a_setup_without_super_is_pinned_by_the_loader_hook(table, tmp_path):
    class Forgetful(LanceDataModule):
        def setup(self, stage):
            pass

    strategy = Counting()
    data = Forgetful(table, batch_size=8, stage_splits={"val": "train"})
    quiet_trainer(tmp_path, strategy=strategy).fit(Recorder(), datamodule=data)
    assert data.snapshot().version == 1
    assert data._tables._agreed == strategy.world_size


def test_a_source_is_resolved_once(tmp_path, monkeypatch):
    counts = {"hash": 0, "resolve": 0}
    module = sys.modules[ArrowSource.__module__]
    digest, resolve = module.content_digest, ArrowSource.resolve

    def counted(table):
        counts["hash"] += 1
        return digest(table)

    def resolved(self, *args, **options):
        counts["resolve"] += 1
        return resolve(self, *args, **options)

    monkeypatch.setattr(module, "content_digest", counted)
    monkeypatch.setattr(ArrowSource, "resolve", resolved)
    data = LanceDataModule(ArrowSource(pa.table({"id": range(9)})), batch_size=4)
    for stage in ("fit", "validate", "test"):
        data.setup(stage)
    next(iter(data.train_dataloader()))
    data.dataset()
    assert counts == {"hash": 1, "resolve": 1}


class OfRank(Ranks):
    """A rank of two, in this process: what rank 0 proposes is given."""

    size = 2

    def __init__(self, first: bool, proposed=None) -> None:
        self._first, self._proposed = first, proposed

    def broadcast(self, propose):
        return propose() if self._first else self._proposed

    def agree(self, decision):
        return decision


def test_a_rank_keeps_its_pin_only_where_it_is_that_of_rank_zero(
    own_table, monkeypatch
):
    lance.dataset(own_table).delete("id = 3")
    counts = []
    resolve = LanceSource.resolve

    def resolved(self, cache_dir, version=None):
        counts.append(version)
        return resolve(self, cache_dir, version)

    monkeypatch.setattr(LanceSource, "resolve", resolved)
    first = LanceDataModule(own_table)._tables
    first.agree(OfRank(first=True))
    assert counts == [None]  # rank 0 resolves the newest, once
    same = LanceDataModule(own_table)._tables
    same.pin()
    same.agree(OfRank(first=False, proposed={"": 2}))
    assert counts == [None, None]  # it had that version already
    other = LanceDataModule(own_table)._tables
    rows = other.plan("train").num_rows
    other.agree(OfRank(first=False, proposed={"": 1}))
    assert counts == [None, None, None, 1]
    assert (rows, other.plan("train").num_rows) == (102, 103)
    other.agree(OfRank(first=False, proposed={"": 2}))
    assert other.snapshot().version == 1  # once agreed, it stays


def test_hooks_are_called_by_the_functions_that_asked_knows():
    # Lightning's own, private: a release that renames one would hide who asks.
    for name in ("callback_hooks", "lightning_datamodule_hook", "strategy_hook"):
        assert (
            "hook_name" in inspect.signature(getattr(call, f"_call_{name}")).parameters
        )
    assert asked.hook_of_trainer() is None


def test_states_are_the_same_whoever_asked(tmp_path, table):
    plain = LanceDataModule(table, splits=PARTS, batch_size=8)
    quiet_trainer(tmp_path).fit(Recorder(), datamodule=plain)
    data = LanceDataModule(table, splits=PARTS, batch_size=8)
    data.plan("val")
    quiet_trainer(tmp_path).fit(Recorder(), datamodule=data)
    assert json.dumps(data.state_dict()) == json.dumps(plain.state_dict())
