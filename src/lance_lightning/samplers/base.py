"""What a sampler is asked for, and what the order of a split can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from lance_lightning.checks import check_importable, check_int, check_one_of
from lance_lightning.errors import ConfigError
from lance_lightning.ordering import TrainShare, WholeBatchShare, World
from lance_lightning.tables import Plan
from lance_lightning.types import Ints

if TYPE_CHECKING:  # it loads Lance; orders are numbers only
    from lance_lightning.tables import Snapshot


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
        row_bytes: Mean bytes of a row in the selected columns.
    """

    plan: Plan
    snapshot: Snapshot
    dataset: Callable[[], Any]
    world_size: int
    global_batch_size: int
    seed: int
    row_bytes: int = 1

    @property
    def num_rows(self) -> int:
        """Rows in the split."""
        return self.plan.num_rows


@runtime_checkable
class Sampler(Protocol):
    """What a user names: it makes the order in which training visits a split."""

    def order_of(self, split: TrainingSplit) -> Order:
        """Return the order of a split's rows.

        Args:
            split: What the order is of.

        Raises:
            ConfigError: The split has no such order.
        """


class Order(ABC):
    """The order of one split's rows: what a sampler makes of it.

    It goes to workers, so it must pickle. A subclass sets `rows_per_epoch` and
    implements `indices`, as a function of the arguments and of what it was made with;
    every other attribute has a default. The order then resumes at any batch, on any
    number of ranks unless `depends_on_ranks`.

    Attributes:
        rows_per_epoch: Rows of an epoch, over all ranks; the same in each.
        batches_per_epoch: Batches of an epoch over all ranks, where the order makes
            them itself (see `batches`), which are dealt out to the ranks, so that a
            run resumes in mid-epoch only on as many ranks; None: the rows are cut
            into global batches.
        share: How ranks share a global batch of G rows. ``"strided"``: rank r of W
            takes its positions r, r + W, r + 2W, ...; ``"contiguous"``: the r-th of
            W consecutive parts.
        reads_in_table_order: Whether an epoch's rows come about as they are in the
            table. Then a window is one piece, handed on as it was read; otherwise it
            is large, so that rows which are near each other are read together.
        depends_on_ranks: Whether another number of ranks is another order.
        read_period: After that many global batches, reads come round to rows that are
            near each other; a window then ends there. None: nowhere.
        draws: Whether an epoch is drawn whole, in the main process only, by
            `prepare`; workers are sent the rows of each window.
    """

    rows_per_epoch: int
    batches_per_epoch: int | None = None
    share: Literal["strided", "contiguous"] = "strided"
    reads_in_table_order: bool = False
    depends_on_ranks: bool = False
    read_period: int | None = None
    draws: bool = False

    @abstractmethod
    def indices(self, positions: Ints, epoch: int) -> Ints:
        """Return the indices into the split at positions of an epoch.

        Args:
            positions: Places in the epoch in ``[0, rows_per_epoch)``, shape ``(N,)``.
            epoch: From 0.

        Returns:
            Shape ``(N,)``, a new array.
        """

    def batches(self, numbers: Ints, epoch: int) -> tuple[Ints, Ints]:
        """Return the rows of batches that the order makes itself.

        Args:
            numbers: Which ones, in ``[0, batches_per_epoch)``, shape ``(N,)``.
            epoch: From 0.

        Returns:
            Indices into the split, one batch after the other, and the rows of each
            batch, shape ``(N,)``.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no batches")

    def prepare(self, epoch: int) -> None:  # noqa: B027  (most have nothing to do)
        """Draw an epoch's order now, where `draws`: called on the main thread."""

    def state(self) -> dict[str, Any] | None:
        """Return what tells this order from others, in plain Python, for a checkpoint.

        A run resumes only where it is equal: add the sizes that decide the order.
        """
        return {"sampler": type(self).__name__}

    def fingerprint(self) -> str:
        """Return a digest that is equal on all ranks, or nothing."""
        return ""

    def left_out(self, num_rows: int, world_size: int) -> str | None:
        """Return a log line on rows that every epoch leaves out; None where none are.

        Args:
            num_rows: Rows that all ranks deliver in an epoch.
            world_size: The number of ranks.
        """
        return None

    def check_importable(self) -> None:
        """Raise a `ConfigError` unless a spawned worker could load the order."""
        check_importable(f"the sampler {type(self).__name__}", self)


@dataclass(frozen=True, slots=True)
class PlanOrder(Order):
    """The order of the plan, in every epoch.

    Args:
        rows_per_epoch: Rows in the split.
        sampler: The name of the sampler; None in evaluation, which has none.
    """

    share = "contiguous"  # a strided share would make every rank read the whole table
    reads_in_table_order = True

    rows_per_epoch: int
    sampler: str | None = None

    def indices(self, positions: Ints, epoch: int) -> Ints:
        """Return the positions; see `Order.indices`."""
        return np.array(positions, np.int64)

    def state(self) -> dict[str, Any] | None:
        """Return the sampler's name; see `Order.state`."""
        return None if self.sampler is None else {"sampler": self.sampler}


def training_share(
    order: Order, global_batch_size: int, world: World, drop_last: bool
) -> TrainShare | WholeBatchShare:
    """Return a rank's share of the order of a split.

    Args:
        order: The order.
        global_batch_size: Rows in a batch over all ranks.
        world: This rank and the number of ranks.
        drop_last: Leave out the last global batch if it is not full.

    Raises:
        ConfigError: It is no order, or there is no batch for each rank.
    """
    if not isinstance(order, Order):
        raise ConfigError(
            f"the sampler's order_of returned {order!r}, which is no order: return an "
            "object of a subclass of lance_lightning.samplers.Order"
        )
    name = type(order).__name__
    check_one_of(f"{name}.share", order.share, ("strided", "contiguous"))
    rows = check_int(
        f"{name}.rows_per_epoch", getattr(order, "rows_per_epoch", None), 0
    )
    batches = order.batches_per_epoch
    if batches is not None:
        return WholeBatchShare(rows, batches, world)
    strided = order.share == "strided"
    return TrainShare(rows, global_batch_size, world, drop_last, strided)
