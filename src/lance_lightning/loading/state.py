"""The format of a checkpoint: every key that one holds of ours is named here.

`to_plain` writes and `from_plain` reads; both are in plain Python (dicts, lists,
strings, numbers), so that a checkpoint needs no class of this package to be loaded. The
order of the keys is part of the format.

Two parts are written by those they describe, and are only compared here: a sampler's
own state (`Order.state`) and the key of the splits (`Splits.key`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lance_lightning.errors import StateError

STATE_VERSION = 1
AFRESH = (  # what to do where a run cannot resume; each error says it this way
    "load only the weights, model = Model.load_from_checkpoint(path), and call fit "
    "without ckpt_path"
)
RESTORE = f"To resume the run, restore these settings; to start afresh, {AFRESH}."
WITHIN_AN_EPOCH = (
    "The checkpoint was saved in the middle of an epoch: restore the setting, or "
    "resume from a checkpoint at the end of an epoch."
)

Read = TypeVar("Read")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderState:
    """Where a training loader is, and what decides the order of its rows.

    Args:
        state_version: Of the format; None within the state of a module, which has its
            own.
        epoch: The epoch in which the next batch is.
        batch: The next batch, counted from the start of its epoch.
        steps: Steps of the trainer's epoch; None where a loader saves its own state.
        split: The name of the split.
        plan: The digest of the split's rows.
        num_rows: How many rows the split has.
        seed: The seed of the order.
        sampler: The sampler's own state; None for a loader in the table's order.
        global_batch_size: Rows of a batch over all ranks; None where the sampler
            chooses the size, and for evaluation.
        drop_last: Whether a last batch that is not full is left out; None as above.
        world_size: The number of ranks, where the order depends on it.
    """

    state_version: int | None = None
    epoch: int
    batch: int
    steps: int | None = None
    split: str | None
    plan: str | None
    num_rows: int | None
    seed: int | None
    sampler: Mapping[str, Any] | None
    global_batch_size: int | None
    drop_last: bool | None
    world_size: int | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        position = {
            "state_version": self.state_version,
            "epoch": self.epoch,
            "batch": self.batch,
            "steps": self.steps,
        }
        return {**_known(position, "state_version", "steps"), **self.order()}

    def order(self) -> dict[str, Any]:
        """Return what decides the order of the rows, without the position."""
        order = {
            "split": self.split,
            "plan": self.plan,
            "num_rows": self.num_rows,
            "seed": self.seed,
            "sampler": self.sampler,
            "global_batch_size": self.global_batch_size,
            "drop_last": self.drop_last,
            "world_size": self.world_size,
        }
        return _known(order, "world_size")

    @classmethod
    def from_plain(cls, saved: Mapping[str, Any]) -> LoaderState:
        """Read what a loader's own `to_plain` wrote.

        Raises:
            StateError: It was written in another format, or is incomplete.
        """
        return _read(saved, lambda: cls.within(saved))

    @classmethod
    def within(cls, saved: Mapping[str, Any]) -> LoaderState:
        """Read one loader out of a state whose version was checked."""
        return cls(
            state_version=saved.get("state_version"),
            epoch=saved["epoch"],
            batch=saved["batch"],
            steps=saved.get("steps"),
            split=saved.get("split"),
            plan=saved.get("plan"),
            num_rows=saved.get("num_rows"),
            seed=saved.get("seed"),
            sampler=saved.get("sampler"),
            global_batch_size=saved["global_batch_size"],
            drop_last=saved.get("drop_last"),
            world_size=saved.get("world_size"),
        )

    @property
    def _sampler(self) -> str | None:
        return None if self.sampler is None else self.sampler.get("sampler")

    def sizes_of(self, sampler: str) -> Mapping[str, Any] | None:
        """Return the saved sizes of a sampler of that name; None of any other."""
        return self.sampler if self._sampler == sampler else None

    def differences(self, here: LoaderState, names: Iterable[str]) -> str:
        """Return one line per field that differs, '' when none does."""
        return _differences((n, getattr(self, n), getattr(here, n)) for n in names)

    def check_order(self, here: LoaderState) -> None:
        """Compare with a loader that is to resume here.

        Raises:
            StateError: It has other rows, another order or, in the middle of an epoch,
                another global batch size.
        """
        _refuse(self.differences(here, ("split", "plan", "num_rows", "seed")))
        in_mid_epoch = self.batch > 0
        sizes = (self.global_batch_size, here.global_batch_size)
        if sizes[0] == sizes[1] or None in sizes:
            _refuse(self.differences(here, ("sampler",)))
        elif in_mid_epoch:
            raise StateError(
                f"the checkpoint was saved in the middle of an epoch, at batch "
                f"{self.batch} of {self.global_batch_size} rows over all "
                f"ranks, and here a global batch has {here.global_batch_size} "
                f"rows: set global_batch_size={self.global_batch_size}, or resume "
                "from a checkpoint at the end of an epoch"
            )
        else:  # BlockShuffle's sizes are multiples of the global batch
            _refuse(_differences([("sampler", self._sampler, here._sampler)]))
        if in_mid_epoch:
            names = ("drop_last", "world_size")
            _refuse(self.differences(here, names), WITHIN_AN_EPOCH)

    def check_steps(self, steps: int) -> None:
        """Compare the steps of the trainer's epoch with those here.

        Raises:
            StateError: They are others, in the middle of an epoch.
        """
        if self.batch and self.steps != steps:
            raise StateError(
                f"the checkpoint was saved at batch {self.batch} of an epoch of "
                f"{self.steps} steps, and here an epoch has {steps}; Lightning "
                "would cut this epoch short and skip its validation: restore "
                "limit_train_batches (or the batch size), or resume from a checkpoint "
                "at the end of an epoch"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class IterableState:
    """Where an iteration of a `LanceIterableDataset` is.

    Args:
        loader: The epoch and the next batch, as a loader of the split says them.
        samples: How many samples of that batch were handed out.
        worker: The worker and the number of workers that batches were counted by; None
            where one process reads the whole share of the rank.
        batched: Whether the dataset yields batches, or else samples.
    """

    loader: LoaderState
    samples: int
    worker: tuple[int, int] | None
    batched: bool

    def to_plain(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            **self.loader.to_plain(),
            "samples": self.samples,
            "worker": None if self.worker is None else list(self.worker),
            "batched": self.batched,
        }

    @classmethod
    def from_plain(cls, saved: Mapping[str, Any]) -> IterableState:
        """Read what `to_plain` wrote.

        Raises:
            StateError: It was written in another format, or is incomplete.
        """

        def read() -> IterableState:
            worker = saved["worker"]
            return cls(
                loader=LoaderState.from_plain(saved),
                samples=saved["samples"],
                worker=None if worker is None else (worker[0], worker[1]),
                batched=saved["batched"],
            )

        return _read(saved, read)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceState:
    """Which table, at which version, was read.

    Args:
        uri: Where it is, without secrets.
        branch: Its branch; None for the main one.
        identity: What tells its rows from others', as `Identity.to_dict` writes it.
    """

    uri: str
    branch: str | None
    identity: Mapping[str, Any]

    def to_plain(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"uri": self.uri, "branch": self.branch, "identity": self.identity}

    @classmethod
    def from_plain(cls, saved: Mapping[str, Any]) -> SourceState:
        """Read what `to_plain` wrote."""
        return cls(
            uri=saved["uri"], branch=saved.get("branch"), identity=saved["identity"]
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleState:
    """What a checkpoint holds of a data module.

    Args:
        state_version: Of the format.
        sources: The tables, by the names of their sources.
        train: The training loaders, in the order of ``stage_splits["train"]``; none
            where none was asked for.
        epoch_was_left_early: Whether the trainer had finished with the epoch in which
            the loaders are. Saved as ``epoch_is_left``.
        seed: The seed of the module.
        splits: The key of the splits; None for a source per split.
        filter: The SQL filter of each source.
    """

    state_version: int = STATE_VERSION
    sources: Mapping[str, SourceState] = field(default_factory=dict)
    train: tuple[LoaderState, ...] = ()
    epoch_was_left_early: bool = False
    seed: int | None
    splits: Mapping[str, Any] | None
    filter: Mapping[str, str | None] | None

    def to_plain(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "state_version": self.state_version,
            "sources": {name: each.to_plain() for name, each in self.sources.items()},
            "train": [each.to_plain() for each in self.train],
            "epoch_is_left": self.epoch_was_left_early,
            "seed": self.seed,
            "splits": self.splits,
            "filter": self.filter,
        }

    @classmethod
    def from_plain(cls, saved: Mapping[str, Any]) -> ModuleState:
        """Read what `to_plain` wrote; another version of the format is read here.

        Raises:
            StateError: It was written in another format, or is incomplete.
        """
        return _read(
            saved,
            lambda: cls(
                sources={
                    name: SourceState.from_plain(each)
                    for name, each in saved["sources"].items()
                },
                train=tuple(map(LoaderState.within, saved["train"])),
                epoch_was_left_early=saved["epoch_is_left"],
                seed=saved.get("seed"),
                splits=saved.get("splits"),
                filter=saved.get("filter"),
            ),
        )

    def differences(self, here: ModuleState) -> str:
        """Return one line per setting that decides the rows and differs, or ''."""
        return _differences(
            (name, getattr(self, name), getattr(here, name))
            for name in ("seed", "splits", "filter")
        )

    def check_configuration(self, here: ModuleState) -> None:
        """Raise a `StateError` that prints both sides of every difference."""
        _refuse(self.differences(here))


def _read(saved: Mapping[str, Any], read: Callable[[], Read]) -> Read:
    """Read a state of this version, or raise a `StateError`."""
    version = saved.get("state_version")
    if version != STATE_VERSION:
        raise StateError(
            f"the checkpoint's data state has version {version!r}, this release of "
            f"lance_lightning reads version {STATE_VERSION}: resume with the release "
            f"that wrote it; to start afresh, {AFRESH}"
        )
    try:
        return read()
    except KeyError as error:
        raise StateError(
            f"the checkpoint's data state lacks {error}, so it was not written by "
            f"lance_lightning, or was changed since; to start afresh, {AFRESH}"
        ) from None


def _known(plain: dict[str, Any], *names: str) -> dict[str, Any]:
    """Leave out those of the names whose value is None."""
    return {k: v for k, v in plain.items() if v is not None or k not in names}


def _differences(values: Iterable[tuple[str, Any, Any]]) -> str:
    return "\n".join(
        f"  {name}: {saved!r} in the checkpoint, {here!r} here"
        for name, saved, here in values
        if saved != here
    )


def _refuse(differences: str, remedy: str = RESTORE) -> None:
    if differences:
        raise StateError(
            "the checkpoint does not belong to this configuration:\n"
            f"{differences}\n{remedy}"
        )
