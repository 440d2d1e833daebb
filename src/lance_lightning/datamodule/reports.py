"""What a run says once of the data it reads."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lance_lightning.loading import BatchReader, LanceDataLoader
from lance_lightning.ordering import Share
from lance_lightning.tables import strip_secrets

# This many fragments of fewer bytes in the columns that are read are small ones.
MANY_FRAGMENTS = 100
SMALL_BYTES = 1 << 20


def log_run(tables: str, stage: str, loaders: Sequence[LanceDataLoader]) -> None:
    """Log versions, splits and steps, and what several loaders mean."""
    steps = ", ".join(
        f"{len(loader)} steps of {loader.batch_size} rows per rank"
        for loader in loaders
    )
    rank_zero_info(f"Lance data: {tables}; {stage}: {steps}")


def log_training(loaders: Sequence[LanceDataLoader]) -> None:
    """Log what is particular of the training loaders."""
    if len(loaders) > 1:
        names = ", ".join(loader.reader.stream.plan.name for loader in loaders)
        rank_zero_info(
            f"Lance data: stage_splits['train'] is a list, so training has "
            f"{len(loaders)} loaders, and training_step gets a list of {len(loaders)} "
            f"batches, one per split: {names}; to get the rows of all of them in one "
            "batch, make one split of them, such as "
            "RandomSplit({'train': 0.8, 'val': 0.2})"
        )
    for loader in loaders:
        share = loader.reader.stream.share
        _log_last_batch(share)
        _log_left_out(loader)
        if loader.reader.cached is None:
            _warn_small_fragments(loader.reader)


def _log_left_out(loader: LanceDataLoader) -> None:
    stream = loader.reader.stream
    share = stream.share
    if share.left_out_batches:
        rank_zero_info(
            f"Lance data: {share.left_out_batches} of the sampler's "
            f"{stream.order.batches_per_epoch} "
            f"batches are left out of each epoch: {share.world.size} ranks take one "
            "each in every step"
        )
    ranks = share.world.size
    note = stream.order.left_out(share.num_rows_of_rank * ranks, ranks)
    if note is not None:
        rank_zero_info(f"Lance data: {note}")


def _warn_small_fragments(reader: BatchReader) -> None:
    snapshot = reader.snapshot
    fragments, rows = snapshot.num_fragments, snapshot.num_rows
    size = rows * reader.sizes.row_bytes
    if fragments < MANY_FRAGMENTS or size >= fragments * SMALL_BYTES:
        return
    rank_zero_warn(
        f"the table {strip_secrets(snapshot.uri)} has {fragments} fragments of "
        f"about {rows // fragments} rows each, and opening many small files takes "
        "longer than reading them: write larger ones with "
        "lance.dataset(uri).optimize.compact_files()"
    )


def _log_last_batch(share: Share) -> None:
    if share.repeated_rows:
        rank_zero_info(
            f"Lance data: the last global batch has fewer rows than the "
            f"{share.world.size} ranks, so {share.repeated_rows} rows repeat in it; "
            "drop_last=True leaves it out"
        )
    elif share.last_batch_rows == 1 and share.batch_size > 1:
        rank_zero_info(
            "Lance data: the last batch has one row per rank, on which batch norm "
            "fails in training; drop_last=True leaves it out"
        )
