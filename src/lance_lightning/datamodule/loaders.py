"""Loaders and data sets of splits, made of what the data module was given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lance_lightning.callbacks import PredictedRows
from lance_lightning.checks import check_one_of
from lance_lightning.columns import features_of_columns
from lance_lightning.datamodule.checkpoint import adopt_sizes
from lance_lightning.datamodule.config import ModuleConfig
from lance_lightning.datamodule.fit_position import FitPosition
from lance_lightning.datamodule.pins import PinnedTables
from lance_lightning.datamodule.ranks import Ranks
from lance_lightning.errors import ConfigError, LanceLightningError
from lance_lightning.loading import (
    BatchReader,
    LanceDataLoader,
    LanceIterableDataset,
    LanceMapDataset,
    LoaderIterator,
    ReadSizes,
    Shown,
    Start,
    Stream,
    Transforms,
    sampled_row_bytes,
)
from lance_lightning.ordering import EvalShare, World
from lance_lightning.reading import CachedRows, cache_rows
from lance_lightning.samplers import (
    PlanOrder,
    TrainingSplit,
    training_share,
)
from lance_lightning.tables import Plan, Snapshot
from lance_lightning.types import STAGES

StartOf = Callable[[World, int | None, LanceDataLoader, LoaderIterator], Start]


@dataclasses.dataclass(frozen=True, slots=True)
class LoaderFactory:
    """Makes loaders and data sets of splits, and keeps none of them.

    Args:
        config: The arguments of the data module.
        tables: The tables and the rows of the splits.
        fit: Where the fit is; it has the clocks of training loaders.
        world: Returns whose share of the rows this process reads.
        start: Returns where an iteration of a loader starts. It is called with what
            the loader was made for, the number of the training loader (None for
            evaluation), the loader and its iterator.
    """

    config: ModuleConfig
    tables: PinnedTables
    fit: FitPosition
    world: Callable[[], World]
    start: StartOf

    def loader(self, stage: str, at: int, split: str) -> LanceDataLoader:
        """Return the loader of a stage's split, the stage's number ``at``."""
        reader = self._reader(
            stage,
            split,
            self.config.transforms[stage],
            partial(self._stream, stage, at, split),
        )
        return self._loader_over(reader, stage, at)

    def _reader(
        self,
        stage: str,
        split: str,
        transforms: Transforms,
        stream_of: Callable[[int], Stream],
    ) -> BatchReader:
        """Return the reader of a split.

        ``stream_of`` is called with the mean bytes of a row.
        """
        snapshot = self.tables.snapshot(split)
        asked = self.config.columns_of_source[self.tables.source_of(split)]
        schema = snapshot.batch_schema(asked, self.config.with_row_id)
        features = features_of_columns(snapshot.schema, asked)
        form = dataclasses.replace(self.config.format, features=features)
        if transforms.arrow_transform is None:
            form.check(schema)
        columns = snapshot.lance_columns(asked, self.config.with_row_id)
        rows = sampled_row_bytes(snapshot, columns, schema)
        try:
            stream = stream_of(rows.mean)
        except ConfigError as error:
            raise ConfigError(f"split {split!r}, stage {stage!r}: {error}") from None
        sizes = ReadSizes.of(
            snapshot,
            schema,
            rows,
            stream,
            format=form,
            transforms=transforms,
            num_workers=self.config.num_workers,
        )
        return BatchReader(
            snapshot=snapshot,
            columns=columns,
            stream=stream,
            stage=stage,
            sizes=sizes,
            cached=self._cached(snapshot, columns, stream.plan, sizes),
            format=form,
            transforms=transforms,
            shown=Shown(schema),
        )

    def _cached(
        self, snapshot: Snapshot, columns: Any, plan: Plan, sizes: ReadSizes
    ) -> CachedRows | None:
        if self.config.cache_bytes is None:
            return None
        return cache_rows(
            self.config.cache_dir,
            snapshot,
            columns,
            plan,
            sizes.row_bytes,
            self.config.cache_bytes,
            sizes.row_sizes,
        )

    def _loader_over(self, reader: BatchReader, stage: str, at: int) -> LanceDataLoader:
        train = stage == "train"
        loader = LanceDataLoader(
            reader,
            num_workers=self.config.num_workers,
            dataloader_kwargs=self.config.dataloader_kwargs,
            clock=self.fit.clock(at) if train else None,
            start=partial(self.start, reader.stream.share.world, at if train else None),
            is_restored=self.fit.is_restored_by_module,
        )
        if stage == "predict":
            loader.batch_sampler = PredictedRows(loader)
        return loader

    def dataset(self, split: str) -> LanceMapDataset:
        """Return a split as a torch ``Dataset``, without the user's functions."""
        plan = self.tables.plan(split)
        share = EvalShare(plan.num_rows, 1, World())
        stream = Stream(plan, share, PlanOrder(plan.num_rows), self.config.seed)
        return LanceMapDataset(
            self._reader("dataset", split, Transforms(), lambda _: stream)
        )

    def iterable_dataset(
        self, split: str, *, stage: str | None, batched: bool, world: World | None
    ) -> LanceIterableDataset:
        """Return a split as a torch ``IterableDataset``, in the order of a stage.

        Raises:
            ConfigError: There is no such split or stage, or the split serves none.
        """
        check_one_of("split", split, self.tables.split_names)
        serves = [name for name in STAGES if split in self.config.stage_splits[name]]
        if stage is None and not serves:
            raise ConfigError(
                f"the split {split!r} serves no stage, so its order is not known: "
                'give stage="train" to shuffle it, or stage="predict" to read it in '
                "order"
            )
        stage = stage or serves[0]
        check_one_of("stage", stage, STAGES)
        names = list(self.config.stage_splits[stage])
        number = names.index(split) if split in names else None
        return LanceIterableDataset(
            self._reader(
                stage,
                split,
                self.config.transforms[stage],
                partial(self._stream, stage, number, split, world=world),
            ),
            batched=batched,
        )

    def _stream(
        self,
        stage: str,
        at: int | None,
        split: str,
        row_bytes: int,
        world: World | None = None,
    ) -> Stream:
        world, plan = world or self.world(), self.tables.plan(split)
        if stage != "train":
            size = self.config.eval_batch_size or self.config.rows_per_rank(world)
            evaluated = EvalShare(plan.num_rows, size, world)
            if evaluated.uneven:
                rank_zero_warn(
                    f"{plan.num_rows} rows of split {plan.name!r} over {world.size} "
                    "ranks at batch size 1: some ranks make one step less than "
                    "others, since every row is read exactly once; a strategy that "
                    "synchronises in every step can hang, eval_batch_size=2 cannot"
                )
            return Stream(plan, evaluated, PlanOrder(plan.num_rows), self.config.seed)
        batch = self.config.rows_per_step(world)
        sampler = self.config.sampler
        saved = None if at is None else self.fit.saved(at)
        if saved is not None:
            sampler = adopt_sizes(sampler, saved, batch)
        order = sampler.order_of(
            TrainingSplit(
                plan=plan,
                snapshot=self.tables.snapshot(split),
                dataset=partial(self.dataset, split),
                world_size=world.size,
                global_batch_size=batch,
                seed=self.config.seed,
                row_bytes=row_bytes,
            )
        )
        share = training_share(order, batch, world, self.config.drop_last)
        if self.config.num_workers:
            order.check_importable()
        return Stream(plan, share, order, self.config.seed)


def compare_drawn(ranks: Ranks, loaders: Sequence[LanceDataLoader]) -> None:
    """Compare what samplers draw with what they draw on rank 0.

    Raises:
        LanceLightningError: A rank has other rows.
    """
    here = [loader.reader.stream.order.fingerprint() for loader in loaders]
    there = ranks.broadcast(lambda: here)
    if not ranks.agree(here == there):
        raise LanceLightningError(
            "the sampler draws other rows on some ranks, so all of them stop: the "
            "ranks share what it draws, so it must draw the same on all of "
            f"them, without a rank of its own; rank 0 has the digests {there}, "
            f"this rank {here}"
        )


def check_still_in(world: World, here: World) -> None:
    """Check that this process is still the rank that a loader was made for.

    Args:
        world: What the loader was made for.
        here: What this process is now.

    Raises:
        ConfigError: ``torch.distributed`` was set up, or ended, since the loader was
            made: it would read another replica's rows.
    """
    if world != here:
        raise ConfigError(
            f"this loader was made for rank {world.rank} of {world.size}, and "
            f"torch.distributed now says rank {here.rank} of "
            f"{here.size}, so the ranks would not share the rows: ask "
            "the data module for its loaders after init_process_group"
        )
