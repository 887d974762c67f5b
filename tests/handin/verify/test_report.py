"""The table over a class, for a terminal, a spreadsheet and a browser; names from hand-ins are harmless in each."""

import csv
import html
import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from convolab.core.errors import LabError
from convolab.handin.homework import Homework
from convolab.handin.verify.report import (
    CLASS_COLUMNS,
    TOTAL,
    class_csv,
    class_page,
    class_rows,
    group_line,
    mark_code,
    require_report_folder,
    run_words,
    summary_lines,
    write_class_report,
)
from convolab.handin.verify.signs import READING_CANNOT_SHOW, Sign, as_note, as_shared, confirmed, skipped
from convolab.handin.verify.verify import HandInReport, VerifyResult, name_item, verify_hand_ins

EVIL = "=HYPERLINK(1)</td><script>steal()</script>\x1b[31m"


@pytest.fixture
def evil(homework: Homework, tmp_path: Path) -> VerifyResult:
    """A class of one hand-in whose name wants too much, and one that is no zip."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    with zipfile.ZipFile(inbox / "a.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps({"name": EVIL}))
        archive.writestr("question1_answers.md", "## 1(a)\n\nSo.\n\n## 1(b)\n\nThus.\n\n## 1(c)\n\nHence.\n")
        archive.writestr("<script>.txt", "x")
    (inbox / "<img src=x>.zip").write_bytes(b"no zip")
    return verify_hand_ins([inbox], homework)


def test_names_run_nothing_in_a_spreadsheet(evil: VerifyResult) -> None:
    rows = list(csv.DictReader(io.StringIO(class_csv(evil))))
    assert len(rows) == 2
    assert not any(str(value).startswith(("=", "+", "@", "\t")) for row in rows for value in row.values())
    assert all(str(value).isprintable() for row in rows for value in row.values())


def test_names_run_nothing_on_the_page_and_the_page_loads_nothing(evil: VerifyResult) -> None:
    page = class_page(evil)
    assert "<script>steal" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;steal" in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert all(line in html.unescape(page) for line in READING_CANNOT_SHOW)


def test_the_table_has_a_column_of_points_for_each_item_that_a_teacher_may_change(evil: VerifyResult) -> None:
    [_, row] = csv.DictReader(io.StringIO(class_csv(evil)))
    assert (float(row[TOTAL]), row["points 1"], row["points 2.12"]) == (20, "20.0", "0.0")
    assert list(row)[: len(CLASS_COLUMNS) - 1] == [name for name in CLASS_COLUMNS if name != "points"]
    assert list(row)[-1] == TOTAL
    assert sum(float(value) for name, value in row.items() if name.startswith("points ")) == float(row[TOTAL])


def test_a_report_whose_points_may_have_been_changed_is_not_replaced(evil: VerifyResult, tmp_path: Path) -> None:
    out = tmp_path / "report"
    require_report_folder(out)
    assert [path.name for path in write_class_report(evil, out)] == ["class.html", "class.csv"]
    with pytest.raises(LabError, match="its points may have been changed by hand"):
        require_report_folder(out)
    (out / "class.csv").unlink()
    require_report_folder(out)
    (out / "class.html").write_text("mine")
    with pytest.raises(LabError, match="choose another name"):
        require_report_folder(out)
    with pytest.raises(LabError, match="is a file"):
        require_report_folder(out / "class.html")


def test_all_of_it_is_json(evil: VerifyResult) -> None:
    values = json.loads(json.dumps(evil.to_dict(), allow_nan=False))
    assert [entry["file"] for entry in values["hand_ins"]] == ["<img src=x>.zip", "a.zip"]
    assert values["num_suspicious"] == 2  # a file that the manifest does not know
    assert values["fence"] is None


@pytest.fixture
def sharing(homework: Homework) -> VerifyResult:
    """One that copied, its victim, one that was run again, and one with a note of a group."""
    copied = as_shared("q.ipynb", "the notebook q.ipynb, byte for byte")
    copied = replace(copied, shared_by=("Ada", "Bela"), parts=(copied.what, "a training that took `1 s`"))
    unusual = replace(as_note("answers in code", "all answers"), shared_by=("Chen", "Dora"), parts=("all answers",))
    bad = Sign("question2_training, q2-12-figure (item 2.12)", "it shows `0.9`, and no run has it")
    again = [confirmed(f"evidence/{name}", "trained again: all agrees", "rerun") for name in ("a", "b")]
    again += [confirmed("q.ipynb", "executed again: all agrees", "execute"), skipped("r.ipynb", "not", "execute")]
    signs = {"Ada": [bad, copied], "Bela": [copied], "Chen": [*again, unusual], "Dora": [unusual]}
    return VerifyResult(homework, tuple(HandInReport(f"{name}.zip", name, signs=own) for name, own in signs.items()))


def test_who_shares_work_is_not_counted_as_contradicting_itself_and_what_is_confirmed_is_no_note(
    sharing: VerifyResult,
) -> None:
    assert [row[1] for row in class_rows(sharing)] == [
        "1 contradiction by reading; shares work: group 1", "shares work: group 1",
        "1 not run again; note: group 2; 3 confirmed", "note: group 2",
    ]  # fmt: skip
    assert summary_lines(sharing)[1] == "0 refused, 1 with contradictions, 2 sharing work"
    assert [report.name for report in sharing.suspicious] == ["Ada", "Bela"]


def test_a_group_does_not_say_who_copied_and_stands_in_the_row_of_each_member(sharing: VerifyResult) -> None:
    rows = list(csv.DictReader(io.StringIO(class_csv(sharing))))
    assert rows[0]["shared"] == rows[1]["shared"] == group_line(sharing, 1)
    assert rows[0]["shared"].startswith("group 1: Ada and Bela share the notebook q.ipynb")
    assert rows[0]["shared"].endswith("at least one of them copied, and the files do not say who")
    assert rows[2]["shared"] == rows[3]["shared"] == "group 2 (a note): Chen and Dora share all answers"


def test_the_report_says_what_was_run_and_not_that_nothing_was(sharing: VerifyResult, evil: VerifyResult) -> None:
    assert run_words(evil) == "nothing of them was run"
    some = "2 runs were trained again and 1 notebook was executed again"
    assert run_words(sharing) == f"{some}; no code of the hand-ins was run"
    fenced = run_words(replace(sharing, fence="behind bubblewrap"))
    assert (
        fenced == "2 runs were trained again; 1 notebook was executed again; code of the hand-ins ran behind bubblewrap"
    )


def test_what_was_run_of_two_hand_ins_in_files_of_one_name_counts_twice(homework: Homework) -> None:
    again = [confirmed("evidence/a", "trained again: all agrees", "rerun")]
    again += [confirmed("q.ipynb", "executed again: all agrees", "execute"), Sign("q.ipynb, b", "another", "execute")]
    reports = [HandInReport("handin.zip", name, signs=list(again)) for name in ("Ada", "Bela")]
    result = VerifyResult(homework, tuple(reports))
    assert (result.count_done("rerun"), result.count_done("execute")) == (2, 2)


def test_the_page_has_no_backticks_its_links_lead_somewhere_and_its_words_come_last(sharing: VerifyResult) -> None:
    page = class_page(sharing)
    text = re.sub(r"(?s)<(script|style)>.*?</\1>", "", page)
    assert "`" not in text
    assert "<code>1 s</code>" in text
    assert mark_code("a ` <b>") == "a &#39; &lt;b&gt;"
    targets = re.findall(r'href="#([^"]+)"', text)
    assert {"group-1", "group-2", "hand-in-1", "hand-in-3"} == set(targets)
    assert all(f'id="{target}"' in text for target in targets)
    assert text.index("<h2>What hand-ins share") < text.index('id="hand-in-1"') < text.index("<summary>")


def test_a_refused_row_of_the_page_is_one_cell_with_the_reason(evil: VerifyResult) -> None:
    [row] = [row for row in class_page(evil).split("<tr>") if "refused</span>" in row]
    assert row.count("<td") == 1
    assert "is no zip" in row


def test_the_table_of_a_report_opens_in_excel_with_names_of_all_letters(sharing: VerifyResult, tmp_path: Path) -> None:
    sharing.reports[0].name = "Öz Čapek"
    [_, table] = write_class_report(sharing, tmp_path / "out")
    assert table.read_bytes().startswith("\ufeffwho,".encode())
    assert "Öz Čapek" in table.read_text(encoding="utf-8-sig")


def test_a_sign_of_a_cell_names_its_item(homework: Homework) -> None:
    for where, named in (
        ("question2_training, q2-12-figure", "question2_training, q2-12-figure (item 2.12)"),
        ("question2_training.html, q2-12-figure", "question2_training.html, q2-12-figure (item 2.12)"),
        ("question2_training, nosuch", "question2_training, nosuch"),
        ("evidence/a, b", "evidence/a, b"),
    ):
        assert name_item(homework, Sign(where, "")).where == named
