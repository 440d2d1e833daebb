"""The user's own functions, run on one batch at a time with seeded generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from lance_lightning.checks import check_importable
from lance_lightning.errors import ConfigError, TransformError
from lance_lightning.formats import Format
from lance_lightning.ordering import key
from lance_lightning.randomness import seed_generators, seeded_generators


@dataclass(frozen=True, slots=True)
class Transforms:
    """The user's functions of one stage, in the order in which they run.

    Args:
        arrow_transform: Takes and returns a ``pyarrow.RecordBatch``, before the
            batch is converted to the output format.
        transform: Takes a batch in the output format and returns what is handed on.
        sample_transform: Takes one row as a dict; its results are collated.
        collate_fn: Takes the list of rows; default torch's ``default_collate``.
            Given alone, it takes the rows as they are.

    Raises:
        ConfigError: One is not callable, or ``transform`` is given with
            ``sample_transform`` or ``collate_fn``, which make the batch themselves.
    """

    arrow_transform: Callable[[Any], Any] | None = None
    transform: Callable[[Any], Any] | None = None
    sample_transform: Callable[[dict[str, Any]], Any] | None = None
    collate_fn: Callable[[list[Any]], Any] | None = None

    def __post_init__(self) -> None:
        for name, function in self.given():
            if not callable(function):
                raise ConfigError(f"{name} must be callable, got {function!r}")
        if self.transform is not None and self.by_row:
            raise ConfigError(
                "transform takes the whole batch while sample_transform and "
                "collate_fn make the batch out of single rows, so they cannot be "
                "used together: do the work of transform in collate_fn"
            )

    def given(self) -> list[tuple[str, Any]]:
        """Return the names and functions that were given."""
        named = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, function) for name, function in named if function is not None]

    @property
    def by_row(self) -> bool:
        """Whether the batch is made out of single rows."""
        return self.sample_transform is not None or self.collate_fn is not None

    def __bool__(self) -> bool:
        return bool(self.given())

    def check_picklable(self) -> None:
        """Raise unless every function can be sent to a spawned worker.

        Raises:
            ConfigError: A function cannot be pickled, or lives where a worker
                cannot import it.
        """
        for name, function in self.given():
            check_importable(name, function)


@dataclass(frozen=True, slots=True)
class BatchPlace:
    """Where a batch is, for seeds and for error messages.

    Args:
        stage: The stage that reads it.
        seed: The module's seed.
        epoch: The epoch, from 0.
        batch: The batch within the epoch, from 0.
        rank: The replica that reads it.
        row_offsets: The table's row offsets of the batch, shape (B,).
    """

    stage: str
    seed: int
    epoch: int
    batch: int
    rank: int
    row_offsets: np.ndarray[Any, Any]

    def __str__(self) -> str:
        shown = ", ".join(str(offset) for offset in self.row_offsets[:8])
        more = len(self.row_offsets) - 8
        return (
            f"stage {self.stage!r}, epoch {self.epoch}, batch {self.batch}, "
            f"rank {self.rank}, row offsets "
            f"[{shown}{f', and {more} more' if more > 0 else ''}]"
        )


def make_batch(
    window: Any,
    start: int,
    stop: int,
    format: Format,
    transforms: Transforms,
    place: BatchPlace,
) -> Any:
    """Cut a batch out of a window and run the user's functions on it.

    Args:
        window: What ``format.convert`` returned, or the Arrow batch itself where
            there is an ``arrow_transform``.
        start: First row of the batch in the window.
        stop: One past its last row.
        format: The output format.
        transforms: The user's functions.
        place: Where the batch is.

    Raises:
        TransformError: A function raised; the message names function, stage,
            epoch and batch.
    """
    seeds = key(place.seed, place.epoch, place.batch, place.rank)
    with seeded_generators(int(seeds)):
        if transforms.arrow_transform is not None:
            batch = _call(
                "arrow_transform",
                transforms.arrow_transform,
                window.slice(start, stop - start),
                place,
            )
            window = format.convert(batch)
            start, stop = 0, batch.num_rows
        if transforms.by_row:
            return _collated(window, start, stop, format, transforms, place)
        batch = format.slice(window, start, stop)
        if transforms.transform is not None:
            batch = _call("transform", transforms.transform, batch, place)
        return batch


def _collated(
    window: Any,
    start: int,
    stop: int,
    format: Format,
    transforms: Transforms,
    place: BatchPlace,
) -> Any:
    rows: Sequence[Any] = format.rows(window, start, stop)
    function = transforms.sample_transform
    if function is not None:
        # A row's augmentation follows the row, not its place in a batch: it is
        # the same for any batch size and any number of ranks. An arrow_transform
        # may change the number of rows; then the place in the batch has to do.
        same = len(rows) == len(place.row_offsets)
        of = place.row_offsets if same else np.arange(len(rows))
        seeds = np.atleast_1d(key(place.seed, place.epoch, of.astype(np.int64), -1))
        out = []
        for at, (row, seed) in enumerate(zip(rows, seeds.tolist(), strict=True)):
            seed_generators(seed)
            try:
                out.append(function(row))
            except Exception as error:
                if same:
                    own = replace(place, row_offsets=place.row_offsets[at : at + 1])
                    raise _failed("sample_transform", error, own) from error
                doing = f"sample_transform of row {at} that arrow_transform returned"
                raise _failed(doing, error, place) from error
        rows = out
    collate = transforms.collate_fn
    if collate is None:
        from torch.utils.data import default_collate

        return _call("default_collate", default_collate, list(rows), place)
    return _call("collate_fn", collate, list(rows), place)


def _call(name: str, function: Callable[[Any], Any], value: Any, at: BatchPlace) -> Any:
    try:
        return function(value)
    except Exception as error:
        raise _failed(name, error, at) from error


def _failed(name: str, error: Exception, at: BatchPlace) -> TransformError:
    return TransformError(
        f"{name} raised {type(error).__name__}: {error} ({at})",
        at.row_offsets[:8].tolist(),
    )
