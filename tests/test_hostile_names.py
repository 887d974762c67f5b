"""Names from elsewhere on every page that is written: classes, files, folders, arms, sections, titles, people.

Every name closes what it may stand in and opens an element of its own. A parser of HTML, and a browser that draws the
charts, must find that element nowhere; and each page's policy must forbid what is not its own.
"""

import functools
import json
import re
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.browser import render_in_browser
from torch import nn

import convolab
from convolab.cli.main import main
from convolab.handin.homework import load_homework
from convolab.handin.pack import notebook_page
from convolab.handin.verify.report import class_page
from convolab.handin.verify.verify import verify_hand_ins
from convolab.inspection.localization.erf_offset import ErfOffset
from convolab.inspection.localization.samples import EvaluationSetting
from convolab.inspection.localization.score import BASELINES, LocalizationScore, ScoreRecord
from convolab.reports.localization import write_localization_report
from convolab.reports.theory import sheet_html
from convolab.theory.sheet import AnswerSheet, OpenItem, QuestionAnswer, Span, Text

pytestmark = pytest.mark.slow
FILE = "\"'><x-evil onevil=1>{{7*7}}&lt;"  # a file's or a folder's name, so without a slash
NAME = f'</script></style></title></textarea>--></svg></pre>{FILE}\\"+\\"\x1b[31m\u202e'
MARKERS = ("x-evil", "onevil")
POLICY = re.compile(r'Content-Security-Policy" content="([^"]+)"')


class Found(HTMLParser):
    """The elements and attributes of a page, of which none may be the name's own."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.evil: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.evil += [name for name in (tag, *(name for name, _ in attrs)) if name.startswith(MARKERS)]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs and a study on images whose classes, files and folders have such names, and the pages that come of them."""
    folder = tmp_path_factory.mktemp("hostile")
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 30), ("test", 6)):
        for number, label in enumerate(("cat", "dog")):
            images = folder / "images" / split / f"{label}{FILE}"
            images.mkdir(parents=True)
            for index in range(count):
                pixels = torch.randint(60 * number, 200 + 55 * number, (8, 8), dtype=torch.uint8, generator=generator)
                Image.fromarray(pixels.numpy()).save(images / f"{index}{FILE}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        common = [
            "--log",
            "playback",
            "--data",
            "folder:images",
            "--batch-size",
            "8",
            "--epochs",
            "1",
            "--set",
            "data.image_size=8",
        ]
        for seed in (0, 1):
            command(patch, "train", "shallow_net", *common, "--seed", str(seed), "--out", f"{seed}{FILE}")
        command(patch, "test", f"0{FILE}", "--gallery")
        command(patch, "compare", f"0{FILE}", f"1{FILE}", "--out", "comparison.html")
        command(patch, "summary", f"0{FILE}", "--out", "summary.html")
        (folder / "net.py").write_text(OWN_NETWORK)
        command(patch, "summary", "net.py:Net", "--input", "1,8,8", "--out", "layers.html")
    return folder


OWN_NETWORK = f"""
from torch import nn
from collections import OrderedDict
class Net(nn.Sequential):
    def __init__(self, shape, classes):
        name = {FILE.replace(".", "")!r}
        super().__init__(OrderedDict([("flat", nn.Flatten()), (name, nn.Linear(64, classes))]))
"""


def command(patch: pytest.MonkeyPatch, *words: str) -> None:
    """Call a command in this process; it must succeed."""
    patch.setattr("sys.argv", ["convolab", *words])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    assert not code, words


def study_report(folder: Path) -> Path:
    recipe = {"data": {"limit": 60}, "model": {"name": "shallow_net"}, "training": {"epochs": 1, "batch_size": 16}}
    section = {
        "title": NAME, "note": NAME, "arms": {FILE: {"optimizer.lr": 0.1}, "b": {}},
        "contrasts": [{"arm": FILE, "baseline": "b", "subject": NAME}],
        "curves": ["train_loss", "validation_accuracy"],
    }  # fmt: skip
    study = convolab.Study.from_dict(
        {"name": "study", "title": NAME, "seeds": [0, 1], "recipe": recipe, "sections": {FILE[:20]: section}}
    )
    result = convolab.run_study(study, out=folder / f"study{FILE}")
    result.save(folder / "study.html")
    return folder / "study.html"


def localization_report(folder: Path) -> Path:
    names = ("erf", *BASELINES)
    record = ScoreRecord(
        NAME, NAME, dict.fromkeys(names, True), dict.fromkeys(names, 0.1), dict.fromkeys(names, (0.1,) * 9)
    )
    scores = [LocalizationScore(EvaluationSetting(NAME, (), shorter_side=160), names, (record,) * 4)]
    offset = ErfOffset(
        mean=(0.1, 0.2), std=(1.0, 1.0), rms_radius=3.0, num_cells=9, image_size=(32, 32), reference="rf-center"
    )
    write_localization_report(folder / "scores", NAME, NAME, offset, scores, {}, [NAME])
    return folder / "scores.html"


def answer_sheet(folder: Path) -> Path:
    blocks = (Text((Span("text", NAME), Span("code", NAME))), OpenItem(NAME))
    sheet = AnswerSheet(NAME, (Span("text", NAME),), (QuestionAnswer(NAME, NAME, NAME, blocks),), name=NAME, date=NAME)
    (folder / "sheet.html").write_text(sheet_html(sheet, {}))
    return folder / "sheet.html"


def class_report(folder: Path) -> Path:
    inbox = folder / "inbox"
    inbox.mkdir(exist_ok=True)
    with zipfile.ZipFile(inbox / f"{FILE}.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps({"name": NAME}))
        archive.writestr("question1_answers.md", f"## 1(a)\n\n{NAME}\n")
        archive.writestr(f"{FILE}.txt", "x")
    (inbox / f"damaged{FILE}.zip").write_bytes(b"no zip")
    (folder / "class.html").write_text(class_page(verify_hand_ins([inbox], load_homework())))
    return folder / "class.html"


def notebook(folder: Path) -> Path:
    cell = {
        "cell_type": "code", "id": "a", "execution_count": 1, "metadata": {}, "source": NAME,
        "outputs": [
            {"output_type": "stream", "name": "stdout", "text": NAME},
            {"output_type": "display_data", "metadata": {}, "data": {"text/html": NAME, "text/markdown": NAME}},
            {"output_type": "error", "ename": NAME, "evalue": NAME, "traceback": [NAME]},
        ],
    }  # fmt: skip
    words = {"cell_type": "markdown", "id": "b", "metadata": {}, "source": NAME}
    content = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"title": NAME}, "cells": [cell, words]}
    (folder / "notebook.html").write_bytes(notebook_page(json.dumps(content).encode()))
    return folder / "notebook.html"


def playback(folder: Path) -> Path:
    return convolab.Run(folder / f"0{FILE}").playback().save(folder / "playback.html")


def run_page(name: str, folder: Path) -> Path:
    return folder / f"0{FILE}" / name


PAGES: dict[str, Callable[[Path], Path]] = {
    "curves": functools.partial(run_page, "curves.html"),
    "confusion": functools.partial(run_page, "confusion.html"),
    "calibration": functools.partial(run_page, "calibration.html"),
    "mistakes": functools.partial(run_page, "mistakes.html"),
    "playback": playback,
    "comparison": lambda folder: folder / "comparison.html",
    "summary": lambda folder: folder / "summary.html",
    "layers": lambda folder: folder / "layers.html",
    "study": study_report,
    "localization": localization_report,
    "answer sheet": answer_sheet,
    "class": class_report,
    "notebook": notebook,
}
NBCONVERT = "notebook"  # its page is nbconvert's, which loads its own scripts and has no policy


@pytest.mark.parametrize("kind", PAGES)
def test_no_name_is_more_than_text_on_a_page(kind: str, place: Path, tmp_path: Path) -> None:
    path = PAGES[kind](place)
    page = path.read_text()
    assert Found(page).evil == []
    if kind != NBCONVERT:
        assert "\x1b" not in page
        assert "\u202e" not in page
        policy = POLICY.search(page)
        assert policy
        assert policy[1].startswith("default-src 'none'")
        scripts = re.search(r"script-src ([^;]*)", policy[1])
        assert "unsafe" not in (scripts[1] if scripts else "")
    shown = tmp_path / "page.html"
    shown.write_text(page)
    drawn = render_in_browser(shown, tmp_path / "profile", "--dump-dom", "--virtual-time-budget=5000").stdout
    assert "</html>" in drawn
    assert Found(drawn).evil == []


def test_every_object_that_draws_itself_has_names_as_text(place: Path) -> None:
    runs = [convolab.Run(place / f"{seed}{FILE}") for seed in (0, 1)]
    images = convolab.load(f"folder:{place / 'images'}").train
    things = [
        *runs, runs[0].history, runs[0].recipe, runs[0].mistakes(3), runs[0].playback(), images, convolab.compare(runs),
        convolab.summary(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), (1, 8, 8)),
    ]  # fmt: skip
    for thing in things:
        bundle = thing._repr_mimebundle_()  # what a notebook asks for
        assert "text/html" in bundle, type(thing)
        assert Found(bundle["text/html"]).evil == [], type(thing)
