"""Datasets that this process has open, at their versions."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from lance_lightning.errors import SourceError
from lance_lightning.tables.identity import Identity, identity_of
from lance_lightning.tables.opening import check_environment, open_at

if TYPE_CHECKING:
    from lance_lightning.tables.snapshot import Snapshot


class OpenDatasets:
    """The datasets that this process has open, by snapshot.

    A handle keeps the metadata of a table in memory: a module has a few at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._datasets: OrderedDict[Snapshot, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, snapshot: Snapshot) -> Any:
        """Return the dataset of a snapshot, opened unless it is open already."""
        with self._lock:
            if snapshot in self._datasets:
                self._datasets.move_to_end(snapshot)
                return self._datasets[snapshot]
        return self.keep(snapshot, open_verified(snapshot))

    def keep(self, snapshot: Snapshot, dataset: Any) -> Any:
        """Keep the dataset of a snapshot; return the one that is kept already."""
        with self._lock:
            kept = self._datasets.setdefault(snapshot, dataset)
            while len(self._datasets) > self._most:
                self._datasets.popitem(last=False)
        return kept

    def clear(self) -> None:
        """Forget them, as a process that has opened none."""
        with self._lock:
            self._datasets.clear()


open_datasets = OpenDatasets(16)


def open_verified(snapshot: Snapshot) -> Any:
    """Open the dataset of a snapshot.

    Raises:
        SourceError: It cannot be opened, or another table is there than was pinned.
    """
    options, branch, version = (
        snapshot.storage_options,
        snapshot.branch,
        snapshot.version,
    )
    if snapshot.remote is not None:
        check_environment(options)
        dataset = snapshot.remote.open(options, branch, version)
        found = dataset.identity()
    else:
        dataset = open_at(snapshot.uri, options, branch, version)
        found = identity_of(dataset)
    pinned = snapshot.identity
    if snapshot.from_memory:  # its folder's name holds the digest of its content
        found = Identity(found.version, found.schema, pinned.fragments)
    if found != pinned:
        raise SourceError(
            f"another table lies at {snapshot.describe()} than the one that was "
            "pinned, so its rows are not those that were split\n"
            f"  pinned: {pinned}\n  found:  {found}\n"
            "bring the table back, or start a new run on the one that is there"
        )
    return dataset
