"""Smaller bounds for small tables, wherever a bound is used."""

from __future__ import annotations

import sys


def set_bound(monkeypatch, name: str, value) -> None:
    """Set a constant in every file of the package that has it."""
    modules = [
        module
        for full, module in list(sys.modules.items())
        if full.startswith("lance_lightning.") and name in vars(module)
    ]
    assert modules
    for module in modules:
        monkeypatch.setattr(module, name, value)
