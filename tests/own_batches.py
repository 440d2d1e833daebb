"""Functions that workers run; a module of its own, so that workers load little."""

from __future__ import annotations

import os
import time
from pathlib import Path


class OwnBatch:
    """A batch of the user's own type, which can pin itself."""

    def __init__(self, rows) -> None:
        self.rows, self.pinned = rows, False

    def pin_memory(self) -> OwnBatch:
        found = OwnBatch(self.rows)
        found.pinned = True
        return found


class WriteWorker:
    """A ``worker_init_fn`` that leaves a file for each worker it ran in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, worker: int) -> None:
        (self.folder / f"worker-{worker}").write_text(str(os.getpid()))


def slow(batch):
    """A transform that takes longer than anyone would wait."""
    time.sleep(60)
    return batch
