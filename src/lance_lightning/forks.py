"""Processes that were forked while Lance was loaded: they must not read.

Lance reads on threads, and a fork copies memory without the threads: a read would wait
for them forever, or crash.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from lance_lightning.errors import ConfigError

THREADS = Path("/proc/self/task")  # on Linux


class Starter(NamedTuple):
    """What forks processes.

    Args:
        name: For an error.
        remedy: How it spawns them instead.
    """

    name: str
    remedy: str


# By the module that does it; where several are called by one another the outermost
# counts.
_LIGHTNING = Starter(
    "a launcher of Lightning's, strategy ddp_fork or ddp_notebook",
    "use strategy='ddp_spawn', or 'ddp' from a script",
)
STARTERS = {
    "concurrent.futures.process": Starter(
        "a ProcessPoolExecutor", "give it mp_context=get_context('spawn')"
    ),
    "lightning.fabric.strategies.launchers.multiprocessing": _LIGHTNING,
    "lightning.pytorch.strategies.launchers.multiprocessing": _LIGHTNING,
    "lightning_fabric.strategies.launchers.multiprocessing": _LIGHTNING,
    "multiprocessing.forkserver": Starter(
        "multiprocessing's forkserver, whose server had read with Lance",
        "let nothing read that the server imports, or use 'spawn'",
    ),
    "multiprocessing.pool": Starter(
        "a multiprocessing.Pool", "make it with get_context('spawn').Pool(...)"
    ),
    "multiprocessing.process": Starter(
        "a multiprocessing.Process", "make it with get_context('spawn').Process(...)"
    ),
    "pytorch_lightning.strategies.launchers.multiprocessing": _LIGHTNING,
    "torch.multiprocessing.spawn": Starter(
        "torch.multiprocessing.start_processes", "give it start_method='spawn'"
    ),
    "torch.utils.data.dataloader": Starter(
        "a DataLoader of torch's", "give it multiprocessing_context='spawn'"
    ),
}
OS_FORK = Starter("os.fork", "start it with multiprocessing.get_context('spawn')")
# They call one another on the way to a fork.
MACHINERY = ("concurrent.futures.", "multiprocessing.", *STARTERS)


@dataclass(frozen=True, slots=True)
class Fork:
    """How this process came about.

    Args:
        by: What forked it.
        ran: Whether Lance's threads ran in its parent.
        by_main: Whether the parent was no child of multiprocessing's itself.
    """

    by: Starter
    ran: bool
    by_main: bool


class _Forks:
    """What is known of the forks that this process comes from."""

    def __init__(self) -> None:
        self.next: Fork | None = None  # of the one that is being forked
        self.last: Fork | None = None  # of this process

    def before(self) -> None:
        """In the parent: note what the child needs to know."""
        self.next = None
        if "lance" in sys.modules:
            by_main = multiprocessing.parent_process() is None
            self.next = Fork(starter(sys._getframe(1)), lance_runs(), by_main)

    def in_child(self) -> None:
        """In the child: keep it, or what its parent has kept."""
        self.last = self.next or self.last


_forks = _Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forks.before, after_in_child=_forks.in_child)
_was_loaded = "lance" in sys.modules  # before this package could see a fork


def refuse_fork() -> None:
    """Raise in a process that was forked while Lance was loaded.

    One that multiprocessing's forkserver has forked may read: its server has no
    threads of Lance's, even if it has imported it.

    Raises:
        ConfigError: It was.
    """
    fork = _forks.last
    if fork is None and _was_loaded and _is_process("fork"):
        fork = Fork(STARTERS["multiprocessing.process"], ran=True, by_main=True)
    if fork is None:
        return
    if fork.by_main and not fork.ran and _is_process("forkserver"):
        return
    raise ConfigError(
        f"this process was forked by {fork.by.name}, and Lance's threads do not "
        f"survive a fork: a read would crash or hang; spawn it instead: "
        f"{fork.by.remedy}"
    )


def starter(frame: FrameType | None) -> Starter:
    """Return what forks, from the frame that does."""
    found = OS_FORK
    for name in _modules(frame):
        if not name.startswith(MACHINERY):
            break
        found = STARTERS.get(name, found)
    return found


def _modules(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield str(frame.f_globals.get("__name__"))
        frame = frame.f_back


def lance_runs() -> bool:
    """Return whether threads of Lance's or LanceDB's run; False where none tells."""
    try:
        names = [(task / "comm").read_text() for task in THREADS.iterdir()]
    except OSError:
        return False
    return any(name.startswith("lance") for name in names)


def _is_process(method: str) -> bool:
    """Return whether multiprocessing started this process by a method."""
    if method not in multiprocessing.get_all_start_methods():
        return False
    context: Any = multiprocessing.get_context(method)  # each has a Process
    return isinstance(multiprocessing.current_process(), context.Process)
