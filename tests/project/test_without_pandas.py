"""What pandas changes where it is installed, and what it must not."""

from __future__ import annotations

import json
import subprocess
import sys

import lance
import pyarrow as pa
import pytest
from lance.arrow import (
    EncodedImageType,
    FixedShapeImageTensorType,
    ImageURIType,
    bfloat16_array,
)

from lance_lightning import ArrowSource, DataError, LanceDataModule

WITHOUT_PANDAS = "import sys; sys.modules['pandas'] = None\n"
READ = """
import json, sys
from lance_lightning import LanceDataModule, LanceSource

def shown(value):
    return str(value.tolist() if hasattr(value, "tolist") else value)

found = {"pandas": bool(sys.modules.get("pandas"))}
for output_format in ("torch", "numpy", "python_col", "arrow"):
    data = LanceDataModule(sys.argv[1], output_format=output_format)
    batch = next(iter(data.train_dataloader()))
    if output_format == "arrow":
        names = [getattr(kind, "extension_name", "") for kind in batch.schema.types]
        batch = {"names": names, "storage": batch.to_pydict()["id"]}
    found[output_format] = {name: shown(value) for name, value in batch.items()}
image = data.snapshot().schema.field("image").type
found["shape"] = list(image.shape)
found["schema"] = data.snapshot().identity.schema
print(json.dumps(found))
"""


def read(uri, before):
    out = subprocess.run(
        [sys.executable, "-c", before + READ, uri],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


@pytest.mark.slow
def test_types_of_lance_read_alike_without_pandas(tmp_path):
    rows = 5
    pixels = pa.array([[12 * i + k for k in range(12)] for i in range(rows)])
    image = FixedShapeImageTensorType(pa.uint8(), (2, 2, 3))
    half = bfloat16_array([i + 0.5 for i in range(rows)])
    pair = pa.FixedSizeListArray.from_arrays(bfloat16_array([0.5] * 10), 2)
    columns = {
        "id": pa.array(range(rows)),
        "half": half,
        "pair": pair,
        "image": pa.ExtensionArray.from_storage(image, pixels.cast(image.storage_type)),
        "png": pa.ExtensionArray.from_storage(
            EncodedImageType(), pa.array([bytes([i]) for i in range(rows)])
        ),
        "uri": pa.ExtensionArray.from_storage(
            ImageURIType(), pa.array([f"file:///{i}.png" for i in range(rows)])
        ),
    }
    uri = str(tmp_path / "table.lance")
    lance.write_dataset(pa.table(columns), uri)
    without, with_pandas = read(uri, WITHOUT_PANDAS), read(uri, "")
    assert (without.pop("pandas"), with_pandas.pop("pandas")) == (False, True)
    assert without == with_pandas
    assert without["shape"] == [2, 2, 3]
    assert "lance.bfloat16" in without["arrow"]["names"]


NANOSECONDS = {
    "time": pa.timestamp("ns"),
    "zone": pa.timestamp("ns", "UTC"),
    "wait": pa.duration("ns"),
    "clock": pa.time64("ns"),
    "inside": pa.list_(pa.struct([("at", pa.timestamp("ns"))])),
}


@pytest.mark.parametrize("name", NANOSECONDS)
def test_nanoseconds_as_python_values_ask_for_pandas_at_once(name, monkeypatch):
    table = pa.table({"id": [1], name: pa.nulls(1, NANOSECONDS[name])})
    data = LanceDataModule(ArrowSource(table), output_format="python_col")
    next(iter(data.train_dataloader()))
    monkeypatch.setitem(sys.modules, "pandas", None)
    message = rf"'{name}' has type .*ns.*pip install 'lance-lightning\[pandas\]'"
    for output_format in (
        ("python_col", "numpy") if name == "inside" else ("python_col",)
    ):
        data = LanceDataModule(ArrowSource(table), output_format=output_format)
        with pytest.raises(DataError, match=message):
            data.train_dataloader()


def test_microseconds_as_python_values_need_no_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    table = pa.table({"at": pa.array([1], pa.timestamp("us"))})
    data = LanceDataModule(ArrowSource(table), output_format="python_col")
    assert next(iter(data.train_dataloader()))["at"][0].year == 1970
