"""Loaders without a trainer: the world is that of torch.distributed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch.distributed as dist

from lance_lightning import ConfigError, LanceDataModule
from tests.helpers.tables import flat, write_table

SCRIPT = """
import json, sys
import torch.distributed as dist


def main():
    from lance_lightning import LanceDataModule

    dist.init_process_group("gloo")
    data = LanceDataModule(sys.argv[1], batch_size=8, stage_splits={"val": "train"})
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    train = [[b["id"].tolist() for b in loader] for _ in range(2)]
    val = [b["id"].tolist() for b in data.val_dataloader()]
    with open(f"{sys.argv[2]}/{dist.get_rank()}.json", "w") as file:
        json.dump([train, val], file)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_ranks_of_torchrun_share_the_rows_without_a_trainer(tmp_path):
    import json

    uri = write_table(tmp_path / "t.lance", 103, 30)
    (tmp_path / "script.py").write_text(SCRIPT)
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node=2", str(tmp_path / "script.py"), uri, str(tmp_path)),
        ],
        check=True,
        capture_output=True,
        timeout=200,
    )
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for epoch in range(2):
        assert len(ranks[0][0][epoch]) == len(ranks[1][0][epoch]) == 7
        seen = flat(ranks[0][0][epoch]) + flat(ranks[1][0][epoch])
        assert sorted(seen) == list(range(103))
    assert ranks[0][0][0] != ranks[0][0][1]
    assert len(ranks[0][1]) == len(ranks[1][1])
    assert flat(ranks[0][1]) + flat(ranks[1][1]) == list(range(103))


def test_a_loader_made_for_another_world_raises(tmp_path):
    uri = write_table(tmp_path / "t.lance", 103)
    data = LanceDataModule(uri, stage_splits={"val": "train"})
    loaders = [data.train_dataloader(), data.val_dataloader()]
    store = dist.HashStore()
    # Rank 1 of 2 by a fake group: only its numbers are asked for.
    dist.init_process_group("fake", rank=1, world_size=2, store=store)
    try:
        for loader in loaders:
            with pytest.raises(ConfigError, match=r"rank 0 of 1.*rank 1 of 2"):
                next(iter(loader))
    finally:
        dist.destroy_process_group()
    assert len(next(iter(loaders[0]))["id"]) == 32
