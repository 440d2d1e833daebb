"""Which blocks of shared memory the main process's batches may look into."""

from __future__ import annotations

import contextlib
import shutil
import weakref
from typing import Any

from lance_lightning.types import Array

SHARED_MEMORY = "/dev/shm"
LARGE_BYTES = 1 << 20  # of a value that is worth a block of its own, not to be copied
MUCH_FREE_BYTES = 1 << 30
MOST_HELD = 16  # blocks that the batches of the main process may look into


class Held:
    """The blocks that the main process's batches look into: a bounded number.

    Whoever keeps every batch would otherwise fill the shared memory and run out of
    file descriptors.
    """

    def __init__(self) -> None:
        self._blocks: list[weakref.ref[Array]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"_blocks": []}  # a copy of a loader has no batches yet

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(each() is not None for each in self._blocks)

    def take(self, block: Array) -> bool:
        """Count a block until it is gone; False where its values are to be copied.

        That is so where there are too many, and where the workers could need its
        memory. Small ones leave half of the places to those that cost more to copy.
        """
        self._blocks = [each for each in self._blocks if each() is not None]
        most = MOST_HELD if len(block) >= LARGE_BYTES else MOST_HELD // 2
        if len(self._blocks) >= most or memory_is_short():
            return False
        self._blocks.append(weakref.ref(block))
        return True


def memory_is_short() -> bool:
    """Return whether shared memory should not be kept for later.

    That is where less than half of it is free, unless that half is much.
    """
    with contextlib.suppress(OSError):  # not Linux
        total, _, free = shutil.disk_usage(SHARED_MEMORY)
        return free < min(total // 2, MUCH_FREE_BYTES)
    return False
