"""`LanceDataModule`: Lance tables for every stage of a Lightning trainer."""

from __future__ import annotations

import inspect
import multiprocessing
import os
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from types import FrameType, MethodType
from typing import Any
from weakref import WeakSet

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.parsing import AttributeDict

from lance_lightning.arguments import (
    OneSplit,
    batch_sizes_of,
    columns_of,
    dataloader_kwargs_of,
    flag,
    integer,
    stage_splits_of,
    transforms_of,
)
from lance_lightning.cache import cache_dir as find_cache_dir
from lance_lightning.callbacks.batch_size import LogBatchSize
from lance_lightning.callbacks.prediction import PredictedRows
from lance_lightning.formats import Format, move
from lance_lightning.loader import LanceDataLoader, check_dataloader_kwargs
from lance_lightning.plan import Plan
from lance_lightning.progress import FitProgress, positions_by_count
from lance_lightning.reader import Reader, Stream, mean_row_bytes, window_grid
from lance_lightning.resume import adopted, repinned, saved_source
from lance_lightning.samplers import BlockShuffle, Sampler
from lance_lightning.shard import EvalShard, TrainShard
from lance_lightning.snapshot import Snapshot
from lance_lightning.sources import SeparateSources, Source, as_source
from lance_lightning.specs import check_saved, from_plain, plain_dict, spec_of
from lance_lightning.splits import AllRows, build_plans, permutation_of
from lance_lightning.state import (
    STATE_VERSION,
    check_same,
    check_version,
)
from lance_lightning.transforms import Transforms
from lance_lightning.types import (
    STAGES,
    ConfigError,
    LanceLightningError,
    StateError,
    check_int,
    check_one_of,
)
from lance_lightning.world import Peers, World, world_of_torch, world_of_trainer

DEFAULT_BATCH_SIZE = 32  # rows per rank per step
ALL = ""  # the key of the one source that all splits are made of


class LanceDataModule(LightningDataModule):
    """Trains, validates, tests and predicts straight from Lance tables.

    Rank and world size come from the trainer's strategy, or from
    ``torch.distributed`` where there is no trainer. All rows are read at one
    version, pinned in ``setup`` or by the checkpoint.

    A subclass with an ``__init__`` of its own calls ``save_hyperparameters()`` there,
    after ``super().__init__(...)``, so that ``load_from_checkpoint`` can make it again.

    Args:
        source: Where the rows come from: a URI or one of this package's sources.
        splits: How the rows are split; splits named ``train``, ``val``, ``test``
            and ``predict`` serve the stages of those names.
        sampler: The order of training rows. Evaluation is in the plan's order.
        columns: Names of columns, or a mapping from new name to a column or SQL
            expression. None is all columns.
        output_format: ``"arrow"``, ``"numpy"``, ``"pandas"``, ``"polars"``,
            ``"python"``, ``"python_col"``, ``"torch"``, ``"torch_col"`` or
            ``"torch_row"``.
        batch_size: Rows per rank per step. Default 32 unless
            ``global_batch_size`` is given.
        global_batch_size: Rows per step over all ranks; this or ``batch_size``.
        eval_batch_size: Rows per rank per step of evaluation. Default: as in
            training.
        drop_last: Whether to leave out a last global batch that is not full.
            With False every row comes exactly once an epoch.
        num_workers: Spawned worker processes a loader. 0 reads ahead on a thread.
        seed: Seed of the order and of the generators your functions draw from;
            the splits have their own.
        with_row_id: Whether to add the column ``_rowid``.
        cache_dir: Folder for split plans. Default: the environment variable
            ``LANCE_LIGHTNING_CACHE_DIR``, else the platform's cache folder.
        stage_splits: Mapping from stage to the split (or list of splits, each
            with a loader of its own) that serves it.
        nulls: ``"error"``, ``"mask"`` or ``{"fill": value}``, for all columns or
            as a mapping by column.
        ragged: What ``torch`` and ``numpy`` make of lists of unequal length, one for
            all or a mapping by column: ``"pad"``, zeros to the batch's longest and
            ``NAME_lengths``; ``"values_offsets"``, all numbers end to end and
            ``NAME_offsets``; ``"list"``, one tensor a row.
        dtype: One dtype for ``torch_row`` and ``torch_col``, such as
            ``"float32"``, for columns of several.
        arrow_transform: Takes and returns a ``pyarrow.RecordBatch``, before it is
            converted. Each function may be a mapping from stage to function.
        transform: Takes a batch in the output format and returns what you train on.
        sample_transform: Takes a row as a dict; the results are collated.
        collate_fn: Takes a list of rows. Default torch's ``default_collate``.
        dataloader_kwargs: Options for torch's ``DataLoader``, such as
            ``pin_memory``, ``prefetch_factor`` or ``timeout``.

    Raises:
        ConfigError: An argument, or a combination, that cannot work.
    """

    def __init__(
        self,
        source: Any,
        *,
        splits: Any = AllRows("train"),  # noqa: B008  (frozen)
        sampler: Any = BlockShuffle(),  # noqa: B008  (frozen)
        columns: Sequence[str] | Mapping[str, str] | None = None,
        output_format: str = "torch",
        batch_size: int | None = None,
        global_batch_size: int | None = None,
        eval_batch_size: int | None = None,
        drop_last: bool = False,
        num_workers: int = 0,
        seed: int = 0,
        with_row_id: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        stage_splits: Mapping[str, str | Sequence[str]] | None = None,
        nulls: Any = "error",
        ragged: Any = "pad",
        dtype: str | None = None,
        arrow_transform: Any = None,
        transform: Any = None,
        sample_transform: Any = None,
        collate_fn: Any = None,
        dataloader_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        names = inspect.signature(LanceDataModule).parameters
        given = {name: value for name, value in locals().items() if name in names}
        check_saved(given)
        given = {name: from_plain(value, name) for name, value in given.items()}
        self._take(**given)
        self.save_hyperparameters(self._plain(given), frame=_outermost_frame())

    def _take(self, **given: Any) -> None:
        """Check the arguments and keep them."""
        self._separate = isinstance(given["source"], SeparateSources)
        if self._separate:
            if given["splits"] != AllRows("train"):
                raise ConfigError(
                    "separate sources are splits already: leave splits out, or give "
                    f"one source and splits={given['splits']!r}"
                )
            self._sources: dict[str, Source] = dict(given["source"].sources)
        else:
            self._sources = {ALL: as_source(given["source"])}
        self.splits = spec_of("splits", given["splits"], "split_names")
        self.sampler: Sampler = spec_of("sampler", given["sampler"], "indices")
        self.columns = columns_of(given["columns"])
        self.output_format = given["output_format"]
        self._format = Format(
            given["output_format"],
            nulls=given["nulls"],
            ragged=given["ragged"],
            dtype=given["dtype"],
        )
        self._take_batch_sizes(given)
        self.drop_last = flag("drop_last", given["drop_last"])
        self.num_workers = check_int("num_workers", given["num_workers"], 0)
        self.seed = integer("seed", given["seed"])
        self.with_row_id = flag("with_row_id", given["with_row_id"])
        self._cache_dir = find_cache_dir(given["cache_dir"])
        self._kwargs = check_dataloader_kwargs(
            dataloader_kwargs_of(given["dataloader_kwargs"])
        )
        self._transforms: dict[str, Transforms] = {
            stage: transforms_of(given, stage) for stage in STAGES
        }
        if self.num_workers:
            for transforms in self._transforms.values():
                transforms.check_picklable()
        self._stage_splits = stage_splits_of(given["stage_splits"], self.split_names)
        self._restore_hooks()
        self._snapshots: dict[str, Snapshot] = {}
        self._plans: dict[str, Plan] = {}
        self._loaders: dict[str, list[LanceDataLoader]] = {}
        self._open: WeakSet[LanceDataLoader] = WeakSet()
        self._progress = FitProgress()
        self._saved: list[dict[str, Any]] = []  # the restored training loaders
        self._unchecked: set[int] = set()  # of these, not yet held against a loader
        self._placed = False  # whether it is settled where this fit begins
        self._said = False

    def _take_batch_sizes(self, given: Mapping[str, Any]) -> None:
        batch_sizes_of(given)
        self._batch_size: int | None = given["batch_size"]
        self._global_batch_size: int | None = given["global_batch_size"]
        if self._batch_size is None and self._global_batch_size is None:
            self._batch_size = DEFAULT_BATCH_SIZE
        self.eval_batch_size: int | None = given["eval_batch_size"]

    def _plain(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return hyperparameters that load with ``weights_only=True``."""
        plain = plain_dict(given)
        if self._batch_size is None:
            # The tuner looks here for the size it is to scale.
            del plain["batch_size"]
        else:
            plain["batch_size"] = self._batch_size
        return plain

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: Sequence[str] | str | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Save arguments of a subclass, as Lightning does but plain, without secrets.

        Without ``args`` these are all that made the subclass, so they take the place
        of this class's own; named ones are added to them.
        """
        here = inspect.currentframe()
        if frame is None and here is not None:
            frame = here.f_back
        if not args:
            self.hparams.clear()
        args = tuple(arg if isinstance(arg, str) else plain_dict(arg) for arg in args)
        super().save_hyperparameters(*args, ignore=ignore, frame=frame, logger=logger)
        self.hparams.update(plain_dict(self.hparams))
        self._hparams_given = dict(self.hparams)

    @property
    def hparams_initial(self) -> AttributeDict:
        """What this module was made with, as loggers get it: under one name.

        Lightning merges it with the hyperparameters of the model, and stops the run
        where both have one of the same name, ``seed`` or ``batch_size`` say, with
        different values.
        """
        return AttributeDict({"datamodule": deepcopy(self._hparams_given)})

    # -- what there is ---------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """Rows per rank per step. Setting it takes the place of a global size."""
        if self._batch_size is not None:
            return self._batch_size
        assert self._global_batch_size is not None
        return max(1, self._global_batch_size // self._world().size)

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._batch_size = check_int("batch_size", value, 1)
        self._global_batch_size = None
        # A checkpoint is to hold what is trained with.
        self.hparams["batch_size"] = value
        if "global_batch_size" in self.hparams:
            self.hparams["global_batch_size"] = None

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits."""
        if self._separate:
            return tuple(self._sources)
        return tuple(self.splits.split_names)

    def snapshot(self, split: str | None = None) -> Snapshot:
        """Return the pinned table of a split.

        Args:
            split: A split's name; only separate sources have several tables.
        """
        self._pin()
        return self._snapshots[self._source_of(split)]

    def plan(self, split: str) -> Plan:
        """Return which rows a split has; builds the splits where that is not done."""
        check_one_of("split", split, self.split_names)
        if split not in self._plans:
            self._plans.update(self._built(self._source_of(split)))
        return self._plans[split]

    def permutation(self, split: str) -> Any:
        """Return LanceDB's own ``Permutation`` of a split, at the pinned version."""
        return permutation_of(self.plan(split), self.snapshot(split))

    def _source_of(self, split: str | None) -> str:
        if not self._separate:
            return ALL
        return next(iter(self._sources)) if split is None else split

    def _built(self, name: str) -> dict[str, Plan]:
        source = self._sources[name]
        splits = AllRows(name) if self._separate else self.splits
        snapshot = self.snapshot(name or None)
        return build_plans(splits, snapshot, source.filter, self._cache_dir)

    # -- Lightning's hooks -----------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Pin the version of every table: the same one on every rank.

        Raises:
            SourceError: A table or version is not there.
            ConfigError: The process was forked.
        """
        if self.trainer is not None:
            _refuse_fork()
        if stage == "fit":
            self._placed = False
        self._pin()

    def _pin(self) -> None:
        if not self._snapshots:
            peers = self._peers()
            proposed = peers.broadcast(self._versions_of_rank_zero(peers))
            self._snapshots = peers.together(lambda: self._pinned(proposed))

    def _versions_of_rank_zero(self, peers: Peers) -> dict[str, int] | None:
        """Return the versions to read; None where this rank cannot say.

        What went wrong on rank 0 comes up again, on every rank, in `_pinned`.
        """
        try:
            return {name: pin.version for name, pin in self._pinned(None).items()}
        except Exception:
            return None

    def _pinned(self, versions: Mapping[str, int] | None) -> dict[str, Snapshot]:
        return {
            name: source.resolve(
                self._cache_dir, version=versions[name] if versions else None
            )
            for name, source in self._sources.items()
        }

    def _follow(self, trainer: Any) -> None:
        """Fit in with a trainer that asks for loaders.

        Not in `setup`: the batch-size finder takes all callbacks away after it.
        """
        if not any(isinstance(found, LogBatchSize) for found in trainer.callbacks):
            trainer.callbacks.append(LogBatchSize())
        model = trainer.lightning_module
        theirs = is_overridden("transfer_batch_to_device", model)
        self._restore_hook("transfer_batch_to_device", not theirs)

    def _restore_hooks(self) -> None:
        for stage in STAGES:
            self._restore_hook(f"{stage}_dataloader", bool(self._stage_splits[stage]))

    def _restore_hook(self, name: str, ours: bool) -> None:
        """Use our hook, or on this instance the base class's.

        Lightning asks whether a hook is overridden: a stage without a split, or a
        model that moves its own batches, is to count as not. A subclass's own hook
        stays.
        """
        self.__dict__.pop(name, None)
        if not ours and getattr(type(self), name) is getattr(LanceDataModule, name):
            setattr(self, name, MethodType(getattr(LightningDataModule, name), self))

    def train_dataloader(self) -> Any:
        """Return the loader of the training split; a list where there are several."""
        return self._stage_loaders("train")

    def val_dataloader(self) -> Any:
        """Return the loader of the validation split, or a list of them."""
        return self._stage_loaders("val")

    def test_dataloader(self) -> Any:
        """Return the loader of the test split, or a list of them."""
        return self._stage_loaders("test")

    def predict_dataloader(self) -> Any:
        """Return the loader of the split to predict on, or a list of them."""
        return self._stage_loaders("predict")

    def teardown(self, stage: str | None = None) -> None:
        """Stop the workers."""
        for loader in self._open:
            loader.close()

    def on_exception(self, exception: BaseException) -> None:
        """Stop the workers: Lightning does not tear down after an exception."""
        self.teardown()

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move tensors; bytes, text, Arrow and data frames stay where they are."""
        transfer = super().transfer_batch_to_device
        return move(batch, lambda value: transfer(value, device, dataloader_idx))

    # -- loaders ---------------------------------------------------------------

    def _stage_loaders(self, stage: str) -> Any:
        names = self._stage_splits[stage]
        if not names:
            raise ConfigError(
                f"no split serves the stage {stage!r}; splits there are: "
                f"{', '.join(self.split_names)}; name one with "
                f"stage_splits={{{stage!r}: ...}}"
            )
        self._pin()
        if self.trainer is not None:
            self._follow(self.trainer)
        if stage == "train":
            self._progress.follow(self.trainer)

        def work() -> list[LanceDataLoader]:
            return [self._loader(stage, at, name) for at, name in enumerate(names)]

        if self.trainer is None:
            # No collective: a single rank may ask, for the number of steps, say.
            loaders = work()
        else:
            loaders = self._peers().together(work)
            self._compare_digests(names)
        self._loaders[stage] = loaders
        self._open.update(loaders)
        self._say(stage, loaders)
        return loaders[0] if isinstance(names, OneSplit) else loaders

    def _compare_digests(self, names: Sequence[str]) -> None:
        peers = self._peers()
        here = {name: self._plans[name].digest for name in names}
        there = peers.broadcast(here)
        if not peers.all(here == there):
            raise LanceLightningError(
                "the ranks have different rows in their splits, so none goes on: "
                f"rank 0 has the digests {there}, this rank {here}; do all nodes see "
                "the same table?"
            )

    def _loader(self, stage: str, at: int, split: str) -> LanceDataLoader:
        snapshot, plan = self.snapshot(split), self.plan(split)
        schema = snapshot.projected_schema(self.columns, self.with_row_id)
        transforms = self._transforms[stage]
        if transforms.arrow_transform is None:
            self._format.check(schema)
        columns = snapshot.lance_columns(self.columns, self.with_row_id)
        row_bytes = mean_row_bytes(snapshot, columns, schema)
        try:
            stream = self._stream(stage, at, plan, row_bytes)
        except ConfigError as error:
            raise ConfigError(f"split {split!r}, stage {stage!r}: {error}") from None
        reader = Reader(
            snapshot=snapshot,
            columns=columns,
            stream=stream,
            format=self._format,
            transforms=transforms,
            stage=stage,
            row_bytes=row_bytes,
            grid=window_grid(
                stream, row_bytes, small=bool(transforms) and self.num_workers > 0
            ),
        )
        return self._loader_over(reader, stage, at)

    def _loader_over(self, reader: Reader, stage: str, at: int) -> LanceDataLoader:
        train = stage == "train"
        loader = LanceDataLoader(
            reader,
            num_workers=self.num_workers,
            dataloader_kwargs=self._kwargs,
            clock=self._progress.clock(at) if train else None,
            check_start=partial(
                self._check_start, reader.stream.shard.world, at if train else None
            ),
        )
        if stage == "predict":
            loader.batch_sampler = PredictedRows(loader)
        return loader

    def _stream(self, stage: str, at: int, plan: Plan, row_bytes: int) -> Stream:
        world = self._world()
        if stage != "train":
            size = self.eval_batch_size or max(1, self._global(world) // world.size)
            shard = EvalShard(plan.num_rows, size, world)
            if shard.uneven:
                rank_zero_warn(
                    f"{plan.num_rows} rows of split {plan.name!r} over {world.size} "
                    "ranks at batch size 1: some ranks make one step less than "
                    "others, since every row is read exactly once; a strategy that "
                    "synchronises in every step can hang, eval_batch_size=2 cannot"
                )
            return Stream(plan, shard, None, self.seed)
        sampler = self.sampler
        train = TrainShard(
            plan.num_rows, self._global(world), world, self.drop_last, sampler.strided
        )
        if at < len(self._saved):
            sampler = adopted(sampler, self._saved[at], train.global_batch_size)
        sampler = sampler.resolve(plan.num_rows, train.global_batch_size, row_bytes)
        return Stream(plan, train, sampler, self.seed)

    def _global(self, world: World) -> int:
        if self._batch_size is not None:
            return self._batch_size * world.size
        assert self._global_batch_size is not None
        return self._global_batch_size

    def _world(self) -> World:
        if self.trainer is None:
            return world_of_torch()
        return world_of_trainer(self.trainer)

    def _peers(self) -> Peers:
        return Peers(None if self.trainer is None else self.trainer.strategy)

    def _say(self, stage: str, loaders: Sequence[LanceDataLoader]) -> None:
        """Say once what a run reads."""
        if stage == "train":
            for loader in loaders:
                shard = loader.reader.stream.shard
                assert isinstance(shard, TrainShard)
                _say_tail(shard)
        trainer = self.trainer
        # The steps of training come after the sanity check.
        if self._said or (trainer is not None and trainer.sanity_checking):
            return
        self._said = True
        tables = "; ".join(pin.describe() for pin in self._snapshots.values())
        sizes = ", ".join(
            f"{name} {plan.num_rows} rows" for name, plan in self._plans.items()
        )
        steps = ", ".join(
            f"{len(loader)} steps of {loader.batch_size} rows a rank"
            for loader in loaders
        )
        rank_zero_info(f"Lance data: {tables}; splits: {sizes}; {stage}: {steps}")

    # -- checkpoints -----------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds: small, plain, the same on every rank."""
        if not self._snapshots:
            return {}
        return {
            "state_version": STATE_VERSION,
            "sources": {
                name: saved_source(pin) for name, pin in self._snapshots.items()
            },
            "train": self._training_state(),
            "epoch_is_left": self._progress.epoch_is_left,
            **self._configuration(),
        }

    def _training_state(self) -> list[dict[str, Any]]:
        loaders = self._loaders.get("train")
        if not loaders:  # restored, and not asked for yet
            return self._saved
        steps = [self._steps(loader) for loader in loaders]
        lengths = [
            min(len(loader), n) for loader, n in zip(loaders, steps, strict=True)
        ]
        return [
            {"epoch": epoch, "batch": batch, "steps": n, **loader.describe()}
            for loader, n, (epoch, batch) in zip(
                loaders, steps, self._progress.positions(lengths), strict=True
            )
        ]

    def _configuration(self) -> dict[str, Any]:
        splits = None if self._separate else self.splits.key()
        filters = {name: source.filter for name, source in self._sources.items()}
        return {"seed": self.seed, "splits": splits, "filter": filters}

    def _steps(self, loader: LanceDataLoader) -> int:
        """Return the steps of the trainer's epoch, its own limit included."""
        trainer = self.trainer
        if trainer is None or trainer.num_training_batches == float("inf"):
            return len(loader)
        return int(trainer.num_training_batches)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Read what a checkpoint was trained on; in ``fit`` go on where it stood.

        Raises:
            StateError: The checkpoint belongs to other rows or another
                configuration; the message prints both sides.
        """
        check_version(state_dict)
        trainer: Any = self.trainer
        stage = "validate" if trainer is None else str(trainer.state.fn.value)
        if stage == "fit":
            self._check_sources(state_dict["sources"])
            check_same(state_dict, self._configuration(), ("seed", "splits", "filter"))
        self._repin(state_dict["sources"], stage)
        if stage == "fit":
            self._saved = self._checked_loaders(state_dict)
            self._unchecked = set(range(len(self._saved)))
            self._placed = True
            self._progress.restore(
                [(each["epoch"], each["batch"]) for each in self._saved],
                state_dict["epoch_is_left"],
            )

    def _checked_loaders(self, state: Mapping[str, Any]) -> list[dict[str, Any]]:
        saved, here = list(state["train"]), list(self._stage_splits["train"])
        if saved and len(saved) != len(here):
            raise StateError(
                "the checkpoint was trained on the splits "
                f"{[each['split'] for each in saved]}, a loader each, and here "
                f"training has {here}: restore stage_splits; to start afresh, load "
                "the weights alone"
            )
        return saved

    def _check_sources(self, saved: Mapping[str, Any]) -> None:
        if set(saved) != set(self._sources):
            raise StateError(
                f"the checkpoint was trained on {_listed(saved)}, configured is "
                f"{_listed(self._sources)}: configure the same; to start afresh, load "
                "the weights alone"
            )

    def _repin(self, saved: Mapping[str, Any], stage: str) -> None:
        self._pin()
        if set(saved) != set(self._snapshots):
            return
        found = {}
        for name, source in self._sources.items():
            found[name], note = repinned(
                source, self._snapshots[name], saved[name], stage, self._cache_dir
            )
            if note is not None:
                rank_zero_info(f"Lance data: {note}")
        if found == self._snapshots:
            return
        if any(self._loaders.values()) and stage == "fit":
            versions = ", ".join(str(pin.version) for pin in found.values())
            raise StateError(
                "loaders were asked for before the checkpoint was restored "
                "(estimated_stepping_batches does that, and DeepSpeed), and they read "
                "the newest version while the checkpoint was trained on another: set "
                f"version={versions}"
            )
        self._snapshots = found
        self._plans.clear()

    def _check_start(self, world: World, at: int | None) -> int | None:
        """Hold a loader that is to begin against the world, and a restored position.

        Args:
            world: What the loader was made for.
            at: The number of the training loader; None for evaluation.

        Returns:
            Before which batch it stops; None is after its last.

        Raises:
            ConfigError: ``torch.distributed`` was set up, or ended, since the loader
                was made: it would read another replica's rows.
        """
        if self.trainer is None and world != self._world():
            raise ConfigError(
                f"this loader was made for rank {world.rank} of {world.size}, and "
                f"torch.distributed now says rank {self._world().rank} of "
                f"{self._world().size}, so the ranks would not share the rows: ask "
                "the data module for its loaders after init_process_group"
            )
        if at is None:
            return None
        if not self._placed:
            self._placed = True
            self._place_without_state()
        loader, clock = self._loaders["train"][at], self._progress.clock(at)
        stop = self._progress.stop(at, len(loader), self._steps(loader))
        if at in self._unchecked:
            saved = {**self._saved[at], "batch": clock.upcoming[1]}
            loader.check_state(saved)
            self._check_steps(saved, loader)
            self._unchecked.remove(at)
        trainer: Any = self.trainer
        if stop and trainer is not None and trainer.overfit_batches > 0:
            clock.set(0, clock.upcoming[1])  # the same rows in every epoch
        return stop

    def _place_without_state(self) -> None:
        """Go on where the trainer stands after a checkpoint that has no state of ours.

        Lightning hands no such checkpoint to `load_state_dict`.
        """
        trainer = self.trainer
        if trainer is None or trainer.ckpt_path is None or not self._progress.is_led:
            return
        lengths = [len(loader) for loader in self._loaders["train"]]
        positions = positions_by_count(trainer, lengths)
        self._progress.restore(positions)
        epoch, batch = positions[0]
        rank_zero_warn(
            f"the checkpoint {trainer.ckpt_path} holds no data state of "
            f"{type(self).__qualname__}: it was saved with another data module, or "
            f"under another class name. So which rows it was trained on is not known; "
            f"the run goes on at epoch {epoch}, batch {batch} by the trainer's count"
        )

    def _check_steps(self, saved: Mapping[str, Any], loader: LanceDataLoader) -> None:
        steps = self._steps(loader)
        if saved["batch"] and saved["steps"] != steps:
            raise StateError(
                f"the checkpoint was saved at batch {saved['batch']} of an epoch of "
                f"{saved['steps']} steps, and here an epoch has {steps}; Lightning "
                "would cut this epoch short and skip its validation: restore "
                "limit_train_batches (or the batch size), or resume from a checkpoint "
                "at the end of an epoch"
            )

    def __getstate__(self) -> dict[str, Any]:
        # A spawning launcher pickles the module: loaders are made anew there, and the
        # trainer is attached again.
        state = self.__dict__.copy()
        state.update(_loaders={}, _open=None, trainer=None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = WeakSet()
        self._restore_hooks()  # they were looked up by name, and are our own again

    def __str__(self) -> str:
        sources = ", ".join(source.describe() for source in self._sources.values())
        return f"{type(self).__name__}({sources}; splits {', '.join(self.split_names)})"


def _outermost_frame() -> FrameType | None:
    """Return a frame from which Lightning finds no arguments of constructors.

    It would compare the hyperparameters with each of them, and a data frame that a
    subclass takes cannot be compared.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _refuse_fork() -> None:
    """Raise where a launcher has forked this process.

    Raises:
        ConfigError: It has (``ddp_fork``, ``ddp_notebook``).
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return
    forked = multiprocessing.get_context("fork").Process
    if isinstance(multiprocessing.current_process(), forked):
        raise ConfigError(
            "this process was forked (strategy ddp_fork or ddp_notebook), and Lance's "
            "threads do not survive a fork: reads crash or hang; use "
            "strategy='ddp_spawn', or 'ddp' from a script"
        )


def _listed(sources: Iterable[str]) -> str:
    names = sorted(sources)
    return "one source" if names == [ALL] else f"a source for each of {names}"


def _say_tail(shard: TrainShard) -> None:
    if shard.repeated_rows:
        rank_zero_info(
            f"Lance data: the last global batch has fewer rows than the "
            f"{shard.world.size} ranks, so {shard.repeated_rows} rows repeat in it; "
            "drop_last=True leaves it out"
        )
    elif shard.last_batch_rows == 1 and shard.global_batch_size > shard.world.size:
        rank_zero_info(
            "Lance data: the last batch has one row a rank, on which batch norm fails "
            "in training; drop_last=True leaves it out"
        )
