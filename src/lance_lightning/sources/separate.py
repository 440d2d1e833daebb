"""A source for each split."""

from __future__ import annotations

from typing import Any

from lance_lightning.checks import quote_names
from lance_lightning.errors import ConfigError
from lance_lightning.frozen import fields_of, refuse_unknown, spec
from lance_lightning.sources.base import Source
from lance_lightning.sources.database import LanceDBSource
from lance_lightning.sources.lance import LanceSource
from lance_lightning.sources.open_objects import as_source


@spec("source", repr=False)
class SeparateSources:
    """A source for each split: ``SeparateSources(train="a.lance", val="b.lance")``.

    Args:
        train: A source or a URI; None is no such split, here and below.
        val: The validation rows.
        test: The test rows.
        predict: The rows to predict on.
        sources: A source or a URI for each split of another name.

    Raises:
        ConfigError: No source is given, or a value is not one.
    """

    sources: dict[str, Source]

    def __init__(
        self,
        *,
        train: Source | str | Any = None,
        val: Source | str | Any = None,
        test: Source | str | Any = None,
        predict: Source | str | Any = None,
        **sources: Any,
    ) -> None:
        named = {"train": train, "val": val, "test": test, "predict": predict}
        others = {*_arguments(LanceSource), *_arguments(LanceDBSource)}
        wrong = {name: sources[name] for name in sources if name in others}
        refuse_unknown("SeparateSources", "source", wrong, list(named))
        given = {
            name: value
            for name, value in {**named, **sources}.items()
            if value is not None
        }
        if not given:
            raise ConfigError(
                "SeparateSources needs a source for each split, such as "
                "SeparateSources(train=..., val=...), got none"
            )
        found = {name: _separate(name, value) for name, value in given.items()}
        object.__setattr__(self, "sources", found)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.sources.items())
        return f"SeparateSources({shown})"

    def describe(self) -> str:
        """Return each split's source, without secrets."""
        return "; ".join(f"{k}: {v.describe()}" for k, v in self.sources.items())

    def source_of(self, split: str) -> Source:
        """Return the source of a split.

        Raises:
            ConfigError: There is none of that name.
        """
        if split not in self.sources:
            raise ConfigError(
                f"no source for split {split!r}; sources there are for: "
                f"{quote_names(self.sources)}"
            )
        return self.sources[split]


def _arguments(cls: type[Source]) -> list[str]:
    return [each.name for each in fields_of(cls)]


def _separate(name: str, value: Any) -> Source:
    if isinstance(value, SeparateSources):
        raise ConfigError(
            f"the source of split {name!r} is itself a SeparateSources; give one "
            "source for each split"
        )
    return as_source(value)
