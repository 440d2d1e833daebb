"""The tables of a data module at the versions it reads, and the rows of its splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lance_lightning.checks import check_one_of
from lance_lightning.datamodule.arguments import splits_of_source
from lance_lightning.datamodule.checkpoint import repin, saved_source
from lance_lightning.datamodule.ranks import Ranks
from lance_lightning.errors import LanceLightningError
from lance_lightning.loading import SourceState
from lance_lightning.sources import Source
from lance_lightning.splits import AllRows, Splits, build_plans
from lance_lightning.tables import Plan, Snapshot

ALL = ""  # the key of the one source that all splits are made of


class PinnedTables:
    """Tables that are pinned once, at the first question about them.

    Everything is local but `agree` and `compare_plans`, to which all ranks come.

    Args:
        sources: The source of each split; or of all of them, under `ALL`.
        splits: How the one source is split; None for one source per split.
        cache_dir: Where plans and in-memory tables are written.
    """

    def __init__(
        self, sources: Mapping[str, Source], splits: Splits | None, cache_dir: Path
    ) -> None:
        self._sources = dict(sources)
        self._splits = splits
        self._cache_dir = cache_dir
        self._snapshots: dict[str, Snapshot] = {}
        self._plans: dict[str, Plan] = {}
        self._agreed = 0  # how many processes read these versions

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits."""
        if self._splits is None:
            return tuple(self._sources)
        return tuple(self._splits.split_names)

    @property
    def is_pinned(self) -> bool:
        """Whether the versions are settled, on this process at least."""
        return bool(self._snapshots)

    @property
    def pinned(self) -> Mapping[str, Snapshot]:
        """The tables that are pinned so far, by the key of their source."""
        return dict(self._snapshots)

    @property
    def built(self) -> Mapping[str, Plan]:
        """The splits whose rows are known so far."""
        return dict(self._plans)

    def pin(self) -> None:
        """Pin each table, unless that is done, at the newest version if none is named.

        Raises:
            SourceError: A table or version is not there.
        """
        if not self._snapshots:
            self._snapshots = self._resolved(None)

    def agree(self, ranks: Ranks) -> None:
        """Pin the versions of global rank 0 on every rank.

        What a rank has pinned by itself, in ``prepare_data`` say, is rank 0's proposal
        and elsewhere gives way to it.

        Raises:
            SourceError: A table or version is not there.
            LanceLightningError: It is not there on another rank.
        """
        if self._snapshots and self._agreed == ranks.size:
            return
        proposed = ranks.broadcast(self._proposal)
        ranks.run_together(lambda: self._follow(proposed))
        self._agreed = ranks.size

    def _proposal(self) -> dict[str, int] | None:
        """Return the versions to read; None where this rank cannot say.

        What went wrong here comes up again, on every rank, in `_follow`.
        """
        try:
            self.pin()
        except Exception:
            return None
        return self._versions

    def _follow(self, versions: Mapping[str, int] | None) -> None:
        if versions is None:
            self.pin()
        elif versions != self._versions:
            self._snapshots = self._resolved(versions)
            self._plans.clear()

    @property
    def _versions(self) -> dict[str, int]:
        return {name: pin.version for name, pin in self._snapshots.items()}

    def _resolved(self, versions: Mapping[str, int] | None) -> dict[str, Snapshot]:
        return {
            name: source.resolve(
                self._cache_dir, version=versions[name] if versions else None
            )
            for name, source in self._sources.items()
        }

    def source_of(self, split: str | None) -> str:
        """Return under which key the source of a split is."""
        if self._splits is not None:
            return ALL
        return next(iter(self._sources)) if split is None else split

    def snapshot(self, split: str | None = None) -> Snapshot:
        """Return the pinned table of a split."""
        self.pin()
        return self._snapshots[self.source_of(split)]

    def plan(self, split: str) -> Plan:
        """Return which rows a split has; builds the splits where that is not done."""
        check_one_of("split", split, self.split_names)
        if split not in self._plans:
            self._plans.update(self._built(self.source_of(split)))
        return self._plans[split]

    def _built(self, name: str) -> dict[str, Plan]:
        source = self._sources[name]
        splits = self._splits
        if splits is None:
            splits = splits_of_source(source, AllRows(name))
        snapshot = self.snapshot(name or None)
        return build_plans(splits, snapshot, source.filter, self._cache_dir)

    def compare_plans(self, ranks: Ranks, splits: Sequence[str]) -> None:
        """Compare the rows of splits with those of rank 0.

        Raises:
            LanceLightningError: A rank has others.
        """
        here = {name: self._plans[name].digest for name in splits}
        there = ranks.broadcast(lambda: here)
        if not ranks.agree(here == there):
            raise LanceLightningError(
                "the ranks have different rows in their splits, so all of them stop: "
                f"rank 0 has the digests {there}, this rank {here}; do all nodes see "
                "the same table?"
            )

    def saved(self) -> dict[str, SourceState]:
        """Return what a checkpoint holds of the tables."""
        return {name: saved_source(pin) for name, pin in self._snapshots.items()}

    def of_checkpoint(
        self, saved: Mapping[str, SourceState], stage: str
    ) -> tuple[dict[str, Snapshot], list[str]]:
        """Return what to read with a checkpoint, and lines to log.

        Args:
            saved: What `saved` returned; of other splits, it says nothing here.
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.

        Raises:
            StateError: The rows of the checkpoint cannot be read.
        """
        self.pin()
        found, notes = dict(self._snapshots), []
        if set(saved) == set(found):
            for name, source in self._sources.items():
                found[name], note = repin(
                    source, found[name], saved[name], stage, self._cache_dir
                )
                notes += [] if note is None else [note]
        return found, notes

    def repin(self, snapshots: Mapping[str, Snapshot]) -> None:
        """Read other versions from now on; nothing changes where they are the same."""
        if snapshots != self._snapshots:
            self._snapshots = dict(snapshots)
            self._plans.clear()

    def differ(self, snapshots: Mapping[str, Snapshot]) -> bool:
        """Return whether other versions are pinned."""
        return snapshots != self._snapshots

    def describe(self) -> str:
        """Return the tables with their versions, and the splits with their rows."""
        tables = "; ".join(pin.describe() for pin in self._snapshots.values())
        sizes = ", ".join(
            f"{name} {plan.num_rows} rows" for name, plan in self._plans.items()
        )
        return f"{tables}; splits: {sizes}"
