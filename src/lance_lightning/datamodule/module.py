"""`LanceDataModule`: Lance tables for every stage of a Lightning trainer."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, wraps
from types import MethodType
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.tuner.lr_finder import _LRCallback
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden

from lance_lightning.callbacks import LogBatchSize
from lance_lightning.columns import class_names
from lance_lightning.datamodule.arguments import (
    AnySampler,
    AnySource,
    AnySplits,
    Decoders,
    Functions,
    OneSplit,
    no_split_message,
)
from lance_lightning.datamodule.asked import is_asked_for_loaders, is_asked_for_setup
from lance_lightning.datamodule.config import SHOWN, ModuleConfig
from lance_lightning.datamodule.fit_position import FitPosition
from lance_lightning.datamodule.hyperparameters import (
    Hyperparameters,
    PlainHyperparameters,
    outermost_frame,
    with_class,
)
from lance_lightning.datamodule.loaders import LoaderFactory, compare_drawn
from lance_lightning.datamodule.pins import ALL
from lance_lightning.datamodule.plain_specs import (
    check_saved,
    from_plain,
    named,
    plain_dict,
)
from lance_lightning.datamodule.ranks import Ranks, world_of_trainer
from lance_lightning.datamodule.reports import log_run, log_training
from lance_lightning.datamodule.trainer_loops import not_iterable, refuse_other_package
from lance_lightning.errors import ConfigError, StateError
from lance_lightning.forks import refuse_fork
from lance_lightning.formats import move
from lance_lightning.loading import (
    AFRESH,
    Facts,
    LanceDataLoader,
    LanceIterableDataset,
    LanceMapDataset,
    LoaderIterator,
    ModuleState,
    Shown,
    Start,
    batches_shown,
    columns_shown,
    html_of,
    splits_shown,
    text_of,
    world_of_torch,
)
from lance_lightning.ordering import World
from lance_lightning.samplers import (
    BlockShuffle,
    Sampler,
    SplitSampler,
)
from lance_lightning.sources import live_source
from lance_lightning.splits import AllRows, Splits, permutation_of
from lance_lightning.tables import Plan, Snapshot
from lance_lightning.types import STAGES

SIZES = {"batch_size": "global_batch_size", "global_batch_size": "batch_size"}
# Arguments that say nothing of which rows come in which order.
CHANGEABLE = {*SIZES, "eval_batch_size", "num_workers"}


class LanceDataModule(PlainHyperparameters):
    """Trains, validates, tests and predicts straight from Lance tables.

    Rank and world size come from the trainer's strategy, or from
    ``torch.distributed`` where there is no trainer. All rows are read at one
    version, pinned in ``setup`` or by the checkpoint.

    A subclass with an ``__init__`` of its own calls ``save_hyperparameters()`` there,
    after ``super().__init__(...)``, so that ``load_from_checkpoint`` can make it again.

    Args:
        source: Where the rows come from: a URI, one of this package's sources, or a
            LanceDB table or permutation as it is.
        splits: How the rows are split; splits named ``train``, ``val``, ``test``
            and ``predict`` serve the stages of those names. A mapping from split to
            its share, ``{"train": 0.8, "val": 0.2}``, is a `RandomSplit`.
        sampler: The order of training rows: one of this package's samplers; one of
            torch's, or your own, that yields indices of the split or lists of them; a
            function that is called with the split as a torch ``Dataset`` and returns
            one; or a ``lance.sampler.Sampler``. Ours may be named as Hydra names them,
            ``"shuffle"``. Evaluation is in the plan's order.
        columns: Names of columns, or a mapping from new name to a column or SQL
            expression. None is all columns.
        output_format: ``"arrow"``, ``"numpy"``, ``"pandas"``, ``"polars"``,
            ``"python"``, ``"python_col"``, ``"torch"``, ``"torch_col"`` or
            ``"torch_row"``. Default: what a permutation was given by
            ``with_format``, else ``"torch"``.
        batch_size: Rows per rank per step. Default 32 unless
            ``global_batch_size`` is given.
        global_batch_size: Rows per step over all ranks; this or ``batch_size``.
        eval_batch_size: Rows per rank per step of evaluation. Default: as in
            training.
        drop_last: Whether to leave out a last global batch that is not full.
            With False every row comes exactly once an epoch.
        num_workers: Spawned worker processes per loader. 0 reads ahead on a thread.
        seed: Seed of the order and of the generators your functions draw from;
            the splits have their own.
        with_row_id: Whether to add the column ``_rowid``.
        cache_dir: Folder for split plans. Default: the environment variable
            ``LANCE_LIGHTNING_CACHE_DIR``, else the platform's cache folder.
        cache_bytes: Keep the columns of each split in ``cache_dir`` on local disk, of
            up to that many bytes per split, written before its first batch: for tables
            behind a network, and for ``Shuffle``. None reads the table itself.
        stage_splits: Mapping from stage to the split (or list of splits, each
            with a loader of its own) that serves it.
        nulls: ``"error"``, ``"mask"`` or ``{"fill": value}``, for all columns or
            as a mapping by column.
        ragged: What ``torch`` and ``numpy`` make of lists of unequal length, one for
            all or a mapping by column: ``"pad"``, zeros to the batch's longest and
            ``NAME_lengths``; ``{"pad": value, "multiple": m}``, the same with another
            value and width; ``"values_offsets"``, all numbers end to end and
            ``NAME_offsets``; ``"list"``, one tensor a row; ``"nested"``, torch's
            nested tensors.
        decoders: What ``torch`` and ``numpy`` make of columns of bytes: ``"image"``
            decodes PNG, JPEG, WebP and others to uint8 (3, H, W), a function makes of
            a row's bytes what it returns. One for all columns of bytes (a struct of
            bytes and path counts as its bytes, as Hugging Face's images do), or a
            mapping by column. Values of one shape are stacked, others come as a list.
        dtype: With ``torch`` and ``numpy``, ``"float32"`` or another for all columns of
            floats (integers stay as they are), or a mapping from column to dtype. With
            ``torch_row`` and ``torch_col`` the one of their tensor. None is the
            columns' own.
        arrow_transform: Takes and returns a ``pyarrow.RecordBatch``, before it is
            converted. Each function may be a mapping from stage to function.
        transform: Takes a batch in the output format and returns what you train on.
        sample_transform: Takes a row as a dict; the results are collated.
        collate_fn: Takes a list of rows. Default torch's ``default_collate``.
        dataloader_kwargs: Options for torch's ``DataLoader``, such as
            ``pin_memory``, ``prefetch_factor`` or ``timeout``. With
            ``{"multiprocessing_context": "forkserver"}`` workers are not spawned but
            forked from a server, in which nothing may have read with Lance.
        world: Whose share of the rows this process reads, where neither a trainer nor
            ``torch.distributed`` knows: ``World(rank=1, size=8)`` in a job array. Each
            job then pins its own version: name one in the source. It is not saved.

    Arguments that are set as attributes later (``data.columns = [...]``) count as if
    they had been given, until loaders are asked for.

    Raises:
        ConfigError: An argument, or a combination, that cannot work; or this process
            was forked from one that had imported Lance.
    """

    cache_bytes: int | None
    columns: list[str] | dict[str, str] | None
    drop_last: bool
    eval_batch_size: int | None
    num_workers: int
    output_format: str
    sampler: Sampler | SplitSampler
    seed: int
    splits: Splits
    with_row_id: bool

    def __init__(
        self,
        source: AnySource,
        *,
        splits: AnySplits = AllRows(name="train"),  # noqa: B008  (frozen)
        sampler: AnySampler = BlockShuffle(),  # noqa: B008  (frozen)
        columns: Sequence[str] | Mapping[str, str] | None = None,
        output_format: str | None = None,
        batch_size: int | None = None,
        global_batch_size: int | None = None,
        eval_batch_size: int | None = None,
        drop_last: bool = False,
        num_workers: int = 0,
        seed: int = 0,
        with_row_id: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
        stage_splits: Mapping[str, str | Sequence[str]] | None = None,
        nulls: str | Mapping[str, Any] = "error",
        ragged: str | Mapping[str, Any] = "pad",
        decoders: Decoders = None,
        dtype: str | Mapping[str, str] | None = None,
        arrow_transform: Functions = None,
        transform: Functions = None,
        sample_transform: Functions = None,
        collate_fn: Functions = None,
        dataloader_kwargs: Mapping[str, Any] | None = None,
        world: World | None = None,
    ) -> None:
        refuse_fork()
        super().__init__()
        names = _arguments()
        given = {name: value for name, value in locals().items() if name in names}
        check_saved(given)
        given = {name: _taken(name, value) for name, value in given.items()}
        self._configure(given)
        self._tables = self._config.tables()
        self._fit = FitPosition(self)
        self._said = False
        self._is_read = False  # whether loaders were handed out
        plain = with_class(self, self._plain(given))
        self.save_hyperparameters(plain, frame=outermost_frame())

    def _configure(self, given: dict[str, Any]) -> None:
        """Check the arguments and use them."""
        self._config = ModuleConfig.checked(given)
        self._given = given
        self.__dict__.update(self._config.shown())
        self._restore_hooks()

    def _plain(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return hyperparameters that load with ``weights_only=True``."""
        plain = plain_dict(given)
        del plain["world"]  # it is of this process alone
        if self._config.batch_size is None:
            # The tuner looks here for the size it is to scale.
            del plain["batch_size"]
        else:
            plain["batch_size"] = self._config.batch_size
        return plain

    # -- arguments that are set later --------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        """Take an argument that is set later as if it had been given.

        Raises:
            ConfigError: It cannot work; or loaders were handed out, and then only batch
                sizes and ``num_workers`` may change.
        """
        if not self.set_hyperparameter(name, value):
            super().__setattr__(name, value)

    def set_hyperparameter(self, name: str, value: Any) -> bool:
        """Set an argument, here and among the hyperparameters; False where it is none.

        Raises:
            ConfigError: As for ``setattr``.
        """
        if name not in _arguments() or "_given" not in self.__dict__:
            return False
        value = _taken(name, value)
        if not _is_same(value, self._given[name]):
            self._set_argument(name, value)
        return True

    def _set_argument(self, name: str, value: Any) -> None:
        if self._is_read and name not in CHANGEABLE:
            raise ConfigError(
                f"{name} cannot be set to {value!r} any more: loaders were handed out "
                f"with {self._given[name]!r}, and the run and its checkpoint would "
                f"disagree; set {name} before loaders are asked for, or give it to a "
                "new data module"
            )
        given = {**self._given, name: value}
        if name in SIZES and value is not None:  # one takes the place of the other
            given[SIZES[name]] = None
        self._configure(given)
        if name in ("cache_dir", "source", "splits"):
            self._tables = self._config.tables()
        if name not in ("batch_size", *SHOWN):
            self.__dict__[name] = value
        # A checkpoint is to hold what is trained with.
        saved, hparams = self._plain(given), self.hparams
        assert isinstance(hparams, Hyperparameters)
        other = SIZES.get(name)
        for each in (name, other) if other in hparams else (name,):
            if each in saved:
                hparams.keep(each, saved[each])
            else:
                hparams.pop(each, None)

    # -- what there is ---------------------------------------------------------

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

    # -- Lightning's hooks -----------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Pin the version of every table: the same one on every rank.

        All ranks come here, as they do under a trainer. What a rank has pinned before,
        in ``prepare_data`` say, gives way to what global rank 0 has.

        Raises:
            SourceError: A table or version is not there.
            ConfigError: The process was forked.
        """
        refuse_fork()
        if self.trainer is not None:
            self._world()  # one that contradicts the trainer is refused here
        if stage == "fit":
            self._fit.begin_fit()
        self._pin(together=self.trainer is None or is_asked_for_setup())

    def _pin(self, *, together: bool) -> None:
        """Pin the versions, by itself or with all ranks, which then come here too."""
        if together:
            self._tables.agree(self._ranks())
        else:
            self._tables.pin()

    def _follow(self, trainer: Any) -> None:
        """Fit in with a trainer that asks for loaders.

        Not in `setup`: the batch-size finder takes all callbacks away after it.
        """
        if not any(isinstance(found, LogBatchSize) for found in trainer.callbacks):
            # Before the user's, which may log too, and in another list: one of them
            # may be asking for loaders right now.
            # The learning rate finder reads what its own callback, the first, noted.
            first = sum(isinstance(found, _LRCallback) for found in trainer.callbacks)
            trainer.callbacks = [
                *trainer.callbacks[:first],
                LogBatchSize(),
                *trainer.callbacks[first:],
            ]
        model = trainer.lightning_module
        theirs = is_overridden("transfer_batch_to_device", model)
        self._restore_hook("transfer_batch_to_device", not theirs)

    def _restore_hooks(self) -> None:
        for stage in STAGES:
            # Of training fit would say that there is no such method.
            ours = stage == "train" or bool(self._config.stage_splits[stage])
            self._restore_hook(f"{stage}_dataloader", ours, _without_split)

    def _restore_hook(
        self,
        name: str,
        ours: bool,
        instead: Callable[[Any, str], Any] = getattr,
    ) -> None:
        """Use our hook, or on this instance one that counts as the base class's.

        Lightning asks whether a hook is overridden: a stage without a split, or a
        model that moves its own batches, is to count as not. A subclass's own hook
        stays.
        """
        self.__dict__.pop(name, None)
        if not ours and getattr(type(self), name) is getattr(LanceDataModule, name):
            hook = instead(LightningDataModule, name)
            setattr(self, name, MethodType(hook, self))

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
        self._fit.close_loaders()

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
        names = self._config.stage_splits[stage]
        if not names:
            raise ConfigError(no_split_message(stage, self.split_names))
        # Any rank may ask by itself, in a callback say, and then no other comes here.
        together = is_asked_for_loaders()
        self._pin(together=together)
        if self.trainer is not None:
            self._follow(self.trainer)
            self._fit.count_with_trainer()

        factory = self._factory()

        def work() -> list[LanceDataLoader]:
            return [factory.loader(stage, at, name) for at, name in enumerate(names)]

        if together:
            loaders = self._ranks().run_together(work)
            self._tables.compare_plans(self._ranks(), names)
            compare_drawn(self._ranks(), loaders)
        else:
            loaders = work()
        self._fit.note(stage, loaders)
        self._is_read = True
        self._say(stage, loaders)
        return loaders[0] if isinstance(names, OneSplit) else loaders

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

    def _say(self, stage: str, loaders: Sequence[LanceDataLoader]) -> None:
        """Say once what a run reads."""
        if stage == "train":
            log_training(loaders)
        trainer = self.trainer
        # The steps of training come after the sanity check.
        if self._said or (trainer is not None and trainer.sanity_checking):
            return
        self._said = True
        log_run(self._tables.describe(), stage, loaders)

    # -- checkpoints -----------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds: small, plain, the same on every rank."""
        if not self._tables.is_pinned:
            return {}
        state = dataclasses.replace(
            self._configuration(),
            sources=self._tables.saved(),
            train=self._fit.states(),
            epoch_was_left_early=self._fit.epoch_was_left_early,
        )
        return state.to_plain()

    def _configuration(self) -> ModuleState:
        """Return what is configured, without a position."""
        return ModuleState(
            seed=self.seed,
            splits=None if self._config.is_separate else self.splits.key(),
            filter={name: each.filter for name, each in self._config.sources.items()},
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Read what a checkpoint was trained on; in ``fit`` resume at its position.

        Raises:
            StateError: The checkpoint belongs to other rows or another
                configuration; the message prints both sides.
        """
        saved = ModuleState.from_plain(state_dict)
        trainer: Any = self.trainer
        stage = "validate" if trainer is None else str(trainer.state.fn.value)
        if stage == "fit":
            self._check_sources(saved)
            saved.check_configuration(self._configuration())
        self._repin(saved, stage)
        if stage == "fit":
            self._check_loaders(saved)
            self._fit.restore(saved.train, saved.epoch_was_left_early)

    def _check_loaders(self, saved: ModuleState) -> None:
        here = list(self._config.stage_splits["train"])
        if saved.train and len(saved.train) != len(here):
            raise StateError(
                "the checkpoint was trained on the splits "
                f"{[each.split for each in saved.train]}, a loader each, and here "
                f"training has {here}: restore stage_splits; to start afresh, "
                f"{AFRESH}"
            )

    def _check_sources(self, saved: ModuleState) -> None:
        if set(saved.sources) != set(self._config.sources):
            raise StateError(
                f"the checkpoint was trained on {_listed(saved.sources)}, configured "
                f"is {_listed(self._config.sources)}: configure the same; to start "
                f"afresh, {AFRESH}"
            )

    def _repin(self, saved: ModuleState, stage: str) -> None:
        found, notes = self._tables.of_checkpoint(saved.sources, stage)
        for note in notes:
            rank_zero_info(f"Lance data: {note}")
        if not self._tables.differ(found):
            return
        if any(self._fit.loaders.values()) and stage == "fit":
            versions = ", ".join(str(pin.version) for pin in found.values())
            raise StateError(
                "loaders were asked for before the checkpoint was restored "
                "(estimated_stepping_batches does that, and DeepSpeed), and they read "
                "the newest version while the checkpoint was trained on another: set "
                f"version={versions}"
            )
        self._tables.repin(found)

    def _start(
        self,
        world: World,
        number: int | None,
        loader: LanceDataLoader,
        iterator: LoaderIterator,
    ) -> Start:
        """Return where an iteration of a loader starts; see `FitPosition.start`.

        Args:
            world: What the loader was made for.
            number: Of the training loader; None for evaluation.
            loader: The loader.
            iterator: What iterates it.

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
        return self._fit.start(number, loader, iterator)

    def __getstate__(self) -> dict[str, Any]:
        # A spawning launcher pickles the module and attaches the trainer again.
        return {**self.__dict__, "trainer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._restore_hooks()  # they were looked up by name, and are our own again

    def __repr__(self) -> str:
        return text_of(self, self._facts)

    def _repr_html_(self) -> str:
        return html_of(self, self._facts)

    def _facts(self) -> Facts:
        """Return what is known already; nothing is read, built or agreed on."""
        pinned, built = self._tables.pinned, self._tables.built
        sources = {
            name or "source": (pinned.get(name) or source).describe()
            for name, source in self._config.sources.items()
        }
        loaders = [each for several in self._fit.loaders.values() for each in several]
        shown = loaders[0].reader.shown if loaders else Shown()
        form = loaders[0].reader.format if loaders else self._config.format
        return {
            **({"sources": sources} if self._config.is_separate else sources),
            "splits": splits_shown(
                None if self._config.is_separate else self.splits,
                self.split_names,
                {name: plan.num_rows for name, plan in built.items()},
            ),
            **columns_shown(self.columns, shown, form),
            **batches_shown(self._fit.loaders),
        }

    def __str__(self) -> str:
        sources = ", ".join(
            source.describe() for source in self._config.sources.values()
        )
        return f"{type(self).__name__}({sources}; splits {', '.join(self.split_names)})"


def _without_split(base: type[LightningDataModule], name: str) -> Any:
    """Return a loader hook of ours that Lightning takes for that of the base class.

    Fit then skips the stage, and a trainer that is told to run it calls the hook, which
    says which splits there are.
    """
    ours = getattr(LanceDataModule, name)

    @wraps(getattr(base, name))
    def hook(self: LanceDataModule) -> Any:
        return ours(self)

    return hook


@cache
def _arguments() -> frozenset[str]:
    """Return the names of the constructor's arguments."""
    return frozenset(inspect.signature(LanceDataModule).parameters)


def _taken(name: str, value: Any) -> Any:
    """Return an argument as it is meant, of whatever form it was given in."""
    value = from_plain(value, name)
    if name == "source":
        return live_source(value)
    return named(name, value) if name in ("splits", "sampler") else value


def _is_same(value: Any, other: Any) -> bool:
    """Return whether setting a value changes nothing."""
    if value is other:
        return True
    try:
        return type(value) is type(other) and bool(value == other)
    except Exception:  # of a table or an array
        return False


def _listed(sources: Iterable[str]) -> str:
    names = sorted(sources)
    return "one source" if names == [ALL] else f"a source for each of {names}"
