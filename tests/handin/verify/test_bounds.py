"""What one hand-in cannot do to a class: push out what speaks against it, end the command, or take minutes."""

import json
import re
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convolab.core.files import sha256_of
from convolab.handin.check import has_gap, printed_value
from convolab.handin.comments import own_text
from convolab.handin.homework import Homework
from convolab.handin.notebook_file import HandedInCell, parse_cell
from convolab.handin.verify import verify
from convolab.handin.verify.archive import HandIn, read_hand_in
from convolab.handin.verify.digests import page_signs
from convolab.handin.verify.evidence import RunEvidence
from convolab.handin.verify.execute import VOLATILE
from convolab.handin.verify.numbers import LABELED, MAX_LIVE_LINES, number_signs
from convolab.handin.verify.signs import Sign, as_note, as_shared
from convolab.handin.verify.verify import MAX_LISTED, SPEED, HandInReport, listed_signs, verify_hand_ins
from convolab.training.history import EpochMetrics

NOTEBOOK = "question2_training.ipynb"
DIGITS = "9" * 5000  # Python refuses to make a whole number of so many


def code_cell(name: str, count: int = 1, printed: str = "", source: str = "f()", **data: str) -> dict[str, Any]:
    """A cell of a notebook's JSON; the data are what it showed, by their media type with _ in place of the rest."""
    kinds = {"text_html": "text/html", "image_svg": "image/svg+xml", "image_png": "image/png"}
    outputs: list[dict[str, Any]] = [{"output_type": "stream", "name": "stdout", "text": printed}] if printed else []
    outputs += [{"output_type": "display_data", "data": {kinds[kind]: text}} for kind, text in data.items()]
    return {
        "cell_type": "code", "id": name, "metadata": {"name": name}, "source": source, "execution_count": count,
        "outputs": outputs,
    }  # fmt: skip


def hand_in(path: Path, name: str, *cells: dict[str, Any], page: str = "") -> Path:
    """A zip with a notebook, and perhaps its page, whose manifest knows all files."""
    files = {"question1_answers.md": "## 1(a)\n\nSo.\n", NOTEBOOK: json.dumps({"cells": cells})}
    files |= {NOTEBOOK.replace(".ipynb", ".html"): page} if page else {}
    digests = {member: sha256_of(text.encode()) for member, text in files.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps({"name": name, "sha256": digests}))
        for member, text in files.items():
            archive.writestr(member, text)
    return path


def test_signs_of_one_weight_push_out_none_of_another_and_how_many_are_left_out_is_a_note() -> None:
    group = replace(as_note("answers in code", "all answers"), shared_by=("Ada", "Bela"))
    signs = [as_note("q", str(number)) for number in range(MAX_LISTED + 1_234)]
    signs += [Sign("q", str(number)) for number in range(MAX_LISTED + 7)]
    signs += [Sign("q", "0"), as_shared("q.ipynb", "the notebook"), group]
    listed = listed_signs("a.zip", signs)
    assert Counter(sign.weight for sign in listed) == {"note": MAX_LISTED + 3, "sign": MAX_LISTED, "shared": 1}
    assert group in listed
    assert listed[-2:] == [
        as_note("a.zip", "1,234 more notes are not listed"), as_note("a.zip", "7 more contradictions are not listed"),
    ]  # fmt: skip
    assert listed_signs("a.zip", signs[:MAX_LISTED]) == signs[:MAX_LISTED]


@pytest.mark.slow
def test_a_thousand_notes_do_not_hide_that_two_hand_ins_share_work(homework: Homework, tmp_path: Path) -> None:
    cells = [
        code_cell(f"c{i}", i + 1, "\n".join(f"loss of arm {n} = 0.{i}{n:03d}7" for n in range(200))) for i in range(5)
    ]
    for name in ("Ada", "Bela"):
        hand_in(tmp_path / f"{name}.zip", name, *cells)
    result = verify_hand_ins([tmp_path], homework)
    for report in result.reports:
        assert any("byte for byte" in sign.what for sign in report.shared)
        assert any(re.fullmatch(r"\d+ more notes are not listed", sign.what) for sign in report.notes)
    assert result.suspicious == list(result.reports)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "page"),
    [
        (code_cell("a", text_html="epoch 1/9 training loss 1.2.3, accuracy 4.5 %"), ""),
        (code_cell("a", text_html=f"epoch {DIGITS}/9 training loss 1.2, accuracy 4.5 %"), ""),
        (code_cell("a", printed=f"ImageFigure of {DIGITS} x 2 pixels", image_png="iVBORw0KGgo="), ""),
        (code_cell("a", printed=f"test accuracy = {DIGITS}\ntest accuracy = 1e{DIGITS}"), ""),
        (code_cell("a", image_svg=f'<path aria-label="epoch: 1; loss: &#{DIGITS};"/>'), ""),
        (code_cell("a", source='plot_curves(h, title="t")', image_svg=f"<text>&#{DIGITS};</text>"), ""),
        (code_cell("a", printed="accuracy 0.5"), f"<p>&#{DIGITS};</p>"),
        (code_cell("a", source=f"a{'.a' * 2000}()"), ""),
    ],
)
def test_what_is_no_number_and_no_name_that_python_can_make_ends_nothing(
    homework: Homework, tmp_path: Path, cell: dict[str, Any], page: str
) -> None:
    hand_in(tmp_path / "a.zip", "Ada", cell, page=page)
    hand_in(tmp_path / "b.zip", "Bela", code_cell("a", printed="nothing"))
    reports = verify_hand_ins([tmp_path], homework).reports
    assert [(report.name, report.refused) for report in reports] == [("Ada", ""), ("Bela", "")]


def test_whatever_goes_wrong_in_one_hand_in_its_line_has_the_reason_and_the_others_go_on(
    homework: Homework, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail_for_ada(path: Path) -> HandIn:
        if path.name == "a.zip":
            raise ZeroDivisionError("an odd\nnumber")
        return read_hand_in(path)

    monkeypatch.setattr(verify, "read_hand_in", fail_for_ada)
    hand_in(tmp_path / "a.zip", "Ada")
    hand_in(tmp_path / "b.zip", "Bela")
    result = verify_hand_ins([tmp_path], homework)
    reason = "cannot be verified (ZeroDivisionError: an odd number): look at it by hand"
    assert [(report.name, report.refused) for report in result.reports] == [("a", reason), ("Bela", "")]
    assert result.reports[0] in result.suspicious


def read_page_with_many_figures() -> None:
    """A page of 4 MB, and a cell of 20,000 figures of which it shows one."""
    page = f'{"x " * 2_000_000}<img src="data:image/png;base64,iVBO+/=="/>'
    figures = [("image/png", f"{number:0100d}") for number in range(20_000)]
    cell = replace(parse_cell(code_cell("a")), figures=(*figures, ("image/png", "iVBO+/==")))
    hand_in = HandIn(Path("a.zip"), "0" * 64, {"q.html": page.encode()}, {})
    assert len(list(page_signs(hand_in, "q", [cell]))) == 20_000


@pytest.mark.slow
def test_a_page_of_more_text_than_is_sought_in_is_a_note() -> None:
    hand_in = HandIn(Path("a.zip"), "0" * 64, {"q.html": b"x" * 5_000_001}, {})
    [note] = page_signs(hand_in, "q", [parse_cell(code_cell("a", printed="accuracy 0.5"))])
    assert (note.weight, note.what) == ("note", "it is too large to be compared with its notebook")


SLOW_TO_READ: dict[str, Callable[[], object]] = {
    "empty lines": lambda: printed_value("\n" * 200_000, "test accuracy"),
    "a line of signs": lambda: printed_value("-" * 1_000_000, "test accuracy"),
    "spaces where a gap may be": lambda: has_gap(" " * 1_000_000 + "!"),
    "spaces in such a line": lambda: has_gap("%time\na" + " " * 1_000_000 + "!"),
    "an empty comment": lambda: own_text("\n" * 1_000_000),
    "hidden comments without an end": lambda: own_text("<!--" * 1_000_000),
    "digits where a speed may be": lambda: SPEED.search("1" * 2_000_000),
    "digits where a time may be": lambda: VOLATILE.sub("", "1" * 500_000 + "1." * 100_000),
    "a label without an end": lambda: LABELED.search("loss " * 40_000),
    "figures on a page": read_page_with_many_figures,
}


@pytest.mark.slow
@pytest.mark.parametrize("read", SLOW_TO_READ.values(), ids=SLOW_TO_READ)
def test_a_text_that_is_made_to_take_minutes_takes_a_moment(read: Callable[[], object]) -> None:
    started = time.monotonic()
    read()
    assert time.monotonic() - started < 5


def curves(name: str, first: int) -> HandedInCell:
    """A cell whose chart has 10,000 curves, which end at other values than those of another number."""
    marks = (
        f'<path aria-label="epoch: 2; validation accuracy (%): {first + n / 1000}; training: t{n}"/>'
        for n in range(10_000)
    )
    return parse_cell(code_cell(name, image_svg="".join(marks)))


@pytest.mark.slow
def test_the_numbers_of_a_notebook_are_compared_in_a_moment_however_many_they_are(mine: Homework) -> None:
    cells = [
        parse_cell(code_cell(f"c{i}", printed="\n".join(f"accuracy of arm = 0.{i:03d}{n:03d}" for n in range(200))))
        for i in range(100)
    ]
    cells += [curves("a", 0), curves("b", 50)]
    started = time.monotonic()
    found = list(number_signs(mine, mine.notebooks[0], cells, []))
    assert time.monotonic() - started < 10
    assert any("its chart ends at" in sign.what for sign in found)


@pytest.mark.slow
def test_only_so_many_lines_of_a_trainings_display_are_compared_with_the_runs(mine: Homework, tmp_path: Path) -> None:
    history = [EpochMetrics(epoch, 0.1234, 0.5, 0.2, 0.4) for epoch in range(1, 101)]
    runs = [RunEvidence(f"run-{number}", tmp_path, history=history) for number in range(100)]
    shown = "epoch 3/9 training loss 0.123, accuracy 50.0 % validation loss 0.200, accuracy 40.0 %\n"
    started = time.monotonic()
    for text, num_found in ((shown, 0), (shown.replace("0.123", "0.999") * 50_000, MAX_LIVE_LINES)):
        cell = parse_cell(code_cell("a", text_html=text))
        assert len([*number_signs(mine, mine.notebooks[0], [cell], runs)]) == num_found
    assert time.monotonic() - started < 10


def test_a_number_in_the_cell_of_a_chart_is_no_second_place_for_its_end(mine: Homework) -> None:
    mark = '<path aria-label="epoch: 2; validation accuracy (%): 41.5; training: a"/>'
    cell = parse_cell(code_cell("a", printed="validation accuracy of a: 41.50 %", image_svg=mark))
    found = [sign.what for sign in number_signs(mine, mine.notebooks[0], [cell], [])]
    assert found == ["its chart ends at 41.50 %, which no other cell of the notebook has"]


def test_the_line_of_what_went_wrong_is_short(
    homework: Homework, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(file: Path, *rest: object) -> tuple[HandInReport, None]:
        raise RuntimeError("x" * 100_000)

    monkeypatch.setattr(verify, "verify_one", fail)
    [report] = verify_hand_ins([hand_in(tmp_path / "a.zip", "Ada")], homework).reports
    assert len(report.refused) < 300
