"""A transform whose batches are hard to send, or cannot be; workers import it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch

BATCH = 4  # rows
WINDOW = 8  # batches


class FailsToPickle:
    """A value whose pickling fails in its own way."""

    def __reduce__(self):
        raise KeyError("no state")


def refuse():
    """What unpickling one of the next class does."""
    raise ZeroDivisionError("not here")


class FailsToUnpickle:
    """A value that is pickled but cannot be unpickled."""

    def __reduce__(self):
        return refuse, ()


class Tagged(torch.Tensor):
    """A class of tensors of the user's own."""


class FailingTensor(torch.Tensor):
    """One that cannot be pickled."""

    def __reduce_ex__(self, protocol):
        raise TypeError("a FailingTensor stays where it is")


@dataclass
class Boxes:
    """A batch of the user's own class, as for detection."""

    id: torch.Tensor
    boxes: list[torch.Tensor]


def _local():
    class Local:
        pass

    return Local()


net = torch.nn.Linear(3, 2)

# What is wrong, by the name of a test; then what the error must say.
PROBLEMS = {
    "a tensor that requires grad": (lambda: net(torch.ones(4, 3)), ".detach()"),
    "a lock": (threading.Lock, "cannot pickle '_thread.lock' object"),
    "a generator": (lambda: (i for i in ()), "cannot pickle 'generator' object"),
    "a lambda": (lambda: lambda: None, "lambda"),
    "a local class": (_local, "Local"),
    "a failing __reduce__": (FailsToPickle, "KeyError: 'no state'"),
    "a failing class of tensors": (
        lambda: torch.ones(3).as_subclass(FailingTensor),
        "a FailingTensor stays where it is",
    ),
    "what fails to unpickle": (FailsToUnpickle, "ZeroDivisionError: not here"),
    "a sparse tensor that requires grad": (
        lambda: (net(torch.ones(4, 3)) * 2).to_sparse(),
        ".detach()",
    ),
    "more than shared memory holds": (
        lambda: torch.ones(16 << 20, dtype=torch.uint8),
        "--shm-size",
    ),
}


def problem_batch(name: str) -> int:
    """Return the number of the batch with a problem: the third of a later window."""
    return (1 + list(PROBLEMS).index(name)) * WINDOW + 2


def with_problems(batch):
    """Put a problem into the batch that is to have it."""
    number = int(batch["id"][0]) // BATCH
    for name, (make, _) in PROBLEMS.items():
        if number == problem_batch(name):
            return {**batch, "problem": make()}
    return batch


def filled(shape: tuple[int, ...], value: int) -> torch.Tensor:
    """Return bytes that are all the same."""
    return torch.full(shape, value % 256, dtype=torch.uint8)


def with_many_tensors(batch):
    """Return images of unequal size, and boxes: hundreds of tensors a batch."""
    ids = batch["id"].tolist()
    return {
        "id": batch["id"],
        "images": [
            torch.full((3, 100 + i, 50), i % 256, dtype=torch.uint8) for i in ids
        ],
        "targets": [[Boxes(torch.tensor(i), [torch.arange(i)] * 9)] * 8 for i in ids],
        "large": [filled((1 << 20,), i) for i in ids[:3]],
    }


class LocalError:
    """A ``worker_init_fn`` that raises an error whose class stays in the worker."""

    def __call__(self, worker):
        class Hidden(Exception):
            pass

        raise Hidden("only here")


class FailsToLoad:
    """A transform that a worker cannot unpickle."""

    def __call__(self, batch):
        return batch

    def __reduce__(self):
        return refuse, ()
