"""The samplers that know nothing of ranks or workers, and their orders.

For training only; evaluation is in the order of the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lance_lightning.checks import check_int
from lance_lightning.errors import ConfigError
from lance_lightning.frozen import spec
from lance_lightning.ordering import block_shuffle, shuffle
from lance_lightning.samplers.base import Order, PlanOrder, Sampler, TrainingSplit
from lance_lightning.types import TOO_LARGE, Ints

_BLOCK_BYTES = 64 * 1024  # neighbours up to here cost about as much as one row
_BUFFER_BYTES = 256 * 1024**2
_MAX_BLOCK = 256
_STREAMS = 8  # fewer leave neighbouring batches alike on a sorted table


@spec("sampler")
class BlockShuffle(Sampler):
    """Shuffle blocks of neighbouring rows, and rows within buffers of many blocks.

    Reads cost far less than with `Shuffle`, since neighbours are read together, and
    each rank reads blocks of its own. Batches are as random as with `Shuffle`
    where the buffer holds 8 or more times ``block_size * global_batch_size`` rows:
    each row of a global batch then comes from another block, and a block's rows
    are spread over the buffer. A split no larger than the buffer is shuffled whole.

    Args:
        block_size: Rows in a block (LanceDB says clump). None: about 64 KB, a power
            of two from 1 to 256, and less where the buffer would pass 256 MB.
        buffer_size: Rows in a buffer, over all ranks; rounded up to a multiple of
            ``block_size * global_batch_size``. None: 8 times that.

    Raises:
        ConfigError: A size is not a positive integer.
    """

    block_size: int | None = None
    buffer_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("block_size", "buffer_size"):
            size = getattr(self, name)
            if size is not None:
                object.__setattr__(self, name, check_int(name, size, 1))

    def order_of(self, split: TrainingSplit) -> BlockShuffleOrder:
        """Return the order of a split, with both sizes; see `Sampler.order_of`."""
        batch = check_int("global_batch_size", split.global_batch_size, 1)
        block = self.block_size or _default_block(batch, split.row_bytes)
        unit = block * batch
        buffer = self.buffer_size or _STREAMS * unit
        buffer = -(-buffer // unit) * unit
        if buffer >= TOO_LARGE:
            raise ConfigError(
                f"{self} would need a buffer of {buffer} rows, as it holds whole "
                f"blocks of {block} rows for each of the {batch} rows of a global "
                "batch, and 2**63 rows are too many: choose smaller sizes"
            )
        return BlockShuffleOrder(split.num_rows, split.seed, block, buffer, batch)


@dataclass(frozen=True, slots=True)
class BlockShuffleOrder(Order):
    """`BlockShuffle` over one split.

    Args:
        rows_per_epoch: Rows in the split.
        seed: The module's seed.
        block_size: Rows in a block.
        buffer_size: Rows in a buffer, a multiple of both others.
        global_batch_size: Rows in a batch over all ranks.
    """

    rows_per_epoch: int
    seed: int
    block_size: int
    buffer_size: int
    global_batch_size: int

    @property
    def read_period(self) -> int:  # type: ignore[override]  # a constant of others
        """Global batches of a buffer."""
        return self.buffer_size // self.global_batch_size

    def indices(self, positions: Ints, epoch: int) -> Ints:
        """Return the indices at positions; see `Order.indices`."""
        return block_shuffle(
            positions,
            self.rows_per_epoch,
            self.seed,
            epoch,
            block_size=self.block_size,
            buffer_size=self.buffer_size,
            global_batch_size=self.global_batch_size,
        )

    def state(self) -> dict[str, Any]:
        """Return the sizes in plain Python; see `Order.state`."""
        return {
            "sampler": "BlockShuffle",
            "block_size": self.block_size,
            "buffer_size": self.buffer_size,
        }


def _default_block(global_batch_size: int, row_bytes: int) -> int:
    """Return the rows in a block for rows of a mean size."""
    row_bytes = max(1, row_bytes)
    rows = min(max(1, _BLOCK_BYTES // row_bytes), _MAX_BLOCK)
    block = 1 << (rows.bit_length() - 1)
    bytes_per_block_row = _STREAMS * global_batch_size * row_bytes
    while block > 1 and block * bytes_per_block_row > _BUFFER_BYTES:
        block //= 2
    return block


@spec("sampler")
class Shuffle(Sampler):
    """Any row anywhere in the epoch: a full shuffle, and the most costly to read."""

    def order_of(self, split: TrainingSplit) -> ShuffleOrder:
        """Return the order of a split; see `Sampler.order_of`."""
        return ShuffleOrder(split.num_rows, split.seed)


@dataclass(frozen=True, slots=True)
class ShuffleOrder(Order):
    """`Shuffle` over one split.

    Args:
        rows_per_epoch: Rows in the split.
        seed: The module's seed.
    """

    rows_per_epoch: int
    seed: int

    def indices(self, positions: Ints, epoch: int) -> Ints:
        """Return the indices at positions; see `Order.indices`."""
        return shuffle(positions, self.rows_per_epoch, self.seed, epoch)

    def state(self) -> dict[str, Any]:
        """Return the sampler's name; see `Order.state`."""
        return {"sampler": "Shuffle"}


@spec("sampler")
class Sequential(Sampler):
    """The order of the plan, every epoch: the least costly to read."""

    def order_of(self, split: TrainingSplit) -> PlanOrder:
        """Return the order of a split; see `Sampler.order_of`."""
        return PlanOrder(split.num_rows, "Sequential")
