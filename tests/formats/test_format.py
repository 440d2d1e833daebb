"""A format's arguments, and what it checks of a schema."""

import pickle
import subprocess
import sys

import lance
import pyarrow as pa
import pytest

from lance_lightning.errors import ConfigError, DataError
from lance_lightning.formats.format import Format
from lance_lightning.types import OUTPUT_FORMATS
from tests.helpers.any_schema import BY_COLUMN, plain, record_batch


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "tensor"}, "output_format must be one of .*'torch'.*got 'tensor'"),
        ({"nulls": "ignore"}, "nulls must be 'error', 'mask' or .*got 'ignore'"),
        ({"nulls": None}, "nulls must be"),
        ({"nulls": {"a": "skip"}}, "nulls must be .*got 'skip'"),
        ({"nulls": {"fill": None}}, "fill null with null"),
        ({"name": "arrow", "nulls": "mask"}, "for the formats torch and numpy"),
        ({"name": "torch_row", "nulls": {"a": "mask"}}, "not for 'torch_row'"),
        ({"ragged": "cut"}, "ragged must be one of 'pad'.*got 'cut'"),
        ({"ragged": {"a": 1}}, "ragged must be one of"),
        ({"ragged": {"pad": 0, "multiple": 0}}, "ragged: multiple must be at least 1"),
        ({"ragged": {"a": {"pat": 0}}}, "ragged must be one of .*got {'pat': 0}"),
        ({"name": "numpy", "ragged": "nested"}, "numpy has not"),
        ({"dtype": "int64"}, "does not fit output_format='torch'"),
        ({"name": "numpy", "dtype": "uint8"}, "does not fit output_format='numpy'"),
        ({"name": "arrow", "dtype": {"a": "float32"}}, "does not fit"),
        ({"name": "torch_row", "dtype": {"a": "float32"}}, "does not fit"),
        ({"name": "pandas", "dtype": "float32"}, "does not fit"),
        ({"name": "torch_row", "dtype": "float31"}, "dtype must be one of"),
        ({"dtype": {"a": "complex"}}, "dtype must be one of"),
    ],
    ids=str,
)
def test_arguments_are_checked_at_construction(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Format(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"nulls": {"lable": "mask"}},
        {"ragged": {"lable": "pad"}},
        {"dtype": {"lable": "int8"}},
    ],
    ids=str,
)
def test_an_unknown_column_lists_the_columns(arguments):
    schema = pa.schema({"image": pa.int8(), "label": pa.int64()})
    with pytest.raises(ConfigError, match=r"'lable', which .* are image, label"):
        Format(**arguments).check(schema)


def test_no_column_is_refused():
    with pytest.raises(ConfigError, match="no column"):
        Format().check(pa.schema([]))


@pytest.mark.parametrize("name", ["polars", "pandas"])
def test_a_missing_package_names_its_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'lance-lightning\[{name}\]'"):
        Format(name).check(pa.schema({"x": pa.int64()}))


WITHOUT_EXTRAS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pandas", "polars", "PIL"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import pyarrow as pa
from lance_lightning.formats import Format, batch_size_of, move

batch = pa.record_batch({"x": [1, 2, None], "f": [0.5, 1.5, 2.5]}).slice(0, 2)
text = pa.record_batch({"x": [1, 2], "s": ["a", "b"]})
for name in ("torch", "numpy", "torch_row", "torch_col", "arrow", "python"):
    for table in (batch, text):
        if "_" in name:
            table = table.select(["x"])
        format = Format(name)
        format.check(table.schema)
        window = format.convert(table)
        found = format.slice(window, 0, 2)
        assert format.num_rows(move(found, lambda t: t)) == 2
        assert batch_size_of(found) or name == "torch_col"
        assert len(format.rows(window, 0, 2)) == 2
assert not {"lancedb", "lightning", "hydra"} & set(sys.modules)
"""


def test_formats_need_no_other_formats_package():
    subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], check=True, timeout=120)


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_formats_pickle_small(name):
    format = Format(name, nulls={"x": {"fill": 1}})
    assert pickle.loads(pickle.dumps(format)) == format
    assert len(pickle.dumps(format)) < 400


@pytest.mark.parametrize("name", [*BY_COLUMN, "torch_row", "torch_col"])
def test_windows_of_other_columns_are_planned_anew(name):
    format = Format(name)
    tables = [{"x": [1, 2]}, {"x": [0.5]}, {"y": [1, 2], "x": [3, 4]}, {"x": [5]}]
    for table in tables:
        found = format.convert(record_batch(table))
        batch = format.slice(found, 0, len(table["x"]))
        expected = Format(name).slice(
            Format(name).convert(record_batch(table)), 0, len(table["x"])
        )
        assert plain(batch) == plain(expected)
    # What it knows of the last window stays here: plans hold functions.
    assert pickle.dumps(format) == pickle.dumps(Format(name))


@pytest.mark.parametrize("name", [*BY_COLUMN, "torch_row", "python"])
def test_windows_pickle(name):
    table = {"x": [1, 2, 3]}
    if name in BY_COLUMN:
        table.update(s=["a", "b", "c"], r=[[1], [], [2, 3]])
    format = Format(name)
    window = format.convert(record_batch(table))
    found = format.slice(pickle.loads(pickle.dumps(window)), 1, 3)
    assert plain(found) == plain(format.slice(window, 1, 3))


@pytest.mark.parametrize(
    ("name", "arrow_type"),
    [
        ("python", pa.timestamp("us")),
        ("python", pa.date32()),
        ("python", pa.decimal128(5, 2)),
        ("python", pa.list_(pa.int64())),
        ("python", pa.null()),
        ("polars", pa.decimal256(5, 2)),
        ("polars", pa.month_day_nano_interval()),
        ("torch", pa.null()),
        ("numpy", pa.null()),
    ],
    ids=str,
)
def test_types_a_format_lacks_are_refused_at_check(name, arrow_type):
    with pytest.raises(DataError, match=r"column 'x' has type .*columns="):
        Format(name).check(pa.schema({"ok": pa.int8(), "x": arrow_type}))


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_blobs_that_were_not_read_are_refused(name):
    with pytest.raises(DataError, match="column 'x' is a blob, and a server"):
        Format(name).check(pa.schema([lance.blob_field("x")]))
