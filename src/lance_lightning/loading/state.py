"""Where a run stands, and the comparison of a checkpoint with what is configured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lance_lightning.errors import StateError

STATE_VERSION = 1
AFRESH = (  # what to do where a run cannot resume; each error says it this way
    "load only the weights, model = Model.load_from_checkpoint(path), and call fit "
    "without ckpt_path"
)
RESTORE = f"To resume the run, restore these settings; to start afresh, {AFRESH}."


def differences(
    saved: Mapping[str, Any], current: Mapping[str, Any], names: Iterable[str]
) -> str:
    """Return a line a name for every value that differs, '' when none does."""
    lines = [
        f"  {name}: {saved.get(name)!r} in the checkpoint, {current.get(name)!r} here"
        for name in names
        if saved.get(name) != current.get(name)
    ]
    return "\n".join(lines)


def check_same(
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    names: Iterable[str],
    remedy: str = RESTORE,
) -> None:
    """Raise a `StateError` that prints both sides of every difference."""
    found = differences(saved, current, names)
    if found:
        raise StateError(
            f"the checkpoint does not belong to this configuration:\n{found}\n{remedy}"
        )


def check_version(state: Mapping[str, Any]) -> None:
    """Raise unless this release can read the state.

    Raises:
        StateError: It was written in another format.
    """
    found = state.get("state_version")
    if found != STATE_VERSION:
        raise StateError(
            f"the checkpoint's data state has version {found!r}, this release of "
            f"lance_lightning reads version {STATE_VERSION}: resume with the release "
            f"that wrote it; to start afresh, {AFRESH}"
        )
