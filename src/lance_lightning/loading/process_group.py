"""The rank and world size of torch.distributed."""

from __future__ import annotations

from lance_lightning.ordering import World


def world_of_torch() -> World:
    """Return the place in ``torch.distributed``, or one rank when it is not set up."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(rank=dist.get_rank(), size=dist.get_world_size())  # noqa: TID251
