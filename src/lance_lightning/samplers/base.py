"""What a sampler is asked for, and what it can ask of its split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from lance_lightning.ordering import TrainShare, WholeBatchShare, World
from lance_lightning.tables import Plan
from lance_lightning.types import Ints

if TYPE_CHECKING:  # it loads Lance; orders are numbers alone
    from lance_lightning.tables import Snapshot


@runtime_checkable
class Sampler(Protocol):
    """The order in which training visits the rows of a split."""

    @property
    def strided(self) -> bool:
        """How ranks share a global batch.

        True: rank r takes its positions r, r + W, r + 2W, ... of W ranks. False: it
        takes the r-th of W consecutive parts.
        """

    @property
    def reads_in_table_order(self) -> bool:
        """Whether an epoch's rows come about as they are in the table.

        Then a window is one piece, handed on as it was read. Otherwise it is large,
        so that rows which are near each other are read together.
        """

    def resolve(self, num_rows: int, global_batch_size: int, row_bytes: int) -> Sampler:
        """Return the sampler with every size filled in.

        Args:
            num_rows: Rows in the split.
            global_batch_size: Rows in a batch over all ranks.
            row_bytes: Mean size of a row in the selected columns.

        Raises:
            ConfigError: A size cannot work.
        """

    def indices(
        self,
        positions: Ints,
        *,
        num_rows: int,
        seed: int,
        epoch: int,
        global_batch_size: int,
    ) -> Ints:
        """Return the indices into the split at positions of an epoch.

        Args:
            positions: Places in the epoch in ``[0, num_rows)``, shape ``(N,)``.
            num_rows: Rows in the split.
            seed: Any integer.
            epoch: From 0.
            global_batch_size: Rows in a batch over all ranks.

        Returns:
            Shape ``(N,)``, a new array.
        """

    def state(self) -> dict[str, Any]:
        """Return the sampler in plain Python, for a checkpoint."""


@dataclass(frozen=True, slots=True)
class TrainingSplit:
    """What a sampler can ask of the split that it orders.

    Args:
        plan: The split's rows.
        snapshot: The table.
        dataset: Returns the split as a torch ``Dataset``.
        world_size: The number of ranks.
        global_batch_size: Rows in a batch over all ranks.
        seed: The module's seed.
    """

    plan: Plan
    snapshot: Snapshot
    dataset: Callable[[], Any]
    world_size: int
    global_batch_size: int
    seed: int


@runtime_checkable
class SplitSampler(Protocol):
    """A sampler that is made for one split: its order needs more than numbers."""

    def for_split(self, split: TrainingSplit) -> Any:
        """Return a `Sampler` over the split.

        It says as ``epoch_rows`` how many rows an epoch has, over all ranks, and as
        ``by_rank``, where it is true, that another number of ranks is another order.

        Raises:
            ConfigError: The split has no such order.
        """

    def state(self) -> dict[str, Any]:
        """Return the sampler in plain Python."""


def training_shard(
    sampler: Any,
    num_rows: int,
    global_batch_size: int,
    world: World,
    drop_last: bool,
) -> TrainShare:
    """Return a rank's share of the order of a sampler, made for its split.

    Args:
        sampler: A `Sampler`, or what `SplitSampler.for_split` returned.
        num_rows: Rows in the split.
        global_batch_size: Rows in a batch over all ranks.
        world: This rank and the number of ranks.
        drop_last: Leave out the last global batch if it is not full.

    Raises:
        ConfigError: There is no batch for each rank.
    """
    rows = getattr(sampler, "epoch_rows", num_rows)
    batches = getattr(sampler, "batches", None)
    strided = sampler.strided
    if batches is None:
        return TrainShare(rows, global_batch_size, world, drop_last, strided)
    mean = -(-rows // batches) * world.size
    return WholeBatchShare(rows, mean, world, drop_last, strided, batches)
