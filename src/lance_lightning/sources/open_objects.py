"""Objects that are open already, as sources: tables, datasets, permutations, frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.frozen import replace, spec
from lance_lightning.sources.arrow import ArrowSource, is_frame, is_kind
from lance_lightning.sources.base import Source
from lance_lightning.sources.database import LanceDBSource
from lance_lightning.sources.lance import LanceSource
from lance_lightning.sources.lancedb_internals import (
    is_in_memory,
    is_permutation,
    is_remote,
    is_table,
    permutation_parts,
    served_table,
    stored_table,
)
from lance_lightning.tables import (
    Snapshot,
    explain_errors,
    identity_of,
    open_at,
    strip_secrets,
)

# -- LanceDB's live objects ----------------------------------------------------


@spec("source")
class TableSource(Source):
    """A live LanceDB table: the version that its handle is at.

    Not a version that was asked for: a checkpoint's takes its place.

    Args:
        source: The same table by its name, at the newest version.
        version_of_handle: What is read.
    """

    source: LanceSource | LanceDBSource
    version_of_handle: int

    @property
    def filter(self) -> str | None:
        """No filter: a table has none."""
        return self.source.filter

    def describe(self) -> str:
        """Return where the table is, without secrets."""
        return self.source.describe()

    def resolve(self, cache_dir: Path, version: int | None = None) -> Snapshot:
        """Pin the table at ``version``, else at that of the handle.

        Raises:
            SourceError: There is no such version any more.
        """
        return self.source.resolve(cache_dir, version or self.version_of_handle)


@spec("source", eq=False)
class PermutationSource(Source):
    """A live LanceDB permutation: a table, which of its rows, and their order.

    Args:
        base: The table.
        rows: A permutation table of one split, as a ``pyarrow.Table``; None is every
            row of the base.
        columns: New name -> column; None is all, under their own names.
        output_format: What ``with_format`` was given; None where it was not called.
    """

    base: Source
    rows: Any
    columns: Mapping[str, str] | None
    output_format: str | None

    @property
    def filter(self) -> str | None:
        """No filter: it chose the rows when it was built."""
        return self.base.filter

    @property
    def version(self) -> int | None:
        """The version that was permuted, where its row ids mean only that one."""
        return getattr(self.base, "version", None)

    def describe(self) -> str:
        """Return where the table is, without secrets."""
        kept = "every row" if self.rows is None else f"{self.rows.num_rows} rows"
        return f"permutation ({kept}) of {self.base.describe()}"

    def resolve(self, cache_dir: Path, version: int | None = None) -> Snapshot:
        """Pin the table.

        Raises:
            SourceError: There is no such version any more.
        """
        return self.base.resolve(cache_dir, version)


def live_source(value: Any) -> Any:
    """Return the source of what is open or in memory already, else ``value``.

    Raises:
        ConfigError: It has what cannot be taken over.
        SourceError: The table cannot be opened.
    """
    if is_permutation(value):
        return _permutation_source(value)
    if is_table(value):
        return _table_source(value)
    if is_kind(value, "lance.torch.data", "SafeLanceDataset"):
        uri, options = str(value.uri), value.dataset_options
        doing = f"opening the SafeLanceDataset at {strip_secrets(uri)!r}"
        with explain_errors(
            doing, uri, options.get("storage_options") or {}, "open it"
        ):
            return _dataset_source(lance.dataset(uri, **options))
    if isinstance(value, lance.LanceDataset):
        return _dataset_source(value)
    return ArrowSource(value) if is_frame(value) else value


def _dataset_source(dataset: Any) -> Source:
    """Return the version, and the branch, that a ``lance.LanceDataset`` is at."""
    # Not public; what it would change of the rows cannot be seen otherwise.
    defaults = getattr(dataset, "_default_scan_options", None)
    if defaults:
        raise ConfigError(
            f"the Lance dataset has default_scan_options ({', '.join(defaults)}), "
            "which would not be used: give LanceSource(uri, filter=...), columns=... "
            "and with_row_id=... instead"
        )
    uri = str(dataset.uri)
    if uri.startswith("memory://"):
        raise SourceError(
            f"the Lance dataset {uri!r} is held in memory, where no other process can "
            "read it: give its rows, ArrowSource(dataset.to_table())"
        )
    options = {
        name: value
        for name, value in (dataset.latest_storage_options() or {}).items()
        if not value.startswith("pylance/")  # Lance's own mark, in user_agent
    }
    uri, branch = _branch_of(dataset, uri, options)
    source = LanceSource(uri, branch=branch, storage_options=options or None)
    is_newest = dataset.version == dataset.latest_version
    return _at(source, int(dataset.version), is_newest)


def _branch_of(
    dataset: Any, uri: str, options: Mapping[str, str]
) -> tuple[str, str | None]:
    """Return the table's own URI, and the branch that a handle is at; None is main.

    A handle that was checked out does not say its branch, so what is there is
    compared.
    """
    with explain_errors(
        f"listing the branches of {strip_secrets(uri)}", uri, options, ""
    ):
        branches = sorted(dataset.branches.list())
    for branch in branches:
        if uri.rstrip("/").endswith(f"/tree/{branch}"):
            return uri.rstrip("/").removesuffix(f"/tree/{branch}"), branch
    if not branches:
        return uri, None
    found = identity_of(dataset)
    for candidate in (None, *branches):
        try:
            there = open_at(uri, options, candidate, found.version)
        except SourceError:
            continue  # it has no such version
        if identity_of(there) == found:
            return uri, candidate
    raise SourceError(
        f"the branch that the Lance dataset at {strip_secrets(uri)}, version "
        f"{found.version}, is at cannot be told: give LanceSource(uri, branch=...)"
    )


def _table_source(
    table: Any, connection_factory: Callable[[str], Any] | None = None
) -> Source:
    if is_in_memory(table):
        return ArrowSource(table)
    if is_remote(table):
        served = served_table(table, reopened=connection_factory is not None)
        found: Any = LanceDBSource(
            served.uri,
            served.table,
            namespace=served.namespace,
            region=served.region,
            host_override=served.host_override,
            connection_factory=connection_factory,
            branch=served.branch,
        )
        return _at(found, served.version, served.is_newest)
    stored = stored_table(table)
    options = stored.storage_options or None
    found = LanceSource(stored.uri, branch=stored.branch, storage_options=options)
    return _at(found, stored.version, stored.is_newest)


def _at(source: Any, version: int, is_newest: bool) -> Source:
    """Return a version of a table; one behind the newest was checked out."""
    if is_newest:
        return TableSource(source, version)
    return replace(source, version=version)  # type: ignore[no-any-return]


def _permutation_source(permutation: Any) -> PermutationSource:
    parts = permutation_parts(permutation)
    if isinstance(parts.base, pa.Table):
        return PermutationSource(
            ArrowSource(parts.base), None, None, parts.output_format
        )
    base: Any = _table_source(parts.base, parts.connection_factory)
    if parts.rows is not None:
        base = _permuted(base, parts.rows.schema.metadata or {})
    return PermutationSource(base, parts.rows, parts.columns, parts.output_format)


def _permuted(source: Source, recorded: Mapping[bytes, bytes]) -> Source:
    """Return the table at the version that was permuted, where it was recorded."""
    if b"base_version" not in recorded:
        return source
    named: Any = source.source if isinstance(source, TableSource) else source
    branch = recorded.get(b"base_branch")
    return replace(  # type: ignore[no-any-return]
        named,
        version=int(recorded[b"base_version"]),
        branch=None if branch is None else branch.decode(),
    )


# -- whatever a user gives -----------------------------------------------------


def as_source(value: Any) -> Source:
    """Return a source as it is, and make one of a path, a URI, a table or a frame.

    Raises:
        ConfigError: It is none of these.
        SourceError: A table that is open cannot be read by other processes.
    """
    if isinstance(value, (str, os.PathLike)):
        return LanceSource(os.fspath(value))
    value = live_source(value)
    if isinstance(value, Source):
        return value
    hint = _hint(value)
    raise ConfigError(
        "source must be a URI, a source such as LanceSource(uri), a Lance dataset, a "
        "LanceDB table or permutation, or a table in memory (Arrow, pandas, polars, "
        f"Hugging Face), got {type(value).__name__}{hint and f'; {hint}'}"
    )


def _hint(value: Any) -> str:
    """Return what to write in the place of a value that is no source."""
    if is_kind(value, "lance.torch.data", "LanceDataset"):
        return _of_lance_torch(value)
    for (module, name), hint in _INSTEAD.items():
        if is_kind(value, module, name):
            return hint
    if type(value).__name__ == "Permutations":
        return "write SeparateSources(train=permutations['train'], ...)"
    if isinstance(value, Mapping):
        if any(map(_is_source, value.values())):
            return "a table for each split is SeparateSources(**mapping)"
        return "a mapping needs a _target_, such as lance_lightning.LanceSource"
    return ""


_INSTEAD = {
    ("polars", "LazyFrame"): "write ArrowSource(frame.collect())",
    ("polars", "Series"): "write ArrowSource(series.to_frame())",
    ("pandas", "Series"): "write ArrowSource(series.to_frame())",
    ("datasets", "DatasetDict"): "write SeparateSources(train=datasets['train'], ...)",
    ("datasets", "IterableDataset"): (
        "it is a stream: save it (dataset.save_to_disk) and make a table of it, "
        "lance-lightning import FOLDER TARGET.lance"
    ),
    ("pyarrow.dataset", "Dataset"): (
        "make a table of its files, lance-lightning import FOLDER TARGET.lance, or "
        "read it into memory, ArrowSource(dataset.to_table())"
    ),
    ("torch.utils.data", "DataLoader"): "give the table that its dataset reads",
}


def _is_source(value: Any) -> bool:
    known = isinstance(value, Source | lance.LanceDataset | pa.Table)
    return known or is_frame(value) or is_table(value) or is_permutation(value)


def _of_lance_torch(loader: Any) -> str:
    """Return what says the same as a ``lance.torch.data.LanceDataset``."""
    source = f"LanceSource({strip_secrets(str(loader.dataset.uri))!r}"
    source += f", version={loader.dataset.version}"
    source += f", filter={loader.filter!r})" if loader.filter else ")"
    said = [source]
    if loader.columns:
        said.append(f"columns={loader.columns!r}")
    said.append(f"batch_size={loader.batch_size}")
    if loader.with_row_id:
        said.append("with_row_id=True")
    left = [name for name in ("sampler", "cache", "samples") if getattr(loader, name)]
    more = f" ({', '.join(left)}: see docs/coming_from.md)" if left else ""
    return f"it is a loader by itself: write LanceDataModule({', '.join(said)}){more}"
