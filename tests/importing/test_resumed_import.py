"""An import is never half a table, and one that was stopped is resumed."""

import json
import os
import signal
import subprocess
import sys

import lance
import pyarrow.csv as csv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from lance_lightning.errors import SourceError
from lance_lightning.importing.detect import open_input
from lance_lightning.importing.table import _fill, import_table
from tests.helpers.tables import make_table

IMPORT = "import sys; from lance_lightning.cli.command import main; sys.exit(main())"
# Sends itself a signal before it notes the sixth file that is done.
STOPPED = """
import os, signal, sys
number, noted = int(sys.argv.pop()), []
# A shell has what it starts in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def stop(event, values):
    if event == "open" and str(values[0]).endswith("journal.jsonl"):
        noted.extend(["file"] * (values[1] == "a"))
        if len(noted) == 7:  # the first line is no file
            noted.append("stopped")
            os.kill(os.getpid(), number)

sys.addaudithook(stop)
"""


@pytest.mark.parametrize(
    ("kind", "sent", "status"),
    [
        ("parquet", signal.SIGKILL, -signal.SIGKILL),
        pytest.param("csv", signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.slow),
        ("arrow", signal.SIGINT, 130),
    ],
)
def test_a_stopped_import_goes_on_where_it_was(tmp_path, kind, sent, status):
    table = make_table(120_000)
    source = tmp_path / "in"
    source.mkdir()
    for at in range(3):
        part = table.slice(at * 40_000, 40_000)
        path = source / f"{at}.{kind}"
        if kind == "parquet":
            pq.write_table(part, path, row_group_size=7_000)
        elif kind == "csv":
            table = (
                table.drop_columns("vector")
                if "vector" in table.schema.names
                else table
            )
            csv.write_csv(part.select(table.column_names), path)
        else:
            feather.write_feather(part, path, chunksize=9_000)
    target = tmp_path / "rows.lance"
    journal = tmp_path / ".rows.lance.importing" / "journal.jsonl"
    arguments = ["import", str(source), str(target), "--rows-per-file", "1500"]
    first = [sys.executable, "-c", STOPPED + IMPORT, *arguments, str(int(sent))]
    assert subprocess.run(first, timeout=120, check=False).returncode == status
    assert not target.exists()
    lines = journal.read_text().splitlines()[1:]
    done = [file["path"] for line in lines for file in json.loads(line)["files"]]
    assert len(done) == 5
    data = journal.parent / "table.lance" / "data"
    written = {name: (data / name).stat().st_mtime_ns for name in done}

    second = [sys.executable, "-c", IMPORT, *arguments]
    subprocess.run(second, check=True, timeout=120)
    assert not journal.parent.exists()
    dataset = lance.dataset(target)
    assert dataset.version == 1
    assert dataset.to_table().to_pylist() == table.to_pylist()
    files = {path.name: path.stat().st_mtime_ns for path in (target / "data").iterdir()}
    assert written.items() <= files.items(), "they are not written again"
    assert len(files) == 80


def test_an_import_that_was_killed_before_the_rename_is_not_written_again(tmp_path):
    source, target = tmp_path / "rows.parquet", tmp_path / "rows.lance"
    pq.write_table(make_table(100), source)
    work = tmp_path / ".rows.lance.importing"
    work.mkdir()
    _fill(work, open_input(source), 30, lambda *_: None)
    (work / "table.lance" / "data" / "torn.lance").write_bytes(b"half")
    files = sorted(path.name for path in (work / "table.lance" / "data").iterdir())

    assert import_table(source, target) == 100
    assert lance.dataset(target).version == 1
    assert lance.dataset(target).to_table().to_pylist() == make_table(100).to_pylist()
    files.remove("torn.lance")
    assert sorted(path.name for path in (target / "data").iterdir()) == files


def test_a_torn_line_of_the_journal_is_written_again(tmp_path):
    source = tmp_path / "rows.parquet"
    pq.write_table(make_table(100), source)
    work = tmp_path / ".rows.lance.importing"
    work.mkdir()
    _fill(work, open_input(source), 30, lambda *_: None)
    journal = work / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert import_table(source, tmp_path / "rows.lance", rows_per_file=30) == 100
    found = lance.dataset(tmp_path / "rows.lance").to_table()
    assert found.to_pylist() == make_table(100).to_pylist()


def test_a_changed_source_is_imported_anew(tmp_path):
    source, work = tmp_path / "rows.parquet", tmp_path / ".rows.lance.importing"
    pq.write_table(make_table(100), source)
    work.mkdir()
    _fill(work, open_input(source), 30, lambda *_: None)
    pq.write_table(make_table(100, start=1000), source)
    os.utime(source, ns=(1, 1))
    import_table(source, tmp_path / "rows.lance")
    found = lance.dataset(tmp_path / "rows.lance").to_table()
    assert found.to_pylist() == make_table(100, start=1000).to_pylist()


def test_a_value_that_misleads_leaves_no_table_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("lance_lightning.importing.tabular.TEXT_BLOCK", 1000)
    lines = [f"{i}\n" for i in range(1000)]
    (tmp_path / "rows.csv").write_text("id\n" + "".join(lines) + "x\n")
    with pytest.raises(SourceError, match=r"conversion error to int64.*parquet"):
        import_table(tmp_path / "rows.csv", tmp_path / "rows.lance")
    assert not (tmp_path / "rows.lance").exists()
