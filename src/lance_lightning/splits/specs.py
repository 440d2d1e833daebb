"""What a user says about splits: who gets which rows. Checked here, built elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, field
from typing import TYPE_CHECKING, Any

from lance_lightning.checks import check_int
from lance_lightning.errors import ConfigError
from lance_lightning.frozen import spec
from lance_lightning.splits.permutation_table import arrow_of, rows_of
from lance_lightning.splits.spec_checks import (
    check_names,
    check_weight,
    names_of,
    names_of_sizes,
    pairs,
    set_sizes,
    shares,
    sizes_key,
)
from lance_lightning.tables import strip_secrets


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
        check_names("name", [self.name])

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
        set_sizes(self)
        if self.clump_size is not None:
            clump_size = check_int("clump_size", self.clump_size, 1)
            object.__setattr__(self, "clump_size", clump_size)
        seed = check_int("seed", self.seed, 0, 2**64)
        object.__setattr__(self, "seed", seed)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits, in the builder's order."""
        return names_of_sizes(self)

    def key(self) -> dict[str, Any]:
        """Return plain Python that says everything that the rows depend on."""
        own = {"clump_size": self.clump_size, "seed": self.seed}
        return {"splits": "RandomSplit", **sizes_key(self), **own}


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
        set_sizes(self)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits, in the builder's order."""
        return names_of_sizes(self)

    def key(self) -> dict[str, Any]:
        """Return plain Python that says everything that the rows depend on."""
        return {"splits": "SequentialSplit", **sizes_key(self)}


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
        weights = shares("split_weights", self.split_weights, check_weight)
        object.__setattr__(self, "split_weights", weights)
        object.__setattr__(self, "columns", names_of("columns", self.columns))
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
            "split_weights": pairs(self.split_weights),
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
        names = names_of("split_names", self.split_names)
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
        names = names_of("split_names", self.split_names or rows.default_names())
        object.__setattr__(self, "split_names", names)
        object.__setattr__(self, "digest", rows.digest())

    def key(self) -> dict[str, Any]:
        """Return plain Python that says everything that the rows depend on."""
        return {
            "splits": "PermutationSplit",
            "digest": self.digest,
            "split_names": list(self.split_names),
        }
