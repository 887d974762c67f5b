"""A notebook beside the page that was made of it when it was packed."""

import json
from pathlib import Path
from typing import Any

import pytest

from convolab.handin.notebook_file import parse_cell
from convolab.handin.pack import notebook_page
from convolab.handin.verify import digests
from convolab.handin.verify.archive import HandIn
from convolab.handin.verify.digests import page_signs
from convolab.handin.verify.signs import Sign

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
OTHER_PIXEL = PIXEL.replace("Nk+M9Q", "P8z8BQ")
PRINTED = "data = digits\naccuracy < 0.9 & loss 0.31\n"


def code_cell(printed: str = PRINTED, figure: str = PIXEL) -> dict[str, Any]:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": printed},
        {"output_type": "display_data", "data": {"image/png": figure}, "metadata": {}},
    ]
    return {
        "cell_type": "code", "id": "a", "source": "show()", "execution_count": 1, "metadata": {"name": "a"}, "outputs": outputs,
    }  # fmt: skip


@pytest.fixture(scope="module")
def page() -> bytes:
    """The page of a notebook with one cell, as `pack` makes it."""
    pytest.importorskip("nbconvert", reason="pip install nbconvert")
    return notebook_page(
        json.dumps({"cells": [code_cell()], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()
    )


def signs_of(page: bytes | None, **changes: str) -> list[Sign]:
    hand_in = HandIn(Path("a.zip"), "0" * 64, {} if page is None else {"q.html": page}, {})
    return list(page_signs(hand_in, "q", [parse_cell(code_cell(**changes))]))


@pytest.mark.slow
def test_a_notebook_that_agrees_with_its_page_or_has_none_has_no_sign(page: bytes) -> None:
    assert signs_of(page) == signs_of(None) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"printed": PRINTED.replace("0.31", "0.13")}, "it does not show `accuracy < 0.9 & loss 0.13`, which the notebook does"),
        ({"printed": PRINTED + "test accuracy 0.99"}, "it does not show `test accuracy 0.99`, which the notebook does"),
        ({"figure": OTHER_PIXEL}, "it shows another figure than the notebook"),
    ],
)  # fmt: skip
def test_a_notebook_that_was_edited_after_its_page_was_made_is_named_with_its_cell(
    page: bytes, changes: dict[str, str], what: str
) -> None:
    assert signs_of(page, **changes) == [Sign("q.html, a", what)]


@pytest.mark.slow
def test_a_line_in_color_is_on_the_page_too() -> None:
    pytest.importorskip("nbconvert", reason="pip install nbconvert")
    printed = "\x1b[1;32maccuracy\x1b[0m = \x1b[34m0.9\x1b[0m\n"
    content = {"cells": [code_cell(printed)], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    colored = notebook_page(json.dumps(content).encode())
    assert signs_of(colored, printed=printed) == []
    assert signs_of(colored, printed=printed.replace("0.9", "0.99")) != []


@pytest.mark.slow
def test_a_page_that_is_too_large_is_a_note(page: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "MAX_PAGE_BYTES", len(page) - 1)
    [note] = signs_of(page, printed="9.99")
    assert (note.weight, note.what) == ("note", "it is too large to be compared with its notebook")
