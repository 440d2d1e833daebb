"""Samplers that are not ours: torch's, Lance's and the user's own.

Such a sampler yields an epoch's rows one after the other, so an epoch is drawn whole
before its first batch. Each draw is from a fresh copy of the sampler with seeded
generators: a function of only the sampler, the seed and the epoch, the same on every
rank, in every worker and after a resume. The ranks share what was drawn.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from lance import LanceDataset
from lance.sampler import Sampler as LanceSampler
from lance.sampler import ShardedBatchSampler, ShardedFragmentSampler
from torch.utils.data import DistributedSampler, SequentialSampler
from torch.utils.data import Sampler as TorchSampler

from lance_lightning.errors import ConfigError
from lance_lightning.frozen import spec
from lance_lightning.ordering import key
from lance_lightning.randomness import seeded_generators
from lance_lightning.samplers.base import Order, Sampler, TrainingSplit
from lance_lightning.samplers.builtin import Sequential
from lance_lightning.samplers.drawn_epochs import DrawnEpoch, DrawnEpochs
from lance_lightning.tables import Plan, Snapshot, read_table
from lance_lightning.types import ROW_OFFSET, Ints

_DRAWN, _GENERATOR = 102, 103  # what a key is for; `sharded` has two more
_POSITIVE = 2**63 - 1


def as_spec(value: Any) -> Any:
    """Return a spec for a sampler of torch's, Lance's or the user's own.

    Args:
        value: What was given as ``sampler``: such a sampler, any iterable of indices
            or of batches of them, or a function that is called with the split as a
            torch ``Dataset`` and returns one.

    Returns:
        ``value`` itself where it is none of these.

    Raises:
        ConfigError: A sampler of Lance's that is sharded by itself, or an iterator.
    """
    if isinstance(value, Iterator):
        raise ConfigError(
            f"sampler must be one that gives every epoch, got {value!r}, which can be "
            "read once; give what it iterates over"
        )
    if isinstance(value, LanceSampler):
        return LanceAdapter(value)
    if isinstance(value, TorchSampler):
        return TorchAdapter(value)
    if isinstance(value, Sampler | str | Mapping):
        return value
    if isinstance(value, Iterable) or callable(value):
        return TorchAdapter(value)
    return value


@spec("sampler")
class TorchAdapter:
    """A sampler of torch's, or a function that makes one of the split.

    Args:
        given: The sampler, or the function.
    """

    given: Any

    def order_of(self, split: TrainingSplit) -> Order:
        """Return the order that the sampler draws.

        Raises:
            ConfigError: It draws what are no rows of the split, or no batch for each
                rank.
        """
        sampler = self._made(split)
        if type(sampler) is SequentialSampler and len(sampler) == split.plan.num_rows:
            return Sequential().order_of(split)
        draw = functools.partial(_draw_torch, _unsharded(sampler), split.plan.num_rows)
        return DrawnEpochs(_name(sampler), draw, split, share="strided")

    def _made(self, split: TrainingSplit) -> Any:
        given = self.given
        if isinstance(given, Iterable) and not isinstance(given, type):
            return given
        kind = given.func if isinstance(given, functools.partial) else given
        options = {}
        if isinstance(kind, type) and issubclass(kind, DistributedSampler):
            options = {"num_replicas": 1, "rank": 0}
        sampler = given(split.dataset(), **options)
        if not isinstance(sampler, Iterable):
            raise ConfigError(
                f"the sampler {_name(given)} was called with the split as a dataset "
                f"and returned {sampler!r}, which yields no indices; return a torch "
                "Sampler"
            )
        return sampler


@spec("sampler")
class LanceAdapter:
    """A user's own ``lance.sampler.Sampler``.

    Args:
        given: The sampler.

    Raises:
        ConfigError: It is one of Lance's sharded samplers.
    """

    given: Any

    def __post_init__(self) -> None:
        for theirs, ours in (
            (ShardedFragmentSampler, "ShardedFragments"),
            (ShardedBatchSampler, "ShardedBatches"),
        ):
            if isinstance(self.given, theirs):
                raise ConfigError(
                    f"the sampler {type(self.given).__name__} gives each rank its own "
                    "rows, and the trainer's ranks would share these once more: use "
                    f"sampler={ours}(randomize=..., seed=...), which takes rank and "
                    "world size from the trainer"
                )

    def order_of(self, split: TrainingSplit) -> Order:
        """Return the order in which the sampler yields the split's rows.

        Raises:
            ConfigError: It yields no row offsets, or no row of the split; or the
                table is a remote one.
        """
        if not isinstance(split.snapshot.open(), LanceDataset):
            raise ConfigError(
                f"the sampler {_name(self.given)} asks Lance for rows, and "
                f"{split.snapshot.describe()} is a remote table; give a torch Sampler "
                "of the split's indices"
            )
        draw = functools.partial(
            _draw_lance, self.given, split.snapshot, split.plan, split.global_batch_size
        )
        return DrawnEpochs(_name(self.given), draw, split, share="contiguous")


def _name(sampler: Any) -> str:
    if isinstance(sampler, functools.partial):
        sampler = sampler.func
    named = sampler if hasattr(sampler, "__qualname__") else type(sampler)
    return f"{named.__module__}.{named.__qualname__}"


def _unsharded(sampler: Any) -> Any:
    """Return a ``DistributedSampler`` as of one replica: the ranks share its order.

    Rank r of the strided share then has the rows that the sampler of rank r gives.
    """
    if not isinstance(sampler, DistributedSampler):
        return sampler
    sampler = copy.copy(sampler)
    sampler.num_replicas, sampler.rank = 1, 0
    sampler.num_samples = sampler.total_size = len(sampler.dataset)
    return sampler


def _fresh(sampler: Any, epoch: int) -> Any:
    """Return a copy that has drawn nothing yet, set to an epoch.

    What it samples from is not copied: it can be a whole data set.
    """
    kept = [
        getattr(each, name, None)
        for each in _parts(sampler)
        for name in ("data_source", "dataset")
    ]
    fresh = copy.deepcopy(sampler, {id(data): data for data in kept})
    for each in _parts(fresh):
        set_epoch = getattr(each, "set_epoch", None)
        if callable(set_epoch):  # else it is an attribute of the user's own
            set_epoch(epoch)
    return fresh


def _parts(sampler: Any) -> list[Any]:
    """Return a sampler and the one it draws from: a ``BatchSampler`` has one."""
    return [sampler, getattr(sampler, "sampler", None)]


def _draw_torch(sampler: Any, num_rows: int, seed: int, epoch: int) -> DrawnEpoch:
    """Return what a sampler of torch's yields; ``num_rows`` are the split's.

    Raises:
        ConfigError: It yields what are no rows of the split.
    """
    fresh = _fresh(sampler, epoch)
    for each in _parts(fresh):
        generator = getattr(each, "generator", None)
        if isinstance(generator, torch.Generator):
            parts = (_GENERATOR, generator.initial_seed(), seed, epoch)
            generator.manual_seed(int(key(*parts)) & _POSITIVE)
    with seeded_generators(int(key(_DRAWN, seed, epoch))):
        found = list(fresh)
    ends = None
    if found and np.ndim(found[0]):
        found = [list(batch) for batch in found]
        ends = np.cumsum([len(batch) for batch in found], dtype=np.int64)
        found = [index for batch in found for index in batch]
    indices = _as_indices(_name(sampler), found)
    wrong = (indices < 0) | (indices >= num_rows)
    if wrong.any():
        raise ConfigError(
            f"the sampler {_name(sampler)} yields index {indices[wrong][0]}, and the "
            f"split has {num_rows} rows, 0 to {num_rows - 1}; make it for the split's "
            "rows, or give a function of the data set that makes it"
        )
    if ends is not None and (np.diff(ends, prepend=0) == 0).any():
        raise ConfigError(
            f"the sampler {_name(sampler)} yields a batch without a row; let it leave "
            "such batches out"
        )
    return DrawnEpoch(indices, ends)


def _as_indices(name: str, found: list[Any]) -> Ints:
    if found and isinstance(found[0], torch.Tensor):
        found = [int(each) for each in found]
    indices = np.asarray(found if found else np.empty(0, np.int64))
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise ConfigError(
            f"the sampler {name} yields {found[0]!r}, which is no index of a row; a "
            "sampler yields integers, or lists of them for whole batches"
        )
    return indices.astype(np.int64)


def _draw_lance(
    sampler: Any, snapshot: Snapshot, plan: Plan, rows: int, seed: int, epoch: int
) -> DrawnEpoch:
    """Return which rows of a split a sampler of Lance's yields, in its order.

    It is called with the whole table; rows that are not in the split are passed over.
    Only their offsets are read.
    """
    with seeded_generators(int(key(_DRAWN, seed, epoch))):
        found = read_table(
            snapshot,
            f"drawing epoch {epoch} with the sampler {_name(sampler)}",
            lambda table: [
                _offsets(_name(sampler), batch)
                for batch in _fresh(sampler, epoch)(
                    table, batch_size=rows, columns=[ROW_OFFSET]
                )
            ],
            caught=(OSError, pa.ArrowException),  # others can be the sampler's own
        )
    offsets = np.concatenate([*found, np.empty(0, np.int64)])
    if plan.is_range:
        inside = (offsets >= plan.start) & (offsets < plan.start + plan.num_rows)
        return DrawnEpoch(offsets[inside] - plan.start)
    own = plan.offsets(np.arange(plan.num_rows, dtype=np.int64))
    order = np.argsort(own, kind="stable")
    at = order[np.minimum(np.searchsorted(own, offsets, sorter=order), len(own) - 1)]
    return DrawnEpoch(at[own[at] == offsets])


def _offsets(name: str, batch: Any) -> Ints:
    if ROW_OFFSET not in batch.schema.names:
        raise ConfigError(
            f"the sampler {name} was asked for the column {ROW_OFFSET!r} and yields "
            f"{batch.schema.names}, so its rows are not known; let it hand columns on "
            "to Lance's scanner or take"
        )
    return np.asarray(batch[ROW_OFFSET].to_numpy(), dtype=np.int64)
