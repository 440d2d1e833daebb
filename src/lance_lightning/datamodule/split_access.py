"""The splits of a data module, and reading them without a trainer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer

from lance_lightning.columns import class_names
from lance_lightning.datamodule.arguments_set_later import ArgumentsSetLater
from lance_lightning.datamodule.fit_position import FitPosition
from lance_lightning.datamodule.loaders import LoaderFactory, check_still_in
from lance_lightning.datamodule.ranks import Ranks, world_of_trainer
from lance_lightning.datamodule.trainer_loops import not_iterable, refuse_other_package
from lance_lightning.loading import (
    LanceDataLoader,
    LanceIterableDataset,
    LanceMapDataset,
    LoaderIterator,
    Start,
    world_of_torch,
)
from lance_lightning.ordering import World
from lance_lightning.splits import permutation_of
from lance_lightning.tables import Plan, Snapshot


class SplitAccess(ArgumentsSetLater):
    """Gives access to the splits: their tables, their rows, data sets over them."""

    _fit: FitPosition

    @property
    def batch_size(self) -> int:
        """Rows per rank per step. Setting it takes the place of a global size."""
        if "_config" not in self.__dict__:  # of a subclass, before it calls ours
            return int(self.__dict__["batch_size"])
        return self._config.rows_per_rank(self._world())

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self.__dict__["batch_size"] = value

    @property
    def trainer(self) -> Trainer | None:
        """The trainer that this was handed to last."""
        trainer: Trainer | None = self.__dict__.get("trainer")
        return trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        # Before the first hook: a trainer of the other package calls none of ours.
        refuse_other_package(trainer)
        self.__dict__["trainer"] = trainer

    def __iter__(self) -> Iterator[Any]:
        raise not_iterable()

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits."""
        return self._tables.split_names

    def snapshot(self, split: str | None = None) -> Snapshot:
        """Return the pinned table of a split.

        Args:
            split: A split's name; only separate sources have several tables.
        """
        return self._tables.snapshot(split)

    def plan(self, split: str) -> Plan:
        """Return which rows a split has; builds the splits where that is not done."""
        return self._tables.plan(split)

    def class_names(self, column: str, split: str | None = None) -> list[str]:
        """Return the names of a column's classes: that of class 0 comes first.

        They are part of a table that was made of a Hugging Face dataset with a
        ``ClassLabel``.

        Args:
            column: The column's name in the table.
            split: A split's name; only separate sources have several tables.

        Raises:
            ConfigError: The table does not say them.
        """
        return class_names(self.snapshot(split).schema, column)

    def dataset(self, split: str = "train") -> LanceMapDataset:
        """Return a split as a torch ``Dataset``: one row an index, as it is stored.

        For torch's own samplers, data sets and loaders; the module's functions are
        not run.

        Raises:
            ConfigError: The split has no row.
        """
        return self._factory().dataset(split)

    def iterable_dataset(
        self,
        split: str = "train",
        *,
        stage: str | None = None,
        batched: bool = True,
        world: World | None = None,
    ) -> LanceIterableDataset:
        """Return a split as a torch ``IterableDataset``, in the order of a stage.

        It shards itself over ranks and workers and yields what the stage's loader
        would: the same batches, in the same order, through the stage's functions.

        Args:
            split: The split to read.
            stage: Whose order and functions: ``"train"`` shuffles, the others read in
                order. Default: the first stage that the split serves.
            batched: False yields single samples, for a ``DataLoader`` that collates
                them itself.
            world: Whose share of the rows. Default: this rank's. ``World()`` yields
                the whole split, for what shards or dispatches batches itself, as
                Accelerate's ``prepare`` and Hugging Face's ``Trainer`` do.

        Raises:
            ConfigError: There is no such split or stage, or the split serves none.
        """
        return self._factory().iterable_dataset(
            split, stage=stage, batched=batched, world=world
        )

    def permutation(self, split: str) -> Any:
        """Return LanceDB's own ``Permutation`` of a split, at the pinned version."""
        return permutation_of(self.plan(split), self.snapshot(split))

    def _factory(self) -> LoaderFactory:
        return LoaderFactory(
            self._config, self._tables, self._fit, self._world, self._start
        )

    def _world(self) -> World:
        trainer = self.trainer
        found = world_of_torch() if trainer is None else world_of_trainer(trainer)
        return self._config.fitted(found)

    def _ranks(self) -> Ranks:
        return Ranks(None if self.trainer is None else self.trainer.strategy)

    def _start(
        self,
        world: World,
        number: int | None,
        loader: LanceDataLoader,
        iterator: LoaderIterator,
    ) -> Start:
        """Return where an iteration of a loader starts; see `FitPosition.start`."""
        if self.trainer is None:
            check_still_in(world, self._world())
        return self._fit.start(number, loader, iterator)
