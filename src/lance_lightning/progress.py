"""Where the training loaders of a fit stand, by the trainer's own counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lance_lightning.state import EpochClock


@dataclass(frozen=True)
class TrainerCount:
    """How many training batches a trainer has processed, in all epochs.

    Of the trainer's counters this one is right in every hook from which a
    checkpoint can be saved: a batch that was fetched, or on which the step raised,
    is not in it.

    Args:
        trainer: A Lightning trainer.
    """

    trainer: Any

    def __call__(self) -> int:
        """Return the count."""
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.total.processed)


class FitProgress:
    """The clocks of a module's training loaders.

    A loader counts its own passes: of two loaders of different length the shorter
    one makes several in one epoch of the trainer.
    """

    def __init__(self) -> None:
        self._clocks: list[EpochClock] = []
        self._trainer: Any = None
        self._epochs_done = 0

    def clock(self, at: int) -> EpochClock:
        """Return the clock of the training loader number ``at``."""
        while len(self._clocks) <= at:
            clock = EpochClock()
            clock.count_with(self._count())
            self._clocks.append(clock)
        return self._clocks[at]

    def follow(self, trainer: Any) -> None:
        """Count with this trainer while it fits, with the loaders themselves else."""
        fits = (
            trainer is not None
            and trainer.state.fn == "fit"
            and trainer.state.status == "running"
        )
        self._trainer = trainer if fits else None
        for clock in self._clocks:
            clock.count_with(self._count())

    def _count(self) -> TrainerCount | None:
        return None if self._trainer is None else TrainerCount(self._trainer)

    def restore(self, positions: Sequence[tuple[int, int]]) -> None:
        """Set the clocks; those without a position to the beginning."""
        for at in range(max(len(positions), len(self._clocks))):
            epoch, batch = positions[at] if at < len(positions) else (0, 0)
            self.clock(at).set(epoch, batch)

    def guess(self, at: int) -> None:
        """Set a clock by the trainer's count alone.

        This is all there is when a run goes on from a checkpoint that holds no
        state of ours.
        """
        if self._trainer is None or not self._trainer.fit_loop.restarting:
            return
        steps = self._trainer.num_training_batches
        clock = self.clock(at)
        if clock.upcoming == (0, 0) and steps not in (0, float("inf")):
            epoch, batch = divmod(TrainerCount(self._trainer)(), int(steps))
            clock.set(epoch, batch)

    def begun(self) -> None:
        """Note that a loader begins an epoch or goes on in one."""
        self._epochs_done = self._epochs_processed()

    def positions(self, lengths: Sequence[int]) -> list[tuple[int, int]]:
        """Return epoch and batch of every loader, where a resumed run goes on.

        Args:
            lengths: The loaders' steps an epoch.
        """
        finished = self._finished()
        return [
            self.clock(at).position(length, finished)
            for at, length in enumerate(lengths)
        ]

    def _finished(self) -> bool:
        """Return whether the trainer's epoch has ended.

        It ends at the trainer's own limit, or when a hook cut it short. Either is
        not to be seen in the count alone.
        """
        if self._trainer is None:
            return False
        if self._epochs_processed() > self._epochs_done:
            return True
        begun = [clock.begun_at for clock in self._clocks]
        starts = [start for start in begun if start is not None]
        if not starts:
            return False
        done = TrainerCount(self._trainer)() - min(starts)
        return bool(done >= self._trainer.num_training_batches)

    def _epochs_processed(self) -> int:
        if self._trainer is None:
            return 0
        return int(self._trainer.fit_loop.epoch_progress.total.processed)

    def __getstate__(self) -> dict[str, Any]:
        # The clocks go to spawned ranks without the trainer.
        return {**self.__dict__, "_trainer": None}
