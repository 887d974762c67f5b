"""The page of localization scores."""

import html
import re
from pathlib import Path

import pytest

from convolab.inspection.localization.erf_offset import ErfOffset
from convolab.inspection.localization.samples import EvaluationSetting
from convolab.inspection.localization.score import BASELINES, LocalizationScore, ScoreRecord
from convolab.reports.localization import write_localization_report

HOSTILE_NAME = "<script>alert(1)<script>"


@pytest.mark.slow
def test_the_page_has_the_frame_of_the_reports_headings_in_every_cell_and_escaped_names(tmp_path: Path) -> None:
    names = ("erf", *BASELINES)
    records = tuple(
        ScoreRecord(
            str(n), "cat", dict.fromkeys(names, True), dict.fromkeys(names, 0.1), dict.fromkeys(names, (0.1,) * 9)
        )
        for n in range(4)
    )
    scores = [LocalizationScore(EvaluationSetting(HOSTILE_NAME, (), shorter_side=160), names, records)]
    offset = ErfOffset(
        mean=(0.1, 0.2), std=(1.0, 1.0), rms_radius=3.0, num_cells=9, image_size=(32, 32), reference="rf-center"
    )
    write_localization_report(tmp_path / "s", HOSTILE_NAME, "photos", offset, scores, {}, [HOSTILE_NAME])
    page = (tmp_path / "s.html").read_text()
    assert page.count("<script") == page.count("</script>") == 1  # the button's
    assert f"<h1>Localization scores of {html.escape(HOSTILE_NAME)}</h1>" in page
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    assert '<button id="theme"' in page
    assert len(re.findall(r'role="img" aria-label="[^"]+"><svg', page)) == 2  # for wide screens and for phones
    assert page.count(">4 objects; bars and bands: 95 % intervals.") == 2  # the caption
    wide, narrow = (int(width) for width in re.findall(r'<svg[^>]* width="(\d+)"', page))
    assert narrow < 390 < wide
    assert len(re.findall(r"<td data-label=\"[^\"]+\"", page)) == page.count("<td") == 4 * 6
