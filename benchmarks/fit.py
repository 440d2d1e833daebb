"""`Trainer.fit` of a small network over our loader, and over one constant batch."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any

from benchmarks.peers.ours import data_module
from benchmarks.speed import task_of

WARM_STEPS = 50


class Constant:
    """The same batch, that many times: training that never waits for data.

    Args:
        batch: The batch.
        steps: Steps of an epoch.
    """

    def __init__(self, batch: Any, steps: int) -> None:
        self.batch = batch
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.steps):
            yield self.batch


def run(constant: bool, threads: int | None = None, **arguments: Any) -> dict[str, Any]:
    """Measure an epoch of training in rows per second.

    Args:
        constant: Whether to train on one constant batch.
        threads: Threads of torch; None leaves torch's default.
        **arguments: What `task_of` takes.
    """
    import lightning
    import torch

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if threads:
        torch.set_num_threads(threads)
    task = task_of(arguments)
    data = data_module(task, columns=["label", "vector"])
    batch = {
        "label": torch.randint(0, 10, (task.batch_size,)),
        "vector": torch.randn(task.batch_size, 128),
    }
    steps = -(-task.rows // task.batch_size)
    _fit(lightning, _model(lightning, torch), Constant(batch, WARM_STEPS))
    source = Constant(batch, steps) if constant else data
    seconds = _fit(lightning, _model(lightning, torch), source)
    return {"value": task.rows / seconds, "threads": torch.get_num_threads()}


def _model(lightning: Any, torch: Any) -> Any:
    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(128, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10)
            )

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            logits = self.layers(batch["vector"])
            return torch.nn.functional.cross_entropy(logits, batch["label"])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    return Classifier()


def _fit(lightning: Any, model: Any, source: Any) -> float:
    """Train for an epoch and return its seconds, from before the first batch."""

    class Clock(lightning.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.began = time.perf_counter()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.seconds = time.perf_counter() - self.began

    clock = Clock()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[clock],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, source)
    return clock.seconds
