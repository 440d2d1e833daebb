"""Where a run stands, and the comparison of a checkpoint with what is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lance_lightning.types import StateError

STATE_VERSION = 1


class EpochClock:
    """Counts the epochs of one training loader and the batches within an epoch.

    The batches are counted by whoever knows: the trainer, which counts those it
    has processed (a batch that was read ahead, or on which the step raised, does
    not count), or else this clock itself, which counts those handed out.

    Args:
        processed: Returns how many batches were processed so far, in all epochs;
            None counts with `tick`.
    """

    def __init__(self, processed: Callable[[], int] | None = None) -> None:
        self._handed_out = 0
        self._given = processed
        self._next: tuple[int, int] | None = (0, 0)
        self._epoch = 0
        self._start = 0  # the count at which the epoch began

    def __getstate__(self) -> dict[str, Any]:
        # Who counts (a trainer) stays behind when the clock goes to another process.
        return {**self.__dict__, "_given": None}

    def count_with(self, processed: Callable[[], int] | None) -> None:
        """Go on counting with another counter, from where the clock stands.

        With another counter a position in mid-epoch is given up: the next `begin`
        is the next epoch, as it is for every new iteration.
        """
        if processed == self._given:
            return
        if self._next is None:
            self._next = (self._epoch + 1, 0)
        self._given = processed

    def _processed(self) -> int:
        return self._handed_out if self._given is None else self._given()

    def begin(self) -> tuple[int, int]:
        """Begin the next epoch, or go on where a restored state stood.

        Returns:
            The epoch and the first batch to hand out.
        """
        epoch, batch = self.upcoming
        self._next = None
        self._epoch = epoch
        self._start = self._processed() - batch
        return epoch, batch

    @property
    def upcoming(self) -> tuple[int, int]:
        """The epoch and batch at which the next `begin` will be."""
        return self._next or (self._epoch + 1, 0)

    def tick(self) -> None:
        """Count a batch that is handed out."""
        self._handed_out += 1

    def set(self, epoch: int, batch: int = 0) -> None:
        """Let the next `begin` be at this epoch and batch."""
        self._next = (epoch, batch)

    def position(self, num_batches: float, finished: bool = False) -> tuple[int, int]:
        """Return the epoch and batch at which a resumed run has to go on.

        Args:
            num_batches: Batches of an epoch; past the last one the position is
                the next epoch's first.
            finished: Whether the epoch has ended before its last batch.
        """
        if self._next is not None:
            return self._next
        batch = self._processed() - self._start
        if finished or batch >= num_batches:
            return self._epoch + 1, 0
        return self._epoch, batch

    @property
    def begun_at(self) -> int | None:
        """The count at which the current epoch began, None before the first."""
        return None if self._next is not None else self._start


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
    remedy: str,
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
            "that wrote it, or load the weights alone"
        )
