"""What a run kept of its epochs, drawn, as rows and as a page."""

import csv
import html
import io
import json
import re
from pathlib import Path

import pytest
import torch
from support.browser import render_in_browser

from convolab.reports.playback import MAX_SHOWN, describe_playback, playback_page
from convolab.training.playback import Playback

HOSTILE = "</script><b>cat\x1b[31m"


def made_playback(epochs: int = 2, has_filters: bool = True) -> Playback:
    """An image of class 1, which is right from the second epoch on."""
    probabilities = torch.tensor([[[0.6, 0.4]], *([[0.25, 0.75]],) * (epochs - 1)])
    filters = torch.linspace(-1, 1, epochs * 2 * 9).view(epochs, 2, 1, 3, 3) if has_filters else None
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    return Playback([*range(1, epochs + 1)], filters, images, torch.tensor([1]), probabilities, ["dog", HOSTILE])


def test_a_row_says_what_an_image_is_and_what_it_was_taken_for(tmp_path: Path) -> None:
    played = made_playback()
    first, second = played.rows()
    assert first == {
        "epoch": 1, "image": 0, "true": HOSTILE, "predicted": "dog",
        "probability": pytest.approx(0.6), "true_probability": pytest.approx(0.4),
    }  # fmt: skip
    assert (second["epoch"], second["predicted"], second["probability"]) == (2, HOSTILE, 0.75)
    played.save(tmp_path / "playback.csv")
    read = list(csv.DictReader(io.StringIO((tmp_path / "playback.csv").read_text())))
    assert [row["epoch"] for row in read] == ["1", "2"]
    assert repr(played) == "Playback(epochs 1 to 2, 2 filters, 1 image)"


@pytest.mark.parametrize("has_filters", [True, False])
def test_a_notebook_draws_the_last_epoch_and_says_how_to_see_all(has_filters: bool) -> None:
    played = made_playback(has_filters=has_filters)
    with_filters, without = played.plot().image.width, made_playback(has_filters=False).plot().image.width
    assert (with_filters > without) == has_filters
    assert 'save("playback.html")' in html.unescape(played._repr_html_())


def test_the_page_holds_every_epoch_and_loads_nothing() -> None:
    page = playback_page(made_playback())
    frames = json.loads(re.search(r'id="frames">(.*?)</script>', page)[1])
    assert frames["epochs"] == [1, 2]
    assert [top[0][0]["class"] for top in frames["top"]] == ["dog", frames["labels"][0]]
    assert frames["filters"][0] != frames["filters"][1]
    assert "default-src 'none'" in page
    assert "<b>cat" not in page
    assert "\x1b" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert 'id="filters"' not in playback_page(made_playback(has_filters=False))


def test_of_many_epochs_every_second_is_shown_and_the_last() -> None:
    shown = describe_playback(made_playback(2 * MAX_SHOWN))["epochs"]
    assert len(shown) == MAX_SHOWN
    assert shown[-1] == 2 * MAX_SHOWN


@pytest.mark.slow
def test_a_browser_shows_the_last_epoch_first(tmp_path: Path) -> None:
    made_playback().save(tmp_path / "playback.html")
    drawn = render_in_browser(tmp_path / "playback.html", tmp_path / "profile", "--dump-dom").stdout
    assert '<output id="epoch" for="frame">2</output>' in drawn
    assert re.findall(r'class="number">([^<]+)<', drawn) == ["75.0 %", "25.0 %"]
    assert drawn.count('<li class="marked">') == 1
