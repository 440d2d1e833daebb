"""A split as LanceDB's permutation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from lance_lightning.errors import ConfigError
from lance_lightning.splits.permutation_table import row_ids
from lance_lightning.tables import Plan, Snapshot


def permutation_of(plan: Plan, snapshot: Snapshot) -> Any:
    """Return LanceDB's own ``Permutation`` of a split: the same rows, in its order.

    Later writes to the table change nothing: LanceDB reads the version that the
    permutation table names.

    Raises:
        ConfigError: LanceDB cannot open the table, as its folder does not end in
            ``.lance``; or the split has no row.
    """
    import lancedb
    from lancedb.permutation import Permutation

    if plan.num_rows == 0:
        raise ConfigError(
            f"split {plan.name!r} has no row, and LanceDB makes no empty permutation"
        )
    ids = row_ids(snapshot)[plan.offsets(np.arange(plan.num_rows, dtype=np.int64))]
    metadata = {"base_version": str(snapshot.version)}
    if snapshot.branch is not None:
        metadata["base_branch"] = snapshot.branch
    rows = pa.table({"row_id": ids, "split_id": np.zeros(len(ids), np.uint64)})
    rows = rows.replace_schema_metadata(metadata)
    permutation = lancedb.connect("memory://").create_table("permutation", rows)
    return Permutation.from_tables(_lancedb_table(snapshot), permutation, 0)


def _lancedb_table(snapshot: Snapshot) -> Any:
    import lancedb

    options, branch = snapshot.storage_options, snapshot.branch
    if snapshot.remote is not None:
        return snapshot.remote.table_at(options, branch, snapshot.version)
    folder, _, name = snapshot.uri.rstrip("/").rpartition("/")
    if not name.endswith(".lance") or name == ".lance":
        raise ConfigError(
            f"LanceDB opens a Lance dataset as a table only where its folder ends in "
            f"'.lance', so it cannot read {snapshot.describe()}; rename the folder"
        )
    return lancedb.connect(folder, storage_options=dict(options) or None).open_table(
        name.removesuffix(".lance"), branch=branch
    )
