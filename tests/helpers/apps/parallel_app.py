"""A run under ModelParallelStrategy: how many of the processes are one replica."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    import torch
    from lightning.pytorch.strategies import ModelParallelStrategy

    from lance_lightning import LanceDataModule, RandomSplit
    from tests.helpers.trainers import quiet_trainer
    from tests.helpers.writing import WritingRecorder

    class Parallel(WritingRecorder):
        def configure_model(self) -> None:
            """Do nothing: the strategy asks for it, but this model is not cut."""

    torch.set_num_threads(1)
    uri, out = sys.argv[1], Path(sys.argv[2])
    data_parallel, tensor_parallel = int(sys.argv[3]), int(sys.argv[4])
    strategy = ModelParallelStrategy(
        data_parallel, tensor_parallel, process_group_backend="gloo"
    )
    data = LanceDataModule(
        uri,
        splits=RandomSplit({"train": 0.6, "val": 0.3, "test": 0.1}),
        columns=["id", "vector"],
        stage_splits={"predict": "test"},
        batch_size=4,
    )
    model = Parallel(out)
    trainer = quiet_trainer(out, strategy=strategy, devices=2)
    trainer.fit(model, datamodule=data)
    trainer.validate(model, datamodule=data, verbose=False)
    trainer.test(model, datamodule=data, verbose=False)
    trainer.predict(model, datamodule=data, return_predictions=False)


if __name__ == "__main__":
    main()
