"""One table of all column types, with and without a worker."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lance_lightning import (
    LanceDataModule,
    Sequential,
    Shuffle,
)
from lance_lightning.types import OUTPUT_FORMATS
from tests.helpers.own_batches import as_it_is
from tests.helpers.type_cases import (
    BATCH,
    CASES,
    READ,
    ROWS,
    STACKED,
    by_id,
    plain,
    rows_of,
    write,
)

WIDE = [name for name, kind in READ if kind == "torch" and name != "blob_v1"]


def all_of(uri, output_format, **options):
    extra = {}
    if output_format == "torch":
        ragged = ("list", "large_list", "list_of_vectors")
        extra = {
            "dtype": {"decimal_as_float": "float64"},
            "ragged": dict.fromkeys(ragged, "list"),
        }
    data = LanceDataModule(
        uri, output_format=output_format, batch_size=BATCH, **extra, **options
    )
    found = list(data.train_dataloader())
    data.teardown()
    return found


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return write(tmp_path_factory.mktemp("wide") / "table.lance", WIDE)


def test_all_types_stand_in_one_batch(wide):
    seen = {name: {} for name in WIDE}
    for batch in all_of(wide, "torch"):
        for name in WIDE:
            seen[name] |= by_id(batch["id"], rows_of(batch[name]))
    for name in WIDE:
        assert seen[name] == {i: CASES[name].torch(i) for i in range(ROWS)}


@pytest.mark.usefixtures("worker_kind")
@pytest.mark.parametrize(
    ("output_format", "options"),
    [
        ("torch", {"num_workers": 1}),
        ("torch", {"num_workers": 1, "transform": as_it_is}),
        ("torch", {"arrow_transform": as_it_is}),
        ("arrow", {"num_workers": 1}),
    ],
    ids=["worker", "transform in a worker", "arrow_transform", "arrow from a worker"],
)
def test_all_types_are_the_same_from_a_worker_and_a_transform(
    wide, output_format, options
):
    expected = all_of(wide, output_format)
    found = all_of(wide, output_format, **options)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        if output_format == "arrow":
            assert ours.equals(theirs)
            continue
        assert list(ours) == list(theirs)
        for name in ours:
            assert plain(ours[name]) == plain(theirs[name])
            kinds = (getattr(ours[name], "dtype", None), type(ours[name]))
            assert kinds == (getattr(theirs[name], "dtype", None), type(theirs[name]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"transform": as_it_is}], ids=["", "transform"]
)
@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_every_format_of_all_its_types_is_the_same_from_a_worker(
    wide, output_format, options
):
    readable = {name for name, kind in READ if kind == output_format}
    names = [name for name in WIDE if name in readable and name != "decimal_as_float"]
    given = {"columns": [*([] if output_format in STACKED else ["id"]), *names]}
    if output_format in STACKED:
        given["dtype"] = "float64"
    for ragged in ("pad", "values_offsets") if output_format == "torch" else ("pad",):
        given["ragged"] = ragged
        expected, found = (
            [
                batch
                for data in [
                    LanceDataModule(
                        wide,
                        output_format=output_format,
                        batch_size=BATCH,
                        num_workers=workers,
                        sampler=Shuffle(),
                        **given,
                        **(options if workers else {}),
                    )
                ]
                for batch in data.train_dataloader()
            ]
            for workers in (0, 1)
        )
        assert len(names) > 10
        assert len(found) == len(expected) > 2
        for ours, theirs in zip(found, expected, strict=True):
            assert type(ours) is type(theirs)
            if output_format in ("arrow", "polars"):
                assert ours.equals(theirs)
                continue
            if output_format == "pandas":
                assert list(ours.dtypes) == list(theirs.dtypes)
                ours, theirs = ours.to_dict("list"), theirs.to_dict("list")
            assert repr(plain(ours)) == repr(plain(theirs))  # NaN equals NaN


@pytest.mark.parametrize("sampler", [Sequential(), Shuffle()], ids=repr)
@pytest.mark.parametrize("name", ["int64", "fixed_list", "list", "struct", "bool"])
def test_one_column_under_two_names_is_two_tensors(tmp_path, sampler, name):
    # One file: rows out of several are copied anyway.
    data = LanceDataModule(
        write(tmp_path / "table.lance", [name], ROWS),
        columns={"a": name, "b": name},
        sampler=sampler,
        ragged="values_offsets",
    )
    (batch, *_) = data.train_dataloader()
    assert plain(batch["a"]) == plain(batch["b"])
    before = plain(batch["b"])
    changed = batch["a"]["n"] if name == "struct" else batch["a"]
    changed.logical_not_()
    assert plain(batch["a"]) != before
    assert plain(batch["b"]) == before


def test_lances_own_types_are_known_without_importing_them(tmp_path):
    """A worker, and a script, import no more of Lance than this package does."""
    uri = write(tmp_path / "table.lance", ["bfloat16"])
    script = f"""
import sys
from lance_lightning import LanceDataModule
(batch, *_) = LanceDataModule({uri!r}, columns=["bfloat16"]).train_dataloader()
assert str(batch["bfloat16"].dtype) == "torch.bfloat16", batch
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
