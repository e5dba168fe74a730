"""Links between the pages have existing targets."""

import re
from pathlib import Path

import pytest

from tests.integration.services import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def anchors(file: Path) -> set[str]:
    """Return the anchors of a page's headings: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.*)$", without_code(file), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code(file: Path) -> str:
    return re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_each_link_leads_to_a_file_and_a_heading(file: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]*)\)", re.sub(r"\s*\n\s*", " ", without_code(file))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        to = (file.parent / name).resolve() if name else file
        assert to.exists(), link
        if anchor:
            assert anchor in anchors(to), link
