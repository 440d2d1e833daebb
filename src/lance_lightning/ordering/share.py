"""What every share answers, and the checks that all of them make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from lance_lightning.checks import check_int
from lance_lightning.errors import ConfigError
from lance_lightning.ordering.world import World
from lance_lightning.types import Ints


class Rows(Protocol):
    """What a share asks of an order; `lance_lightning.samplers.Order` is one."""

    def indices(self, positions: Ints, epoch: int) -> Ints:
        """Return the indices into the split at positions of an epoch."""

    def batches(self, numbers: Ints, epoch: int) -> tuple[Ints, Ints]:
        """Return the indices of whole batches, and the rows of each batch."""


class Share(Protocol):
    """Which part of an epoch is one rank's."""

    is_training: ClassVar[bool]

    @property
    def world(self) -> World:
        """This rank and the number of ranks."""

    @property
    def global_batch_size(self) -> int | None:
        """Rows in a batch over all ranks; None where it decides nothing."""

    @property
    def drop_last(self) -> bool | None:
        """Whether a last global batch that is not full is left out; None likewise."""

    @property
    def batch_size(self) -> int:
        """Rows in a batch of this rank, about where the order makes the batches."""

    @property
    def num_batches(self) -> int:
        """Batches of this rank in an epoch."""

    @property
    def num_full_batches(self) -> int:
        """Those of them that are full."""

    @property
    def num_rows_of_rank(self) -> int:
        """Rows that this rank delivers in an epoch."""

    @property
    def repeated_rows(self) -> int:
        """Rows that come twice in an epoch, over all ranks."""

    @property
    def last_batch_rows(self) -> int:
        """Rows in this rank's last batch of an epoch."""

    @property
    def left_out_batches(self) -> int:
        """Batches that the order makes and no rank gets."""

    def rows_of_batch(self, number: int) -> int:
        """Return the rows of one of this rank's batches."""

    def indices(
        self, order: Rows, epoch: int, first: int, last: int
    ) -> tuple[Ints, Ints]:
        """Return the rows of this rank's batches ``[first, last)``.

        Returns:
            Indices into the split, one batch after the other, and the rows of each
            batch, shape ``(last - first,)``.

        Raises:
            ConfigError: The epoch has no such batches.
        """


class PositionShare(ABC):
    """A share of positions: the order says which row is at each of them."""

    __slots__ = ()

    @abstractmethod
    def positions(self, first: int, last: int) -> tuple[Ints, Ints]:
        """Return the positions of batches ``[first, last)``, and rows of each batch."""

    def indices(
        self, order: Rows, epoch: int, first: int, last: int
    ) -> tuple[Ints, Ints]:
        """Return the rows of batches; see `Share.indices`."""
        positions, sizes = self.positions(first, last)
        return order.indices(positions, epoch), sizes


def check_rows(num_rows: int, world: World) -> None:
    """Raise a `ConfigError` unless each rank can have a row."""
    check_int("num_rows", num_rows, 0)
    if num_rows == 0:
        raise ConfigError(
            "the split has no rows, so there is nothing to iterate over; "
            "check its share and the filter"
        )
    if num_rows < world.size:
        raise ConfigError(
            f"the split has {num_rows} rows for {world.size} ranks, so some rank "
            f"would have none and the others would wait for it forever; give the "
            f"split more rows or use at most {num_rows} ranks"
        )


def check_batches(first: int, last: int, num_batches: int) -> None:
    """Raise a `ConfigError` unless ``[first, last)`` are batches of the epoch."""
    if not 0 <= first <= last <= num_batches:
        raise ConfigError(
            f"batches {first} to {last} are not in an epoch of {num_batches} batches"
        )
