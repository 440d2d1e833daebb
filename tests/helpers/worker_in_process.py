"""A worker in this process: all it gets and all it sends goes through a pickle.

Starting a process takes seconds, and most tests with workers ask only whether the
same rows come, and what becomes of a user's functions and of errors on their way.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
import torch.multiprocessing  # its reductions of tensors, which workers use
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader
from torch.utils.data._utils import worker as torch_worker


def crossed(value: Any) -> Any:
    """Return a value as another process gets it."""
    return ForkingPickler.loads(bytes(ForkingPickler.dumps(value)))


class Worker:
    """One worker, with a copy of its own of the dataset.

    Args:
        number: Which of the workers it is.
        loader: Whose options it follows.
    """

    def __init__(self, number: int, loader: DataLoader) -> None:
        self._number = number
        self._dataset = crossed(loader.dataset)
        self._collate = crossed(loader.collate_fn)
        self._info = torch_worker.WorkerInfo(
            id=number,
            num_workers=loader.num_workers,
            seed=number,
            dataset=self._dataset,
        )
        # torch sends what it raises in place of the first answer.
        start = crossed(loader.worker_init_fn)
        self._failed_start = crossed(self._run(lambda: start(number)))

    def answer(self, request: Any) -> Any:
        """Return the answer to a request; what it raises comes as torch wraps it."""
        failed, self._failed_start = self._failed_start, None
        if failed is not None:
            return failed
        request = crossed(request)
        return crossed(self._run(lambda: self._collate(self._dataset[request])))

    def _run(self, call: Callable[[], Any]) -> Any:
        before, torch_worker._worker_info = torch_worker._worker_info, self._info
        try:
            return call()
        except Exception:
            where = f"in DataLoader worker process {self._number}"
            return ExceptionWrapper(where=where)
        finally:
            torch_worker._worker_info = before


class InProcessLoader(DataLoader):
    """Stands for torch's ``DataLoader``: it checks its options, and starts nothing."""

    _pretended: list[Worker] | None = None

    def __iter__(self) -> Iterator[Any]:
        assert self.num_workers
        assert not self.pin_memory, "torch pins on a thread of its own"
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        if self._pretended is None or not self.persistent_workers:
            self._pretended = [Worker(n, self) for n in range(self.num_workers)]
        return self._answers(self._pretended)

    def _answers(self, workers: list[Worker]) -> Iterator[Any]:
        # As torch does it: some requests are on their way, and the next one is sent
        # before an answer is handed on.
        turns = zip(itertools.cycle(workers), self.sampler, strict=False)
        made = (worker.answer(request) for worker, request in turns)
        ahead = deque(itertools.islice(made, self.prefetch_factor * len(workers)))
        while ahead:
            answer = ahead.popleft()
            ahead.extend(itertools.islice(made, 1))
            if isinstance(answer, ExceptionWrapper):
                answer.reraise()
            yield answer
            del answer
