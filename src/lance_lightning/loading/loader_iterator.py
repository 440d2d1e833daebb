"""One pass over a loader, which learns who asks before it begins."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from lance_lightning.forks import refuse_fork

Batches = Generator[Any, None, None]


def no_batches() -> Batches:
    """Yield nothing."""
    yield from ()


class LoaderIterator(Iterator[Any]):
    """One pass over a loader, which begins when its first batch is asked for.

    Only then is it known who asks. The generator of the batches does not know this
    object: a cycle of the two would leave the workers to the garbage collector.

    Args:
        begin: Returns the batches of a pass that this iterator begins.
    """

    def __init__(self, begin: Callable[[LoaderIterator], Batches]) -> None:
        self._begin = begin
        self._batches: Batches | None = None
        self._is_over = False

    def __next__(self) -> Any:
        """Return the next batch."""
        refuse_fork()  # the threads that read ahead are not there
        if self._is_over:
            raise StopIteration
        if self._batches is None:
            self._is_over = True  # should it fail to begin
            self._batches = self._begin(self)
            self._is_over = False
        return next(self._batches)

    def close(self) -> None:
        """End the pass; nothing is read ahead any more."""
        self._is_over = True
        if self._batches is not None:
            self._batches.close()
