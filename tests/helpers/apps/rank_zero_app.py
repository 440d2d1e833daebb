"""A run of two nodes in which a rank asks alone, in every hook; a test's script."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path


def main() -> None:
    import lance
    import torch
    from lightning.pytorch import Callback

    from lance_lightning import LanceDataModule, RandomSplit
    from tests.helpers.tables import make_table
    from tests.helpers.trainers import quiet_trainer
    from tests.helpers.writing import WritingRecorder

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--uri", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    class Pinning(LanceDataModule):
        """Pins in ``prepare_data``, where other nodes find a newer version."""

        def prepare_data(self):
            if self._tables.is_pinned:  # of another stage
                return
            first = self.trainer.is_global_zero
            pinned = args.out / "pinned"
            if not first:
                while not pinned.exists():
                    time.sleep(0.05)
                lance.write_dataset(make_table(9, 900), args.uri, mode="append")
            self.setup("fit")
            self.permutation("val")
            versions = self.snapshot().version, len(self.dataset("train"))
            (args.out / f"prepared-{int(not first)}").write_text(repr(versions))
            pinned.touch()

    asked = []

    class Asking(Callback):
        """On rank 0 alone: every question there is, in every hook."""

        def __init__(self):
            for name in dir(Callback):
                if name.startswith("on_") or name in ("setup", "teardown"):
                    setattr(self, name, partial(self.ask, name))

        def ask(self, name, trainer, *_args, **_options):
            if not trainer.is_global_zero or name in asked:
                return
            asked.append(name)
            data = trainer.datamodule
            for stage in ("train", "val", "test", "predict"):
                loader = getattr(data, f"{stage}_dataloader")()
                assert len(loader) > 0
                if stage != "train":
                    next(iter(loader))
            data.setup("test")
            data.permutation("test")
            next(iter(data.dataset("train")))
            data.state_dict()

    data = Pinning(
        args.uri,
        splits=RandomSplit({"train": 0.6, "val": 0.3, "test": 0.1}),
        columns=["id", "vector"],
        stage_splits={"predict": "test"},
        batch_size=4,
    )
    model = WritingRecorder(args.out)
    trainer = quiet_trainer(
        args.out,
        strategy="ddp",
        num_nodes=2,
        callbacks=[Asking()],
        num_sanity_val_steps=2,
        reload_dataloaders_every_n_epochs=1,
        max_epochs=2,
    )
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        (args.out / "asked").write_text("\n".join(asked))


if __name__ == "__main__":
    main()
