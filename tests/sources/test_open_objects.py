"""What is open or in memory already is a source as it stands, or says what to write."""

from __future__ import annotations

import pickle
import subprocess
import sys

import lance
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
import torch
from lance.torch.data import LanceDataset, SafeLanceDataset

from lance_lightning import (
    ArrowSource,
    ConfigError,
    LanceDataModule,
    LanceSource,
    SeparateSources,
    Sequential,
    SourceError,
)
from lance_lightning.sources.open_objects import TableSource, as_source


def ids(start, stop):
    return pa.table({"id": range(start, stop)})


@pytest.fixture
def uri(tmp_path):
    """Two versions: five rows, then seven."""
    place = str(tmp_path / "rows.lance")
    lance.write_dataset(ids(0, 5), place)
    lance.write_dataset(ids(5, 7), place, mode="append")
    return place


def read(source, tmp_path, **options):
    data = LanceDataModule(
        source, sampler=Sequential(), cache_dir=tmp_path / "cache", **options
    )
    data.setup("fit")
    column = options.get("columns", ["id"])[0]
    return [row for b in data.train_dataloader() for row in b[column].tolist()], data


# -- Lance datasets ------------------------------------------------------------


def test_a_lance_dataset_is_read_at_its_version(uri, tmp_path):
    for version, rows in ((1, 5), (2, 7)):
        dataset = lance.dataset(uri, version)
        found, data = read(dataset, tmp_path)
        assert found == list(range(rows))
        assert data.snapshot().version == version
        saved = dict(data.hparams)["source"]
        assert saved["_target_"] == "lance_lightning.LanceSource"
        assert saved["version"] == (1 if version == 1 else None)
        assert saved["uri"] == uri
        assert saved["storage_options"] is None
    newest = lance.dataset(uri)
    lance.write_dataset(ids(7, 9), uri, mode="append")
    assert read(newest, tmp_path)[0] == list(range(7))
    assert as_source(newest).version == 2


def test_a_lance_dataset_is_read_at_its_branch(uri, tmp_path):
    main = lance.dataset(uri)
    branch = main.create_branch("feature/x")
    assert read(branch, tmp_path)[1].snapshot().branch in (None, "feature/x")
    branch = lance.write_dataset(ids(100, 103), branch, mode="append")
    lance.write_dataset(ids(7, 9), uri, mode="append")
    main = lance.dataset(uri)
    expected = [*range(7), 100, 101, 102]
    handles = (
        branch,
        main.checkout_version(("feature/x", None)),  # its uri is main's
        lance.dataset(branch.uri),
        main.checkout_version(("feature/x", branch.version)),
    )
    for handle in handles:
        found, data = read(handle, tmp_path)
        assert found == expected
        assert data.snapshot().branch == "feature/x"
        assert data.snapshot().uri == uri
    assert read(main, tmp_path)[0] == list(range(9))


def test_the_storage_options_of_a_lance_dataset_are_kept_and_not_shown(uri):
    options = {"aws_secret_access_key": "planted-secret-0123456789"}
    source = as_source(lance.dataset(uri, storage_options=options))
    assert isinstance(source, TableSource)
    assert source.source.storage_options == options
    assert "planted" not in repr(source)


def test_a_safe_lance_dataset_is_its_table(uri, tmp_path):
    assert read(SafeLanceDataset(uri), tmp_path)[0] == list(range(7))
    pinned = SafeLanceDataset(uri, dataset_options={"version": 1})
    assert read(pinned, tmp_path)[0] == list(range(5))
    both = SeparateSources(train=SafeLanceDataset(uri), val=lance.dataset(uri, 1))
    data = LanceDataModule(both, cache_dir=tmp_path)
    assert [data.plan(name).num_rows for name in ("train", "val")] == [7, 5]


def test_a_lance_dataset_that_would_not_be_read_as_it_stands_is_refused(uri):
    options = {"with_row_id": True}
    with pytest.raises(ConfigError, match=r"default_scan_options \(with_row_id\)"):
        as_source(lance.dataset(uri, default_scan_options=options))
    memory = lance.write_dataset(ids(0, 3), "memory://rows")
    with pytest.raises(SourceError, match=r"ArrowSource\(dataset.to_table\(\)\)"):
        as_source(memory)


def test_lances_torch_dataset_says_what_is_the_same_here(uri, tmp_path):
    loader = LanceDataset(
        uri, 4, columns=["id"], filter="id > 2", with_row_id=True, samples=3
    )
    with pytest.raises(ConfigError, match="it is a loader by itself") as caught:
        LanceDataModule(loader)
    text = str(caught.value)
    assert "(samples: see docs/coming_from.md)" in text
    code = text[text.index("LanceDataModule(") : text.index(" (samples")]
    names = {"LanceDataModule": LanceDataModule, "LanceSource": LanceSource}
    data = eval(code, names)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert sorted(row for b in batches for row in b["id"].tolist()) == [3, 4, 5, 6]
    assert "_rowid" in batches[0]


# -- frames --------------------------------------------------------------------


def frames():
    """Return each kind of table in memory, of the same three rows."""
    rows = {"id": [1, 2, 3], "text": ["a", "b", None]}
    table = pa.table(rows)
    found = {
        "table": table,
        "batch": table.to_batches()[0],
        "reader": table.to_reader(),
    }
    for name in ("pandas", "polars"):
        package = pytest.importorskip(name)
        found[name] = package.DataFrame(rows)
    datasets = pytest.importorskip("datasets")
    hugging_face = datasets.Dataset.from_dict(rows)
    found["datasets"] = hugging_face
    shuffled = datasets.Dataset.from_dict({"text": ["x", "b", "a"], "id": [0, 2, 1]})
    found["datasets, chosen"] = shuffled.select([2, 1]).with_format("torch", ["id"])
    return found


def test_a_frame_is_a_table_in_memory(tmp_path):
    for name, frame in frames().items():
        data = LanceDataModule(
            frame, columns=["id"], sampler=Sequential(), cache_dir=tmp_path
        )
        assert isinstance(as_source(frame), ArrowSource)
        data.setup("fit")
        (batch,) = data.train_dataloader()
        assert batch["id"].tolist() == [1, 2, 3][: 2 if "chosen" in name else 3], name
        assert "ArrowSource" in str(dict(data.hparams)["source"])


def test_frames_of_the_same_rows_are_one_table_in_the_cache(tmp_path):
    found = frames()
    for name in ("table", "batch", "reader"):
        ArrowSource(found[name]).resolve(tmp_path)
    assert len(list((tmp_path / "tables").glob("*.lance"))) == 1


def test_a_frame_serves_a_split_of_separate_sources(tmp_path):
    found = frames()
    both = SeparateSources(train=found["polars"], val=found["pandas"])
    assert all(isinstance(each, ArrowSource) for each in both.sources.values())
    data = LanceDataModule(both, columns=["id"], cache_dir=tmp_path)
    assert [data.plan(name).num_rows for name in ("train", "val")] == [3, 3]
    again = pickle.loads(pickle.dumps(both))
    assert again.sources["train"].table.num_rows == 3


def test_a_checkpoint_asks_for_a_frame_again(tmp_path):
    data = LanceDataModule(pa.table({"id": [1]}), cache_dir=tmp_path)
    path = tmp_path / "hparams.pt"
    torch.save(dict(data.hparams), path)
    saved = torch.load(path, weights_only=True)
    with pytest.raises(ConfigError, match="table"):
        LanceDataModule(**saved)


def unusual():
    """Return what is no source, and what its error says to write."""
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    datasets = pytest.importorskip("datasets")
    stored = datasets.Dataset.from_dict({"id": [1, 2]})
    rows = {"id": [1, 2]}
    return [
        (polars.DataFrame(rows).lazy(), r"ArrowSource\(frame.collect\(\)\)"),
        (polars.Series("id", [1]), r"series.to_frame\(\)"),
        (pandas.Series([1], name="id"), r"series.to_frame\(\)"),
        (datasets.DatasetDict(train=stored), r"SeparateSources\(\*\*mapping\)"),
        ({"train": stored}, r"SeparateSources\(\*\*mapping\)"),
        ({"train": "x"}, "needs a _target_"),
        (stored.to_iterable_dataset(), "save_to_disk"),
        (stored.with_format("numpy"), "format 'numpy'.*output_format"),
        (stored.with_transform(lambda rows: rows), "format 'custom'.*transform"),
        (pa.dataset.dataset(pa.table(rows)), r"ArrowSource\(dataset.to_table\(\)\)"),
        (torch.utils.data.DataLoader([1]), "the table that its dataset reads"),
        (pandas.DataFrame({"id": [1, "a", object()]}), "one type each"),
        (pandas.DataFrame(), "without columns"),
        (np.zeros(3), "got ndarray"),
    ]


def test_what_is_no_source_says_what_to_write():
    for value, remedy in unusual():
        with pytest.raises(ConfigError, match=remedy):
            LanceDataModule(value)


def test_no_package_is_imported_to_look_at_a_source():
    code = (
        "import sys, pyarrow as pa\n"
        "from lance_lightning.sources.open_objects import as_source\n"
        "before = set(sys.modules)\n"
        "as_source('x.lance'), as_source(pa.table({'id': [1]}))\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert not new & {'pandas', 'polars', 'datasets', 'lancedb'}, new\n"
        "assert 'datasets' not in sys.modules and 'polars' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
