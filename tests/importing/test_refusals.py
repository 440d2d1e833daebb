"""What cannot be imported is refused, and leaves nothing behind."""

import json
import os

import lance
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from lance_lightning.cli.command import main
from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.importing.detect import guess_format, open_input
from lance_lightning.importing.table import import_table
from tests.helpers.imports import imported, write_tar
from tests.helpers.tables import make_table


def test_a_target_that_is_there_is_left_alone(tmp_path, table, capsys):
    pq.write_table(make_table(3), tmp_path / "rows.parquet")
    with pytest.raises(SystemExit) as caught:
        main(["import", str(tmp_path / "rows.parquet"), table])
    assert caught.value.code == 1
    assert "is there already" in capsys.readouterr().err
    assert lance.dataset(table).count_rows() == 103


def test_two_imports_to_one_target_are_refused(tmp_path):
    from filelock import FileLock

    pq.write_table(make_table(3), tmp_path / "rows.parquet")
    work = tmp_path / ".rows.lance.importing"
    work.mkdir()
    with (
        FileLock(work / "lock"),
        pytest.raises(ConfigError, match="another import"),
    ):
        import_table(tmp_path / "rows.parquet", tmp_path / "rows.lance")


@pytest.mark.parametrize(
    ("target", "message"),
    [("s3://bucket/rows.lance", "a folder on this machine"), ("rows", "end in .lance")],
)
def test_targets_that_cannot_be_are_refused(tmp_path, target, message):
    pq.write_table(make_table(3), tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match=message):
        import_table(tmp_path / "rows.parquet", target)


def test_the_format_is_told_from_names(tmp_path):
    for name, kind in {
        "a.parquet": "parquet",
        "a.csv": "csv",
        "a.ndjson": "json",
        "a.feather": "arrow",
        "a.tgz": "webdataset",
        "a.webp": "images",
    }.items():
        (tmp_path / name).write_bytes(b"")
        assert guess_format(tmp_path / name) == kind
    with pytest.raises(ConfigError, match=r"1 of arrow, 1 of csv.*--format"):
        guess_format(tmp_path)
    (tmp_path / "a.dat").write_bytes(b"")
    with pytest.raises(ConfigError, match="no known ending"):
        guess_format(tmp_path / "a.dat")


def test_a_file_of_another_format_says_so(tmp_path):
    (tmp_path / "rows.parquet").write_text("id\n1\n")
    with pytest.raises(SourceError, match=r"cannot be read as parquet.*--format"):
        open_input(tmp_path / "rows.parquet")
    assert imported(tmp_path / "rows.parquet", tmp_path, "--format", "csv").count_rows()


def test_a_key_that_comes_after_the_first_block_is_not_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("lance_lightning.importing.tabular.TEXT_BLOCK", 1000)
    lines = [json.dumps({"id": i}) + "\n" for i in range(1000)]
    (tmp_path / "rows.jsonl").write_text("".join(lines) + '{"id": 1, "late": 2}\n')
    with pytest.raises(SourceError, match=r"unexpected field.*parquet"):
        import_table(tmp_path / "rows.jsonl", tmp_path / "rows.lance")


def test_a_column_that_a_json_file_lacks_is_null(tmp_path):
    for name, row in {"a": {"id": 1}, "b": {"id": 2, "x": "y"}}.items():
        (tmp_path / "in" / f"half={name}").mkdir(parents=True)
        (tmp_path / "in" / f"half={name}" / "rows.jsonl").write_text(json.dumps(row))
    assert imported(tmp_path / "in", tmp_path).to_table().to_pylist() == [
        {"id": 1, "x": None, "half": "a"},
        {"id": 2, "x": "y", "half": "b"},
    ]


@pytest.mark.parametrize("cut", [0, 300, 512, 900])
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_a_tar_that_was_cut_is_refused(tmp_path, ending, cut):
    path = tmp_path / f"a.{ending}"
    write_tar(path, [(f"{i}.bin", os.urandom(1000)) for i in range(9)])
    path.write_bytes(path.read_bytes()[: 5 * 1536 + cut])
    with pytest.raises(SourceError, match=r"a\.tar"):
        import_table(path, tmp_path / "rows.lance")


def test_line_breaks_in_quotes_may_lie_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr("lance_lightning.importing.tabular.TEXT_BLOCK", 1000)
    table = pa.table(
        {"id": range(200), "text": [f"{i}\n" + "y\n" * 30 for i in range(200)]}
    )
    csv.write_csv(table, tmp_path / "rows.csv")
    found = imported(tmp_path / "rows.csv", tmp_path).to_table()
    assert found.to_pylist() == table.to_pylist()


def test_a_column_name_with_a_dot_says_what_to_do(tmp_path):
    (tmp_path / "rows.csv").write_text("Sepal.Length\n1\n")
    with pytest.raises(SourceError, match=r"'Sepal.Length'; rename"):
        import_table(tmp_path / "rows.csv", tmp_path / "rows.lance")


def test_a_target_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("a\n1\n")
    with pytest.raises(ConfigError, match="no folder can be made"):
        import_table(tmp_path / "rows.csv", tmp_path / "rows.csv" / "o.lance")
