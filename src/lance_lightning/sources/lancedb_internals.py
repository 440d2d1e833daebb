"""What LanceDB's live objects say of themselves: its tables and permutations.

The one place that looks into them. Not public are the connection of a table, the state
that a remote table pickles, and the names of a permutation's transforms.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.tables import explain_errors, strip_secrets
from lance_lightning.types import ROW_ID, ROW_OFFSET

MEMORY_BYTES = 4 << 30  # what is copied out of an in-memory database, at most

# LanceDB turns a format into one of these functions at once. That of "python" is also
# what a permutation has when no format was chosen, so it says nothing.
_FORMATS = {
    "Transforms.arrow2arrow": "arrow",
    "Transforms.arrow2numpy": "numpy",
    "Transforms.arrow2pandas": "pandas",
    "Transforms.arrow2polars.<locals>.impl": "polars",
    "Transforms.arrow2python": None,
    "Transforms.arrow2pythoncol": "python_col",
    "batch_to_tensor": "torch_col",
    "batch_to_tensor_dict": "torch",
    "batch_to_tensor_rows": "torch_row",
}


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A LanceDB table that is in a folder or an object store.

    Args:
        uri: Where its Lance dataset is.
        branch: The branch of the handle; None is main.
        version: The version of the handle.
        is_newest: Whether that is the newest of its branch.
        storage_options: Those of the connection.
    """

    uri: str
    branch: str | None
    version: int
    is_newest: bool
    storage_options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServedTable:
    """A table of LanceDB Cloud, or of another server.

    Args:
        uri: The database, ``db://...``.
        table: The table's name.
        namespace: The namespace that holds the table.
        region: The region.
        host_override: The server's URL, if it is not LanceDB Cloud's.
        branch: The branch of the handle; None is main.
        version: The version of the handle.
        is_newest: Whether the handle follows the newest.
    """

    uri: str
    table: str
    namespace: tuple[str, ...]
    region: str | None
    host_override: str | None
    branch: str | None
    version: int
    is_newest: bool


@dataclass(frozen=True, slots=True)
class PermutationParts:
    """A LanceDB permutation, taken apart.

    Args:
        base: The LanceDB table it reads, or a ``pyarrow.Table`` of its rows in their
            order, where that table is held in memory.
        rows: Columns ``row_id`` and ``split_id`` (all zero) in its order, with the
            permuted version in the schema's metadata; None is every row of the base.
        columns: New name -> column; None where nothing was selected or renamed.
        output_format: Its format; None where none was chosen.
        connection_factory: Reopens the base by its name.
    """

    base: Any
    rows: Any
    columns: Mapping[str, str] | None
    output_format: str | None
    connection_factory: Callable[[str], Any] | None


def is_table(value: Any) -> bool:
    """Return whether this is a live LanceDB table; imports nothing."""
    return _is_kind(value, "lancedb.table", "Table")


def is_permutation(value: Any) -> bool:
    """Return whether this is a LanceDB permutation; imports nothing."""
    return _is_kind(value, "lancedb.permutation", "Permutation")


def _is_kind(value: Any, module: str, name: str) -> bool:
    kinds = type(value).__mro__
    return any(kind.__module__ == module and kind.__name__ == name for kind in kinds)


def is_remote(table: Any) -> bool:
    """Return whether a LanceDB table is behind a server."""
    return type(table).__module__.startswith("lancedb.remote.")


def is_in_memory(table: Any) -> bool:
    """Return whether a LanceDB table is in one connection only."""
    return not is_remote(table) and str(table.uri).startswith("memory://")


def stored_table(table: Any) -> StoredTable:
    """Return where a table's Lance dataset is, and what the handle reads.

    Raises:
        SourceError: Lance cannot open it.
    """
    options = {
        # The credentials that a namespace hands out come with the table.
        **(getattr(table._conn, "storage_options", None) or {}),
        **(table.latest_storage_options() or {}),
    }
    doing = f"opening the LanceDB table at {strip_secrets(str(table.uri))!r}"
    with explain_errors(doing, str(table.uri), options, "open the table again"):
        dataset = table.to_lance()
    version, newest = int(table.version), int(dataset.latest_version)
    branch = table.current_branch()
    return StoredTable(str(dataset.uri), branch, version, version == newest, options)


def served_table(table: Any, *, reopened: bool = False) -> ServedTable:
    """Return what another process needs to open a remote table, but its API key.

    Args:
        table: The LanceDB table.
        reopened: Whether the user's own function opens it there.

    Raises:
        ConfigError: The connection has settings that cannot be handed on.
    """
    if reopened:
        return ServedTable(
            uri=f"db://{table.db_name}",
            table=table.name,
            namespace=(),
            region=None,
            host_override=None,
            branch=table.current_branch(),
            version=int(table.version),
            is_newest=True,  # what is not known
        )
    try:
        state = table.__getstate__()
    except ValueError as error:  # a header provider
        raise ConfigError(_of_its_own(table, str(error))) from None
    connection = json.loads(state["connection_state"])
    client = connection.get("client_config") or {}
    special = [
        name
        for name in ("extra_headers", "header_provider", "tls_config", "user_id")
        if client.get(name)
    ]
    if special:
        raise ConfigError(_of_its_own(table, f"it has {', '.join(special)}"))
    return ServedTable(
        uri=connection["db_url"],
        table=state["name"],
        namespace=tuple(state["namespace_path"]),
        region=connection["region"],
        host_override=connection["host_override"],
        branch=state["branch"],
        version=int(table.version),
        is_newest=state["checkout_version"] is None,
    )


def _of_its_own(table: Any, why: str) -> str:
    return (
        f"the connection of the remote table {table.name!r} cannot be made again in "
        f"another process ({why}): give a function that opens the table, as "
        "LanceDBSource(uri, table, connection_factory=...)"
    )


def memory_rows(table: Any) -> Any:
    """Return an in-memory table's rows as a ``pyarrow.Table``.

    Raises:
        SourceError: They are more than `MEMORY_BYTES`.
    """
    _check_memory(table)
    return table.to_arrow()


def _check_memory(table: Any) -> None:
    size = int(table.stats()["total_bytes"])
    if size > MEMORY_BYTES:
        raise SourceError(
            f"the LanceDB table {table.name!r} is held in memory (memory://) and has "
            f"{size / 2**30:.1f} GiB; no other process can read it there, and of such "
            f"tables at most {MEMORY_BYTES >> 30} GiB are copied to the cache: create "
            "it in a folder, lancedb.connect('some/folder')"
        )


def permutation_parts(permutation: Any) -> PermutationParts:
    """Take a LanceDB permutation apart, without its own reader where that is unsafe.

    Raises:
        ConfigError: It has a transform of its own, or no row.
        SourceError: Its rows cannot be read.
    """
    base, output_format = permutation.base_table, _format_of(permutation)
    if is_in_memory(base):
        # A copy of the base has row ids of its own, so the rows themselves are taken.
        found = _permuted_rows(permutation)
        return PermutationParts(found, None, None, output_format, None)
    columns: dict[str, str] | None = dict(permutation.selection)
    if columns == {name: name for name in base.schema.names}:
        columns = None
    return PermutationParts(
        base,
        _row_ids(permutation),
        columns,
        output_format,
        permutation.connection_factory,
    )


def _format_of(permutation: Any) -> str | None:
    transform = permutation.transform_fn
    name = getattr(transform, "__qualname__", type(transform).__qualname__)
    module = getattr(transform, "__module__", "")
    if name not in _FORMATS or not module.startswith("lancedb."):
        raise ConfigError(
            f"the permutation has a transform of its own (with_transform), {name!r}, "
            "which the data module cannot take over: leave it out, and give the data "
            "module output_format='arrow' and transform=..."
        )
    return _FORMATS[name]


def _row_ids(permutation: Any) -> Any:
    """Return the row ids in the permutation's order; None is every row."""
    first = permutation.offset or 0
    last = None if permutation.limit is None else first + permutation.limit
    table, base = permutation.permutation_table, permutation.base_table
    if table is None:
        if first == 0 and last is None:
            return None
        found = base.search().select([ROW_ID, ROW_OFFSET]).to_arrow()
        ids = found.sort_by(ROW_OFFSET)[ROW_ID].to_numpy()
        metadata = {"base_version": str(base.version)}
        if base.current_branch() is not None:
            metadata["base_branch"] = base.current_branch()
    else:
        rows = table.to_arrow()
        ids = rows["row_id"].to_numpy()
        ids = ids[rows["split_id"].to_numpy() == permutation.split]
        recorded = table.schema.metadata or {}
        metadata = {
            key.decode(): value.decode()
            for key, value in recorded.items()
            if key in (b"base_version", b"base_branch")
        }
    ids = ids[first:last].astype(np.uint64)
    if not len(ids):
        raise ConfigError(
            f"the permutation (split {permutation.split}, skip {first}, take "
            f"{permutation.limit}) has no row, so nothing can be read from it"
        )
    rows = pa.table({"row_id": ids, "split_id": np.zeros(len(ids), np.uint64)})
    return rows.replace_schema_metadata(metadata)


def _permuted_rows(permutation: Any) -> Any:
    """Return the rows of a permutation over an in-memory table, in their order."""
    from lancedb.permutation import Permutation, Transforms

    base, table = permutation.base_table, permutation.permutation_table
    _check_memory(base)
    if ROW_ID in permutation.selection:
        raise ConfigError(
            f"the permutation selects {ROW_ID}, and its base table {base.name!r} is "
            "held in memory: its rows are copied to the cache, where they have other "
            "row ids, so these cannot be kept: leave it out; with_row_id=True adds the "
            "copy's"
        )
    if table is not None:
        _check_copied(base, table)
    # with_format() would copy the base, and its row ids would mean other rows.
    plain = Permutation(
        base,
        table,
        permutation.split,
        permutation.selection,
        permutation.batch_size,
        Transforms.arrow2arrow,
        permutation.offset,
        permutation.limit,
    )
    return pa.Table.from_batches(list(plain.iter(8192)), schema=plain.schema)


def _check_copied(base: Any, table: Any) -> None:
    """Check that the permutation's row ids are those of the base.

    LanceDB's ``with_format`` and ``select_columns`` copy an in-memory base, which gives
    its rows new ids, in the order of the old ones, and drop the version from the
    permutation. Where its ids are all of the copy's, a base that did not change since
    it was permuted had these ids too; that it did not change is not to be seen here.

    Raises:
        SourceError: They may not be.
    """
    if b"base_version" in (table.schema.metadata or {}):
        return
    there = base.search().select([ROW_ID]).to_arrow()[ROW_ID].to_numpy()
    named = table.to_arrow()["row_id"].to_numpy()
    if not np.array_equal(np.unique(named), np.unique(there)):
        raise SourceError(
            f"the base table {base.name!r} of the permutation is held in memory, and "
            "LanceDB copied it under new row ids (with_format, select_columns, "
            f"with_batch_size and others do). The permutation's {len(named)} row ids "
            f"are not all ids of the copy's {len(there)} rows, from 0 on, so that they "
            "mean the same rows there cannot be proved, and others would be read: "
            "create the table in a folder, or give the permutation without these "
            "methods, and the data module output_format=..., columns=... and "
            "batch_size=..."
        )
