"""Lance's own sharded samplers: what a rank reads depends on the number of ranks.

`ShardedFragments` and `ShardedBatches` mean what ``ShardedFragmentSampler`` and
``ShardedBatchSampler`` of ``lance.sampler`` mean, with rank and world size from the
trainer's strategy, equal steps on every rank and, if randomized, another order in
every epoch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lance_lightning.checks import check_bool, check_seed
from lance_lightning.errors import ConfigError
from lance_lightning.frozen import spec, values_of
from lance_lightning.ordering import key, keyed
from lance_lightning.samplers.base import Order, Sampler, TrainingSplit
from lance_lightning.tables import Plan, Snapshot
from lance_lightning.types import Ints

# What a key is for; no number of `lance_lightning.ordering.permutations`'s own.
_FRAGMENTS, _BATCHES = 100, 101
_LONG_RUN_BYTES = 8 * 1024**2  # of a fragment that is read by itself


def _check(sampler: ShardedFragments | ShardedBatches) -> None:
    name = type(sampler).__name__
    randomize = check_bool(f"{name}: randomize", sampler.randomize)
    object.__setattr__(sampler, "randomize", randomize)
    object.__setattr__(sampler, "seed", check_seed(f"{name}: seed", sampler.seed))


@spec("sampler")
class ShardedFragments(Sampler):
    """Rank r reads the fragments r, r + world size, ... whole and in order.

    The cheapest to read, and no rank touches a fragment of another. Every rank
    delivers as many rows as the smallest share of fragments has, so rows are left out
    where shares differ; a log line says how many. Fragments in which the split has no
    row do not count.

    Another number of ranks is another order: a run is resumed on as many ranks, or
    from a checkpoint at the end of an epoch.

    Args:
        randomize: Whether the fragments are shuffled anew for each epoch, before the
            ranks share them. The rows within one stay in order.
        seed: Any integer; used together with the module's seed and the epoch.

    Raises:
        ConfigError: An argument of another type.
    """

    randomize: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self)

    def order_of(self, split: TrainingSplit) -> FragmentOrder:
        """Return the order over the fragments of a split.

        Raises:
            ConfigError: Fewer fragments than ranks, rows that are not in the table's
                order, or a table that does not show its fragments.
        """
        counts = fragment_rows(split.snapshot)
        bounds = fragment_bounds(split.plan, counts)
        found = len(bounds) - 1
        if 0 < found < split.world_size:
            raise ConfigError(
                f"ShardedFragments: the split has rows in {found} fragments, fewer "
                f"than the {split.world_size} ranks, so some rank would have none; "
                "use ShardedBatches(), or write the table in smaller files "
                "(max_rows_per_file)"
            )
        return FragmentOrder(self, bounds, split)


@spec("sampler")
class ShardedBatches(Sampler):
    """Batches of neighbouring rows; rank r reads every world-size-th of them.

    With ``drop_last=False`` no row is left out: the rows at the end that do not make
    a full batch for each rank are shared out in the last step.

    Args:
        randomize: Whether the batches are shuffled anew for each epoch, over all
            ranks. The rows within one stay in order and together. The last step's
            rows, where they do not fill it, are always the split's last.
        seed: Any integer; used together with the module's seed and the epoch.

    Raises:
        ConfigError: An argument of another type.
    """

    randomize: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self)

    def order_of(self, split: TrainingSplit) -> BatchOrder:
        """Return the order over the batches of a split."""
        return BatchOrder(self, split)


class FragmentOrder(Order):
    """`ShardedFragments` over the fragments of one split.

    Position p of an epoch belongs to a rank as `TrainShare` shares global batches
    out in parts, so this order needs no share of its own.

    Args:
        sampler: What the user named.
        bounds: Where in the split each fragment begins, and the end of the last,
            shape (fragments + 1,).
        split: What it is made for.
    """

    share = "contiguous"
    depends_on_ranks = True

    def __init__(
        self, sampler: ShardedFragments, bounds: Ints, split: TrainingSplit
    ) -> None:
        self.sampler = sampler
        self.bounds = bounds
        self.seed = split.seed
        self.world_size = split.world_size
        self.global_batch_size = split.global_batch_size
        self.rows_per_epoch = self._rows_of_all_ranks()
        self.reads_in_table_order = self._reads_in_table_order(split.row_bytes)

    def _reads_in_table_order(self, row_bytes: int) -> bool:
        """Return whether the fragments follow each other, or are large."""
        if self.world_size == 1 and not self.sampler.randomize:
            return True
        rows = (self.bounds[-1] - self.bounds[0]) / max(1, len(self.bounds) - 1)
        return bool(rows * row_bytes >= _LONG_RUN_BYTES)

    def _rows_of_all_ranks(self) -> int:
        rows = np.diff(self.bounds)
        if self.sampler.randomize:
            # Of every epoch: the length of a loader does not change.
            smallest = np.sort(rows)[: len(rows) // self.world_size].sum()
        else:
            shares = [rows[rank :: self.world_size] for rank in range(self.world_size)]
            smallest = min(share.sum() for share in shares)
        return int(smallest) * self.world_size

    def indices(self, positions: Ints, epoch: int) -> Ints:
        """Return the indices at positions; see `Order.indices`."""
        fragments = np.arange(len(self.bounds) - 1)
        if self.sampler.randomize:
            keys = key(_FRAGMENTS, self.seed, self.sampler.seed, epoch)
            fragments = keyed(fragments, len(fragments), keys)
        ranks, rows = self._rank_and_row(positions)
        found = np.empty(len(positions), np.int64)
        for rank in np.unique(ranks):
            own = ranks == rank
            found[own] = self._index(fragments[rank :: self.world_size], rows[own])
        return found

    def _rank_and_row(self, positions: Ints) -> tuple[Ints, Ints]:
        """Return whose each position is, and which of its rows."""
        batch = self.global_batch_size
        step, place = np.divmod(positions, batch)
        of_step = np.minimum(batch, self.rows_per_epoch - step * batch)
        rank, row = np.divmod(place, of_step // self.world_size)
        return rank, step * (batch // self.world_size) + row

    def _index(self, fragments: Ints, rows: Ints) -> Ints:
        """Return the rows of fragments that are read one after the other."""
        sizes = np.diff(self.bounds)[fragments]
        ends = np.cumsum(sizes)
        at = np.searchsorted(ends, rows, side="right")
        return np.asarray(self.bounds[fragments[at]] + rows - (ends - sizes)[at])

    def state(self) -> dict[str, Any]:
        """Return what the user named; the fragments are the table's."""
        return _state(self.sampler)

    def left_out(self, num_rows: int, world_size: int) -> str | None:
        """Return how many rows are left out; see `Order.left_out`."""
        rows = int(self.bounds[-1])
        if rows == num_rows:
            return None
        return (
            f"ShardedFragments leaves {rows - num_rows} of {rows} rows out of each "
            f"epoch, so that {world_size} ranks make equal steps of whole fragments; "
            "fragments of equal size leave out least, and ShardedBatches() none"
        )


class BatchOrder(Order):
    """`ShardedBatches` over one split.

    Args:
        sampler: What the user named.
        split: What it is made for.
    """

    share = "contiguous"
    depends_on_ranks = True

    def __init__(self, sampler: ShardedBatches, split: TrainingSplit) -> None:
        self.sampler = sampler
        self.seed = split.seed
        self.world_size = split.world_size
        self.global_batch_size = split.global_batch_size
        self.rows_per_epoch = split.num_rows
        self.reads_in_table_order = not sampler.randomize

    def indices(self, positions: Ints, epoch: int) -> Ints:
        """Return the indices at positions; see `Order.indices`."""
        if not self.sampler.randomize:
            return np.array(positions, np.int64)
        size = self.global_batch_size // self.world_size
        full = self.rows_per_epoch // self.global_batch_size * self.world_size
        batch, row = np.divmod(positions, size)
        moved = batch < full
        keys = key(_BATCHES, self.seed, self.sampler.seed, epoch)
        batch[moved] = keyed(batch[moved], full, keys)
        return np.asarray(batch * size + row)

    def state(self) -> dict[str, Any]:
        """Return what the user named."""
        return _state(self.sampler)


def _state(sampler: ShardedFragments | ShardedBatches) -> dict[str, Any]:
    return {"sampler": type(sampler).__name__, **values_of(sampler)}


def fragment_rows(snapshot: Snapshot) -> Ints:
    """Return the live rows of each fragment of a table, shape (fragments,).

    Raises:
        ConfigError: The table does not show its fragments: a remote one.
    """
    fragments = getattr(snapshot.open(), "get_fragments", None)
    if fragments is None:
        raise ConfigError(
            f"ShardedFragments: {snapshot.describe()} is a remote table, which does "
            "not show its fragments; use ShardedBatches()"
        )
    # From the manifest: counting would open every fragment.
    found = (fragment.metadata for fragment in fragments())
    return np.array([each.num_rows for each in found], np.int64)


def fragment_bounds(plan: Plan, fragment_rows: Ints) -> Ints:
    """Return where in a split the fragments begin, and the end of the last.

    Fragments in which the split has no row are left out.

    Raises:
        ConfigError: The split's rows are not in the table's order.
    """
    if not plan.sorted:
        raise ConfigError(
            f"ShardedFragments: the permutation of split {plan.name!r} has an order of "
            "its own, which reading fragment by fragment would give up; use "
            "Sequential() for that order, or Shuffle()"
        )
    ends = np.cumsum(fragment_rows)
    if plan.is_range:
        bounds = np.clip(ends - plan.start, 0, plan.num_rows)
    else:
        rows = plan.offsets(np.arange(plan.num_rows, dtype=np.int64))
        bounds = np.searchsorted(rows, ends)
    return np.unique(np.concatenate([[0], bounds]).astype(np.int64))
