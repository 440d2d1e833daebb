"""What is measured on which rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rounds import DATA, Job
from benchmarks.workloads import WORKLOADS

ALL = ("narrow", "wide", "text", "tokens")
OURS = (*ALL, "batches")
NARROW = ("narrow",)
IN_ORDER = "in order"
SCAN = "raw Lance scan"
BLOCK_SHUFFLE = "BlockShuffle"


@dataclass(frozen=True, slots=True)
class Case:
    """A way to read.

    Args:
        name: As in the tables.
        peer: Its module in ``benchmarks.peers``.
        mode: What that module calls it.
        kind: ``"ours"``, ``"ceiling"`` (no storage format, or no batches) or
            ``"rival"``.
        workloads: The rows it is measured on.
        workers: Numbers of worker processes on narrow rows; elsewhere there are none.
        order: What the shuffle leaves together; empty where that is nothing.
        share: Part of the rows that is written for it; slow peers never get far.
    """

    name: str
    peer: str
    mode: str
    kind: str
    workloads: tuple[str, ...] = ALL
    workers: tuple[int, ...] = (0,)
    order: str = ""
    share: float = 1.0

    @property
    def is_slow(self) -> bool:
        """Whether an epoch may be cut short."""
        form = self.mode.partition("/")[2]
        return self.kind == "rival" or form in ("python", "python_col", "small")

    @property
    def shuffles(self) -> bool:
        """Whether the order is random in any way."""
        return self.order != IN_ORDER


PERMUTATION = "Permutation, python"
BUFFERED = "buffer of 10,000"

BOTH = (0, 2)
NARROW_BYTES = 528
TEXT_BYTES = 1108  # mean
COSTS = "costs, "
SLOW = 0.2

CASES = (
    Case(SCAN, "lance_", "scan", "ceiling", OURS, order=IN_ORDER),
    Case(BLOCK_SHUFFLE, "ours", "BlockShuffle", "ours", OURS, BOTH),
    Case("Sequential", "ours", "Sequential", "ours", OURS, BOTH, IN_ORDER),
    Case("Shuffle", "ours", "Shuffle", "ours", OURS, BOTH),
    Case("Shuffle, cache_bytes", "ours", "Shuffle/cached", "ours", NARROW),
    Case("Shuffle, table of 100 windows", "ours", "Shuffle/small", "ours", NARROW),
    Case("BlockShuffle, arrow", "ours", "BlockShuffle/arrow", "ours"),
    Case("BlockShuffle, numpy", "ours", "BlockShuffle/numpy", "ours", NARROW),
    Case("BlockShuffle, polars", "ours", "BlockShuffle/polars", "ours", NARROW),
    Case("BlockShuffle, pandas", "ours", "BlockShuffle/pandas", "ours", NARROW),
    Case("BlockShuffle, python_col", "ours", "BlockShuffle/python_col", "ours", NARROW),
    Case("BlockShuffle, python", "ours", "BlockShuffle/python", "ours", NARROW),
    Case("torch in memory, row by row", "torch_", "item", "ceiling", NARROW),
    Case("torch in memory, getitems", "torch_", "getitems", "ceiling", NARROW),
    Case("memory map, getitems", "torch_", "memmap", "ceiling", NARROW),
    Case("Lance, a take per batch", "lance_", "take", "rival", ALL, BOTH),
    Case("LanceDataset", "lance_", "dataset", "rival", order="whole batches move"),
    Case("SafeLanceDataset", "lance_", "safe", "rival", NARROW, BOTH),
    Case("LanceDB Table", "lancedb_", "table", "rival", NARROW, BOTH),
    Case(PERMUTATION, "lancedb_", "permutation/python", "rival", NARROW, BOTH),
    Case("Permutation, arrow", "lancedb_", "permutation/arrow", "rival", ALL, BOTH),
    Case("Permutation, torch", "lancedb_", "permutation/torch", "rival", NARROW),
    Case("lancedb.streaming", "lancedb_", "streaming", "rival", NARROW, BOTH),
    Case(
        "lancedb.streaming, tensors", "lancedb_", "streaming/tensors", "rival", NARROW
    ),
    Case("HF datasets, map", "hf", "map", "rival", ALL, BOTH),
    Case("HF datasets, iterable", "hf", "iterable", "rival", NARROW, order=BUFFERED),
    Case("LitData", "litdata_", "window", "rival", ALL, BOTH, "256 rows move"),
    Case("LitData, whole chunks", "litdata_", "full", "rival", NARROW, order="chunks"),
    Case("MosaicML, py1e", "mosaicml", "py1e", "rival", ALL, BOTH, share=SLOW),
    Case("MosaicML, py1br", "mosaicml", "py1br", "rival", NARROW, share=SLOW),
    Case("WebDataset", "webdataset_", "", "rival", ALL, BOTH, BUFFERED, SLOW),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line chose.

    Args:
        workloads: Names of workloads.
        peers: Names of peers' modules; empty is all.
        workers: Whether to measure with worker processes too.
        scale: Part of the rows.
        seconds: How long one measurement takes, about.
        batch_size: Rows of a batch.
    """

    workloads: tuple[str, ...]
    peers: tuple[str, ...]
    workers: bool
    scale: float
    seconds: float
    batch_size: int

    def rows(self, workload: str, share: float = 1.0) -> int:
        """Return the rows of a workload for a peer that gets a share of them."""
        return max(1_000, int(WORKLOADS[workload].rows * self.scale * share))

    def wants(self, case: Case) -> bool:
        """Return whether a case is to be run; without the scan there is no ratio."""
        return not self.peers or case.peer in self.peers or case.name == SCAN


def path_of(peer: str, workload: str, rows: int) -> Path:
    """Return where a peer's data are; what reads Lance reads one table."""
    if peer in ("ours", "lance_", "lancedb_"):
        return DATA / f"{workload}_{rows}.lance"
    return DATA / f"{workload}_{rows}_{peer.strip('_')}"


def task_arguments(
    peer: str, mode: str, workload: str, rows: int, batch_size: int, workers: int = 0
) -> dict[str, object]:
    """Return what `speed.task_of` takes."""
    return {
        "workload": workload,
        "rows": rows,
        "mode": mode,
        "batch_size": batch_size,
        "workers": workers,
        "path": str(path_of(peer, workload, rows)),
    }


def speed_jobs(settings: Settings, workload: str) -> Iterator[Job]:
    """Return the measurements of speed on one workload."""
    for case in CASES:
        if workload not in case.workloads or not settings.wants(case):
            continue
        rows = settings.rows(workload, case.share)
        for workers in case.workers:
            if workers and not (settings.workers and workload == "narrow"):
                continue
            task = task_arguments(
                case.peer, case.mode, workload, rows, settings.batch_size, workers
            )
            # The ratios that matter are those of narrow rows in one process.
            aside = workers or workload != "narrow"
            less = "/" in case.mode if case.kind == "ours" else aside
            own = {
                "peer": case.peer,
                "seconds": settings.seconds,
                "cut": case.is_slow,
            }
            yield Job(
                key_of(workload, case.name, workers),
                "benchmarks.speed",
                {**own, **task},
                apart=case.peer == "mosaicml",
                rounds=2 if less else None,
            )


def key_of(workload: str, name: str, workers: int = 0) -> str:
    """Return the key of a measurement of speed."""
    return f"{workload}: {name}" + (f", {workers} workers" if workers else "")


def data_jobs(settings: Settings) -> Iterator[Job]:
    """Return what writes the data that are not there yet."""
    asked = set()
    for workload in settings.workloads:
        for case in CASES:
            if workload not in case.workloads or not settings.wants(case):
                continue
            peer = "lance_" if case.peer in ("ours", "lancedb_") else case.peer
            rows = settings.rows(workload, case.share)
            path = path_of(peer, workload, rows)
            if path in asked or path.with_name(path.name + ".done").exists():
                continue
            asked.add(path)
            yield Job(
                f"data: {path.name}",
                "benchmarks.prepare",
                {"peer": peer, "workload": workload, "rows": rows, "path": str(path)},
                apart=peer == "mosaicml",
            )


def other_jobs(settings: Settings) -> Iterator[Job]:
    """Return the measurements of training and of the first batch from workers."""
    rows = settings.rows("narrow")
    task = task_arguments("ours", BLOCK_SHUFFLE, "narrow", rows, settings.batch_size)
    for threads, name in ((1, "one thread"), (None, "default threads")):
        for constant, what in ((True, "constant batch"), (False, "our loader")):
            more = {"constant": constant, "threads": threads}
            yield Job(f"fit, {name}: {what}", "benchmarks.fit", {**task, **more})
    for bare in (1, 2):
        arguments = {"bare": bare}
        yield Job(f"first batch: bare workers, {bare}", "benchmarks.startup", arguments)
    two = {**task, "workers": 2}
    yield Job("first batch: ours, 2 workers", "benchmarks.startup", two)


def cost_jobs(settings: Settings) -> Iterator[Job]:
    """Return the measurements of what takes and scans cost."""
    for workload, row_bytes in (("narrow", NARROW_BYTES), ("text", TEXT_BYTES)):
        if workload in settings.workloads:
            rows = settings.rows(workload)
            task = task_arguments("ours", "", workload, rows, settings.batch_size)
            more = {"row_bytes": row_bytes, "variable": workload == "text"}
            yield Job(f"{COSTS}{workload}", "benchmarks.costs", {**task, **more})


def memory_jobs(settings: Settings, epochs: int) -> Iterator[Job]:
    """Return the measurements of memory."""
    for workload in settings.workloads:
        rows = settings.rows(workload)
        for sampler in (
            (BLOCK_SHUFFLE, "Shuffle") if workload == "narrow" else (BLOCK_SHUFFLE,)
        ):
            task = task_arguments("ours", sampler, workload, rows, settings.batch_size)
            yield Job(
                f"memory, {workload}: {sampler}",
                "benchmarks.memory",
                {**task, "epochs": epochs},
            )
