"""Trainers that say nothing."""

from __future__ import annotations

import lightning as L


def quiet_trainer(tmp_path, **options) -> L.Trainer:
    """Return a CPU trainer that prints and writes nothing it is not asked for."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(tmp_path),
        "max_epochs": 1,
        "num_sanity_val_steps": 0,
    }
    return L.Trainer(**{**defaults, **options})
