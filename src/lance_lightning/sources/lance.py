"""A Lance dataset as a source."""

from __future__ import annotations

from pathlib import Path

from lance_lightning.errors import SourceError
from lance_lightning.frozen import spec
from lance_lightning.sources.base import StoredSource, checked_uri
from lance_lightning.tables import Snapshot, absolute, strip_secrets


@spec("source", repr=False)
class LanceSource(StoredSource):
    """A Lance dataset.

    Args:
        uri: A local path, or the URI of an object store.
        version: The version to read, by its number; the newest if nothing is named.
        tag: The version to read, by its tag.
        branch: The branch to read; ``version`` is then counted on it.
        storage_options: What the object store needs; never shown.
        filter: A SQL expression that rows must pass.

    Raises:
        ConfigError: A value is of the wrong type, or both tag and version are given.
    """

    uri: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", checked_uri(self.uri))
        if self.uri.startswith(("db://", "memory://")):
            remedy = "LanceDBSource" if self.uri.startswith("db") else "ArrowSource"
            raise SourceError(
                f"{strip_secrets(self.uri)!r} is not the place of a Lance dataset, so "
                f"it cannot be opened as one; use {remedy}"
            )
        StoredSource.__post_init__(self)

    def describe(self) -> str:
        """Return the URI without secrets."""
        return strip_secrets(self.uri)

    def resolve(self, cache_dir: Path, version: int | None = None) -> Snapshot:
        """Pin the dataset at ``version``, else at what was named, else the newest.

        Raises:
            SourceError: There is no such dataset, version, tag or branch, or the
                filter does not fit the schema.
        """
        return self._pin(absolute(self.uri), version)
