"""Runs on two processes, one for each kind of sampler; a test's script."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path


def main() -> None:
    import torch
    from torch.utils.data import DistributedSampler, RandomSampler

    from lance_lightning import (
        LanceDataModule,
        LanceLightningError,
        ShardedBatches,
        ShardedFragments,
    )
    from tests.helpers.models import Recorder
    from tests.helpers.own_samplers import Growing, OfOneRank, SomeRows
    from tests.helpers.trainers import quiet_trainer

    torch.set_num_threads(1)
    uri, out = sys.argv[1], Path(sys.argv[2])
    samplers = {
        "fragments": ShardedFragments(randomize=True),
        "batches": ShardedBatches(randomize=True),
        "random": RandomSampler,
        "distributed": partial(DistributedSampler, seed=1),
        "own batches": Growing(),
        "lance": SomeRows(),
        "of one rank": OfOneRank(),
    }
    found = {}
    for name, sampler in samplers.items():
        options = {"batch_size": 4, "stage_splits": {"val": "train"}}
        data = LanceDataModule(uri, sampler=sampler, **options)
        model = Recorder()
        trainer = quiet_trainer(
            out, strategy="ddp", devices=2, max_epochs=2, limit_val_batches=0
        )
        try:
            trainer.fit(model, datamodule=data)
        except LanceLightningError as error:
            found[name] = str(error)
        else:
            found[name] = model.seen["train"]
        rank = trainer.global_rank
    (out / f"rank-{rank}.json").write_text(json.dumps(found))
    # The threads of a group that is left open can abort a process that ends.
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
