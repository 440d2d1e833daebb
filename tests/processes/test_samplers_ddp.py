"""Samplers of every kind on two real processes: nothing is sharded twice."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from torch.utils.data import DistributedSampler

from tests.helpers.processes import APPS, of_rank
from tests.helpers.tables import flat, write_table

APP = APPS / "sampler_app.py"
ROWS = 103

pytestmark = pytest.mark.slow  # two ranks


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank saw, by sampler."""
    out = tmp_path_factory.mktemp("ranks")
    uri = write_table(out / "t.lance", ROWS, 30)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    done = subprocess.run(
        [sys.executable, *launcher, str(APP), uri, str(out)],
        env=of_rank(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def epochs(ranks, name) -> list[list[list[int]]]:
    """Return the rows of each rank, by epoch."""
    sizes = [[len(batch) for batch in rank[name]] for rank in ranks]
    assert len(sizes[0]) == len(sizes[1])
    half = len(sizes[0]) // 2
    return [
        [flat(rank[name][part]) for rank in ranks]
        for part in (slice(half), slice(half, None))
    ]


@pytest.mark.parametrize(
    ("name", "rows"),
    [("fragments", 86), ("batches", ROWS), ("random", ROWS), ("distributed", ROWS)],
)
def test_ranks_share_the_rows_of_an_epoch(ranks, name, rows):
    found = epochs(ranks, name)
    assert found[0] != found[1]
    for epoch in found:
        seen = flat(epoch)
        assert len(seen) == len(set(seen)) == rows


def test_ranks_share_a_sample_and_batches(ranks):
    for epoch in epochs(ranks, "lance"):
        assert len(set(flat(epoch))) == len(flat(epoch)) == 40
    for epoch in epochs(ranks, "own batches"):
        assert [len(rows) for rows in epoch] == [1 + 3 + 5 + 7 + 9 + 11, 42]
        assert len(set(flat(epoch))) == 78


def test_ranks_have_the_rows_of_their_distributed_samplers(ranks):
    for number, epoch in enumerate(epochs(ranks, "distributed")):
        for rank, rows in enumerate(epoch):
            theirs = DistributedSampler(range(ROWS), 2, rank, seed=1)
            theirs.set_epoch(number)
            # Without the row that torch repeats.
            assert set(rows) <= set(theirs)
            assert len(rows) >= len(theirs) - 4


def test_a_sampler_with_a_rank_of_its_own_stops_all_ranks(ranks):
    for rank in ranks:
        assert "the sampler draws other rows on some ranks" in rank["of one rank"]
