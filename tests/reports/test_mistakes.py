"""The page of what a network gets wrong."""

import base64
import csv
import io
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from convolab.core.errors import LabError
from convolab.reports.mistakes import mistakes_page, write_mistakes
from convolab.training.predictions import Mistake, Mistakes

HOSTILE = "</p><script>alert(1)</script>\x1b[31m"


def made_mistakes(count: int = 3) -> Mistakes:
    image = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    entries = [Mistake(f"{HOSTILE}{i}.png", i, HOSTILE, "dog", 0.9 - i / 10, 0.05, image) for i in range(count)]
    return Mistakes(tuple(entries), 7, 100, "pets")


def test_the_page_shows_every_image_with_both_classes_and_loads_nothing() -> None:
    page = mistakes_page(made_mistakes(), "Mistakes")
    assert page.count("<li>") == 3
    assert "7 of 100 test images are wrong; the first 3" in page
    assert "90.00 %" in page
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    content = base64.b64decode(re.search(r'base64,([^"]+)"', page)[1])
    with Image.open(io.BytesIO(content)) as image:
        assert [image.getpixel((x, 0))[0] for x in range(8)] == list(range(8))


def test_a_hostile_name_is_text_on_the_page() -> None:
    page = mistakes_page(made_mistakes(), HOSTILE)
    assert "alert(1)</script>" not in page
    assert "\x1b" not in page


def test_a_page_without_mistakes_tells_so(tmp_path: Path) -> None:
    none = Mistakes((), 0, 100, "pets")
    assert "None of 100 test images is wrong." in mistakes_page(none)
    write_mistakes(none, tmp_path / "mistakes", "x")
    write_mistakes(made_mistakes(), tmp_path / "mistakes", "x")
    rows = list(csv.DictReader((tmp_path / "mistakes.csv").read_text().splitlines()))
    assert [row["index"] for row in rows] == ["0", "1", "2"]


def test_a_gallery_replaces_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "mistakes.html").write_text("mine")
    with pytest.raises(LabError, match="no sign that convolab wrote it as mistakes"):
        write_mistakes(made_mistakes(), tmp_path / "mistakes", "x")
    assert (tmp_path / "mistakes.html").read_text() == "mine"
