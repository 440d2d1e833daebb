"""The samplers a user names: the order of an epoch, and how ranks share a batch.

For training only; evaluation is in the order of the plan. The samplers of this file
are elastic: the order knows nothing of ranks or workers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from lance_lightning.checks import check_int
from lance_lightning.errors import ConfigError, StateError
from lance_lightning.frozen import replace, spec, values_of
from lance_lightning.ordering import block_shuffle, shuffle
from lance_lightning.samplers.base import Sampler
from lance_lightning.types import TOO_LARGE, Ints

_BLOCK_BYTES = 64 * 1024  # neighbours up to here cost about as much as one row
_BUFFER_BYTES = 256 * 1024**2
_MAX_BLOCK = 256
_STREAMS = 8  # fewer leave neighbouring batches alike on a sorted table


def _state(sampler: BlockShuffle | Shuffle | Sequential) -> dict[str, Any]:
    return {"sampler": type(sampler).__name__, **values_of(sampler)}


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

    strided: ClassVar[bool] = True
    reads_in_table_order: ClassVar[bool] = False

    block_size: int | None = None
    buffer_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("block_size", "buffer_size"):
            size = getattr(self, name)
            if size is not None:
                object.__setattr__(self, name, check_int(name, size, 1))

    def resolve(self, num_rows: int, global_batch_size: int, row_bytes: int) -> Sampler:
        """Return the sampler with both sizes; see `Sampler.resolve`."""
        check_int("global_batch_size", global_batch_size, 1)
        block = self.block_size or _default_block(global_batch_size, row_bytes)
        unit = block * global_batch_size
        buffer = self.buffer_size or _STREAMS * unit
        buffer = -(-buffer // unit) * unit
        if buffer >= TOO_LARGE:
            raise ConfigError(
                f"{self} would need a buffer of {buffer} rows, as it holds whole "
                f"blocks of {block} rows for each of the {global_batch_size} rows of a "
                f"global batch, and 2**63 rows are too many: choose smaller sizes"
            )
        return replace(self, block_size=block, buffer_size=buffer)

    def indices(
        self,
        positions: Ints,
        *,
        num_rows: int,
        seed: int,
        epoch: int,
        global_batch_size: int,
    ) -> Ints:
        """Return the indices at positions; see `Sampler.indices`.

        Raises:
            ConfigError: The sizes are not those that `resolve` returns.
        """
        block, buffer = self.block_size, self.buffer_size
        if block is None or buffer is None or buffer % (block * global_batch_size):
            raise ConfigError(
                f"{self} has no order for a global batch of {global_batch_size}: the "
                f"buffer must be a multiple of block_size * global_batch_size; "
                f"resolve() makes it one"
            )
        return block_shuffle(
            positions,
            num_rows,
            seed,
            epoch,
            block_size=block,
            buffer_size=buffer,
            global_batch_size=global_batch_size,
        )

    def state(self) -> dict[str, Any]:
        """Return the sizes in plain Python."""
        return _state(self)


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

    strided: ClassVar[bool] = True
    reads_in_table_order: ClassVar[bool] = False

    def resolve(self, num_rows: int, global_batch_size: int, row_bytes: int) -> Sampler:
        """Return the sampler itself: it has no sizes."""
        return self

    def indices(
        self,
        positions: Ints,
        *,
        num_rows: int,
        seed: int,
        epoch: int,
        global_batch_size: int,
    ) -> Ints:
        """Return the indices at positions; see `Sampler.indices`."""
        return shuffle(positions, num_rows, seed, epoch)

    def state(self) -> dict[str, Any]:
        """Return the sampler's name."""
        return _state(self)


@spec("sampler")
class Sequential(Sampler):
    """The order of the plan, every epoch: the least costly to read."""

    # A strided share would make every rank read the whole table.
    strided: ClassVar[bool] = False
    reads_in_table_order: ClassVar[bool] = True

    def resolve(self, num_rows: int, global_batch_size: int, row_bytes: int) -> Sampler:
        """Return the sampler itself: it has no sizes."""
        return self

    def indices(
        self,
        positions: Ints,
        *,
        num_rows: int,
        seed: int,
        epoch: int,
        global_batch_size: int,
    ) -> Ints:
        """Return the positions; see `Sampler.indices`."""
        return np.array(positions, np.int64)

    def state(self) -> dict[str, Any]:
        """Return the sampler's name."""
        return _state(self)


_SAMPLERS: dict[str, type[BlockShuffle | Shuffle | Sequential]] = {
    cls.__name__: cls for cls in (BlockShuffle, Sequential, Shuffle)
}


def from_state(state: dict[str, Any]) -> Sampler:
    """Return the sampler whose ``state()`` this is.

    Raises:
        StateError: There is no such sampler, or not with such sizes.
    """
    sizes = dict(state)
    name = sizes.pop("sampler", None)
    if name not in _SAMPLERS:
        raise StateError(
            f"the checkpoint's sampler {name!r} is not known here, so its order cannot "
            f"be continued; there are {', '.join(_SAMPLERS)}"
        )
    try:
        return _SAMPLERS[name](**sizes)
    except (ConfigError, TypeError) as error:
        raise StateError(
            f"the checkpoint's sampler {state!r} cannot be made here ({error}); it was "
            f"saved by another version of this package"
        ) from error
