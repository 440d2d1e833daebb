"""What runs in a worker process: it answers requests."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from lance_lightning.arrow import in_order
from lance_lightning.errors import WorkerError
from lance_lightning.loading.batch_reader import BatchReader
from lance_lightning.loading.sent_batches import Message, Sendable
from lance_lightning.loading.shared_memory import pack
from lance_lightning.loading.shared_pool import SharedMemoryFullError, SharedPool
from lance_lightning.loading.stream import Window, WindowRows
from lance_lightning.loading.window_grid import Request
from lance_lightning.reading import BufferPool, Pool, Seen, Threads


class Answer(NamedTuple):
    """What a worker makes of a request.

    Args:
        sizes: Rows of each batch that it sends: of all asked for or the first ones.
        seen: What was found of the rows where their width varies.
        sent: The rows or batches; why there are none.
        num_bytes: Of the batches, where the worker cut them.
        is_full: Whether there are not more since shared memory is short.
    """

    sizes: list[int]
    seen: Seen | None
    sent: Any
    num_bytes: int = 0
    is_full: bool = False


class AnsweredWindows(Dataset[Any]):
    """What a worker holds: it answers a request with one window.

    Args:
        reader: What it reads.
        most_bytes: Of a window, where the width of a row varies.
        most_sent: Bytes of batches that are sent at once.
    """

    def __init__(self, reader: BatchReader, most_bytes: int, most_sent: int) -> None:
        self._reader: BatchReader | None = reader
        self._most_bytes = most_bytes
        self._most_sent = most_sent
        self._pickled = b""
        self._begin()

    def _begin(self) -> None:
        self._threads = Threads()
        self._private = BufferPool()
        self._shared = SharedPool()

    def __getstate__(self) -> dict[str, Any]:
        # The reader stays pickled until it is asked for: an error then crosses to the
        # main process, where one at the start of a worker would only end it.
        pickled = bytes(ForkingPickler.dumps(self._reader))
        return {
            "_pickled": pickled,
            "_most_bytes": self._most_bytes,
            "_most_sent": self._most_sent,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._reader, self._pickled = None, state["_pickled"]
        self._most_bytes = state["_most_bytes"]
        self._most_sent = state["_most_sent"]
        self._begin()

    def __getitem__(self, request: Request | WindowRows) -> Answer:
        with _errors_that_cross():
            return self._answer(request)

    def _answer(self, request: Request | WindowRows) -> Answer:
        reader = self._reader = self._reader or self._unpickled()
        rows = request if isinstance(request, WindowRows) else reader.rows(*request)
        pool: Pool = self._private if reader.cuts_batches else self._shared
        limit = self._most_bytes
        try:
            window, seen = reader.read_first(rows, pool, self._threads, limit)
            if reader.cuts_batches:
                return self._cut(reader, window, seen)
            sent = Sendable(pack(in_order(window.data), self._shared))
        except SharedMemoryFullError as error:
            return Answer([], None, error, is_full=True)
        return Answer(list(window.sizes), seen, sent)

    def _cut(self, reader: BatchReader, window: Window, seen: Seen | None) -> Answer:
        message = Message(self._shared)
        parts = map(reader.convert, reader.parts(window))
        batches = itertools.chain.from_iterable(map(reader.batches, parts))
        for at, batch in enumerate(batches):
            try:
                message.add(batch)
            except Exception as error:
                raise reader.not_sent(reader.place(window, at), error) from error
            if message.would_pass(self._most_sent):
                break
        try:
            sent = message.finish()
        except Exception as error:
            not_sent = reader.not_sent(reader.place(window, 0), error)
            if isinstance(error, SharedMemoryFullError):
                return Answer([], seen, not_sent, is_full=True)
            raise not_sent from error
        sizes = list(window.sizes[: len(message)])
        is_full = len(sizes) < len(window.sizes)
        return Answer(sizes, seen, sent, message.num_bytes, is_full)

    def _unpickled(self) -> BatchReader:
        try:
            reader: BatchReader = ForkingPickler.loads(self._pickled)
        except Exception as error:
            raise WorkerError(
                f"a worker cannot load what it was sent ({type(error).__name__}: "
                f"{error}): your functions and what they hold must be importable "
                "there, from a module and not from under a script's "
                '`if __name__ == "__main__":`; or use num_workers=0'
            ) from error
        return reader


class Start:
    """What a worker does first.

    Args:
        then: The user's ``worker_init_fn``.
    """

    def __init__(self, then: Callable[[int], Any] | None) -> None:
        self._then = then

    def __call__(self, worker: int) -> None:
        """Begin."""
        end_with_parent()
        if self._then is not None:
            with _errors_that_cross():
                self._then(worker)


@contextlib.contextmanager
def _errors_that_cross() -> Iterator[None]:
    """Raise an error of a class that can be pickled: torch sends the class along."""
    try:
        yield
    except Exception as error:
        try:
            pickle.dumps(type(error))
        except Exception:
            name = type(error).__qualname__
            raise WorkerError(f"a worker raised {name}: {error}") from error
        raise


def end_with_parent() -> None:
    """End this worker as soon as its parent ends, however that does.

    torch's worker asks who its parent is when it begins to work; if the parent ended
    before, it would wait forever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:  # not a worker
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="lance_lightning_parent", daemon=True).start()
