"""How well shuffles mix, on a table that is sorted by the column in question.

    python -m benchmarks.quality

Ours are worked out by the order functions only; peers that have such functions
too are asked for theirs, the others read a table of ids.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rounds import DATA, Bench, Job

BATCH = 256
ROW_BYTES = 528  # a narrow row
NEIGHBOURS = 64  # rows of the table that count as one block
EPOCHS = 4  # of ours, averaged; of peers there is one
LAGS = range(1, 17)
POINTS = 2_000  # rows drawn in a chart

Ints = np.ndarray[Any, Any]

OURS: dict[str, tuple[str, tuple[int, ...]]] = {
    "Shuffle": ("Shuffle", ()),
    "BlockShuffle": ("BlockShuffle", ()),
    "BlockShuffle, blocks of 256": ("BlockShuffle", (256,)),
    "BlockShuffle, blocks of 16": ("BlockShuffle", (16,)),
    "BlockShuffle, half the buffer": ("BlockShuffle", (64, 4 * 64 * BATCH)),
    "BlockShuffle, a quarter of it": ("BlockShuffle", (64, 2 * 64 * BATCH)),
    "BlockShuffle, an eighth of it": ("BlockShuffle", (64, 64 * BATCH)),
    "Sequential": ("Sequential", ()),
}
PEERS: dict[str, tuple[str, str]] = {  # name -> module, data
    "LanceDataset, shuffled batches": ("lance_", "ids.lance"),
    "lancedb.streaming": ("lancedb_", "ids.lance"),
    "HF iterable, 32 shards, buffer 10,000": ("hf", ""),
    "LitData, default": ("litdata_", "ids-litdata"),
    "LitData, whole chunks": ("litdata_", "ids-litdata"),
    "MosaicML py1e": ("mosaicml", ""),
    "MosaicML py1br": ("mosaicml", ""),
    "WebDataset, shards of 10,000, buffer 10,000": ("webdataset_", ""),
}


def run(name: str, rows: int, folder: str) -> dict[str, Any]:
    """Measure one shuffle of ``rows`` rows.

    Returns:
        ``value`` the spread of batch means over that of a full shuffle; ``lags`` their
        autocorrelation at each of `LAGS`; ``blocks`` a batch draws on; ``moved`` the
        mean distance of a row from its place over that of a full shuffle; ``drawn``
        the rows at evenly spread places.
    """
    orders = _ours(name, rows) if name in OURS else [_peers(name, rows, folder)]
    found = [_measure(order, rows) for order in orders]
    means = {key: np.mean([each[key] for each in found], axis=0) for key in found[0]}
    places = np.linspace(0, len(orders[0]) - 1, min(POINTS, rows)).astype(int)
    drawn = orders[0][places].tolist()
    result = {key: np.round(mean, 4).tolist() for key, mean in means.items()}
    return {**result, "drawn": drawn, "rows": len(orders[0])}


def _ours(name: str, rows: int) -> list[Ints]:
    from benchmarks.orders import order_of
    from lance_lightning import samplers

    sampler, sizes = OURS[name]
    order = order_of(getattr(samplers, sampler)(*sizes), rows, BATCH, ROW_BYTES)
    places = np.arange(rows)
    return [order.indices(places, epoch) for epoch in range(EPOCHS)]


def _peers(name: str, rows: int, folder: str) -> Ints:
    peer, data = PEERS[name]
    module = importlib.import_module(f"benchmarks.peers.{peer}")
    path = Path(folder) / data
    if data.endswith(".lance") and not path.exists():
        import lance
        import pyarrow as pa

        lance.write_dataset(pa.table({"id": np.arange(rows)}), str(path))
    return np.asarray(module.orders[name](rows, path), dtype=np.int64)


def _measure(order: Ints, rows: int) -> dict[str, Any]:
    batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
    means = batches.mean(axis=1)
    full = np.sqrt((rows**2 - 1) / 12 / BATCH * (rows - BATCH) / (rows - 1))
    blocks = np.sort(batches // NEIGHBOURS, axis=1)
    return {
        "value": means.std() / full,
        "lags": [_autocorrelation(means, lag) for lag in LAGS],
        "blocks": 1 + np.count_nonzero(np.diff(blocks, axis=1), axis=1).mean(),
        "moved": np.abs(order - np.arange(len(order))).mean() / (rows / 3),
    }


def _autocorrelation(values: Ints, lag: int) -> float:
    values = values - values.mean()
    return float(np.mean(values[:-lag] * values[lag:]) / np.mean(values**2))


def jobs(rows: int, peers: bool) -> list[Job]:
    """Return the measurements of all shuffles."""
    folder = DATA / f"quality-{rows}"
    folder.mkdir(parents=True, exist_ok=True)
    names = [*OURS, *(PEERS if peers else ())]
    return [
        Job(
            f"quality: {name}",
            "benchmarks.quality",
            {"name": name, "rows": rows, "folder": str(folder)},
            apart=name in PEERS and PEERS[name][0] == "mosaicml",
        )
        for name in names
    ]


def report(results: Mapping[str, list[dict[str, Any]]]) -> str:
    """Return a Markdown table of what `jobs` measured."""
    lines = [
        "| shuffle | spread of batch means | autocorrelation at lag 1 | 2 | 4 | 8 | 16 "
        "| blocks a batch draws on | distance moved |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for key, (result,) in results.items():
        name = key.removeprefix("quality: ")
        if "value" not in result:
            why = result.get("missing", result.get("error"))
            lines.append(f"| {name} | {why} | | | | | | | |")
            continue
        lags = [f"{result['lags'][lag - 1]:.2f}" for lag in (1, 2, 4, 8, 16)]
        lines.append(
            f"| {name} | {result['value']:.2f} | {' | '.join(lags)} "
            f"| {result['blocks']:.0f} | {result['moved']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure all shuffles and print the table."""
    bench = Bench(threads=0, cpus=0, timeout=300)
    print(report(bench.rounds(jobs(1_000_000, peers=True), 1)))


if __name__ == "__main__":
    main()
