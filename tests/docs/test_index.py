"""docs/index.md leads to every page, and every link between pages to something."""

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")
PAGES = sorted([*REPO.glob("*.md"), *REPO.glob("docs/**/*.md")])


def places(page):
    """Return the files of this repository that a page links to, and the anchors."""
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    for link in links:
        path, _, anchor = link.partition("#")
        yield (page.parent / path).resolve() if path else page, anchor


def anchors(page):
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_index_names_every_page():
    index = REPO / "docs" / "index.md"
    linked = {place for place, _ in places(index)}
    for page in PAGES:
        assert {page, *page.parents} & (linked | {index}), f"{page} is missing there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for place, anchor in places(page):
        assert place.exists(), place
        assert not anchor or anchor in anchors(place), f"{place}#{anchor}"
