"""The table over a class, for a terminal, a spreadsheet and a browser; names from hand-ins are harmless in each."""

import csv
import html
import io
import json
import re
import zipfile
from pathlib import Path

import pytest

from convolab.core.errors import LabError
from convolab.handin.homework import Homework
from convolab.handin.verify.report import (
    CLASS_COLUMNS,
    class_csv,
    class_page,
    plain_cell,
    require_report_folder,
    write_class_report,
)
from convolab.handin.verify.signs import READING_CANNOT_SHOW
from convolab.handin.verify.verify import VerifyResult, verify_hand_ins

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
    assert plain_cell("-1+1") == "'-1+1"
    assert plain_cell("-") == "-"


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
    assert (float(row["points"]), row["points 1"], row["points 2.12"]) == (20, "20.0", "0.0")
    assert list(row)[: len(CLASS_COLUMNS)] == list(CLASS_COLUMNS)
    assert sum(float(value) for name, value in row.items() if name.startswith("points ")) == float(row["points"])


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
