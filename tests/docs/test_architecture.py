"""docs/architecture.md names every package and every file, and no other."""

import re
from pathlib import Path

REPO = Path(__file__).parents[2]
PAGE = (REPO / "docs" / "architecture.md").read_text()
ROOT = REPO / "src" / "lance_lightning"
# A row of a table of files says what the first of its cells is for.
ROWS = dict(re.findall(r"^\| `([\w/]+\.py)` \| (.+) \|$", PAGE, re.MULTILINE))


def test_every_file_has_a_row_that_says_what_it_is_for():
    files = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py")}
    doors = {name for name in files if name.endswith("/__init__.py")}
    assert set(ROWS) == files - doors, "correct docs/architecture.md"
    assert all(len(said) > 3 for said in ROWS.values())


def test_every_package_has_a_heading_and_is_in_the_picture():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    headings = re.findall(r"^### `(\w+)/`", PAGE, re.MULTILINE)
    assert sorted(headings) == sorted(packages), "correct docs/architecture.md"
    picture = PAGE.partition("```")[2].partition("```")[0]
    assert set(re.findall(r"(\w+)/", picture)) == packages


def test_every_path_that_is_named_is_there():
    paths = re.findall(r"`([\w./]+(?:/|\.py))`", PAGE)
    assert len(paths) > 100
    for path in paths:
        assert (ROOT / path).exists() or (REPO / path).exists(), path


def test_it_begins_with_the_one_sentence():
    sentence = " ".join(PAGE.split("\n\n")[1].split()).replace("**", "")
    assert sentence == (
        "A source names a table, a split chooses rows of it, a sampler puts them in "
        "order, reading fetches them, columns and formats convert them, loading hands "
        "out batches, the datamodule gives them to Lightning."
    )
