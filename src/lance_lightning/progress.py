"""Where the training loaders of a fit stand, by the trainer's own counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lance_lightning.state import EpochClock


class TrainerCount:
    """A trainer that leads the clocks of its training loaders.

    Of its counters ``total.processed`` is right in every hook from which a
    checkpoint can be saved: a batch that was fetched, or on which the step raised,
    is not in it.

    Args:
        trainer: A Lightning trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    @property
    def _batches(self) -> Any:
        return self.trainer.fit_loop.epoch_loop.batch_progress

    def processed(self) -> int:
        """Return how many training batches were processed so far, in all epochs."""
        return int(self._batches.total.processed)

    def processed_in_epoch(self) -> int:
        """Return how many of them were in the epoch that the trainer is in."""
        return int(self._batches.current.processed)

    def epochs_left(self) -> int:
        """Return how many epochs the trainer has left, ended or not."""
        return int(self.trainer.fit_loop.epoch_progress.total.processed)

    def epoch_has_ended(self) -> bool:
        """Return whether the last batch of the trainer's epoch was processed.

        It is the last by the trainer's own limit, or because a hook cut the epoch
        short. A trainer that stops in mid-epoch leaves the epoch, but may go on in it.
        """
        current = self._batches.current
        return bool(self._batches.is_last_batch and current.processed >= current.ready)


class FitProgress:
    """The clocks of a module's training loaders.

    A loader counts its own passes: of two loaders of different length the shorter
    one makes several in one epoch of the trainer.
    """

    def __init__(self) -> None:
        self._clocks: list[EpochClock] = []
        self._leader: TrainerCount | None = None
        self._epochs_left = 0  # when the epoch began
        self._was_left = False  # whether the trainer had left the restored one
        self._resumed_in: int | None = None  # epochs left when one went on

    def clock(self, at: int) -> EpochClock:
        """Return the clock of the training loader number ``at``."""
        while len(self._clocks) <= at:
            clock = EpochClock()
            clock.follow(self._leader)
            self._clocks.append(clock)
        return self._clocks[at]

    def follow(self, trainer: Any) -> None:
        """Count with this trainer while it fits, with the loaders themselves else."""
        if trainer is None or not (
            trainer.state.fn == "fit" and trainer.state.status == "running"
        ):
            self._leader = None
        elif self._leader is None or self._leader.trainer is not trainer:
            self._leader = TrainerCount(trainer)
        for clock in self._clocks:
            clock.follow(self._leader)

    def begin_fit(self) -> None:
        """Forget what an earlier fit went on with."""
        self._resumed_in = None

    @property
    def is_led(self) -> bool:
        """Whether a trainer counts."""
        return self._leader is not None

    def stop(self, at: int, length: int, steps: int) -> int:
        """Return before which batch a loader stops that is about to begin.

        Restored clocks are brought in line with what the trainer does: it goes on in
        an epoch, begins the next one, or has yet to leave one that was over.

        Args:
            at: The number of the loader.
            length: Its batches an epoch.
            steps: Steps of the trainer's epoch.

        Returns:
            ``length``, or the trainer's own limit in an epoch that goes on: Lightning
            can count it a batch short, and would take one too many. 0 where nothing
            is to be had in the trainer's epoch.
        """
        if self._leader is None:
            return length
        clock, left = self._clocks[at], self._leader.epochs_left()
        if clock.has_begun and length >= steps and left == self._resumed_in:
            return 0
        if not self._begun and not self._settled():
            return 0
        self._epochs_left = left
        if not clock.upcoming[1]:
            return length
        self._resumed_in = left
        return min(length, steps)

    def _settled(self) -> bool:
        """Move restored clocks on where the trainer begins an epoch.

        Returns:
            False where it restarts an epoch that was over when the checkpoint was
            saved. With ``max_steps`` Lightning opens it again, and a batch that it
            took there would be all that it takes of the next epoch.
        """
        assert self._leader is not None
        taken = self._leader.processed_in_epoch()
        in_mid_epoch = [clock for clock in self._clocks if clock.upcoming[1]]
        if taken and not in_mid_epoch:
            return False
        if self._was_left and not taken:
            for clock in in_mid_epoch:
                clock.set(clock.upcoming[0] + 1)
        return True

    @property
    def _begun(self) -> bool:
        return any(clock.has_begun for clock in self._clocks)

    @property
    def epoch_is_left(self) -> bool:
        """Whether the trainer left the epoch in which the loaders stand.

        It did if it stopped in mid-epoch. With ``max_steps`` a resumed run goes on in
        that epoch, otherwise it begins the next one.
        """
        if self._leader is None or not self._begun:
            return self._was_left
        return self._leader.epochs_left() > self._epochs_left

    def restore(
        self, positions: Sequence[tuple[int, int]], epoch_is_left: bool = False
    ) -> None:
        """Set the clocks; those without a position to the beginning."""
        self._was_left = epoch_is_left
        self._resumed_in = None
        for at in range(max(len(positions), len(self._clocks))):
            epoch, batch = positions[at] if at < len(positions) else (0, 0)
            self.clock(at).set(epoch, batch)

    def positions(self, lengths: Sequence[int]) -> list[tuple[int, int]]:
        """Return epoch and batch of every loader, where a resumed run goes on.

        Args:
            lengths: The loaders' batches an epoch.
        """
        return [self.clock(at).position(length) for at, length in enumerate(lengths)]

    def __getstate__(self) -> dict[str, Any]:
        # The clocks go to spawned ranks without the trainer.
        return {**self.__dict__, "_leader": None}


def positions_by_count(trainer: Any, lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return epoch and batch of every loader by the trainer's counts alone.

    This is all there is when a run goes on from a checkpoint that holds no state of
    ours. It supposes that all epochs before were of as many steps as this one.

    Args:
        trainer: A Lightning trainer that is about to take a batch.
        lengths: The loaders' batches an epoch.
    """
    count = TrainerCount(trainer)
    steps = int(min(trainer.num_training_batches, max(lengths)))
    batch = min(count.processed_in_epoch(), steps)
    epoch = -(-(count.processed() - batch) // steps)
    if batch == steps:
        epoch, batch = epoch + 1, 0
    # A loader shorter than the epoch begins again within it.
    return [
        (epoch * -(-steps // length) + batch // length, batch % length)
        for length in lengths
    ]
