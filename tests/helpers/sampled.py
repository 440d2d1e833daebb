"""The rows that a sampler gives."""

from __future__ import annotations

from lance_lightning import (
    LanceDataModule,
)


def module(uri, sampler, **options):
    options = {"batch_size": 8, "columns": ["id", "label"], **options}
    return LanceDataModule(uri, sampler=sampler, **options)


def ids(loader) -> list[list[int]]:
    found = [batch["id"].tolist() for batch in loader]
    assert len(found) == len(loader)
    return found
