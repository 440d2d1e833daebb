"""Who asks: Lightning itself, on every rank, or a user's code, maybe on one."""

from __future__ import annotations

import sys

from lightning.pytorch.trainer import call

# Lightning's data modules are called like any object, so that a hook cannot know its
# caller but from the stack; these are the functions that call users' hooks.
_CALLERS = {
    function.__code__
    for function in (
        call._call_callback_hooks,
        call._call_lightning_datamodule_hook,
        call._call_lightning_module_hook,
        call._call_strategy_hook,
    )
}


def hook_of_trainer() -> str | None:
    """Return the name of the hook that Lightning is in, None outside of all.

    Of hooks within hooks it is the innermost: a callback that asks the data module for
    a loader is in its own hook, which other ranks may leave out.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _CALLERS:
            return str(frame.f_locals["hook_name"])
        frame = frame.f_back  # type: ignore[assignment]
    return None


def is_asked_for_loaders() -> bool:
    """Return whether Lightning asks for loaders, as it does on all ranks."""
    return (hook_of_trainer() or "").endswith("_dataloader")


def is_asked_for_setup() -> bool:
    """Return whether Lightning calls ``setup``, as it does on all ranks."""
    return hook_of_trainer() == "setup"
