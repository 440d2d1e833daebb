"""Where the rows come from: the sources a user names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lance_lightning.checks import check_int
from lance_lightning.errors import ConfigError
from lance_lightning.frozen import fields_of, values_of
from lance_lightning.tables import (
    Snapshot,
    check_filter_text,
    check_out,
    from_environment,
    identity_of,
    open_newest,
    resolve_tag,
    strip_secrets,
    without_environment,
)


class Source:
    """A table to read from, as the user names it."""

    if TYPE_CHECKING:  # a field of the same name would take it for its default

        @property
        def filter(self) -> str | None:
            """The SQL filter that rows must pass, if any."""

    def describe(self) -> str:
        """Return what the user named, without secrets."""
        raise NotImplementedError

    def resolve(self, cache_dir: Path, version: int | None = None) -> Snapshot:
        """Pin the table.

        Args:
            cache_dir: Where an in-memory table is written.
            version: Wins over what the source names: a checkpoint's version, or
                that of rank 0.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, repr=False)
class StoredSource(Source):
    """What the sources that are in storage share."""

    version: int | None = None
    tag: str | None = None
    branch: str | None = None
    storage_options: Mapping[str, str] | None = field(default=None, hash=False)
    filter: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None:
            version = check_int("version", self.version, 1)
            object.__setattr__(self, "version", version)
        for name in ("tag", "branch"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise ConfigError(f"{name} must be a name, got {value!r}")
        if self.tag is not None and (self.version or self.branch):
            other = "version" if self.version else "branch"
            raise ConfigError(
                f"a tag names branch and version by itself: give tag={self.tag!r} or "
                f"{other}={getattr(self, other)!r}, not both"
            )
        check_filter_text(self.filter)
        object.__setattr__(
            self, "storage_options", checked_options(self.storage_options)
        )

    def __repr__(self) -> str:
        shown = []
        for item in sorted(fields_of(self), key=lambda item: bool(item.kw_only)):
            value = getattr(self, item.name)
            if item.name == "storage_options" and value:
                value = dict.fromkeys(value, "***")
            elif item.name in ("uri", "host_override") and value:
                value = strip_secrets(value)
            if value is not None:
                shown.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        # As in a snapshot's pickle: a secret of the environment stays there.
        values = values_of(self)
        if self.storage_options:
            values["storage_options"] = without_environment(self.storage_options)
        return _restored, (type(self), values)

    def _pin(self, uri: str, version: int | None) -> Snapshot:
        if version is not None:
            version = check_int("version", version, 1)
        options = dict(self.storage_options or {})
        newest = open_newest(uri, options)
        branch = None if self.branch == "main" else self.branch
        chosen = self.version
        if self.tag is not None:
            branch, chosen = resolve_tag(newest, uri, options, self.tag)
        dataset = check_out(newest, uri, options, branch, version or chosen)
        found = identity_of(dataset)
        snapshot = Snapshot(uri, found.version, branch, options, found)
        snapshot.opened_as(dataset)
        snapshot.check_filter(self.filter)
        return snapshot


def _restored(kind: type[StoredSource], values: dict[str, Any]) -> StoredSource:
    source = object.__new__(kind)
    if values["storage_options"]:
        options = from_environment(values["storage_options"])
        values = {**values, "storage_options": options}
    for name, value in values.items():
        object.__setattr__(source, name, value)
    return source


def checked_uri(uri: Any) -> str:
    """Return a path or URI as text, or raise a `ConfigError`."""
    if not isinstance(uri, (str, os.PathLike)) or not os.fspath(uri):
        raise ConfigError(f"uri must be a path or URI, got {uri!r}")
    return str(os.fspath(uri))


def checked_options(options: Any) -> dict[str, str] | None:
    """Return the options as text, which is what Lance takes: YAML gives true, 1."""
    if options is None:
        return None
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"storage_options must be a mapping, got {type(options).__name__}"
        )
    found = {}
    for key, value in options.items():
        if value is None:  # how a Hydra override takes a key away
            continue
        if not isinstance(key, str) or not isinstance(value, (str, int, float)):
            raise ConfigError(
                f"storage_options must map text to text, got {type(value).__name__} "
                f"for {key!r}"
            )
        found[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return found
