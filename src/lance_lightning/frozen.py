"""Frozen value classes that OmegaConf hands on as they are.

OmegaConf takes every instance of a dataclass for a structured config and merges its
fields into the mapping that stands in its place: ``instantiate(cfg.data,
sampler=Shuffle())`` would keep the class that the config names. So the specs have all
that a frozen dataclass has but its mark.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lance_lightning.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[T], T]:
        """Say nothing: what it says is for type checkers."""
        return lambda function: function


T = TypeVar("T")

_FIELDS = "_fields_of_spec"


class _Hidden:
    """In the place of a class's dataclass fields, so that it counts as no dataclass."""

    def __get__(self, instance: Any, owner: Any) -> Any:
        raise AttributeError("a spec is no dataclass; its values are attributes")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def spec(
    argument: str, *, eq: bool = True, repr: bool = True
) -> Callable[[type[T]], type[T]]:
    """Return a decorator that does what ``dataclass(frozen=True)`` does.

    An instance is copied by `replace`, in place of ``dataclasses.replace``. An
    argument that the class does not take is a `ConfigError`.

    Args:
        argument: Of the data module: the one that takes such a spec.
        eq: See ``dataclass``.
        repr: See ``dataclass``.
    """

    def decorated(cls: type[T]) -> type[T]:
        has_init = "__init__" in vars(cls)
        made: Any = dataclass(frozen=True, eq=eq, repr=repr)(cls)
        setattr(made, _FIELDS, fields(made))
        made.__dataclass_fields__ = _Hidden()
        made.__replace__ = replace  # for copy.replace, from Python 3.13 on
        if not has_init:
            made.__init__ = _checked(made, argument)
        return made  # type: ignore[no-any-return]

    return decorated


def _checked(cls: Any, argument: str) -> Any:
    """Return the ``__init__`` of a class, with a better error for unknown names."""
    init, taken = cls.__init__, [each.name for each in fields_of(cls) if each.init]

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        refuse_unknown(cls.__name__, argument, kwargs, taken)
        init(self, *args, **kwargs)

    return __init__


def refuse_unknown(
    name: str, argument: str, given: Mapping[str, Any], taken: Sequence[str]
) -> None:
    """Raise where a spec is given arguments that it does not take.

    Args:
        name: The spec's name.
        argument: Of the data module: the one that takes such a spec.
        given: What it is given, by name.
        taken: Names of what it takes.

    Raises:
        ConfigError: Some are unknown; names them, what there is, and the remedy.
    """
    unknown = [key for key in given if key not in taken]
    if not unknown:
        return
    if argument == "splits" and all(isinstance(given[key], float) for key in unknown):
        shares = ", ".join(f"{key}: {given[key]}" for key in unknown)
        raise ConfigError(
            f"{name} takes no shares of splits, got {', '.join(map(repr, unknown))}: "
            "they belong to another option of the Hydra group, data/splits=random "
            f"'data.splits.ratios={{{shares}}}'"
        )
    what = "unexpected keyword arguments"
    if len(unknown) == 1:
        what = "an unexpected keyword argument"
    takes = ", ".join(taken) or "none"
    removed = " ".join(f"~data.{argument}.{key}" for key in unknown)
    raise ConfigError(
        f"{name} got {what} {', '.join(map(repr, unknown))}; it takes {takes}. Configs "
        f"are merged, so a key written for one class of {argument} is still there when "
        f"another is chosen: remove it ({removed} on Hydra's command line), or choose "
        "the class that it belongs to"
    )


def fields_of(value: Any) -> tuple[Field[Any], ...]:
    """Return the fields of a spec or a dataclass; none of anything else."""
    if is_dataclass(value):
        return fields(value)
    found: tuple[Field[Any], ...] = getattr(value, _FIELDS, ())
    return found


def values_of(value: Any) -> dict[str, Any]:
    """Return the arguments that make such a spec again; none of anything else."""
    return {
        each.name: getattr(value, each.name) for each in fields_of(value) if each.init
    }


def replace(value: T, /, **changes: Any) -> T:
    """Return a spec with other values of some arguments."""
    return type(value)(**{**values_of(value), **changes})
