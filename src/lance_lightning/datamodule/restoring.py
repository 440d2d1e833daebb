"""A checkpoint beside what is configured: whether they agree, and what to read then."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch.utilities import rank_zero_info

from lance_lightning.datamodule.config import ModuleConfig
from lance_lightning.datamodule.pins import ALL, PinnedTables
from lance_lightning.errors import StateError
from lance_lightning.loading import AFRESH, ModuleState


def configuration_of(config: ModuleConfig) -> ModuleState:
    """Return what is configured, without a position."""
    return ModuleState(
        seed=config.seed,
        splits=None if config.is_separate else config.splits.key(),
        filter={name: each.filter for name, each in config.sources.items()},
    )


def check_sources(saved: ModuleState, config: ModuleConfig) -> None:
    """Raise a `StateError` if the checkpoint was trained on other sources."""
    if set(saved.sources) != set(config.sources):
        raise StateError(
            f"the checkpoint was trained on {_listed(saved.sources)}, configured "
            f"is {_listed(config.sources)}: configure the same; to start "
            f"afresh, {AFRESH}"
        )


def check_loaders(saved: ModuleState, config: ModuleConfig) -> None:
    """Raise a `StateError` if the checkpoint has another number of loaders."""
    here = list(config.stage_splits["train"])
    if saved.train and len(saved.train) != len(here):
        raise StateError(
            "the checkpoint was trained on the splits "
            f"{[each.split for each in saved.train]}, a loader each, and here "
            f"training has {here}: restore stage_splits; to start afresh, "
            f"{AFRESH}"
        )


def repin(
    tables: PinnedTables, saved: ModuleState, stage: str, *, has_loaders: bool
) -> None:
    """Read the versions of a checkpoint from now on.

    Args:
        tables: The tables.
        saved: The checkpoint's state.
        stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
        has_loaders: Whether loaders were handed out already.

    Raises:
        StateError: The rows of the checkpoint cannot be read.
    """
    found, notes = tables.of_checkpoint(saved.sources, stage)
    for note in notes:
        rank_zero_info(f"Lance data: {note}")
    if not tables.differ(found):
        return
    if has_loaders and stage == "fit":
        versions = ", ".join(str(pin.version) for pin in found.values())
        raise StateError(
            "loaders were asked for before the checkpoint was restored "
            "(estimated_stepping_batches does that, and DeepSpeed), and they read "
            "the newest version while the checkpoint was trained on another: set "
            f"version={versions}"
        )
    tables.repin(found)


def _listed(sources: Iterable[str]) -> str:
    names = sorted(sources)
    return "one source" if names == [ALL] else f"a source for each of {names}"
