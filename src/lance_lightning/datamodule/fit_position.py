"""The position of a fit in its training loaders, and which iterator moves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lance_lightning.datamodule.asked import hook_of_trainer
from lance_lightning.datamodule.progress import (
    FitProgress,
    Phase,
    positions_by_count,
    steps_of_epoch,
)
from lance_lightning.datamodule.trainer_loops import (
    evaluation_loaders,
    is_fetching,
    is_of_evaluation,
    is_of_fit,
    running,
    states_not_loaded,
    training_loaders,
)
from lance_lightning.loading import (
    EpochClock,
    LanceDataLoader,
    LoaderIterator,
    LoaderState,
    Start,
    check_order,
    state_of,
)


@dataclass(frozen=True, slots=True)
class _Made:
    """What a loader was made for.

    Args:
        number: Which of the training loaders it is; None for evaluation.
        request: The number of the request.
        for_fit: Whether Lightning asked for loaders to train with.
    """

    number: int | None
    request: int
    for_fit: bool


class FitPosition:
    """The position of a data module's training loaders under any trainer.

    Under a trainer only the iterators of its fit loop move the position; any other
    reads the epoch at hand. Without a trainer each iterator begins the next epoch, and
    the next fit still continues where the last one ended::

        IDLE ----- begin_fit -----> BEGUN
        BEGUN ---- restore -------> RESTORED
        BEGUN ---- first start ---> RUNNING   at the epoch after the last fit's; with a
                                              checkpoint that has no state of ours, at
                                              the trainer's count, with a warning
        RESTORED - first start ---> RUNNING   where the checkpoint was saved
        RUNNING -- begin_fit -----> BEGUN     the position stays

    `begin_fit` is called in ``setup("fit")``, `restore` in ``load_state_dict``, and a
    start is one of the fit loop's own. Each event is allowed in every phase:
    `restore` always leads to RESTORED and `begin_fit` to BEGUN, and a start that finds
    IDLE is one that finds BEGUN. Each restored loader is compared with its saved state
    at its own first start. A module without a trainer, whose loaders were handed to
    one, keeps its phase: the loaders' own states are read at the start.

    Args:
        module: The data module. Its trainer is the one that fits, unless it has none
            and its loaders were handed to another.
    """

    def __init__(self, module: LightningDataModule) -> None:
        self._module = module
        self._progress = FitProgress()
        self._saved: tuple[LoaderState, ...] = ()  # the restored training loaders
        self._unchecked: set[int] = set()  # of these, not yet compared with a loader
        self.phase = Phase.IDLE
        self._loader_states: Sequence[Any] = ()  # those that were looked at
        self._made: WeakKeyDictionary[LanceDataLoader, _Made] = WeakKeyDictionary()
        self.loaders: dict[str, list[LanceDataLoader]] = {}  # made last, by stage
        self._requests = 0

    def __getstate__(self) -> dict[str, Any]:
        # A spawning launcher pickles the module: loaders are made anew there.
        return {**self.__dict__, "_made": None, "loaders": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._made = WeakKeyDictionary()

    # -- loaders ---------------------------------------------------------------

    def clock(self, number: int) -> EpochClock:
        """Return the clock of the training loader of that number."""
        return self._progress.clock(number)

    def note(self, stage: str, loaders: Sequence[LanceDataLoader]) -> None:
        """Note loaders that were made for whoever asks now."""
        self.loaders[stage] = list(loaders)
        self._requests += 1
        for_fit = hook_of_trainer() == "train_dataloader"
        for at, loader in enumerate(loaders):
            number = at if stage == "train" else None
            self._made[loader] = _Made(number, self._requests, for_fit)

    def close_loaders(self) -> None:
        """Stop the workers of all loaders."""
        for loader in list(self._made):
            loader.close()

    def is_restored_by_module(self) -> bool:
        """Return whether a checkpoint's position comes from the module's own state."""
        return self._module.trainer is not None and self._trainer() is not None

    def _of_fit(self) -> list[LanceDataLoader]:
        """Return the training loaders of the fit, or else those made last."""
        loaders = list(self.loaders.get("train", ()))
        trainer = self._module.trainer
        for loader in [] if trainer is None else training_loaders(trainer):
            number = self._made[loader].number if self._is_ours(loader) else None
            if number is not None:
                loaders[number] = loader
        return loaders

    def _is_ours(self, loader: Any) -> bool:
        return isinstance(loader, LanceDataLoader) and loader in self._made

    # -- the trainer -----------------------------------------------------------

    def _trainer(self) -> Any:
        """Return the trainer that runs and reads this module, None where none does."""
        trainer: Any = self._module.trainer
        if trainer is None:
            trainer = running(Trainer.fit)
            if trainer is None or not any(
                self._is_ours(loader) for loader in training_loaders(trainer)
            ):
                return None
        return trainer if trainer.state.status == "running" else None

    def begin_fit(self) -> None:
        """Begin a fit; what an earlier one resumed with no longer counts."""
        self.phase = Phase.BEGUN
        self._progress.begin_fit()

    def count_with_trainer(self) -> None:
        """Use the batch counter of the module's trainer during its fit."""
        trainer: Any = self._module.trainer
        if self.is_restored_by_module() and trainer.state.fn == "fit":
            self._progress.count_with(trainer)

    # -- the state -------------------------------------------------------------

    @property
    def epoch_was_left_early(self) -> bool:
        """Whether the trainer finished with the epoch in which the loaders are."""
        return self._progress.epoch_was_left_early

    def saved(self, number: int) -> LoaderState | None:
        """Return the restored state of a training loader."""
        return self._saved[number] if number < len(self._saved) else None

    def states(self) -> tuple[LoaderState, ...]:
        """Return the state of every training loader."""
        loaders, trainer = self._of_fit(), self._module.trainer
        if not loaders:  # restored, and not asked for yet
            return self._saved
        if trainer is not None and not self._progress.counts_with_trainer:
            self._progress.count_with(trainer)  # a look since its fit is no position
        steps = [steps_of_epoch(trainer, len(loader)) for loader in loaders]
        lengths = [
            min(len(loader), n) for loader, n in zip(loaders, steps, strict=True)
        ]
        return tuple(
            state_of(loader.reader.stream, epoch, batch, n)
            for loader, n, (epoch, batch) in zip(
                loaders, steps, self._progress.positions(lengths), strict=True
            )
        )

    def restore(self, states: Sequence[LoaderState], was_left_early: bool) -> None:
        """Resume at what `states` and `epoch_was_left_early` returned."""
        self._saved = tuple(states)
        self._unchecked = set(range(len(self._saved)))
        self.phase = Phase.RESTORED
        positions = [(each.epoch, each.batch) for each in self._saved]
        self._progress.restore(positions, was_left_early)

    # -- where an iteration starts ---------------------------------------------

    def start(
        self, number: int | None, loader: LanceDataLoader, iterator: LoaderIterator
    ) -> Start:
        """Return where an iteration starts.

        Args:
            number: Of the training loader; None for evaluation.
            loader: The loader.
            iterator: What iterates it.

        Raises:
            StateError: The restored position means nothing here.
        """
        trainer = self._trainer()
        in_process = trainer is not None and not self._may_use_workers(
            trainer, loader, iterator
        )
        if number is None:
            return Start(0, 0, len(loader), in_process=in_process)
        if trainer is None:
            self._warn_of_lost_position()
            self._progress.count_with(None)
            return self.clock(number).begin(len(loader))
        if trainer.state.fn == "fit" and self._moves(trainer, number, loader, iterator):
            return self._start_of_fit(trainer, number, loader)
        overfits = trainer.overfit_batches > 0
        epoch = 0 if overfits else self._progress.epoch_at_hand(number)
        return Start(epoch, 0, len(loader), moves=False, in_process=in_process)

    def _moves(
        self,
        trainer: Any,
        number: int,
        loader: LanceDataLoader,
        iterator: LoaderIterator,
    ) -> bool:
        """Return whether it is the fit loop that iterates a training loader."""
        if any(self._is_ours(each) for each in training_loaders(trainer)):
            return is_of_fit(trainer, iterator)
        # A loader of the user's iterates ours, maybe on a thread of its own.
        if running(Trainer.fit) is not None and not is_fetching(trainer):
            return False
        return self._was_taken(loader) and self._progress.expects_pass(number)

    def _was_taken(self, loader: LanceDataLoader) -> bool:
        """Return whether it is the last that the fit loop has asked for."""
        mine = self._made[loader]
        return mine.for_fit and not any(
            made.for_fit and made.number == mine.number and made.request > mine.request
            for made in self._made.values()
        )

    def _may_use_workers(
        self, trainer: Any, loader: LanceDataLoader, iterator: LoaderIterator
    ) -> bool:
        """Return whether no other iteration of the trainer's needs its workers."""
        if any(loader is each for each in training_loaders(trainer)):
            return False
        if any(loader is each for each in evaluation_loaders(trainer)):
            return is_of_evaluation(trainer, iterator)
        # It was made for a look, or a loader of the user's iterates it.
        return loader.clock is None

    def _start_of_fit(
        self, trainer: Any, number: int, loader: LanceDataLoader
    ) -> Start:
        is_new = self._progress.count_with(trainer)
        if self._module.trainer is None:
            self._place_by_loaders(trainer, is_new)
        else:
            if self.phase in (Phase.IDLE, Phase.BEGUN):
                self._place_without_state(trainer)
            self.phase = Phase.RUNNING
        clock = self.clock(number)
        others = [
            each.clock
            for each in training_loaders(trainer)
            if isinstance(each, LanceDataLoader) and each.clock is not None
        ]
        steps = steps_of_epoch(trainer, len(loader))
        stop = self._progress.stop(number, len(loader), steps, others)
        if number in self._unchecked:
            saved = replace(self._saved[number], batch=clock.upcoming[1])
            check_order(loader.reader.stream, saved)
            saved.check_steps(steps)
            self._unchecked.remove(number)
        if not stop:
            return Start(clock.epoch, 0, 0)
        if trainer.overfit_batches > 0:
            clock.set(0, clock.upcoming[1])  # the same rows in every epoch
        return clock.begin(stop)

    def _place_by_loaders(self, trainer: Any, is_new: bool) -> None:
        """Resume at the loaders' own states, where the module has no trainer.

        Lightning saves them for loaders that were handed to it, and does not always
        load them.
        """
        states = states_not_loaded(trainer)
        if states is not self._loader_states:
            self._loader_states = states
            loaders = [x for x in training_loaders(trainer) if hasattr(x, "state_dict")]
            for loader, state in zip(loaders, states, strict=False):
                if self._is_ours(loader):
                    loader.load_state_dict(state)
                    is_new = True
        if is_new and trainer.ckpt_path is not None:
            if self._progress.is_restored_by_loaders:
                self._progress.settle_loaders()
            else:
                self._place_without_state(trainer)

    def _warn_of_lost_position(self) -> None:
        """Warn where a fit resumes through a loader of the user's without a state."""
        trainer = None if self._module.trainer is not None else running(Trainer.fit)
        if (
            trainer is None
            or trainer.ckpt_path is None
            or self._progress.is_restored_by_loaders
            or not is_fetching(trainer)
        ):
            return
        rank_zero_warn(
            f"{trainer.ckpt_path} does not say which rows were trained on: the trainer "
            "takes them through an object that has no state_dict of its own, so a "
            "whole epoch begins here in place of the rest of one; hand the data module "
            "to the trainer, or set its trainer and hand on setup, state_dict and "
            "load_state_dict (docs/resuming.md)"
        )

    def _place_without_state(self, trainer: Any) -> None:
        """Resume at the trainer's count, after a checkpoint without a state of ours.

        Lightning hands no such checkpoint to the module's ``load_state_dict``.
        """
        if trainer.ckpt_path is None:
            return
        lengths = [len(loader) for loader in self._of_fit()]
        positions = positions_by_count(trainer, lengths)
        self._progress.restore(positions)
        epoch, batch = positions[0]
        rank_zero_warn(
            f"the checkpoint {trainer.ckpt_path} holds no data state of "
            f"{type(self._module).__qualname__}: it was saved with another data "
            "module, or under another class name. So which rows it was trained on is "
            f"not known; the run resumes at epoch {epoch}, batch {batch} by the "
            "trainer's count"
        )
