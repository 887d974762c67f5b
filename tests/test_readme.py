"""The pages as a code host shows them: their links lead to files, and the README is short. Their code: test_docs_code.py."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_every_link_of_a_page_leads_to_a_file(page: str) -> None:
    path = ROOT / page
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [link for link in links if link and "://" not in link and not (path.parent / link).exists()]
    assert missing == []


def test_the_readme_is_a_screen_and_a_half() -> None:
    assert len(README.splitlines()) <= 90


def test_contributing_is_one_page_that_says_where_a_change_goes_and_links_to_the_rest() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert len(text.splitlines()) <= 90
    assert "## The layers" in text
    assert "## Where a change goes" in text
    for page in ("documentation", "words"):
        assert f"(docs/{page}.md)" in text
        assert f'"docs/{page}"' in (ROOT / "docs" / "site" / "pages.py").read_text()
