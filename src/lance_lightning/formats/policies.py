"""What a format's arguments say, for all columns or by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lance_lightning.checks import check_int, check_one_of
from lance_lightning.columns import RAGGED_POLICIES, Nulls, Padding
from lance_lightning.errors import ConfigError

# --- arguments ----------------------------------------------------------------------


def parse_nulls(policy: Any) -> Nulls:
    """Return one null policy as a value.

    Raises:
        ConfigError: It is none of the policies.
    """
    if policy in ("error", "mask"):
        return Nulls(policy)
    if isinstance(policy, Mapping) and set(policy) == {"fill"}:
        if policy["fill"] is None:
            raise ConfigError("nulls={'fill': None} would fill null with null")
        return Nulls("fill", policy["fill"])
    raise ConfigError(
        f"nulls must be 'error', 'mask' or {{'fill': value}}, or a mapping from column "
        f"to one of them, got {policy!r}"
    )


def parse_ragged(policy: Any) -> tuple[str, Padding]:
    """Return one ragged policy as its name and how it pads.

    Raises:
        ConfigError: It is none of the policies.
    """
    if not isinstance(policy, Mapping):
        check_one_of("ragged", policy, RAGGED_POLICIES)
        return policy, Padding()
    if "pad" not in policy or not set(policy) <= {"pad", "multiple"}:
        raise ConfigError(
            "ragged must be one of "
            f"{', '.join(map(repr, RAGGED_POLICIES))} or {{'pad': value, 'multiple': "
            f"1}}, or a mapping from column to one of them, got {policy!r}"
        )
    multiple = check_int("ragged: multiple", policy.get("multiple", 1), 1, 2**31)
    return "pad", Padding(policy["pad"], multiple)


def is_ragged_policy(ragged: Any) -> bool:
    """Tell one ragged policy for all columns from a mapping by column.

    ``{"pad": "list"}`` and ``{"pad": {"pad": 1}}`` are a column of the name "pad".
    """
    if not isinstance(ragged, Mapping):
        return True
    own = set(ragged) <= {"pad", "multiple"} and "pad" in ragged
    return own and not isinstance(ragged["pad"], str | Mapping)


def is_policy(nulls: Any) -> bool:
    """Tell one policy for all columns from a mapping by column.

    ``{"fill": {"fill": 0}}`` is a column of the name "fill".
    """
    if not isinstance(nulls, Mapping):
        return True
    value = nulls.get("fill")
    inner = isinstance(value, Mapping) and set(value) == {"fill"}
    return set(nulls) == {"fill"} and not inner


def values_of_policy(argument: Any, whole: bool) -> list[Any]:
    """Return the values of an argument that is one for all columns, or by column."""
    return [argument] if whole else list(argument.values())


def refuse_unknown(argument: str, given: Mapping[str, Any], names: list[str]) -> None:
    """Raise a `ConfigError` where an argument names a column that is not read."""
    for name in given:
        if name not in names:
            raise ConfigError(
                f"{argument} names column {name!r}, which is not read; the columns "
                f"are {', '.join(names)}"
            )


def refuse_no_columns(schema: pa.Schema) -> None:
    """Raise a `ConfigError` where no column is read."""
    if len(schema) == 0:
        raise ConfigError("no column is left to read: name some in columns=[...]")
