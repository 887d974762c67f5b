"""The limits that docs/trust.md names are those of the code."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "trust.md"
ROWS = re.findall(r"^\| [^|]+ \| ([\d,]+)[^|]* \| `([\w.]+)\.(\w+)` \|$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("number", "module", "name"), ROWS)
def test_a_limit_in_docs_is_that_of_the_code(number: str, module: str, name: str) -> None:
    assert getattr(importlib.import_module(f"convolab.{module}"), name) == int(number.replace(",", ""))


def test_all_rows_of_the_table_are_read_and_every_test_that_it_names_is_there() -> None:
    text = PAGE.read_text()
    assert len(ROWS) == text.split("## Limits")[1].split("## What")[0].count("| `")
    for path in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (PAGE.parents[1] / path).exists(), path
