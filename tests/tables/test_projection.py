"""Columns, SQL and filters are checked against the schema."""

from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.sources.arrow import ArrowSource
from lance_lightning.sources.lance import LanceSource
from tests.helpers.ten_rows import table

ODD = ["id", "A b", "Up", "up", "id + 1", "select", "1", 'q"t', "it's", "é", "a\\b"]


@pytest.fixture
def odd(tmp_path, cache):
    """A table with odd names: each column holds its own number."""
    columns = {name: np.full(4, i) for i, name in enumerate(ODD)}
    columns["s"] = pa.array([{"left": 70, "B c": 71, "in": {"x.y": 72}}] * 4)
    lance.write_dataset(pa.table(columns), str(tmp_path / "odd.lance"))
    return LanceSource(tmp_path / "odd.lance").resolve(cache)


def check_read(snapshot, columns, with_row_id, expected):
    """Scan and take give the schema that was promised, and these values."""
    schema = snapshot.projected_schema(columns, with_row_id)
    asked = snapshot.lance_columns(columns, with_row_id)
    dataset = snapshot.open()
    for read in (
        dataset.scanner(columns=asked, offset=1, limit=1).to_table(),
        dataset.take([1], columns=asked),
    ):
        assert read.schema == schema
        assert read.to_pylist() == [expected]
        assert list(read.to_pylist()[0]) == list(expected)


def test_a_name_in_a_list_is_exactly_that_column(odd):
    for i, name in enumerate(ODD):
        check_read(odd, [name], False, {name: i})
        check_read(odd, [name], True, {name: i, "_rowid": 1})
        check_read(odd, {"new": name}, True, {"new": i, "_rowid": 1})
    check_read(odd, ODD[::-1], False, {n: i for i, n in reversed([*enumerate(ODD)])})


def test_fields_of_structs_are_columns(odd):
    expected = {"s.B c": 71, "up": 3, "s.in.x.y": 72}
    check_read(odd, ["s.B c", "up", "s.in.x.y"], False, expected)
    check_read(odd, {"left": "s.left"}, True, {"left": 70, "_rowid": 1})


def test_expressions_are_new_columns(odd):
    columns = {"twice": "up * 2", "id": "id", "half": "cast(up as float) / 2 -- note"}
    check_read(odd, columns, True, {"twice": 6, "id": 0, "half": 1.5, "_rowid": 1})
    check_read(odd, {"swap": "Up", "gone": None}, False, {"swap": 2})


def test_row_id_comes_last_unless_it_was_asked_for(odd):
    check_read(odd, ["_rowid", "up"], True, {"_rowid": 1, "up": 3})
    everything = odd.projected_schema(None, True).names
    assert everything == [*odd.schema.names, "_rowid"]
    assert odd.projected_schema(None).names == odd.schema.names
    assert odd.lance_columns(None) is None
    assert odd.projected_schema(["up"], True).field("_rowid").type == pa.uint64()


def test_row_offset_can_be_asked_for(odd):
    assert odd.projected_schema(["_rowoffset", "up"]).names == ["_rowoffset", "up"]


def test_unknown_column_lists_the_columns(odd):
    for columns in (["upp"], ["UP"], ["s.wrong"], ["up * 2"]):
        with pytest.raises(
            SourceError, match=r"unknown column .*columns there are: 'id', 'A b'"
        ):
            odd.projected_schema(columns)
    with pytest.raises(SourceError, match="did you mean 'up'"):
        odd.lance_columns(["upp"])


def test_unknown_column_of_a_wide_table_lists_some(tmp_path, cache):
    wide = pa.table({f"column_{i}": [1] for i in range(2000)})
    lance.write_dataset(wide, str(tmp_path / "wide.lance"))
    snapshot = LanceSource(tmp_path / "wide.lance").resolve(cache)
    with pytest.raises(SourceError, match="and 1960 more"):
        snapshot.lance_columns(["column_x"])
    assert len(snapshot.lance_columns(None, with_row_id=True)) == 2001


@pytest.mark.parametrize("sql", ["up +", "nope + 1", "sum(up)", "up, id", "up; id"])
def test_bad_expression_is_named(odd, sql):
    with pytest.raises(SourceError) as caught:
        odd.projected_schema({"fine": "up * 2", "bad": sql})
    assert f"({sql})" in str(caught.value)
    assert "'bad'" in str(caught.value)
    assert "columns there are" in str(caught.value)


@pytest.mark.parametrize(
    "wrong", ["up", [], {}, 3, [3], ["up", "up"], {"new": 3}, {"": "up"}, {"new": None}]
)
def test_columns_of_a_wrong_type_are_refused(odd, wrong):
    with pytest.raises(ConfigError, match="columns"):
        odd.projected_schema(wrong)


def test_lances_own_names_cannot_be_given_to_others(odd):
    with pytest.raises(SourceError, match="_rowid"):
        odd.projected_schema({"_rowid": "up"})


def test_column_with_a_backquote_is_refused_with_the_remedy(tmp_path, cache):
    lance.write_dataset(pa.table({"a`b": [1], "c": [2]}), str(tmp_path / "b.lance"))
    snapshot = LanceSource(tmp_path / "b.lance").resolve(cache)
    with pytest.raises(SourceError, match=r"backquote.*rename"):
        snapshot.projected_schema(["a`b"])
    assert snapshot.projected_schema(["c"]) == pa.schema({"c": pa.int64()})
    check = snapshot.open().scanner(columns=snapshot.lance_columns(["c"])).to_table()
    assert check.to_pylist() == [{"c": 2}]


# -- filters -------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "up > 3",
        "`A b` = 1",
        "s.left > 1",
        "true",
        "up > 3 -- note",
        "'random()' = '`now()`' or up > 3",
    ],
)
def test_filters_that_lance_reads_are_taken(odd, sql):
    odd.check_filter(sql)
    odd.open().scanner(filter=sql).to_table()


@pytest.mark.parametrize(
    "sql",
    [
        "up >",
        "nope > 3",
        "up",
        "1",
        "sum(up) > 2",
        "up > 'a'",
        "up > 3; drop",
        "up > 3 limit 5",
    ],
)
def test_bad_filter_gives_the_reason(odd, sql):
    with pytest.raises(SourceError, match=r"the filter .* failed: .*columns there are"):
        odd.check_filter(sql)


@pytest.mark.parametrize(
    "sql",
    ["random() < 0.5", "up > 1 and RANDOM () > 0", "now() > x", "d = current_date"],
)
def test_filter_that_gives_other_rows_each_time_is_refused(odd, sql):
    with pytest.raises(SourceError, match="another value each time"):
        odd.check_filter(sql)


def test_filter_is_checked_when_the_source_is_resolved(uri, cache):
    assert LanceSource(uri, filter="id > 3").resolve(cache).num_rows == 10
    sources_ = [
        LanceSource(uri, filter="nope > 3"),
        ArrowSource(table(), filter="nope > 3"),
    ]
    for source in sources_:
        with pytest.raises(SourceError, match="nope"):
            source.resolve(cache)
