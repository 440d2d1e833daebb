"""SQL text: tokens, columns in double quotes, and what Lance reads otherwise."""

from __future__ import annotations

import ast
import datetime
import decimal
import re

import lance
import pyarrow as pa
import pytest

from lance_lightning import (
    AllRows,
    CalculatedSplit,
    LanceDataModule,
    LanceSource,
)
from lance_lightning.arrow.sql_names import quoted
from lance_lightning.errors import DataError, SourceError
from lance_lightning.formats.format import Format
from lance_lightning.splits.building import build_plans
from lance_lightning.tables.sql_tokens import tokens

BOX = {"left": 1, "Up Right": 2, "or.der": 3}


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """Ten rows, the last three with Split = 'val'."""
    day = datetime.date(2026, 1, 1)
    rows = pa.table(
        {
            "id": range(10),
            "Split": ["train"] * 7 + ["val"] * 3,
            "Split Name": ["train"] * 7 + ["val"] * 3,
            "Text": [f"t{i}" for i in range(10)],
            "box": [{**BOX, "left": i} for i in range(10)],
            "Twin": [1] * 10,
            "TWIN": [2] * 10,
            'q"uote': range(10),
            "it's": range(10),
            "day": [day + datetime.timedelta(days=i) for i in range(10)],
            "at": pa.array(range(10), pa.timestamp("us")),
            "zoned": pa.array(range(10), pa.timestamp("ns", "UTC")),
            "clock": pa.array(range(10), pa.time32("s")),
            "lasts": pa.array(range(10), pa.duration("s")),
        }
    )
    place = str(tmp_path_factory.mktemp("sql") / "rows.lance")
    lance.write_dataset(rows, place)
    return place


@pytest.fixture(scope="module")
def snapshot(uri, tmp_path_factory):
    return LanceSource(uri).resolve(tmp_path_factory.mktemp("cache"))


def kept(snapshot, sql):
    snapshot.check_filter(sql)
    return snapshot.open().to_table(columns=["id"], filter=sql)["id"].to_pylist()


# -- tokens --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("a = 'b'", [("name", "a"), ("mark", "="), ("text", "b")]),
        ("'it''s \"x\"'", [("text", 'it\'s "x"')]),
        ('"a""b"', [("double", 'a"b')]),
        ("`a``b`.c", [("quoted", "a`b"), ("mark", "."), ("name", "c")]),
        (
            "a -- \"b\" 'c'\n= 1.5e3",
            [("name", "a"), ("mark", "="), ("number", "1.5e3")],
        ),
        ('/* "a" */ größe >= 2', [("name", "größe"), ("mark", ">="), ("number", "2")]),
        ("x'41' || N'b'", [("text", "41"), ("mark", "||"), ("unread", "N'b'")]),
        ("a =:b", [("name", "a"), ("mark", "="), ("unread", ":b")]),
        (
            "a[1:b]",
            [
                ("name", "a"),
                ("mark", "["),
                ("number", "1"),
                ("mark", ":"),
                ("name", "b"),
                ("mark", "]"),
            ],
        ),
        ("a::int", [("name", "a"), ("mark", "::"), ("name", "int")]),
        ("$$a$$ $t$ 'b' $t$", [("unread", "$$a$$"), ("unread", "$t$ 'b' $t$")]),
        ("a'b'", [("name", "a"), ("text", "b")]),
        ("'\\' \"a\"", [("text", "\\"), ("double", "a")]),
        ("'open", [("mark", "'"), ("name", "open")]),
    ],
)
def test_tokens_are_those_that_lance_reads(sql, found):
    assert [(token.kind, token.value) for token in tokens(sql)] == found
    for token in tokens(sql):
        assert sql[token.start : token.stop] == token.text


def test_a_backquote_in_a_name_is_doubled():
    assert quoted("a`b", "c d") == "`a``b`.`c d`"


# -- double quotes -------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "right"),
    [
        ("\"Split\" != 'val'", "`Split` != 'val'"),
        ("\"split\" != 'val'", "`Split` != 'val'"),
        ("\"Split Name\" != 'val'", "`Split Name` != 'val'"),
        ("id < 9 and not (\"Split\"='val')", "id < 9 and not (`Split`='val')"),
        ("lower(\"Split\") like 't%'", "lower(`Split`) like 't%'"),
        ('"id" > 5 or "Split" = \'val\'', "`id` > 5 or `Split` = 'val'"),
        ('"Split" is not null', "`Split` is not null"),
        ('"box"."left" > 5', "`box`.`left` > 5"),
        ('box."left" > 5', "`box`.`left` > 5"),
        ('"box.left" > 5', "`box`.`left` > 5"),
        ('"left" > 5', "`box`.`left` > 5"),
        ('box."or.der" = 3', "`box`.`or.der` = 3"),
        ('"q""uote" = 3', '`q"uote` = 3'),
        ("Split = 'it''s' or \"it's\" = 3", "Split = 'it''s' or `it's` = 3"),
    ],
)
def test_a_filter_with_a_column_in_double_quotes_shows_the_backquotes(
    snapshot, sql, right
):
    with pytest.raises(SourceError, match="double quotes") as caught:
        snapshot.check_filter(sql)
    assert f"so write {right} (and" in str(caught.value)
    assert 0 < len(kept(snapshot, right)) < 10 or "not null" in sql or "der" in sql


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ('Text = "t3"', [3]),
        ("Text = 't3' or Text = '\"Split\"'", [3]),
        ("Text = 't3' -- not \"Split\"", [3]),
        ("Text = 't3' /* \"Split\" */", [3]),
        ('`q"uote` = 3', [3]),
        ("`it's` = 3 and Text != 'it''s \"Split\"'", [3]),
        ('box["left"] = 3', [3]),
        ("Split = 'Split' or id = 3", [3]),
        ("SPLIT = 'val'", [7, 8, 9]),
        ("true", list(range(10))),
        ("1 = 1", list(range(10))),
        ("Text between 't2' and 't3'", [2, 3]),
    ],
)
def test_text_that_looks_like_a_column_is_text(snapshot, sql, rows):
    assert kept(snapshot, sql) == rows


@pytest.mark.parametrize(
    "sql",
    [
        "'Split' != 'val'",
        "\"Splt\" != 'val'",
        "'val' = 'val'",
        "lower('Split') = 'split'",
        "id < 3 or 'Split' != 'val'",
        "id >= 0 and not \"Splt\" in ('val', 'test')",
        "starts_with('Split', 's')",
    ],
)
def test_a_filter_that_compares_text_with_text_is_refused(snapshot, sql):
    with pytest.raises(SourceError, match=r"same for every row.*`Split`|names no col"):
        snapshot.check_filter(sql)


@pytest.mark.parametrize("stage", ["source", "table"])
def test_a_filter_in_double_quotes_never_passes_all_rows(uri, tmp_path, stage):
    sql = "\"Split\" != 'val'"
    data = LanceDataModule(LanceSource(uri, filter=sql), cache_dir=tmp_path)
    if stage == "table":
        table = lance.dataset(uri).to_table(columns=["id", "Split"])
        from lance_lightning import ArrowSource

        data = LanceDataModule(ArrowSource(table, filter=sql), cache_dir=tmp_path)
    with pytest.raises(SourceError, match=r"write `Split` != 'val'"):
        data.setup("fit")


def test_a_column_in_double_quotes_is_no_word_in_every_row(snapshot):
    for sql in ('"Text"', 'concat("Text", Split)', 'Split || "text"'):
        with pytest.raises(SourceError, match=r"'new'.* double quotes.*`Text`"):
            snapshot.projected_schema({"id": "id", "new": sql})
    with pytest.raises(SourceError, match="did you mean 'Text'"):
        snapshot.projected_schema(['"Text"'])
    constant = {"id": "id", "kind": "'Text'"}  # a word that was asked for
    assert snapshot.projected_schema(constant).names == ["id", "kind"]


def test_a_calculated_split_refuses_a_column_in_double_quotes(snapshot, tmp_path):
    for sql in (
        "cast(\"Split\" = 'val' as bigint)",
        "cast('Split' = 'val' as bigint)",
    ):
        split = CalculatedSplit(sql, ["train", "val"])
        with pytest.raises(SourceError, match=r"calculation.*`Split`"):
            build_plans(split, snapshot, None, tmp_path)
    split = CalculatedSplit("cast(`Split` = 'val' as bigint)", ["train", "val"])
    plans = build_plans(split, snapshot, None, tmp_path)
    assert [plan.num_rows for plan in plans.values()] == [7, 3]


# -- names ---------------------------------------------------------------------


def test_a_name_that_several_columns_have_but_for_case_is_refused(snapshot):
    with pytest.raises(SourceError, match="write `TWIN` or `Twin`"):
        snapshot.check_filter("twin = 1")
    with pytest.raises(SourceError, match="write `TWIN` or `Twin`"):
        snapshot.projected_schema({"new": "twin + 1"})
    assert kept(snapshot, "Twin = 1 and TWIN = 2 and id = 3") == [3]


def test_a_name_in_backquotes_that_is_no_column_says_what_was_meant(snapshot):
    for sql, meant in (
        ("`split` = 'val'", "`Split`"),
        ("`box.left` = 1", "`box`.`left`"),
        ("`Splt` = 1", "`Split`"),
    ):
        with pytest.raises(SourceError) as caught:
            snapshot.check_filter(sql)
        assert f"did you mean {meant}" in str(caught.value)
        assert "double quotes" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["N'val'", "$$val$$", "R'val'", "b'val'", "?", "$1", ":x"]
)
def test_text_that_stops_lances_planner_is_refused(snapshot, text):
    with pytest.raises(SourceError, match="planner stops"):
        snapshot.check_filter(f"Split = {text}")
    with pytest.raises(SourceError, match="planner stops"):
        snapshot.projected_schema({"new": f"concat(Split, {text})"})


@pytest.mark.parametrize(
    ("sql", "remedy", "right"),
    [
        ("day > '2026-01-09'", "write date '2026-01-09'", "day > date '2026-01-09'"),
        (
            "at > '1970-01-01T00:00:00.000008'",
            "write timestamp '1970-01-01T00:00:00.000008'",
            "at > timestamp '1970-01-01T00:00:00.000008'",
        ),
        (
            "zoned between '1970-01-01' and '1970-01-01T00:00:00Z'",
            "write timestamp '1970-01-01'",
            "zoned > timestamp(9) '1970-01-01T00:00:00.000000008Z'",
        ),
        (
            "clock > '00:00:08'",
            "cast(... as string) with '00:00:08'",
            "cast(clock as string) > '00:00:08'",
        ),
        ("lasts > '8s'", "cast(... as bigint)", "cast(lasts as bigint) > 8"),
        ("id > '8'", "Int64, a number without quotes", "id > 8"),
        ("id > 8.5", "cast(... as double)", "cast(id as double) > 8.5"),
        ("Text = 9", "write text in single quotes, '9'", "Text = 't9'"),
    ],
)
def test_a_literal_of_another_type_says_how_to_write_it(snapshot, sql, remedy, right):
    with pytest.raises(SourceError) as caught:
        snapshot.check_filter(sql)
    assert remedy in str(caught.value)
    assert kept(snapshot, right) == [9]


def test_a_timestamp_finer_than_microseconds_is_not_cut(snapshot):
    sql = "zoned >= timestamp '1970-01-01 00:00:00.000000008'"
    with pytest.raises(SourceError, match=r"cuts .* write timestamp\(9\) '1970"):
        snapshot.check_filter(sql)
    assert kept(snapshot, sql.replace("timestamp", "timestamp(9)")) == [8, 9]
    assert len(kept(snapshot, "zoned >= timestamp '1970-01-01 00:00:00.000000'")) == 10


def test_a_column_named_star_is_that_column(tmp_path):
    lance.write_dataset(pa.table({"id": [1], "*": [2]}), str(tmp_path / "s.lance"))
    snapshot = LanceSource(tmp_path / "s.lance").resolve(tmp_path)
    for columns in (["*"], ["id", "*"], {"*": "*"}, {"new": "*"}):
        wanted = snapshot.lance_columns(columns)
        scanned = snapshot.open().scanner(columns=wanted).to_table()
        assert scanned == snapshot.open().take([0], columns=wanted)
        assert scanned.to_pylist()[0][scanned.column_names[-1]] == 2
        assert scanned.num_columns == len(columns)


def test_a_name_with_a_backquote_names_the_remedy_that_works(tmp_path):
    lance.write_dataset(pa.table({"id": [1], "a`b": [2]}), str(tmp_path / "b.lance"))
    dataset = lance.dataset(str(tmp_path / "b.lance"))
    snapshot = LanceSource(tmp_path / "b.lance").resolve(tmp_path)
    for columns in (None, ["a`b"], {"new": "a`b"}):
        with pytest.raises(SourceError, match="backquote") as caught:
            snapshot.projected_schema(columns)
    assert "dataset.alter_columns({'path': '`a``b`'" in str(caught.value)
    dataset.alter_columns({"path": "`a``b`", "name": "new_name"})
    assert dataset.to_table().to_pylist() == [{"id": 1, "new_name": 2}]
    again = LanceSource(tmp_path / "b.lance").resolve(tmp_path)
    assert build_plans(AllRows(), again, None, tmp_path)["train"].num_rows == 1


# -- what errors say to write ----------------------------------------------------

NAMES = ["id", "Label", "Mixed Case", "order", "größe", "a-b", "1st", "x'y", 'x"y', "*"]
NULL_FILTER = re.compile(r"with filter=(.*)$", re.DOTALL)
CAST = re.compile(r"columns=(\{.*?\.\.\.\).\})", re.DOTALL)


def converted(snapshot, columns):
    """Return the columns as tensors, checked first."""
    form = Format("torch")
    form.check(snapshot.projected_schema(columns))
    rows = snapshot.open().to_table(columns=snapshot.lance_columns(columns))
    return form.convert(rows.to_batches()[0])


def test_the_sql_that_errors_show_works_for_every_name(tmp_path):
    """Each column of nulls, and each of decimals, by itself and in a struct."""
    nulls = pa.array([1, None, 3], pa.int64())
    money = pa.array([decimal.Decimal("1.5")] * 3)
    columns: dict = {f"{name} n": nulls for name in NAMES}
    columns |= {f"{name} d": money for name in NAMES}
    columns |= {name: nulls for name in NAMES}
    for name in ("s n", "s d"):
        part = nulls if name == "s n" else money
        columns[name] = pa.StructArray.from_arrays([part] * len(NAMES), NAMES)
    lance.write_dataset(pa.table(columns), str(tmp_path / "odd.lance"))
    snapshot = LanceSource(tmp_path / "odd.lance").resolve(tmp_path)
    for name in columns:
        with pytest.raises(DataError) as caught:
            converted(snapshot, [name])
        if name.endswith(" d"):
            shown = ast.literal_eval(CAST.search(str(caught.value))[1])
            cast = {new: sql.replace("...", "double") for new, sql in shown.items()}
            assert snapshot.projected_schema(cast).types == [pa.float64()]
        else:
            shown = ast.literal_eval(NULL_FILTER.search(str(caught.value))[1])
            snapshot.check_filter(shown)
            assert snapshot.open().to_table(filter=shown).num_rows == 2


def test_a_fill_in_sql_is_shown_with_its_quotes(tmp_path):
    rows = pa.table({"Two Words": pa.array([[1], None])})
    lance.write_dataset(rows, str(tmp_path / "t.lance"))
    with pytest.raises(DataError, match=r"'coalesce\(`Two Words`, \.\.\.\)'"):
        Format("pandas", nulls={"fill": 0}).check(rows.schema)


def test_a_number_that_would_wrap_shows_the_cast_with_its_quotes():
    rows = pa.record_batch({"Two Words": pa.array([2**63], pa.uint64())})
    with pytest.raises(DataError, match=r"'cast\(`Two Words` as \.\.\.\)'"):
        Format("torch").convert(rows)
