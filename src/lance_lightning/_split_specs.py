"""What a user says about splits: who gets which rows. Checked here, built elsewhere."""

from __future__ import annotations

import functools
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, field
from numbers import Real
from typing import TYPE_CHECKING, Any

from lance_lightning._permutation_table import arrow_of, rows_of
from lance_lightning.checks import check_int
from lance_lightning.errors import ConfigError
from lance_lightning.frozen import spec
from lance_lightning.tables import strip_secrets
from lance_lightning.types import TOO_LARGE


class Splits:
    """Which rows of a table belong to which split."""

    if TYPE_CHECKING:  # a field of the same name would take it for its default

        @property
        def split_names(self) -> Sequence[str]:
            """The names of the splits, a tuple, in the builder's order."""

    def key(self) -> dict[str, Any]:
        """Return plain Python that says everything that the rows depend on."""
        raise NotImplementedError


# -- specs ---------------------------------------------------------------------


@spec("splits")
class AllRows(Splits):
    """One split that holds every row.

    Args:
        name: The split's name.
    """

    name: str = "train"

    def __post_init__(self) -> None:
        _check_names("name", [self.name])

    @property
    def split_names(self) -> tuple[str, ...]:
        """The one name."""
        return (self.name,)

    def key(self) -> dict[str, Any]:
        """Return plain Python that says everything that the rows depend on."""
        return {"splits": "AllRows", "name": self.name}


@spec("splits")
class RandomSplit(Splits):
    """Rows assigned at random, by their place in the table.

    So another number of rows is another assignment of all of them. One of ratios,
    counts and fixed is given.

    Args:
        ratios: Split name -> share of the rows, above 0. Shares that sum to less than
            1 leave rows out. A share of None removes the split.
        counts: Split name -> number of rows. None removes the split.
        fixed: Names of splits of equal size, or how many (they are then ``split_0``,
            ``split_1``, ...). Rows that do not divide evenly are left out.
        clump_size: Rows that stay together, neighbours in the table, so that reads
            are cheaper; LanceDB's word for a block. From 10,485,760 rows on LanceDB
            takes only a divisor of 1024.
        seed: From 0 to 2^64 - 1.

    Raises:
        ConfigError: An argument is of the wrong type, or shares cannot be met.
    """

    ratios: Mapping[str, float | None] | None = None
    _: KW_ONLY
    counts: Mapping[str, int | None] | None = None
    fixed: Sequence[str] | int | None = None
    clump_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _set_sizes(self)
        if self.clump_size is not None:
            clump_size = check_int("clump_size", self.clump_size, 1)
            object.__setattr__(self, "clump_size", clump_size)
        seed = check_int("seed", self.seed, 0, 2**64)
        object.__setattr__(self, "seed", seed)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits, in the builder's order."""
        return _names_of_sizes(self)

    def key(self) -> dict[str, Any]:
        """Return plain Python that says everything that the rows depend on."""
        own = {"clump_size": self.clump_size, "seed": self.seed}
        return {"splits": "RandomSplit", **_sizes_key(self), **own}


@spec("splits")
class SequentialSplit(Splits):
    """The first rows to the first split, the next to the second, and so on.

    One of ratios, counts and fixed is given.

    Args:
        ratios: Split name -> share of the rows, above 0. Shares that sum to less than
            1 leave the last rows out. A share of None removes the split.
        counts: Split name -> number of rows. None removes the split.
        fixed: Names of splits of equal size, or how many (they are then ``split_0``,
            ``split_1``, ...). Rows that do not divide evenly are left out.

    Raises:
        ConfigError: An argument is of the wrong type, or shares cannot be met.
    """

    ratios: Mapping[str, float | None] | None = None
    _: KW_ONLY
    counts: Mapping[str, int | None] | None = None
    fixed: Sequence[str] | int | None = None

    def __post_init__(self) -> None:
        _set_sizes(self)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits, in the builder's order."""
        return _names_of_sizes(self)

    def key(self) -> dict[str, Any]:
        """Return plain Python that says everything that the rows depend on."""
        return {"splits": "SequentialSplit", **_sizes_key(self)}


@spec("splits")
class HashSplit(Splits):
    """Rows assigned by a hash of columns, so that equal values stay together.

    A row keeps its split when others are added or deleted.

    Args:
        split_weights: Split name -> weight, a whole number of at least 1; None
            removes the split. The sizes are near the weights' shares, not exact.
        columns: The columns to hash; ``"box.left"`` names a struct's field.
        discard_weight: The weight of the rows that are in no split.

    Raises:
        ConfigError: An argument is of the wrong type, or a weight below its minimum.
    """

    split_weights: Mapping[str, int | None]
    columns: Sequence[str]
    _: KW_ONLY
    discard_weight: int = 0

    def __post_init__(self) -> None:
        weights = _shares("split_weights", self.split_weights, _check_weight)
        object.__setattr__(self, "split_weights", weights)
        object.__setattr__(self, "columns", _names_of("columns", self.columns))
        discarded = check_int("discard_weight", self.discard_weight, 0)
        object.__setattr__(self, "discard_weight", discarded)
        total = sum(weights.values()) + discarded
        if total >= 2**63:
            raise ConfigError(f"split_weights must sum to less than 2**63, got {total}")

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits, in the builder's order."""
        return tuple(self.split_weights)

    def key(self) -> dict[str, Any]:
        """Return plain Python that says everything that the rows depend on."""
        return {
            "splits": "HashSplit",
            "split_weights": _pairs(self.split_weights),
            "columns": list(self.columns),
            "discard_weight": self.discard_weight,
        }


@spec("splits")
class CalculatedSplit(Splits):
    """Rows assigned by a SQL expression, such as a column that says where they belong.

    Args:
        calculation: Gives a whole number: 0 is the first name, 1 the second. Rows
            where it is null, or beyond the names, are in no split.
        split_names: The names of the splits.

    Raises:
        ConfigError: An argument is of the wrong type, or a name comes twice.
    """

    calculation: str
    split_names: Sequence[str]

    def __post_init__(self) -> None:
        if not (isinstance(self.calculation, str) and self.calculation.strip()):
            raise ConfigError(
                "calculation must be a SQL expression such as 'fold % 3', got "
                f"{self.calculation!r}"
            )
        names = _names_of("split_names", self.split_names)
        object.__setattr__(self, "split_names", names)

    def key(self) -> dict[str, Any]:
        """Return plain Python that says everything that the rows depend on."""
        return {
            "splits": "CalculatedSplit",
            "calculation": self.calculation,
            "split_names": list(self.split_names),
        }


@spec("splits", repr=False)
class PermutationSplit(Splits):
    """The splits, and the order of rows, of a LanceDB permutation table.

    It is read when this is constructed. The rows are read in its order, where other
    splits read in the table's; a training sampler then shuffles places in it.

    Args:
        table: The permutation table: a path or URI of its Lance dataset, a LanceDB
            table (its rows are copied: 16 bytes a row), or a ``pyarrow.Table`` with
            columns ``row_id`` and ``split_id``.
        split_names: The names of the splits. Left out, they are those that the table
            has in its metadata, else ``split_0``, ``split_1``, ... Rows whose split
            id is null, or beyond the names, are in no split.

    Raises:
        ConfigError: It is not a permutation table, or a name comes twice.
        SourceError: There is no Lance dataset at the path.
    """

    table: Any
    split_names: Sequence[str] = ()
    digest: str = field(init=False)

    def __repr__(self) -> str:
        at = isinstance(self.table, (str, os.PathLike))
        shown = repr(strip_secrets(os.fspath(self.table))) if at else "<table>"
        return f"PermutationSplit({shown}, split_names={self.split_names!r})"

    def __post_init__(self) -> None:
        found = arrow_of(self.table)
        if not isinstance(self.table, (str, os.PathLike)):
            object.__setattr__(self, "table", found)  # it can pickle, and stays as is
        rows = rows_of(found)
        names = _names_of("split_names", self.split_names or rows.default_names())
        object.__setattr__(self, "split_names", names)
        object.__setattr__(self, "digest", rows.digest())

    def key(self) -> dict[str, Any]:
        """Return plain Python that says everything that the rows depend on."""
        return {
            "splits": "PermutationSplit",
            "digest": self.digest,
            "split_names": list(self.split_names),
        }


_TOO_MANY_SPLITS = 2**16  # of equal size
_SIZES = ("ratios", "counts", "fixed")


# -- checks of the specs -------------------------------------------------------


def _check_names(parameter: str, names: Sequence[Any]) -> None:
    for name in names:
        if not (isinstance(name, str) and name):
            raise ConfigError(
                f"{parameter} must hold names, as text that is not empty, got {name!r}"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{parameter} must hold each name once, twice: {twice}")


def _names_of(parameter: str, names: Any) -> tuple[str, ...]:
    if isinstance(names, (str, bytes)) or not isinstance(names, Sequence):
        raise ConfigError(f"{parameter} must be a list of names, got {names!r}")
    if not names:
        raise ConfigError(f"{parameter} is empty; give at least one name")
    _check_names(parameter, list(names))
    return tuple(names)


def _shares(
    parameter: str, shares: Any, check: Callable[[str, Any], Any]
) -> dict[str, Any]:
    """Return the shares without those of None, in their order."""
    if not isinstance(shares, Mapping):
        raise ConfigError(
            f"{parameter} must map split names to shares, such as "
            f"{{'train': ..., 'val': ...}}, got {shares!r}"
        )
    kept = {name: share for name, share in shares.items() if share is not None}
    if not kept:
        raise ConfigError(f"{parameter} leaves no split, got {dict(shares)!r}")
    _check_names(parameter, list(kept))
    return {
        name: check(f"{parameter} of {name!r}", share) for name, share in kept.items()
    }


def _check_count(name: str, value: Any, below: int = TOO_LARGE) -> int:
    if value == 0 and not isinstance(value, bool):
        raise ConfigError(f"{name} must be at least 1, got 0; null removes the split")
    return check_int(name, value, 1, below)


def _check_weight(name: str, value: Any) -> int:
    return _check_count(name, value, 2**64)  # it is their sum that is bounded


def _check_number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(
            f"{name} must be a number, got {value!r} ({type(value).__name__})"
        )
    return float(value)


def _check_ratios(ratios: Mapping[str, Any]) -> None:
    bad = [name for name, share in ratios.items() if not 0 < share <= 1]
    total = math.fsum(ratios.values())
    if not bad and total <= 1 + 1e-9:
        return
    listed = ", ".join(f"{name}={share}" for name, share in ratios.items())
    what = (
        f"the ratios of {', '.join(map(repr, bad))} must be above 0 and at most 1"
        if bad
        else f"the ratios sum to {total:g} and must sum to at most 1"
    )
    raise ConfigError(
        f"{what}: {listed}. Hydra merges mappings, so a default left in place may be "
        "the cause; a share of null removes a split"
    )


def _set_sizes(splits: Any) -> None:
    """Check the one that is given of ratios, counts and fixed, and make it plain."""
    given = [name for name in _SIZES if getattr(splits, name) is not None]
    if len(given) != 1:
        found = f"got {' and '.join(given)}" if given else "got none of them"
        raise ConfigError(
            f"{type(splits).__name__} takes one of ratios, counts and fixed, {found}. "
            "Name the splits and their shares, ratios={'train': 0.9, 'val': 0.1} for "
            "one; in Hydra, `ratios: null` takes a default away"
        )
    value = getattr(splits, given[0])
    if given == ["ratios"]:
        value = _shares("ratios", value, _check_number)
        _check_ratios(value)
    elif given == ["counts"]:
        value = _shares("counts", value, _check_count)
    elif isinstance(value, Real):
        count = check_int("fixed", value, 1, _TOO_MANY_SPLITS)
        value = tuple(f"split_{i}" for i in range(count))
    else:
        value = _names_of("fixed", value)
    object.__setattr__(splits, given[0], value)


def _names_of_sizes(splits: Any) -> tuple[str, ...]:
    return tuple(splits.ratios or splits.counts or splits.fixed)


def _pairs(shares: Mapping[str, Any]) -> list[list[Any]]:
    # A list, as JSON with sorted keys would forget the order of the splits, which
    # decides who gets which rows.
    return [[name, share] for name, share in shares.items()]


def _sizes_key(splits: Any) -> dict[str, Any]:
    return {
        "ratios": _pairs(splits.ratios) if splits.ratios else None,
        "counts": _pairs(splits.counts) if splits.counts else None,
        "fixed": list(splits.fixed) if splits.fixed else None,
    }


# -- what LanceDB's builder is asked for ---------------------------------------


def builder_request(splits: Any) -> dict[str, Any]:
    """Return the method of LanceDB's builder for these splits, and its arguments.

    The columns are those of the stand-in: c0, c1, ...
    """
    if isinstance(splits, HashSplit):
        return {
            "method": "split_hash",
            "columns": [f"c{i}" for i in range(len(splits.columns))],
            "split_weights": list(splits.split_weights.values()),
            "discard_weight": splits.discard_weight,  # LanceDB fails on its own None
        }
    own = {"seed": splits.seed, "clump_size": splits.clump_size}
    return {"method": "split_random", **builder_sizes(splits), **own}


def builder_sizes(splits: Any) -> dict[str, Any]:
    """Return the sizes of splits, as an argument of the builder's methods."""
    if splits.ratios:
        return {"ratios": _at_most_one(list(splits.ratios.values()))}
    if splits.counts:
        return {"counts": list(splits.counts.values())}
    return {"fixed": len(splits.fixed)}


def _at_most_one(ratios: list[float]) -> list[float]:
    """Take from the largest share what rounding adds to the sum beyond 1.

    LanceDB refuses a sum above 1, be it by the last bit.
    """
    largest = ratios.index(max(ratios))
    # In turn, as LanceDB adds them: Python's sum() is more exact from 3.12 on.
    while (excess := functools.reduce(operator.add, ratios) - 1.0) > 0:
        below = math.nextafter(ratios[largest], 0.0)
        ratios[largest] = min(below, ratios[largest] - excess)
    return ratios
