"""The arguments of the data module, checked, in the form in which it uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lance_lightning.cache_folder import cache_dir as find_cache_dir
from lance_lightning.checks import check_bool, check_importable, check_int, check_seed
from lance_lightning.columns import functions_of
from lance_lightning.datamodule.arguments import (
    batch_sizes_of,
    check_connection_factories,
    columns_of,
    columns_of_source,
    dataloader_kwargs_of,
    output_format_of,
    splits_of_source,
    stage_splits_of,
    transforms_of,
)
from lance_lightning.datamodule.pins import ALL, PinnedTables
from lance_lightning.datamodule.plain_specs import SAMPLERS, SPLITS, spec_of
from lance_lightning.errors import ConfigError
from lance_lightning.formats import Format
from lance_lightning.loading import Transforms, check_dataloader_kwargs
from lance_lightning.ordering import World
from lance_lightning.samplers import Sampler, as_spec
from lance_lightning.sources import SeparateSources, Source, as_source
from lance_lightning.splits import AllRows, Splits
from lance_lightning.types import STAGES

DEFAULT_BATCH_SIZE = 32  # rows per rank per step

# What the module shows as attributes of the same name.
SHOWN = (
    "cache_bytes",
    "columns",
    "drop_last",
    "eval_batch_size",
    "num_workers",
    "output_format",
    "sampler",
    "seed",
    "splits",
    "with_row_id",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleConfig:
    """The arguments of `LanceDataModule`, which documents them.

    Args:
        sources: The source of each split; or of all of them, under `ALL`.
        is_separate: Whether each split has a source of its own.
        columns_of_source: The columns to read, by the key of the source.
        transforms: The user's functions, by stage.
        stage_splits: The splits that serve each stage.
    """

    sources: dict[str, Source]
    is_separate: bool
    splits: Splits
    sampler: Sampler
    columns: list[str] | dict[str, str] | None
    columns_of_source: dict[str, Any]
    output_format: str
    format: Format
    batch_size: int | None
    global_batch_size: int | None
    eval_batch_size: int | None
    drop_last: bool
    num_workers: int
    seed: int
    with_row_id: bool
    cache_dir: Path
    cache_bytes: int | None
    dataloader_kwargs: dict[str, Any]
    transforms: dict[str, Transforms]
    stage_splits: dict[str, list[str]]
    world: World | None

    @classmethod
    def checked(cls, given: Mapping[str, Any]) -> ModuleConfig:
        """Return the arguments, checked.

        Raises:
            ConfigError: One, or a combination, cannot work.
        """
        sources = _sources_of(given)
        separate = isinstance(given["source"], SeparateSources)
        splits = spec_of("splits", given["splits"], *SPLITS)
        if not separate:
            splits = splits_of_source(sources[ALL], splits)
        columns = columns_of(given["columns"])
        output_format = output_format_of(given["output_format"], sources.values())
        sizes = batch_sizes_of(given)
        if sizes["batch_size"] is None and sizes["global_batch_size"] is None:
            sizes["batch_size"] = DEFAULT_BATCH_SIZE
        cache_bytes = given["cache_bytes"]
        if cache_bytes is not None:
            cache_bytes = check_int("cache_bytes", cache_bytes, 1)
        names = tuple(sources) if separate else tuple(splits.split_names)
        found = cls(
            sources=sources,
            is_separate=separate,
            splits=splits,
            sampler=spec_of("sampler", as_spec(given["sampler"]), *SAMPLERS),
            columns=columns,
            columns_of_source={
                name: columns_of_source(source, columns)
                for name, source in sources.items()
            },
            output_format=output_format,
            format=Format(
                output_format,
                nulls=given["nulls"],
                ragged=given["ragged"],
                decoders=given["decoders"],
                dtype=given["dtype"],
            ),
            batch_size=sizes["batch_size"],
            global_batch_size=sizes["global_batch_size"],
            eval_batch_size=sizes["eval_batch_size"],
            drop_last=check_bool("drop_last", given["drop_last"]),
            num_workers=check_int("num_workers", given["num_workers"], 0),
            seed=check_seed("seed", given["seed"]),
            with_row_id=check_bool("with_row_id", given["with_row_id"]),
            cache_dir=find_cache_dir(given["cache_dir"]),
            cache_bytes=cache_bytes,
            dataloader_kwargs=check_dataloader_kwargs(
                dataloader_kwargs_of(given["dataloader_kwargs"])
            ),
            transforms={stage: transforms_of(given, stage) for stage in STAGES},
            stage_splits=stage_splits_of(given["stage_splits"], names),
            world=_world_of(given["world"]),
        )
        if found.num_workers:
            found._check_workers()
        return found

    def _check_workers(self) -> None:
        for transforms in self.transforms.values():
            transforms.check_picklable()
        for name, decoder in functions_of(self.format.decoders):
            check_importable(name, decoder)
        check_connection_factories(self.sources.values())

    def shown(self) -> dict[str, Any]:
        """Return what the module shows as its attributes."""
        return {name: getattr(self, name) for name in SHOWN}

    def tables(self) -> PinnedTables:
        """Return the tables, not yet pinned."""
        splits = None if self.is_separate else self.splits
        return PinnedTables(self.sources, splits, self.cache_dir)

    def rows_per_step(self, world: World) -> int:
        """Return the rows of a step over all ranks."""
        if self.batch_size is not None:
            return self.batch_size * world.size
        assert self.global_batch_size is not None
        return self.global_batch_size

    def rows_per_rank(self, world: World) -> int:
        """Return the rows of a step on one rank."""
        return max(1, self.rows_per_step(world) // world.size)

    def fitted(self, found: World) -> World:
        """Return the world that was given, else the one that was found.

        Args:
            found: What the trainer says, or the process group.

        Raises:
            ConfigError: They contradict each other.
        """
        if self.world is None:
            return found
        if found.size > 1 and found != self.world:
            raise ConfigError(
                f"world={self.world!r} was given, but the trainer, or the process "
                f"group, says rank {found.rank} of {found.size}, and the ranks would "
                "not share the rows as they share the steps: leave world out; it is "
                "for processes that know nothing of each other"
            )
        return self.world


def _sources_of(given: Mapping[str, Any]) -> dict[str, Source]:
    source = given["source"]
    if not isinstance(source, SeparateSources):
        return {ALL: as_source(source)}
    if given["splits"] != AllRows("train"):
        raise ConfigError(
            "separate sources are splits already: leave splits out, or give "
            f"one source and splits={given['splits']!r}"
        )
    return dict(source.sources)


def _world_of(value: Any) -> World | None:
    if isinstance(value, Mapping) and set(value) <= {"rank", "size"}:
        value = World(**value)  # of a YAML
    if value is None or isinstance(value, World):
        return value
    raise ConfigError(
        f"world must be World(rank=..., size=...) or its two numbers, got {value!r}; "
        "leave it out where a trainer or torch.distributed knows them"
    )
