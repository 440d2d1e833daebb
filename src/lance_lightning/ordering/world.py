"""The rank of this process, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass

from lance_lightning.checks import check_int
from lance_lightning.errors import ConfigError


@dataclass(frozen=True, slots=True)
class World:
    """The place of this process among the replicas that share the rows.

    Tensor-parallel peers hold the same replica and so get the same rows.

    Args:
        rank: This replica, from 0.
        size: How many replicas share the rows.

    Raises:
        ConfigError: ``rank`` is not below ``size``.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", check_int("rank", self.rank, 0))
        object.__setattr__(self, "size", check_int("world size", self.size, 1))
        if self.rank >= self.size:
            raise ConfigError(
                f"rank must be below the world size, "
                f"got rank {self.rank} of {self.size}"
            )
