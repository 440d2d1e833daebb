"""Which batch of which epoch comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Start:
    """Where an iteration of a loader starts, and whether it moves the position.

    Args:
        epoch: The epoch that it reads.
        first: Its first batch.
        last: The batch before which it stops.
        moves: Whether its batches move the loader's position.
        in_process: Whether it has its own thread and memory, and leaves the workers to
            another iteration.
    """

    epoch: int
    first: int
    last: int
    moves: bool = True
    in_process: bool = False


class BatchCounter(Protocol):
    """Counts processed batches; used in place of a loader's own count."""

    def processed(self) -> int:
        """Return how many batches were processed so far, in all epochs."""

    def epoch_has_ended(self) -> bool:
        """Return whether the epoch is over, maybe before the loader's last batch."""


class EpochClock:
    """Counts the epochs of one training loader and the batches within an epoch.

    Under a trainer a `BatchCounter` counts the batches that were processed (a batch
    that was read ahead, or on which the step raised, does not count). Otherwise the
    clock itself counts those that were handed out.
    """

    def __init__(self) -> None:
        self.was_restored = False  # from a state of a loader's own
        self._handed_out = 0
        self._counter: BatchCounter | None = None
        self._next: tuple[int, int] | None = (0, 0)
        self._epoch = 0
        self._first = 0  # the batch with which this pass began
        self._start = 0  # the count at which the epoch began
        self._remaining = 0  # batches that this pass has yet to hand out
        self._last_counter: BatchCounter | None = None  # while there is none
        self._counted_to = self._place  # where the last counter left the clock

    def __getstate__(self) -> dict[str, Any]:
        # The counter stays behind when the clock goes to another process.
        place = self._counted_to if self._counter is None else self._place
        without = {"_counter": None, "_last_counter": None, "_counted_to": place}
        return {**self.__dict__, **without}

    @property
    def _place(self) -> tuple[tuple[int, int] | None, int, int, int, int]:
        return self._next, self._epoch, self._first, self._start, self._remaining

    @_place.setter
    def _place(self, place: tuple[tuple[int, int] | None, int, int, int, int]) -> None:
        self._next, self._epoch, self._first, self._start, self._remaining = place

    def count_with(self, counter: BatchCounter | None) -> None:
        """Use a counter of processed batches; for None, count those handed out.

        A counter starts where the last one left the clock: what was iterated in
        between, maybe on one rank only, was a look. Another counter gives up a position
        in mid-epoch: the next `begin` is the next epoch, as it is for every new
        iteration.
        """
        if counter is self._counter:
            return
        is_back = False
        if counter is None:
            self._last_counter, self._counted_to = self._counter, self._place
        elif self._counter is None:
            self._place = self._counted_to
            is_back = counter == self._last_counter
        if self._next is None and not is_back:
            self._next = (self._epoch + 1, 0)
        self._counter = counter

    def _processed(self) -> int:
        return self._handed_out if self._counter is None else self._counter.processed()

    def begin(self, last: int) -> Start:
        """Begin the next epoch, or resume at a restored position.

        Args:
            last: The batch before which the pass stops.
        """
        epoch, batch = self.upcoming
        self._next = None
        self._epoch = epoch
        self._first = batch
        self._start = self._processed() - batch
        self._remaining = last - batch
        return Start(epoch, batch, last)

    @property
    def upcoming(self) -> tuple[int, int]:
        """The epoch and batch at which the next `begin` starts."""
        return self._next or (self._epoch + 1, 0)

    def tick(self) -> None:
        """Count one batch that is handed out."""
        self._handed_out += 1
        self._remaining -= 1

    def set(self, epoch: int, batch: int = 0) -> None:
        """Let the next `begin` start at this epoch and batch."""
        self._next = (epoch, batch)
        self._counted_to = self._place

    def restore(self, epoch: int, batch: int) -> None:
        """Set the clock from the state of a loader."""
        self.was_restored = True
        self.set(epoch, batch)

    def position(self, num_batches: int) -> tuple[int, int]:
        """Return the epoch and batch at which a resumed run must continue.

        Args:
            num_batches: Batches of an epoch; after the last one the position is the
                next epoch's first.
        """
        if self._next is not None:
            return self._next
        batch = self._processed() - self._start
        ended = self._counter is not None and self._counter.epoch_has_ended()
        if ended or batch >= num_batches:
            return self._epoch + 1, 0
        return self._epoch, batch

    @property
    def has_begun(self) -> bool:
        """Whether an epoch has begun since the clock was set."""
        return self._next is None

    @property
    def epoch(self) -> int:
        """The epoch that has begun, or else the one that begins next."""
        return self._epoch if self._next is None else self._next[0]

    @property
    def starts_in_mid_epoch(self) -> bool:
        """Whether the pass that has begun, or begins next, is the rest of an epoch."""
        return (self._first if self._next is None else self._next[1]) > 0

    @property
    def has_handed_out_all(self) -> bool:
        """Whether the pass that has begun has no further batch."""
        return self.has_begun and self._remaining <= 0
