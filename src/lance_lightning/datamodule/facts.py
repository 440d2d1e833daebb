"""What a data module shows of itself in a shell or a notebook."""

from __future__ import annotations

from collections.abc import Mapping

from lance_lightning.datamodule.config import ModuleConfig
from lance_lightning.datamodule.pins import PinnedTables
from lance_lightning.loading import (
    Facts,
    LanceDataLoader,
    Shown,
    batches_shown,
    columns_shown,
    splits_shown,
)


def facts_of(
    config: ModuleConfig,
    tables: PinnedTables,
    loaders_of_stage: Mapping[str, list[LanceDataLoader]],
) -> Facts:
    """Return what is known already; nothing is read, built or agreed on."""
    pinned, built = tables.pinned, tables.built
    sources = {
        name or "source": (pinned.get(name) or source).describe()
        for name, source in config.sources.items()
    }
    loaders = [each for several in loaders_of_stage.values() for each in several]
    shown = loaders[0].reader.shown if loaders else Shown()
    form = loaders[0].reader.format if loaders else config.format
    return {
        **({"sources": sources} if config.is_separate else sources),
        "splits": splits_shown(
            None if config.is_separate else config.splits,
            tables.split_names,
            {name: plan.num_rows for name, plan in built.items()},
        ),
        **columns_shown(config.columns, shown, form),
        **batches_shown(loaders_of_stage),
    }
