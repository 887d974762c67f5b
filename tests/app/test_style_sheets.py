"""The page's style sheets, all of which apply to every tab."""

import re
from itertools import combinations
from pathlib import Path

from convolab import app

STATIC = Path(app.__file__).parent / "static"
BASE = "app.css"  # what the others build on: they may refine its classes


def selectors(sheet: Path) -> list[str]:
    text = re.sub(r"/\*.*?\*/", "", sheet.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [one.strip() for listed in re.findall(r"([^{}]+){", text) for one in listed.split(",")]


def test_no_two_style_sheets_give_the_same_name_to_different_things() -> None:
    found = {sheet.name: selectors(sheet) for sheet in STATIC.glob("*.css")}
    assert len(found) > 3
    assert BASE in found
    everywhere = {
        name: set(re.findall(r"^\.([\w-]+)$", "\n".join(lines), re.MULTILINE)) for name, lines in found.items()
    }
    classes = {name: set(re.findall(r"\.([a-z][\w-]*)", " ".join(lines))) for name, lines in found.items()}
    for one, other in combinations(found, 2):
        assert everywhere[one] & everywhere[other] == set(), (one, other)
        if BASE not in (one, other):
            assert classes[one] & classes[other] - classes[BASE] == set(), (one, other)
