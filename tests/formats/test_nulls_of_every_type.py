"""Nulls of every column type through a data module, in all formats."""

from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning import (
    DataError,
)
from tests.helpers.type_cases import (
    CASES,
    READ,
    ROWS,
    SHAPED,
    STORED,
    batches,
    by_id,
    plain,
)

NULLABLE = [
    name
    for name, kind in READ
    if kind == "torch" and name not in (*SHAPED, "uuid", "json", "encoded_image")
]


def with_nulls(folder, name):
    """Write a table whose rows 3 and 20 are null."""
    rows = [None if i in (3, 20) else CASES[name].value(i) for i in range(ROWS)]
    array = CASES[name].make(rows)
    field = pa.field(name, array.type, metadata=STORED.get(name))
    if name == "blob_v2":
        field = lance.blob_field(name)
    schema = pa.schema([pa.field("id", pa.int64()), field])
    table = pa.Table.from_arrays([pa.array(range(ROWS)), array], schema=schema)
    version = "2.1" if name == "blob_v1" else "2.2"
    uri = str(folder / "nulls.lance")
    lance.write_dataset(table, uri, data_storage_version=version)
    return uri


def masks_of(batch, name):
    """Return which rows are valid: of a struct those whose fields all are."""
    if isinstance(batch[name], dict):
        inner = batch[name]
        names = [key for key in inner if f"{key}_mask" in inner or key == "inner"]
        masks = [masks_of(inner, key) for key in names]
        return [all(row) for row in zip(*masks, strict=True)]
    mask = batch[f"{name}_mask"]
    if isinstance(mask, list):  # one a list; a null list is one of no numbers
        return None
    return [bool(np.all(row)) for row in plain(mask)]


@pytest.mark.parametrize("name", NULLABLE)
def test_nulls_of_every_type(tmp_path, name):
    uri = with_nulls(tmp_path, name)
    kept = {}
    for batch in batches(uri, name, "arrow"):
        kept |= by_id(batch["id"].to_pylist(), batch[name].is_null().to_pylist())
    assert [i for i, null in kept.items() if null] == sorted(
        {3, 20}, key=list(kept).index
    )
    for output_format in ("torch", "numpy"):
        with pytest.raises(DataError, match=f"column '{name}.* nulls"):
            batches(uri, name, output_format)
        for batch in batches(uri, name, output_format, nulls={name: "mask"}):
            ids, valid = plain(batch["id"]), masks_of(batch, name)
            if valid is None:
                lengths = [len(mask) for mask in batch[f"{name}_mask"]]
                values = [CASES[name].value(i) for i in ids]
                assert lengths == [
                    0 if i in (3, 20) else len(v)
                    for i, v in zip(ids, values, strict=True)
                ]
            else:
                assert valid == [i not in (3, 20) for i in ids]
            if CASES[name].dtype is not None and output_format == "torch":
                assert batch[name].dtype == CASES[name].dtype
