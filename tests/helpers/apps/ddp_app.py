"""A run on several processes that writes the row ids each rank saw; a test's script."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def main() -> None:
    import torch

    from lance_lightning import LanceDataModule, RandomSplit
    from tests.helpers.resuming import SaveFrom
    from tests.helpers.trainers import quiet_trainer
    from tests.helpers.writing import WritingRecorder

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--uri", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--strategy", default="ddp")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--module", type=json.loads, default={})
    parser.add_argument("--trainer", type=json.loads, default={})
    parser.add_argument("--stages", default="fit,validate,test,predict")
    parser.add_argument("--ckpt", help="resume fit from it")
    parser.add_argument("--save", type=json.loads, help="arguments of SaveFrom")
    parser.add_argument("--look-first", action="store_true", help="on rank 0 alone")
    args = parser.parse_args()

    data = LanceDataModule(
        args.uri,
        **{
            "splits": RandomSplit({"train": 0.6, "val": 0.3, "test": 0.1}),
            "columns": ["id", "vector"],
            "stage_splits": {"predict": "test"},
            "batch_size": 4,
            **args.module,
        },
    )
    if args.look_first and os.environ.get("LOCAL_RANK", "0") == "0":
        data.prepare_data()
        data.setup()
        for stage in "train", "val", "test":
            next(iter(getattr(data, f"{stage}_dataloader")()))
    model = WritingRecorder(args.out)
    trainer = quiet_trainer(
        args.out,
        strategy=args.strategy,
        devices=args.devices,
        num_nodes=args.nodes,
        callbacks=[SaveFrom(args.out, **args.save)] if args.save else [],
        **args.trainer,
    )
    for stage in args.stages.split(","):
        options = {} if stage in ("fit", "predict") else {"verbose": False}
        if stage == "predict":
            options["return_predictions"] = False
        if stage == "fit":
            options["ckpt_path"] = args.ckpt
        getattr(trainer, stage)(model, datamodule=data, **options)


if __name__ == "__main__":
    main()
