"""Checks of the data module's arguments, as a user or a config gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from lance.sampler import Sampler as LanceSampler
from torch.utils.data import Sampler as TorchSampler

from lance_lightning.checks import check_importable, check_int, check_one_of
from lance_lightning.errors import ConfigError
from lance_lightning.loading import Transforms
from lance_lightning.samplers import (
    BlockShuffle,
    Sequential,
    ShardedBatches,
    ShardedFragments,
    Shuffle,
)
from lance_lightning.sources import (
    LanceDBSource,
    LanceSource,
    PermutationSource,
    SeparateSources,
    Source,
    TableSource,
)
from lance_lightning.splits import AllRows, PermutationSplit, Splits
from lance_lightning.types import STAGES

DEFAULT_FORMAT = "torch"
FUNCTIONS = ("arrow_transform", "transform", "sample_transform", "collate_fn")

Function = Callable[[Any], Any]
Decoder = Literal["image"] | Function | None

if TYPE_CHECKING:
    # What a module takes of a Python program: more than can be written down.
    AnySource = Any
    AnySplits = Splits | Mapping[str, float | int | None] | str
    AnySampler = Any
    Functions = Function | Mapping[str, Function] | None
    Decoders = Literal["image"] | Mapping[str, Decoder] | Function | None
else:
    # What LightningCLI makes of a command line and of YAML. It takes the first that
    # fits, and the last where it writes a config.

    class ByStage(TypedDict, total=False):
        """A function for each stage."""

        train: Function
        val: Function
        test: Function
        predict: Function

    AnySource = LanceSource | LanceDBSource | SeparateSources | str
    AnySplits = Splits | Mapping[str, float | int | None] | str
    AnySampler = (
        BlockShuffle
        | Shuffle
        | Sequential
        | ShardedFragments
        | ShardedBatches
        | TorchSampler
        | LanceSampler
        | Callable[[Any], TorchSampler]
        | Sequence[int]
        | str
    )
    Functions = ByStage | Function | None
    Decoders = Literal["image"] | Mapping[str, Decoder] | Function | None


class OneSplit(list[str]):
    """The split of a stage that has one loader, not a list of loaders."""


def columns_of(value: Any) -> list[str] | dict[str, str] | None:
    """Return the columns as Lance takes them.

    Raises:
        ConfigError: It is neither names nor a mapping of names to expressions, or
            it is empty.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        # How a Hydra override takes a name away.
        found: Any = {name: sql for name, sql in value.items() if sql is not None}
        names = [*found, *found.values()]
    elif isinstance(value, list | tuple):
        found = names = list(value)
    else:
        raise ConfigError(
            "columns must be a list of names or a mapping from new name to a column "
            f"or SQL expression, got {value!r}"
        )
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"columns must hold at least one name, and names are text, got {value!r}; "
            "leave columns out for all"
        )
    if isinstance(found, list) and len(set(found)) < len(found):
        raise ConfigError(f"columns names a column twice: {value!r}")
    return found  # type: ignore[no-any-return]


def splits_of_source(source: Source, splits: Any) -> Any:
    """Return how the rows of a source are split; a permutation is a split already.

    Raises:
        ConfigError: It is to be split further.
    """
    if not isinstance(source, PermutationSource) or source.rows is None:
        return splits
    if not isinstance(splits, AllRows):
        raise ConfigError(
            f"the source is a LanceDB permutation, one split already, and {splits!r} "
            "would split it again: leave splits out, or give the table as the source"
        )
    return PermutationSplit(source.rows, [splits.name])


def columns_of_source(source: Source, columns: Any) -> Any:
    """Return the columns to read of a source; a permutation may name them itself.

    Raises:
        ConfigError: Both the permutation and the module name columns.
    """
    if not isinstance(source, PermutationSource) or source.columns is None:
        return columns
    if columns is not None:
        raise ConfigError(
            f"the permutation selects or renames columns ({dict(source.columns)}) and "
            f"columns={columns!r} would do so again: leave columns out, or give a "
            "permutation with all of its table's columns"
        )
    return dict(source.columns)


def output_format_of(value: Any, sources: Iterable[Source]) -> Any:
    """Return the output format: the module's, else the permutations', else torch.

    Raises:
        ConfigError: Two of them differ.
    """
    permutations = [each for each in sources if isinstance(each, PermutationSource)]
    chosen = {each.output_format for each in permutations if each.output_format}
    given = chosen if value is None else chosen | {value}
    if chosen and len(given) > 1:
        raise ConfigError(
            f"a batch has one output format, and got output_format={value!r} with a "
            f"permutation of format {', '.join(map(repr, sorted(chosen)))}: give one "
            "of them, output_format=... or permutation.with_format(...)"
        )
    return next(iter(given), DEFAULT_FORMAT)


def check_connection_factories(sources: Iterable[Source]) -> None:
    """Check that spawned workers can import what opens the sources' tables.

    Raises:
        ConfigError: A ``connection_factory`` cannot be imported there.
    """
    for source in sources:
        named = source.base if isinstance(source, PermutationSource) else source
        named = named.source if isinstance(named, TableSource) else named
        if isinstance(named, LanceDBSource) and named.connection_factory is not None:
            check_importable("connection_factory", named.connection_factory)


def dataloader_kwargs_of(value: Any) -> Mapping[str, Any]:
    """Return the options for torch's ``DataLoader``, by name.

    Raises:
        ConfigError: It is no mapping, or the multiprocessing context is none.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(
            "dataloader_kwargs must be a mapping such as {'pin_memory': True}, got "
            f"{value!r}"
        )
    context = value.get("multiprocessing_context", "spawn")
    if not isinstance(context, str) and not hasattr(context, "get_start_method"):
        raise ConfigError(
            "multiprocessing_context must be 'spawn', 'forkserver' or a context of "
            f"these, got {context!r}: leave the option out, workers are spawned"
        )
    return value


def batch_sizes_of(given: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the three batch sizes, by name.

    Raises:
        ConfigError: One is not a positive integer, or both ``batch_size`` and
            ``global_batch_size`` are given.
    """
    sizes = {
        name: None if given[name] is None else check_int(name, given[name], 1)
        for name in ("batch_size", "global_batch_size", "eval_batch_size")
    }
    if sizes["batch_size"] is not None and sizes["global_batch_size"] is not None:
        raise ConfigError(
            "batch_size is rows per rank and global_batch_size rows over all ranks: "
            f"give one of them, got batch_size={sizes['batch_size']} and "
            f"global_batch_size={sizes['global_batch_size']}"
        )
    return sizes


def transforms_of(given: Mapping[str, Any], stage: str) -> Transforms:
    """Return the user's functions of a stage; each may be a mapping by stage."""
    chosen = {}
    for name in FUNCTIONS:
        value = given[name]
        if isinstance(value, Mapping):
            for key in value:
                check_one_of(f"{name}: the stage", key, STAGES)
            value = value.get(stage)
        chosen[name] = value
    return Transforms(**chosen)


def stage_splits_of(given: Any, names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the splits of each stage: the one of its name unless said otherwise.

    Raises:
        ConfigError: An unknown stage or split, or no stage has a split.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(
            f"stage_splits must be a mapping from stage to split, got {given!r}"
        )
    chosen: dict[str, list[str]] = {
        stage: OneSplit([stage] if stage in names else []) for stage in STAGES
    }
    for stage, wanted in (given or {}).items():
        check_one_of("stage_splits: the stage", stage, STAGES)
        several = isinstance(wanted, list | tuple)
        for name in wanted if several else [wanted]:
            check_one_of(f"stage_splits[{stage!r}]", name, names)
        chosen[stage] = list(wanted) if several else OneSplit([wanted])
    if not any(chosen.values()):
        first = names[0] if names else "..."
        raise ConfigError(
            f"no split serves any stage: the splits are {', '.join(names)}, the stages "
            f"{', '.join(STAGES)}; name one with stage_splits={{'train': {first!r}}}"
        )
    return chosen


def no_split_message(stage: str, names: tuple[str, ...]) -> str:
    """Return what to say of a stage that no split serves."""
    # Rows that were not trained on, where there are some.
    held_out = [name for name in ("test", "val", *reversed(names)) if name in names]
    return (
        f"no split serves the stage {stage!r}, so there is no loader for it; splits "
        f"there are: {', '.join(names)}; name the one to read, such as "
        f"stage_splits={{{stage!r}: {held_out[0]!r}}}"
    )
