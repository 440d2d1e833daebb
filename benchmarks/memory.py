"""Resident memory over many epochs, against the bytes that windows hold."""

from __future__ import annotations

import gc
import threading
from typing import Any

from benchmarks.peers.ours import loader
from benchmarks.speed import task_of

EVERY_SECONDS = 0.005
MB = 1 << 20


def run(epochs: int, **arguments: Any) -> dict[str, Any]:
    """Measure the peak above what was resident before the first batch, in MB.

    Returns:
        ``value`` the peak; ``epochs`` what was resident after each; ``window`` the
        bytes of a window by the loader's own reckoning.
    """
    import psutil

    process = psutil.Process()
    made = loader(task_of(arguments))
    reader = made.reader
    batches = max(last - first for first, last in reader.windows(0, len(made)))
    window = batches * made.batch_size * reader.sizes.row_bytes
    gc.collect()
    base = process.memory_info().rss
    peak, stop = [base], threading.Event()

    def watch() -> None:
        while not stop.wait(EVERY_SECONDS):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    after = []
    for _ in range(epochs):
        for _ in made:
            pass
        after.append(round((process.memory_info().rss - base) / MB))
    stop.set()
    watcher.join()
    return {
        "value": (peak[0] - base) / MB,
        "base": base / MB,
        "epochs": after,
        "window": window / MB,
    }
