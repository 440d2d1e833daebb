"""What to read with a checkpoint: which version of a table, in which order."""

from __future__ import annotations

from pathlib import Path

from lance_lightning.errors import SourceError, StateError
from lance_lightning.frozen import replace, values_of
from lance_lightning.loading import AFRESH, LoaderState, SourceState
from lance_lightning.samplers import Sampler
from lance_lightning.sources import Source
from lance_lightning.tables import Identity, Snapshot, strip_secrets


def saved_source(snapshot: Snapshot) -> SourceState:
    """Return what a checkpoint holds of a table, without secrets."""
    return SourceState(
        uri=strip_secrets(snapshot.uri),
        branch=snapshot.branch,
        identity=snapshot.identity.to_dict(),
    )


def repin(
    source: Source,
    current: Snapshot,
    saved: SourceState,
    stage: str,
    cache_dir: Path,
) -> tuple[Snapshot, str | None]:
    """Return what to read with a checkpoint, and a line to log.

    ``fit`` resumes with the checkpoint's rows or not at all. ``validate`` and
    ``test`` read the checkpoint's version of the same table, and any other table
    as configured. ``predict`` reads what is configured.

    Args:
        source: What is configured.
        current: What it was pinned to.
        saved: What `saved_source` wrote.
        stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
        cache_dir: Where in-memory tables are written.

    Raises:
        StateError: The rows of the checkpoint cannot be read, or another version
            was asked for by number.
    """
    wanted = Identity.from_dict(saved.identity)
    here = strip_secrets(current.uri)
    both = (
        f"\n  in the checkpoint: {saved.uri}, version {wanted.version}"
        f"\n  configured: {current.describe()}\n"
    )
    moved = None if here == saved.uri else f"the same table at another URI:{both}"
    if current.identity == wanted:
        return current, moved
    if stage == "predict":
        return current, f"predicting on other rows than those trained on:{both}"
    if _version_is_given(source):
        return _explicit(source, current, wanted, stage, both)
    try:
        found = source.resolve(cache_dir, version=wanted.version)
    except SourceError as error:
        return _missing(current, saved, stage, both, str(error))
    if found.identity == wanted:
        return found, moved
    return _missing(current, saved, stage, both, "its files or schema are others")


def _version_is_given(source: Source) -> bool:
    given = (getattr(source, "version", None), getattr(source, "tag", None))
    return any(value is not None for value in given)


def _explicit(
    source: Source, current: Snapshot, wanted: Identity, stage: str, both: str
) -> tuple[Snapshot, str | None]:
    if stage == "fit":
        raise StateError(
            "the checkpoint was trained on another version than the one that is "
            f"configured, so a resumed run would see other rows:{both}leave version "
            f"and tag out, or set version={wanted.version}; to start afresh, {AFRESH}"
        )
    return current, f"reading the configured version, not the checkpoint's:{both}"


def _missing(
    current: Snapshot, saved: SourceState, stage: str, both: str, why: str
) -> tuple[Snapshot, str | None]:
    if strip_secrets(current.uri) == saved.uri:
        raise StateError(
            "the rows of the checkpoint are no longer available: its version was "
            f"cleaned up, or the table was removed and written anew ({why}):{both}"
            "tag a version that a run needs (dataset.tags.create(name, version)) so "
            f"that clean-up keeps it; to train on the table as it is, {AFRESH}"
        )
    if stage == "fit":
        raise StateError(
            f"the checkpoint was trained on another table ({why}):{both}configure the "
            f"table that it was trained on; to start afresh on this one, {AFRESH}"
        )
    return current, f"reading another table than the checkpoint's:{both}"


def adopt_sizes(
    sampler: Sampler, saved: LoaderState, global_batch_size: int
) -> Sampler:
    """Return the sampler, with sizes that were left open as the checkpoint has them.

    When it was saved they had been derived from the data. With another global batch
    size the order is another one anyway, so they are derived again.

    Args:
        sampler: What is configured.
        saved: The saved state of the training loader.
        global_batch_size: Rows in a batch over all ranks.
    """
    sizes = saved.sizes_of(type(sampler).__name__)
    if sizes is None or saved.global_batch_size != global_batch_size:
        return sampler
    left_open = [name for name, size in values_of(sampler).items() if size is None]
    there = {name: sizes[name] for name in left_open if name in sizes}
    return replace(sampler, **there) if there else sampler
