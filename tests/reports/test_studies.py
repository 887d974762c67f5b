"""The report of a study: its contents, its size, that it loads nothing, and that a browser renders it."""

import html
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.browser import render_in_browser
from support.synthetic_study import SPECIAL_NAME, STUDY, synthetic_history, synthetic_study

from convolab.core.errors import LabError
from convolab.core.stats import mean_interval
from convolab.reports.studies import study_report_html, write_study_report
from convolab.reports.study_about import GLOSSARY
from convolab.studies.analyze import analyze_study
from convolab.studies.metrics import Metric
from convolab.studies.results import StudyResult, TrialResult
from convolab.studies.study import Study

SCRIPTS = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL)

pytestmark = pytest.mark.slow  # their study and its charts are made first


@pytest.fixture(scope="module")
def text_of_page(page) -> str:
    """The text of the page: no scripts, no styles, no tags."""
    text = re.sub(r"<style>.*?</style>", " ", SCRIPTS.sub(" ", page), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def test_the_page_refers_to_no_other_file_or_url(page) -> None:
    markup = SCRIPTS.sub("", page)
    assert not re.search(r"""(src|href|action|data)\s*=\s*["'](?!#)""", markup)
    assert not re.search(r"@import|url\(", markup)
    assert not re.search(r"<(link|iframe|img|object|embed|base)\b", markup)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"https?:|\*|'self'|connect-src", policy)
    *data, libraries, page_script = SCRIPTS.findall(page)
    assert "http" not in "".join(data) + page_script
    assert "vegaEmbed" in libraries  # it is embedded, not loaded


def test_the_results_are_before_all_cards_and_the_recipes_after_them(text_of_page) -> None:
    positions = [
        text_of_page.index(part)
        for part in ("Question 2, made up", "Results", "SGD with learning rate 1e-3", "Reproducibility")
    ]
    assert positions == sorted(positions)
    assert text_of_page.index("on the test images, 95 % interval") < positions[2]


def test_every_section_note_verdict_comment_and_problem_is_on_the_page(text_of_page) -> None:
    result = synthetic_study()
    for section in result.sections:
        for text in (
            section.section.title,
            section.section.note,
            section.comment,
            *(contrast_result.comment for contrast_result in section.contrast_results),
        ):
            assert " ".join(text.split()) in text_of_page
        for contrast_result in section.contrast_results:
            mark = {
                "better": "▲ better",
                "worse": "▼ worse",
                "equivalent": "= equivalent",
                "undecided": "? undecided",
            }
            assert mark[contrast_result.verdict] in text_of_page
            assert not contrast_result.reason or contrast_result.reason in text_of_page
    verdicts = {contrast_result.verdict for section in result.sections for contrast_result in section.contrast_results}
    assert verdicts == {"better", "worse", "undecided"}
    assert result.best_on_test.comment in text_of_page
    assert all(note in text_of_page for note in result.notes)


def test_divergence_is_in_the_table_in_the_charts_and_in_the_notes(text_of_page, figures) -> None:
    assert "lr=3 3 diverged 3 of 3" in text_of_page
    assert "lr=1 3 diverged 1 of 3" in text_of_page
    assert (
        "lr-sgd, lr=1, seed 1: diverged after 6 epochs: the loss became NaN in epoch 7: try a smaller optimizer.lr"
        in text_of_page
    )
    loss = next(figure for figure in figures if "divergences" in figure["tables"])
    assert loss["tables"]["divergences"]["epoch"] == [3, 2, 4, 6]  # the epoch where each curve ends
    assert "divergences" in {layer["data"]["name"] for layer in loss["spec"]["layer"]}


def test_the_numbers_on_the_page_are_those_of_the_results(text_of_page) -> None:
    arm = synthetic_study().sections[0].arms[0]
    interval = mean_interval(list(arm.values(Metric("best", "validation_accuracy")).values()))
    assert f"{100 * interval.mean:.2f} % {100 * interval.low:.2f} to {100 * interval.high:.2f}" in text_of_page
    best = synthetic_study().best_on_test
    assert f"{100 * best.test_result.accuracy:.2f} %" in text_of_page
    assert f"{best.test_result.correct:,} of {best.test_result.count:,} test images" in text_of_page


def test_recipes_seeds_times_versions_and_hardware_are_on_the_page(text_of_page) -> None:
    for text in (
        'name = "simple_convnet"',
        "model.batch_norm = false",
        "optimizer.lr = 3.0",
        "1 to 3 seeds per arm",
        "9 min 0 s",
        "torch 2.14.0",
        "Abacus 9000",
    ):
        assert text in text_of_page


def test_names_and_texts_are_escaped_on_the_page(page, figures) -> None:
    markup = SCRIPTS.sub("", page)
    assert SPECIAL_NAME not in page
    assert html.escape(SPECIAL_NAME, quote=False).split("'")[0] in markup
    assert "<b>bold</b>" not in page  # neither in markup nor in data
    num_opened, num_closed = page.count("<script"), page.count("</script>")
    assert num_opened == num_closed == 3
    assert "<!--" not in page
    assert SPECIAL_NAME in json.dumps(figures, ensure_ascii=False)  # and the data still contain it


def test_a_title_that_contains_script_tags_is_escaped() -> None:
    result = synthetic_study(False)
    first = result.sections[0]
    section = first.section.model_copy(
        update={"title": "</script><script>alert(1)</script>", "note": "</style><b>bold</b>"}
    )
    page = study_report_html(
        replace(result, sections=(replace(first, section=section), *result.sections[1:]), notes=("</script>",))
    )
    assert page.count("<script") == 3
    assert "<b>bold" not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page


def test_a_study_without_any_finished_run_has_a_page() -> None:
    values = {
        "name": "bare",
        "seeds": [4],
        "sections": {
            "one": {"arms": {"a": {}, "b": {"optimizer.lr": 0.5}}, "contrasts": [{"arm": "a", "baseline": "b"}]}
        },
    }
    study = Study.from_dict(values)
    page = study_report_html(StudyResult(study, analyze_study(study, []), None, ("nothing ran",)))
    assert "missing 1 of 1" in page
    assert "undecided" in page
    assert "nothing ran" in page
    assert 'id="best-on-test"' not in page
    assert '"figures":[]}' in page


TIME_1000_RUNS = """
import sys, time
from pathlib import Path
from support.synthetic_study import study_of_1000_runs
from convolab.reports.studies import write_study_report
result = study_of_1000_runs()
assert len(result.trial_results) == 990
started = time.process_time()
write_study_report(result, Path(sys.argv[1]))
print(time.process_time() - started)
"""


@pytest.mark.long
def test_the_page_of_a_thousand_runs_has_at_most_2_mb_and_takes_at_most_10_seconds(tmp_path) -> None:
    # In a process of its own: the tests check the types of every call, which takes longer than the page.
    command = [sys.executable, "-c", TIME_1000_RUNS, tmp_path / "report.html"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert float(result.stdout) <= 10
    assert (tmp_path / "report.html").stat().st_size <= 2e6


def test_a_page_that_cannot_be_written_gives_a_one_line_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="cannot write"):
        write_study_report(synthetic_study(), tmp_path / "file" / "report.html")


@pytest.mark.parametrize("size", ["1400,900", "375,800"])
def test_a_browser_renders_every_chart_without_a_message_on_its_console(tmp_path, page, figures, size) -> None:
    (tmp_path / "report.html").write_text(page)
    result = render_in_browser(
        tmp_path / "report.html",
        tmp_path / "profile",
        f"--window-size={size}",
        "--virtual-time-budget=60000",
        "--dump-dom",
    )
    assert "CONSOLE" not in result.stderr
    assert f'data-drawn="{len(figures)}"' in result.stdout
    charts = re.findall(r'<div class="chart[^>]*>(.*?)</figure>', result.stdout, re.DOTALL)
    assert len(charts) == len(figures)
    for chart in charts:
        assert chart.count("<path") > 5
        assert not re.search(r'\b(d|x|y|transform)="[^"]*NaN', chart)


def test_on_a_phone_the_page_does_not_scroll_sideways_and_a_row_of_a_table_is_a_card(tmp_path, page) -> None:
    measure = """
drawAll().then(() => {
  const width = element => Math.round(element.getBoundingClientRect().width);
  const widest = Math.max(...[...document.querySelectorAll(".scroll")].map(e => e.scrollWidth - e.clientWidth));
  const inside = [...document.querySelectorAll(".scroll td")].every(cell => width(cell) <= innerWidth);
  root.dataset.measured = [root.scrollWidth <= innerWidth, widest, inside].join();
});"""
    measured_page = page.replace("\ndrawAll();", measure)
    assert measured_page != page
    measured_page = re.sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", measured_page
    )  # it runs no such code
    (tmp_path / "report.html").write_text(measured_page)
    result = render_in_browser(
        tmp_path / "report.html",
        tmp_path / "profile",
        "--window-size=390,800",
        "--virtual-time-budget=60000",
        "--dump-dom",
    )
    assert 'data-measured="true,0,true"' in result.stdout


def test_every_cell_of_a_table_has_its_heading_and_every_term_its_meaning(page) -> None:
    markup = SCRIPTS.sub("", page)
    assert re.findall(r"<td(?! (?:class=\"words\" )?data-label=\"[^\"]+\")", markup) == []
    ids = set(re.findall(r'<div id="(term-[^"]+)"', markup))
    terms = re.findall(r'<a class="term" href="#([^"]+)" title="([^"]+)">', markup)
    assert {target for target, _ in terms} == ids
    assert {"term-nats", "term-arm", "term-contrast", "term-Holm", "term-Hedges&#39;-g"} <= ids
    assert all(html.unescape(meaning) in GLOSSARY.values() for _, meaning in terms)


def test_a_request_to_the_network_is_blocked_by_the_page(tmp_path, page) -> None:
    page_with_request = page.replace("\ndrawAll();", '\nfetch("http://127.0.0.1:9/").catch(() => {});\ndrawAll();')
    assert page_with_request != page
    (tmp_path / "report.html").write_text(page_with_request)
    result = render_in_browser(
        tmp_path / "report.html", tmp_path / "profile", "--virtual-time-budget=30000", "--dump-dom"
    )
    assert "Content Security Policy" in result.stderr


def test_the_report_of_a_study_until_decided_shows_every_look_of_every_contrast() -> None:
    section = {**STUDY["sections"]["batch-norm-sgd"], "seeds": "until decided", "max_seeds": 5}
    study = Study.from_dict({**STUDY, "test_best": False, "sections": {"norm": section}})
    results = [
        TrialResult(trial, "finished", synthetic_history(trial.recipe.key, 6, loss, 0.4, True, trial.seed))
        for trial in study.possible_trials
        for loss in [0.7 if trial.arm == "with batch norm" else 1.1]
    ]
    (norm,) = analyze_study(study, results)
    page = study_report_html(StudyResult(study, (norm,), None))
    assert page.count('data-label="p of equivalence"') == sum(len(contrast.looks) for contrast in norm.contrast_results)
    assert "needed" in page
    assert "until decided, at most 5" in page
