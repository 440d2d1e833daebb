"""What README.md says of other loaders is in BENCHMARKS.md."""

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
README = (REPO / "README.md").read_text()
BENCHMARKS = (REPO / "BENCHMARKS.md").read_text()
NARROW = BENCHMARKS.partition("**narrow**")[2].partition("**wide**")[0]
QUALITY = BENCHMARKS.partition("## Shuffle quality")[2].partition("\n## ")[0]
BESIDE = README.partition("## Beside other loaders")[2].partition("\n## ")[0]


def cell(table, name, column):
    """Return a cell of the first row of that name, which is the one without workers."""
    rows = re.findall(r"^\| (.+) \|$", table, re.MULTILINE)
    for row in rows:
        cells = [each.strip(" *_") for each in row.split("|")]
        if cells[0] == name:
            return float(cells[column].replace(",", ""))
    raise AssertionError(f"no row {name!r}")


@pytest.mark.parametrize(
    "name",
    [
        "BlockShuffle",
        "torch in memory, row by row",
        "torch in memory, getitems",
        "HF datasets, iterable",
        "MosaicML, py1br",
    ],
)
def test_rates_are_those_of_the_benchmarks(name):
    rate = cell(NARROW, name, 2)
    told = [float(each.replace(",", "")) for each in re.findall(r"[\d,]{5,}", BESIDE)]
    assert any(abs(each - rate) < 0.02 * rate for each in told), rate


def test_correlations_are_those_of_the_benchmarks():
    assert f"by {cell(QUALITY, 'HF iterable, 32 shards, buffer 10,000', 2)}" in BESIDE
    assert f"by {cell(QUALITY, 'BlockShuffle', 2)}" in BESIDE
    assert abs(cell(QUALITY, "MosaicML py1br", 2)) <= cell(QUALITY, "BlockShuffle", 2)
