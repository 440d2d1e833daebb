"""`LanceDataModule`: Lance tables for every stage of a Lightning trainer."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

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
from lance_lightning.datamodule.facts import facts_of
from lance_lightning.datamodule.fit_position import FitPosition
from lance_lightning.datamodule.hooks import follow_trainer, restore_loader_hooks
from lance_lightning.datamodule.loaders import compare_drawn
from lance_lightning.datamodule.reports import log_run, log_training
from lance_lightning.datamodule.restoring import (
    check_loaders,
    check_sources,
    configuration_of,
    repin,
)
from lance_lightning.datamodule.split_access import SplitAccess
from lance_lightning.errors import ConfigError
from lance_lightning.forks import refuse_fork
from lance_lightning.formats import move
from lance_lightning.loading import (
    Facts,
    LanceDataLoader,
    ModuleState,
    html_of,
    text_of,
)
from lance_lightning.ordering import World
from lance_lightning.samplers import (
    BlockShuffle,
    Sampler,
)
from lance_lightning.splits import AllRows, Splits


class LanceDataModule(SplitAccess):
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
            ``NAME_offsets``; ``"list"``, one tensor per row; ``"nested"``, torch's
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
    sampler: Sampler
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
        self._take(locals())
        self._fit = FitPosition(self)
        self._is_logged = False

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

    def _restore_hooks(self) -> None:
        restore_loader_hooks(self, LanceDataModule, self._config.stage_splits)

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
            follow_trainer(self, LanceDataModule, self.trainer)
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
        self._has_loaders = True
        self._log(stage, loaders)
        return loaders[0] if isinstance(names, OneSplit) else loaders

    def _log(self, stage: str, loaders: Sequence[LanceDataLoader]) -> None:
        """Log once what a run reads."""
        if stage == "train":
            log_training(loaders)
        trainer = self.trainer
        # The steps of training come after the sanity check.
        if self._is_logged or (trainer is not None and trainer.sanity_checking):
            return
        self._is_logged = True
        log_run(self._tables.describe(), stage, loaders)

    # -- checkpoints -----------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds: small, plain, the same on every rank."""
        if not self._tables.is_pinned:
            return {}
        state = dataclasses.replace(
            configuration_of(self._config),
            sources=self._tables.saved(),
            train=self._fit.states(),
            epoch_was_left_early=self._fit.epoch_was_left_early,
        )
        return state.to_plain()

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
            check_sources(saved, self._config)
            saved.check_configuration(configuration_of(self._config))
        has_loaders = any(self._fit.loaders.values())
        repin(self._tables, saved, stage, has_loaders=has_loaders)
        if stage == "fit":
            check_loaders(saved, self._config)
            self._fit.restore(saved.train, saved.epoch_was_left_early)

    def __getstate__(self) -> dict[str, Any]:
        # A spawning launcher pickles the module and attaches the trainer again.
        return {**self.__dict__, "trainer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._restore_hooks()  # they were looked up by name, and are our own again

    # -- what it shows ---------------------------------------------------------

    def __repr__(self) -> str:
        return text_of(self, self._facts)

    def _repr_html_(self) -> str:
        return html_of(self, self._facts)

    def _facts(self) -> Facts:
        return facts_of(self._config, self._tables, self._fit.loaders)

    def __str__(self) -> str:
        sources = ", ".join(
            source.describe() for source in self._config.sources.values()
        )
        return f"{type(self).__name__}({sources}; splits {', '.join(self.split_names)})"


LanceDataModule._argument_names = frozenset(
    inspect.signature(LanceDataModule).parameters
)
