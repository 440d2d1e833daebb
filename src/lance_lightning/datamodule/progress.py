"""The positions of a fit's training loaders, by the trainer's own counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from lance_lightning.loading import EpochClock


class Phase(Enum):
    """How far a fit is with its position; see `fit_position.FitPosition`."""

    IDLE = "idle"
    BEGUN = "begun"
    RESTORED = "restored"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class TrainerCount:
    """Counts the batches that a trainer has processed, for its training loaders.

    Of the trainer's counters ``total.processed`` is right in every hook from which a
    checkpoint can be saved: a batch that was fetched, or on which the step raised,
    is not in it.

    Args:
        trainer: A Lightning trainer.
    """

    trainer: Any

    @property
    def _batches(self) -> Any:
        return self.trainer.fit_loop.epoch_loop.batch_progress

    def processed(self) -> int:
        """Return how many training batches were processed so far, in all epochs."""
        return int(self._batches.total.processed)

    def processed_in_epoch(self) -> int:
        """Return how many of them were in the epoch that the trainer is in."""
        return int(self._batches.current.processed)

    def epochs_finished(self) -> int:
        """Return how many epochs the trainer has finished with, cut short or not."""
        return int(self.trainer.fit_loop.epoch_progress.total.processed)

    def epochs_completed(self) -> int:
        """Return how many epochs are over, with all their hooks."""
        return int(self.trainer.fit_loop.epoch_progress.total.completed)

    def epoch_has_ended(self) -> bool:
        """Return whether the last batch of the trainer's epoch was processed.

        It is the last by the trainer's own limit, or because a hook cut the epoch
        short. A trainer that stops in mid-epoch has finished with the epoch, but a
        resumed one may continue it.
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
        self._counter: TrainerCount | None = None
        self._epochs_finished = 0  # when the epoch began
        self._epochs_completed = 0
        self._was_left_early = False  # the restored epoch, by the saving trainer
        self._resumed_in: int | None = None  # epochs finished when one was resumed
        self._passed: set[int] = set()  # loaders whose pass was over in that one
        self._is_settled = False  # whether the restored clocks fit the trainer

    def clock(self, at: int) -> EpochClock:
        """Return the clock of the training loader number ``at``."""
        while len(self._clocks) <= at:
            clock = EpochClock()
            clock.count_with(self._counter)
            self._clocks.append(clock)
        return self._clocks[at]

    def count_with(self, trainer: Any) -> bool:
        """Use the trainer's batch counter; for None, count what the loaders hand out.

        Returns:
            Whether that is another than before.
        """
        if trainer is (self._counter.trainer if self._counter else None):
            return False
        self._counter = None if trainer is None else TrainerCount(trainer)
        for clock in self._clocks:
            clock.count_with(self._counter)
        return True

    @property
    def counts_with_trainer(self) -> bool:
        """Whether the clocks use a trainer's batch counter."""
        return self._counter is not None

    def begin_fit(self) -> None:
        """Forget which epoch an earlier fit resumed in."""
        self._resumed_in = None
        self._passed.clear()

    def epoch_at_hand(self, at: int) -> int:
        """Return which epoch of a loader belongs to the trainer's epoch."""
        clock = self.clock(at)
        is_over = (
            self._counter is not None
            and clock.has_begun
            and self._counter.epochs_completed() > self._epochs_completed
        )
        return clock.epoch + is_over

    def expects_pass(self, at: int) -> bool:
        """Return whether the fit loop has a reason to iterate a loader now.

        It does in each of its epochs, and within one where the loader has no more
        batches.
        """
        clock = self.clock(at)
        return (
            not clock.has_begun
            or clock.has_handed_out_all
            or self._counter is None
            or self._counter.epochs_finished() > self._epochs_finished
        )

    def stop(
        self, at: int, length: int, steps: int, others: Sequence[EpochClock] = ()
    ) -> int:
        """Return the batch number at which a loader that is about to start must stop.

        Restored clocks are brought in line with what the trainer does: it resumes in
        an epoch, begins the next one, or has yet to finish one that was over.

        Args:
            at: The number of the loader.
            length: Its batches per epoch.
            steps: Steps of the trainer's epoch.
            others: The clocks of other modules' loaders in the same fit.

        Returns:
            ``length``, or the trainer's own limit in an epoch that is resumed:
            Lightning can count it a batch short, and would take one too many. 0 where
            there is nothing to read: in an epoch that was over, and for a loader whose
            pass was over in mid-epoch. Whether another pass follows there, or None,
            is up to Lightning's ``CombinedLoader``, as in the unbroken run.
        """
        if self._counter is None:
            return length
        clock, finished = self._clocks[at], self._counter.epochs_finished()
        if clock.has_begun and length >= steps and finished == self._resumed_in:
            return 0
        if not self._begun and not self._is_settled:
            self._is_settled = self._settled(others)
            if not self._is_settled:
                return 0
        self._epochs_finished = finished
        self._epochs_completed = self._counter.epochs_completed()
        if at in self._passed:
            self._passed.remove(at)
            return 0
        if not clock.upcoming[1]:
            return length
        self._resumed_in = finished
        return min(length, steps)

    def _settled(self, others: Sequence[EpochClock]) -> bool:
        """Move restored clocks on where the trainer begins an epoch.

        Returns:
            False where it restarts an epoch that was over when the checkpoint was
            saved. With ``max_steps`` Lightning opens it again, and a batch that it
            took there would be all that it takes of the next epoch.
        """
        assert self._counter is not None
        self._passed.clear()
        taken = self._counter.processed_in_epoch()
        in_mid_epoch = [clock for clock in self._clocks if clock.upcoming[1]]
        if taken:
            if not any(c.starts_in_mid_epoch for c in [*in_mid_epoch, *others]):
                return False
            self._passed.update(
                at for at, clock in enumerate(self._clocks) if not clock.upcoming[1]
            )
        elif self._was_left_early:
            for clock in in_mid_epoch:
                clock.set(clock.upcoming[0] + 1)
        return True

    @property
    def _begun(self) -> bool:
        return any(clock.has_begun for clock in self._clocks)

    @property
    def epoch_was_left_early(self) -> bool:
        """Whether the trainer finished with the epoch in which the loaders are.

        In mid-epoch that means that it stopped there. With ``max_steps`` a resumed run
        continues that epoch, otherwise it begins the next one. At the end of an epoch
        it means nothing.
        """
        if self._counter is None or not self._begun:
            return self._was_left_early
        return self._counter.epochs_finished() > self._epochs_finished

    @property
    def is_restored_by_loaders(self) -> bool:
        """Whether states of the loaders themselves set the clocks."""
        return any(clock.was_restored for clock in self._clocks)

    def settle_loaders(self) -> None:
        """Bring clocks that the states of loaders set in line with the trainer.

        They do not say whether the trainer had finished with the epoch: it had where
        it does not resume in one.
        """
        self.begin_fit()
        self._is_settled = False
        self._was_left_early = True

    def restore(
        self, positions: Sequence[tuple[int, int]], epoch_was_left_early: bool = False
    ) -> None:
        """Set the clocks; those without a position to the beginning."""
        self.begin_fit()
        self._is_settled = False
        self._was_left_early = epoch_was_left_early
        for at in range(max(len(positions), len(self._clocks))):
            epoch, batch = positions[at] if at < len(positions) else (0, 0)
            self.clock(at).set(epoch, batch)

    def positions(self, lengths: Sequence[int]) -> list[tuple[int, int]]:
        """Return the epoch and batch at which a resumed run continues each loader.

        Args:
            lengths: The loaders' batches per epoch.
        """
        return [self.clock(at).position(length) for at, length in enumerate(lengths)]

    def __getstate__(self) -> dict[str, Any]:
        # The clocks go to spawned ranks without the trainer.
        return {**self.__dict__, "_counter": None}


def positions_by_count(trainer: Any, lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return the epoch and batch of each loader by the trainer's counts only.

    There is nothing else when a run resumes from a checkpoint without a state of ours.
    All earlier epochs are taken to have had as many steps as this one.

    Args:
        trainer: A Lightning trainer that is about to take a batch.
        lengths: The loaders' batches per epoch.
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


def steps_of_epoch(trainer: Any, length: int) -> int:
    """Return the steps of the trainer's epoch, its own limit included.

    Args:
        trainer: A Lightning trainer; None where there is none.
        length: The batches per epoch of a loader.
    """
    if trainer is None or trainer.num_training_batches == float("inf"):
        return length
    return int(trainer.num_training_batches)
