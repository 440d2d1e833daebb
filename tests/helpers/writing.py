"""A recorder that writes what its rank saw; a module of its own, so it pickles."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.models import Recorder


class WritingRecorder(Recorder):
    """Writes ``rank-R.json`` after every stage."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.out = out

    def write(self) -> None:
        data = self.trainer.datamodule
        state = {
            "seen": self.seen,
            "version": data.snapshot().version,
            "state": data.state_dict(),
            "digests": {name: data.plan(name).digest for name in data.split_names},
        }
        path = self.out / f"rank-{self.global_rank}.json"
        path.write_text(json.dumps(state))

    def on_fit_end(self) -> None:
        self.write()

    def on_validation_end(self) -> None:
        self.write()

    def on_test_end(self) -> None:
        self.write()

    def on_predict_end(self) -> None:
        self.write()
