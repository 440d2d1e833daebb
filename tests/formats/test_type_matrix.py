"""Every column type through a data module, in all formats: held, or refused clearly.

Values are compared with what Arrow says of the table, `to_pylist`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from torch.utils.data import default_collate

from lance_lightning import (
    ConfigError,
    DataError,
)
from tests.helpers.type_cases import (
    CASES,
    READ,
    REFUSED,
    ROWS,
    SHAPED,
    STACKED,
    batches,
    by_id,
    plain,
    rows_of,
    write,
)


@pytest.fixture(scope="module")
def uris(tmp_path_factory):
    """Tables of one case each, written when first asked for."""
    made = {}

    def uri(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = write(folder / "table.lance", [name])
        return made[name]

    return uri


@pytest.mark.parametrize(("name", "output_format"), REFUSED)
def test_a_type_that_a_format_lacks_is_refused_before_a_row_is_read(
    uris, name, output_format
):
    with pytest.raises((ConfigError, DataError), match=f"column '{name}'.*type"):
        batches(uris(name), name, output_format)


@pytest.mark.parametrize("name", [name for name, kind in READ if kind == "torch"])
def test_torch_batches(uris, name):
    found = CASES[name]
    seen = {}
    for batch in batches(uris(name), name, "torch"):
        assert set(batch) == {"id", name}
        if found.dtype is not None:
            assert batch[name].dtype == found.dtype
        seen |= by_id(batch["id"], rows_of(batch[name]))
    assert seen == {i: found.torch(i) for i in range(ROWS)}


@pytest.mark.parametrize("name", [name for name, kind in READ if kind == "numpy"])
def test_numpy_batches(uris, name):
    found, seen = CASES[name], {}
    for batch in batches(uris(name), name, "numpy"):
        values = batch[name]
        if getattr(values, "dtype", np.dtype(object)).kind in "mM":
            values = values.astype(np.int64)
        seen |= by_id(batch["id"], rows_of(values))
    assert seen == {i: found.torch(i) for i in range(ROWS)}


@pytest.mark.parametrize(
    ("name", "output_format"), [case for case in READ if case[1] in STACKED]
)
def test_stacked_batches(uris, name, output_format):
    found, rows = CASES[name], []
    for batch in batches(uris(name), name, output_format):
        assert batch.dtype == found.dtype
        rows += (batch if output_format == "torch_row" else batch.T).tolist()
    expected = [np.ravel(found.torch(i)).tolist() for i in range(ROWS)]
    assert sorted(rows) == sorted(expected)


def arrow_rows(name, batch):
    """Return the rows of an Arrow batch's column, extensions as Python knows them."""
    array = batch[name]
    if name == "bfloat16":
        return np.frombuffer(
            b"".join(b"\0\0" + bytes(v) for v in array.storage.to_pylist()), np.float32
        ).tolist()
    if name in ("uuid", "encoded_image"):
        return array.storage.to_pylist()
    return array.to_pylist()


def polars_rows(name, batch):
    """Return the rows of a polars column, whose versions have maps differently."""
    rows = [plain(row) for row in batch[name].to_list()]
    if name == "map":
        rows = [
            list(row.items())
            if isinstance(row, dict)
            else [(pair["key"], pair["value"]) for pair in row]
            for row in rows
        ]
    return [row.date() for row in rows] if name == "date64" else rows


def pandas_rows(name, batch):
    """Return the rows of a pandas column, which has its own times."""
    rows = [plain(row) for row in batch[name]]
    if name.startswith("timestamp"):
        return [row.to_pydatetime() for row in rows]
    return [row.to_pytimedelta() for row in rows] if name == "duration" else rows


ROWS_OF = {
    "arrow": arrow_rows,
    "pandas": pandas_rows,
    "polars": polars_rows,
    "python_col": lambda name, batch: batch[name],
}


@pytest.mark.parametrize(
    ("name", "output_format"), [case for case in READ if case[1] in ROWS_OF]
)
def test_frames_and_arrow_batches(uris, name, output_format):
    seen = {}
    for batch in batches(uris(name), name, output_format):
        rows = ROWS_OF[output_format](name, batch)
        if name in SHAPED:
            rows = [np.ravel(row).tolist() for row in rows]
        seen |= by_id(id_list(batch), rows)
    assert seen == {i: CASES[name].value(i) for i in range(ROWS)}


def id_list(batch):
    ids = batch["id"]
    return ids.to_pylist() if isinstance(ids, pa.Array) else list(ids)


@pytest.mark.parametrize("name", [name for name, kind in READ if kind == "python"])
def test_python_batches_are_torchs_default_collate(uris, name):
    seen = batches(uris(name), name, "python")
    for batch in seen:
        ids = batch["id"].tolist()
        if name in SHAPED:
            expected = [CASES[name].torch(i) for i in ids]
        else:
            expected = [CASES[name].value(i) for i in ids]
        assert plain(batch[name]) == plain(default_collate(expected))
    assert sum(len(batch["id"]) for batch in seen) == ROWS
