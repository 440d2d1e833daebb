"""Options for torch's ``DataLoader``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lance_lightning.errors import ConfigError
from lance_lightning.loading.workers import START_METHODS

# What torch's DataLoader takes and we hand on; the rest of it is the module's.
TORCH_OPTIONS = (
    "generator",
    "in_order",
    "multiprocessing_context",
    "persistent_workers",
    "pin_memory",
    "pin_memory_device",
    "prefetch_factor",
    "timeout",
    "worker_init_fn",
)


OUR_ARGUMENT_FOR = {
    "batch_sampler": "sampler",
    "batch_size": "batch_size",
    "collate_fn": "collate_fn",
    "dataset": "source",
    "drop_last": "drop_last",
    "num_workers": "num_workers",
    "sampler": "sampler",
    "shuffle": "sampler",
}


def check_dataloader_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for torch's ``DataLoader``, checked.

    Raises:
        ConfigError: An option that is not torch's, one that this loader decides
            itself, or workers that would be forked from this process.
    """
    for name in kwargs:
        if name in OUR_ARGUMENT_FOR:
            raise ConfigError(
                f"dataloader_kwargs[{name!r}] is decided by the data module: use its "
                f"argument {OUR_ARGUMENT_FOR[name]!r} instead"
            )
        if name not in TORCH_OPTIONS:
            listed = ", ".join(TORCH_OPTIONS)
            raise ConfigError(
                f"dataloader_kwargs has no option {name!r}; there are: {listed}"
            )
    context = kwargs.get("multiprocessing_context", START_METHODS[0])
    method = context if isinstance(context, str) else context.get_start_method()
    if method not in START_METHODS:
        raise ConfigError(
            f"multiprocessing_context is {method!r}, but Lance's threads do not "
            "survive a fork, and a worker started that way crashes or hangs: leave "
            "the option out, then workers are spawned, or give 'forkserver', whose "
            "server has no such threads"
        )
    if kwargs.get("in_order", True) is not True:
        raise ConfigError(
            f"dataloader_kwargs['in_order'] is {kwargs['in_order']!r}, but a resumed "
            "run could not go on in an order that depends on which worker was faster: "
            "leave the option out"
        )
    # torch has it from 2.6 on.
    return {name: kwargs[name] for name in kwargs if name != "in_order"}
