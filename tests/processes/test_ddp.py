"""Two real gloo processes: who sees which rows, under every launcher."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import lance
import pytest

from tests.helpers.processes import (
    DDP_APP,
    REPO,
    fail_ranks,
    free_port,
    of_rank,
    run_ranks,
    written,
)
from tests.helpers.tables import flat, make_table, write_table


def check_rows(ranks: list, rows: int, epochs: int = 1, sanity: int = 0) -> None:
    """Hold what all ranks saw together against the table."""
    steps = [{stage: len(seen) for stage, seen in r["seen"].items()} for r in ranks]
    assert all(step == steps[0] for step in steps)
    assert all(rank["digests"] == ranks[0]["digests"] for rank in ranks)
    seen = {
        stage: Counter(flat(batch for rank in ranks for batch in rank["seen"][stage]))
        for stage in ("train", "val", "test", "predict")
    }
    assert set(seen["train"].values()) == {epochs}
    assert set(seen["test"].values()) == {1}
    assert seen["predict"] == seen["test"]
    assert set(seen["val"].values()) == {epochs + 1}  # in fit, and validate after it
    everything = seen["train"] | seen["val"] | seen["test"]
    assert set(everything) == set(range(rows))
    assert sum(len(seen[stage]) for stage in ("train", "val", "test")) == rows


@pytest.mark.parametrize("rows", [103, pytest.param(64, marks=pytest.mark.slow)])
def test_every_row_comes_once_over_two_ranks(tmp_path, rows):
    uri = write_table(tmp_path / "t.lance", rows, 30)
    ranks = run_ranks(uri, tmp_path / "out", "--trainer", '{"max_epochs": 2}')
    assert len(ranks) == 2
    check_rows(ranks, rows, epochs=2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_look_before_fit_on_one_rank_moves_no_rank(tmp_path, workers):
    uri = write_table(tmp_path / "t.lance", 103, 30)
    options = "--stages=fit,test,predict", f'--module={{"num_workers": {workers}}}'
    looked = run_ranks(uri, tmp_path / "looked", "--look-first", *options)
    unlooked = run_ranks(uri, tmp_path / "unlooked", *options)
    assert [rank["seen"] for rank in looked] == [rank["seen"] for rank in unlooked]
    seen = flat(batch for rank in looked for batch in rank["seen"]["train"])
    assert len(seen) == len(set(seen)) == 62


@pytest.mark.slow
def test_every_row_comes_once_with_workers(tmp_path):
    uri = write_table(tmp_path / "t.lance", 103, 30)
    ranks = run_ranks(uri, tmp_path / "out", "--module", '{"num_workers": 1}')
    check_rows(ranks, 103)


@pytest.mark.slow
def test_every_row_comes_once_under_torchrun(tmp_path):
    uri = write_table(tmp_path / "t.lance", 103, 30)
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2")
    launcher += ("--master_port", str(free_port()))
    ranks = run_ranks(uri, tmp_path / "out", launcher=launcher)
    assert len(ranks) == 2
    check_rows(ranks, 103)


@pytest.mark.slow
def test_every_row_comes_once_under_ddp_spawn(tmp_path):
    uri = write_table(tmp_path / "t.lance", 103, 30)
    out = tmp_path / "out"
    for stage, seen in (("fit", ["train", "val"]), ("test", ["test"])):
        # A spawned model does not come back: one stage a run.
        options = ("--strategy", "ddp_spawn", "--stages", stage)
        ranks = run_ranks(uri, out, *options)
        assert len(ranks) == 2
        for name in seen:
            both = [flat(rank["seen"][name]) for rank in ranks]
            assert not set(both[0]) & set(both[1])
            assert (
                len(both[0]) + len(both[1])
                == {"train": 62, "val": 31, "test": 10}[name]
            )


@pytest.mark.slow
def test_every_row_comes_once_over_two_nodes(tmp_path):
    uri = write_table(tmp_path / "t.lance", 103, 30)
    out = tmp_path / "out"
    out.mkdir()
    port = str(free_port())
    command = [sys.executable, str(DDP_APP), "--uri", uri, "--out", str(out)]
    nodes = [
        subprocess.Popen(
            [*command, "--devices", "1", "--nodes", "2"],
            env=of_rank(
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
                NODE_RANK=str(rank),
                LANCE_LIGHTNING_CACHE_DIR=str(tmp_path / f"cache-{rank}"),
            ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    assert [node.wait(200) for node in nodes] == [0, 0]
    ranks = written(out)
    assert len(ranks) == 2
    check_rows(ranks, 103)


@pytest.mark.slow
def test_ranks_agree_on_the_version_while_the_table_grows(tmp_path):
    uri = write_table(tmp_path / "t.lance", 103, 30)
    out = tmp_path / "out"
    out.mkdir()
    grow = "import sys, time, lance; sys.path.insert(0, sys.argv[2])\n"
    grow += "from tests.helpers.tables import make_table\n"
    grow += "for i in range(2000):\n"
    grow += "    lance.write_dataset(make_table(7, 1000 + 7 * i), sys.argv[1], "
    grow += "mode='append'); time.sleep(0.01)\n"
    writer = subprocess.Popen([sys.executable, "-c", grow, uri, str(REPO)])
    try:
        while lance.dataset(uri).version < 3:  # it writes
            pass
        ranks = run_ranks(uri, out, "--stages", "fit")
    finally:
        writer.kill()
        writer.wait()
    assert ranks[0]["version"] == ranks[1]["version"]
    assert ranks[0]["digests"] == ranks[1]["digests"]
    assert lance.dataset(uri).version > ranks[0]["version"]  # it did grow meanwhile
    rows = lance.dataset(uri, version=ranks[0]["version"]).count_rows()
    both = Counter(flat(batch for rank in ranks for batch in rank["seen"]["train"]))
    # Two ranks cannot share one row that is left over: both get it.
    again = int(len(both) % (2 * 4) == 1)
    assert sum(both.values()) == len(both) + again
    assert max(both.values()) == 1 + again
    assert len(both) == pytest.approx(0.6 * rows, abs=1)


@pytest.mark.slow
@pytest.mark.parametrize("data_parallel", [1, 2])
def test_tensor_parallel_peers_get_the_same_rows(tmp_path, data_parallel):
    uri = write_table(tmp_path / "t.lance", 103, 30)
    out = tmp_path / "out"
    out.mkdir()
    sizes = (str(data_parallel), str(2 // data_parallel))
    subprocess.run(
        [
            sys.executable,
            str(DDP_APP.with_name("parallel_app.py")),
            uri,
            str(out),
            *sizes,
        ],
        env=of_rank(MASTER_PORT=str(free_port())),
        capture_output=True,
        timeout=200,
        check=True,
    )
    ranks = written(out)
    assert len(ranks) == 2
    if data_parallel == 1:  # two processes, one replica
        assert ranks[0]["seen"] == ranks[1]["seen"]
        check_rows(ranks[:1], 103)
    else:
        check_rows(ranks, 103)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "message"),
    [
        ('{"global_batch_size": 5, "batch_size": null}', "world size 2"),
        ('{"batch_size": 50, "drop_last": true}', "drop_last"),
        ('{"splits": {"_target_": "lance_lightning.SequentialSplit", '
         '"counts": {"train": 1, "val": 1, "test": 2}}}', "1 rows for 2 ranks"),
    ],
)  # fmt: skip
def test_bad_sizes_stop_every_rank(tmp_path, module, message):
    uri = write_table(tmp_path / "t.lance", 103, 30)
    assert message in fail_ranks(uri, tmp_path / "out", "--module", module)


@pytest.mark.slow
def test_forking_launcher_is_refused(tmp_path):
    uri = write_table(tmp_path / "t.lance", 103, 30)
    said = fail_ranks(uri, tmp_path / "out", "--strategy", "ddp_fork")
    assert "forked" in said
    assert "ddp_spawn" in said


def test_table_is_what_it_says(tmp_path):
    # The app compares ids; this holds the table itself to what they stand for.
    table = make_table(5, start=2)
    assert table["id"].to_pylist() == [2, 3, 4, 5, 6]
    assert table["vector"][0].as_py() == [8.0, 9.0, 10.0, 11.0]
