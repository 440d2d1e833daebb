"""Which data-parallel replica this process is: a value, found once, passed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from lance_lightning.errors import LanceLightningError
from lance_lightning.loading import world_of_torch
from lance_lightning.ordering import World

T = TypeVar("T")


def world_of_trainer(trainer: Any) -> World:
    """Return the replica that a Lightning trainer's strategy gives this process.

    ``distributed_sampler_kwargs`` rather than ``global_rank``: with tensor
    parallelism several processes are one replica. It is None on one device.
    """
    found = trainer.distributed_sampler_kwargs
    if not found:
        return World()
    return World(rank=int(found["rank"]), size=int(found["num_replicas"]))


class Ranks:
    """Every process of the run, tensor-parallel peers included.

    Each method but ``size`` is a collective: all processes come to it, or those that
    did wait for ever.

    Args:
        strategy: The trainer's strategy; None uses ``torch.distributed`` where it
            is set up, else this is the only process.
    """

    def __init__(self, strategy: Any = None) -> None:
        self._strategy = strategy

    @property
    def size(self) -> int:
        """How many processes there are."""
        if self._strategy is not None:
            return int(getattr(self._strategy, "world_size", 1))
        return world_of_torch().size

    @property
    def _is_first(self) -> bool:
        if self._strategy is not None:
            return int(self._strategy.global_rank) == 0
        return world_of_torch().rank == 0

    def broadcast(self, propose: Callable[[], T]) -> T:
        """Return what ``propose`` returns on global rank 0; no other rank runs it."""
        import torch.distributed as dist

        value = propose() if self._is_first else None
        if self._strategy is not None:
            return cast(T, self._strategy.broadcast(value, src=0))
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0)
            value = box[0]
        return cast(T, value)

    def agree(self, decision: bool) -> bool:
        """Return whether ``decision`` is true on every process."""
        import torch.distributed as dist

        if self._strategy is not None:
            return bool(self._strategy.reduce_boolean_decision(decision, all=True))
        if self.size == 1:
            return decision
        votes: list[Any] = [None] * self.size
        dist.all_gather_object(votes, decision)
        return all(votes)

    def run_together(self, work: Callable[[], T]) -> T:
        """Run ``work`` everywhere, and raise everywhere when it fails somewhere.

        A rank that raised by itself would leave the others waiting for it.

        Raises:
            LanceLightningError: It failed on another process.
        """
        error: Exception | None = None
        result: T | None = None
        try:
            result = work()
        except Exception as raised:
            error = raised
        fine = self.agree(error is None)
        if error is not None:
            raise error
        if not fine:
            raise LanceLightningError(
                "another rank failed to set up its data, so all ranks stop; see that "
                "rank's log for the error"
            )
        return cast(T, result)
