"""Nulls in each output format: kept, filled, masked or refused."""

import re

import pyarrow as pa
import pytest

from lance_lightning.errors import ConfigError, DataError
from lance_lightning.formats.format import Format
from lance_lightning.types import OUTPUT_FORMATS
from tests.helpers.any_schema import (
    BY_COLUMN,
    KEEP_NULLS,
    STACKED,
    batch_of,
    held,
    record_batch,
)

NULLS = {"i": pa.array([1, None]), "s": ["a", "b"]}


@pytest.mark.parametrize("name", [*BY_COLUMN, *STACKED, "python", "pandas"])
def test_null_integers_are_errors_by_default(name):
    table = {"i": NULLS["i"]} if name in STACKED else NULLS
    with pytest.raises(DataError, match="column 'i' has 1 nulls among the 2 values"):
        batch_of(Format(name), table)


@pytest.mark.parametrize("name", KEEP_NULLS)
def test_formats_that_can_hold_null_keep_it(name):
    assert held(name, batch_of(Format(name), NULLS))["i"] == [1, None]
    named = Format(name, nulls={"i": "error"})
    with pytest.raises(DataError, match="column 'i' has 1 nulls"):
        batch_of(named, NULLS)


def test_pandas_keeps_what_has_a_null_of_its_own():
    table = {"f": pa.array([0.5, None]), "s": ["a", None]}
    found = batch_of(Format("pandas"), table)
    assert found["f"].dtype == batch_of(Format("pandas"), {"f": [0.5]})["f"].dtype
    assert found.isna().to_numpy().tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("name", [n for n in OUTPUT_FORMATS if n not in STACKED])
def test_nulls_are_filled_in_every_format(name):
    found = batch_of(Format(name, nulls={"i": {"fill": 7}}), NULLS)
    assert held(name, found) == {"i": [1, 7], "s": ["a", "b"]}


@pytest.mark.parametrize("name", [n for n in OUTPUT_FORMATS if n not in STACKED])
def test_a_fill_value_of_another_type_is_refused_at_check(name):
    schema = record_batch(NULLS).schema
    with pytest.raises(ConfigError, match=r"fills column 's' with 0 \(int\)"):
        Format(name, nulls={"fill": 0}).check(schema)
    with pytest.raises(ConfigError, match=r"fills column 'i' with 0.5 \(float\)"):
        Format(name, nulls={"i": {"fill": 0.5}}).check(schema)


def test_a_column_of_the_name_fill():
    table = {"fill": pa.array([1, None])}
    for nulls in ({"fill": {"fill": 3}}, {"fill": 3}):
        out = batch_of(Format("torch", nulls=nulls), table)
        assert out["fill"].tolist() == [1, 3]


def test_columns_that_a_mapping_does_not_name_are_errors():
    table = {"a": pa.array([1, None]), "b": pa.array([1, None])}
    with pytest.raises(DataError, match="column 'b' has 1 nulls"):
        batch_of(Format("torch", nulls={"a": "mask"}), table)


@pytest.mark.parametrize("name", ["arrow", "pandas", "polars", "python", "python_col"])
def test_what_arrow_cannot_fill_is_refused_at_check(name):
    schema = pa.schema({"x": pa.list_(pa.int64(), 2)})
    with pytest.raises(DataError, match="coalesce"):
        Format(name, nulls={"fill": 0}).check(schema)


def test_python_finds_nulls_within():
    arrays = {
        "list": pa.array([[1, None]], pa.list_(pa.int64(), 2)),
        "struct": pa.array([{"a": None}], pa.struct({"a": pa.int64()})),
        "dictionary": pa.DictionaryArray.from_arrays([0], pa.array([None], "string")),
    }
    named = {"struct": "struct.a"}  # its field, for the filter that leaves it out
    for name, array in arrays.items():
        found = re.escape(f"column '{named.get(name, name)}' has 1 nulls")
        with pytest.raises(DataError, match=found):
            batch_of(Format("python"), {name: array})
