"""Threads that read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Threads:
    """The threads that read ahead for one loader, kept from epoch to epoch.

    glibc's malloc has memory for each thread: new threads in every epoch would leave
    more and more of it behind.
    """

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}

    def pool(self, task: str, count: int = 1) -> ThreadPoolExecutor:
        """Return that many threads for a task; they end with this object."""
        if task not in self._pools:
            name = f"lance_lightning_{task}"
            self._pools[task] = ThreadPoolExecutor(count, thread_name_prefix=name)
        return self._pools[task]

    def __getstate__(self) -> dict[str, Any]:
        return {"_pools": {}}


def read_ahead(
    produce: Callable[[T], U],
    requests: Iterable[T],
    pool: ThreadPoolExecutor,
    depth: int = 1,
) -> Generator[U, None, None]:
    """Yield ``produce(request)`` in order, ``depth`` ahead on background threads."""
    pending: deque[Future[U]] = deque()
    try:
        for request in requests:
            pending.append(pool.submit(produce, request))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # An early break must leave no thread reading on, and not wait for one.
        for future in pending:
            future.cancel()


class Ahead(Generic[T]):
    """Items that a background thread makes, one ahead, each when it is told to begin.

    Args:
        iterable: What makes them.
        pool: The thread.
    """

    def __init__(self, iterable: Iterable[T], pool: ThreadPoolExecutor) -> None:
        self._iterator = iter(iterable)
        self._pool = pool
        self._begun: Future[T | None] | None = None

    def begin(self) -> None:
        """Begin with the next item, if that was not done yet."""
        if self._begun is None:
            self._begun = self._pool.submit(next, self._iterator, None)

    def take(self) -> T | None:
        """Wait for the next item and return it; None where there is no more."""
        self.begin()
        assert self._begun is not None
        begun, self._begun = self._begun, None
        return begun.result()

    def close(self) -> None:
        """Make no more of them, without waiting for the one that is being made."""
        if self._begun is not None:
            self._begun.cancel()
