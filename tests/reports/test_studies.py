"""The report of a study: what is on the page, what it loads, how large it is, and whether a browser draws it."""

import html
import json
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from PIL import Image
from support.made_up_study import CLASSES, EVIL, made_up, thousand

from convolab.core.errors import LabError
from convolab.core.stats import mean_interval
from convolab.reports.export import export_study, heading_anchor, section_folders
from convolab.reports.page import apply_css_colors, css_variable
from convolab.reports.studies import describe_seeds, first_sentences, study_report_html, write_study_report
from convolab.studies.metrics import Metric
from convolab.studies.results import StudyResult, analyze_study, mean_curve
from convolab.studies.study import Study
from convolab.studies.tables import finished_metric_values

SCRIPTS = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL)


@pytest.fixture(scope="module")
def page() -> str:
    return study_report_html(made_up())


@pytest.fixture(scope="module")
def words(page) -> str:
    """What a person reads: no scripts, no styles, no tags."""
    text = re.sub(r"<style>.*?</style>", " ", SCRIPTS.sub(" ", page), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export_study(made_up(), folder)
    return folder


def figures_on(page: str) -> list[dict]:
    return json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])["figures"]


def test_the_page_refers_to_nothing_outside_itself(page) -> None:
    markup = SCRIPTS.sub("", page)
    assert not re.search(r"""(src|href|action|data)\s*=\s*["'](?!#)""", markup)
    assert not re.search(r"@import|url\(", markup)
    assert not re.search(r"<(link|iframe|img|object|embed|base)\b", markup)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"https?:|\*|'self'|connect-src", policy)
    *data, libraries, own = SCRIPTS.findall(page)
    assert "http" not in "".join(data) + own
    assert "vegaEmbed" in libraries  # it is inside, not loaded


def test_the_answer_comes_before_every_card_and_the_recipes_after(words) -> None:
    places = [
        words.index(part)
        for part in ("Question 2, made up", "What was seen", "SGD with learning rate 1e-3", "To get the same again")
    ]
    assert places == sorted(places)
    assert words.index("on the test pictures, 95 % interval") < places[2]


def test_every_section_note_verdict_comment_and_mishap_is_on_the_page(words) -> None:
    result = made_up()
    for section in result.sections:
        for said in (
            section.section.title,
            section.section.note,
            section.comment,
            *(answer.comment for answer in section.contrast_results),
        ):
            assert " ".join(said.split()) in words
        for answer in section.contrast_results:
            mark = {
                "better": "▲ better",
                "worse": "▼ worse",
                "no difference seen": "= no difference seen",
                None: "? not decided",
            }
            assert mark[answer.verdict] in words
            assert not answer.reason or answer.reason in words
    assert {answer.verdict for section in result.sections for answer in section.contrast_results} == {
        "better",
        "worse",
        "no difference seen",
        None,
    }
    assert result.best_on_test.comment in words
    assert all(note in words for note in result.notes)


def test_divergence_is_in_the_table_on_the_charts_and_among_the_notes(page, words) -> None:
    assert "lr=3 3 diverged 3 of 3" in words
    assert "lr=1 3 diverged 1 of 3" in words
    assert (
        "lr-sgd, lr=1, seed 1: diverged after 6 epochs: the loss became NaN in epoch 7: try a smaller optimizer.lr"
        in words
    )
    loss = next(f for f in figures_on(page) if "crosses" in f["tables"] and f["tables"]["crosses"]["arm"])
    crosses = loss["tables"]["crosses"]
    assert crosses["epoch"] == [3, 2, 4, 6]  # the epoch where each curve ends
    assert {"crosses"} <= {layer["data"]["name"] for layer in loss["spec"]["layer"]}


def test_numbers_on_the_page_are_the_results(words) -> None:
    arm = made_up().sections[0].arms[0]
    of = mean_interval(list(arm.values(Metric("best", "validation_accuracy")).values()))
    assert f"{100 * of.mean:.2f} % {100 * of.low:.2f} to {100 * of.high:.2f}" in words
    best = made_up().best_on_test
    assert f"{100 * best.test_result['accuracy']:.2f} %" in words
    assert f"{best.test_result['correct']:,} of {best.test_result['count']:,} test pictures" in words


def test_recipes_seeds_times_versions_and_machine_are_on_the_page(words) -> None:
    for said in (
        'name = "simple_convnet"',
        "model.batch_norm = false",
        "optimizer.lr = 3.0",
        "1 to 3 seeds an arm",
        "9 min 0 s",
        "torch 2.14.0",
        "Abacus 9000",
    ):
        assert said in words


def test_names_and_texts_cannot_break_out_of_the_page(page) -> None:
    markup = SCRIPTS.sub("", page)
    assert EVIL not in page
    assert html.escape(EVIL, quote=False).split("'")[0] in markup
    assert "<b>bold</b>" not in page  # of the note below, in markup and in data
    opened, closed = page.count("<script"), page.count("</script>")
    assert opened == closed == 3
    assert "<!--" not in page
    assert EVIL in json.dumps(figures_on(page), ensure_ascii=False)  # and the data still say it


def test_a_title_that_ends_a_script_stays_a_title() -> None:
    result = made_up(False)
    first = result.sections[0]
    named = first.section.model_copy(
        update={"title": "</script><script>alert(1)</script>", "note": "</style><b>bold</b>"}
    )
    page = study_report_html(
        replace(result, sections=(replace(first, section=named), *result.sections[1:]), notes=("</script>",))
    )
    assert page.count("<script") == 3
    assert "<b>bold" not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page


def test_a_study_of_one_seed_without_a_test_or_anything_finished_has_a_page() -> None:
    values = {
        "name": "bare",
        "seeds": [4],
        "sections": {
            "one": {"arms": {"a": {}, "b": {"optimizer.lr": 0.5}}, "contrasts": [{"arm": "a", "against": "b"}]}
        },
    }
    study = Study.parse(values)
    page = study_report_html(StudyResult(study, analyze_study(study, []), None, ("nothing ran",)))
    assert "missing 1 of 1" in page
    assert "not decided" in page
    assert "nothing ran" in page
    assert 'id="best-on-test"' not in page
    assert figures_on(page) == []


def test_a_thousand_runs_make_a_page_of_at_most_5_mb_in_10_seconds(tmp_path) -> None:
    result = thousand()
    assert len(result.trial_results) == 990
    begun = time.process_time()
    path = write_study_report(result, tmp_path / "report.html")
    assert time.process_time() - begun <= 10
    assert path.stat().st_size <= 5e6


def test_a_page_that_cannot_be_written_is_one_line(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="cannot write"):
        write_study_report(made_up(), tmp_path / "file" / "report.html")


def test_every_table_is_exported_with_the_results_own_numbers(exported) -> None:
    result = made_up()
    section = result.sections[0]
    table = pl.read_csv(exported / "batch-norm-sgd" / "arms.csv")
    for row, arm in zip(table.iter_rows(named=True), section.arms, strict=True):
        of = mean_interval(list(finished_metric_values(arm, Metric.parse("final_train_loss")).values()))
        assert (row["arm"], row["final_train_loss"], row["final_train_loss low"]) == (arm.name, of.mean, of.low)
    table = pl.read_csv(exported / "batch-norm-sgd" / "contrasts.csv")
    for row, answer in zip(table.iter_rows(named=True), section.contrast_results, strict=True):
        assert (row["difference"], row["adjusted_p"], row["verdict"]) == (
            answer.paired_test.difference.mean,
            answer.p_adjusted,
            answer.verdict,
        )
    table = pl.read_csv(exported / "lr-sgd" / "curves.csv").filter(
        (pl.col("arm") == "lr=0.1") & (pl.col("quantity") == "train_loss")
    )
    assert table["mean"].to_list() == [of.mean for _, of in mean_curve(result.sections[2].arms[2], "train_loss")]
    diverged = pl.read_csv(exported / "lr-sgd" / "arms.csv").row(0, named=True)
    assert (diverged["arm"], diverged["diverged"], diverged["best_validation_accuracy"]) == ("lr=3", 3, None)
    runs, epochs = pl.read_csv(exported / "runs.csv"), pl.read_csv(exported / "epochs.csv")
    assert len(runs) == len(result.study.trials)
    key, outcome = next(iter(result.trial_results.items()))
    assert epochs.filter(pl.col("recipe") == key)["validation_loss"].to_list() == [
        e.validation_loss for e in outcome.history
    ]
    confusion = pl.read_csv(exported / "confusion.csv")
    assert confusion.drop("true").to_numpy().tolist() == result.best_on_test.test_result["confusion"]
    assert confusion["true"].to_list() == list(CLASSES)


def test_every_figure_of_the_page_is_exported_as_svg_and_png(exported, page) -> None:
    svgs, pngs = ({path.with_suffix("") for path in exported.rglob(f"*.{kind}")} for kind in ("svg", "png"))
    assert svgs == pngs
    assert len(svgs) == len(figures_on(page))
    for stem in svgs:
        svg = stem.with_suffix(".svg").read_text()
        assert svg.count("<path") > 5
        assert "var(" not in svg
        with Image.open(stem.with_suffix(".png")) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_sections_get_folders_of_their_own_whatever_their_names() -> None:
    names = ["a b", "a?b", "A B", "..", ".", "…", "lr=0.1"]
    found = section_folders(names)
    assert len({folder.casefold() for folder in found.values()}) == len(names)
    assert all(re.fullmatch(r"[\w+=][\w+=.-]*", folder) for folder in found.values())


def test_colours_are_themed_but_names_of_colours_are_not() -> None:
    spec = {
        "mark": {"color": "black"},
        "encoding": {"color": {"scale": {"domain": ["black"], "range": ["#0072B2"]}, "title": "black"}},
    }
    assert apply_css_colors(spec, {"black": "var(--ink)", "#0072B2": css_variable("#0072B2")}) == {
        "mark": {"color": "var(--ink)"},
        "encoding": {"color": {"scale": {"domain": ["black"], "range": ["var(--c-0072B2)"]}, "title": "black"}},
    }


def test_an_opening_ends_with_a_sentence() -> None:
    text = "'a' is better (0.5 nats against 0.7). 'b' diverged. Nothing more."
    assert first_sentences(text, 10) == "'a' is better (0.5 nats against 0.7)."
    assert first_sentences(text, 55) == "'a' is better (0.5 nats against 0.7). 'b' diverged."
    assert first_sentences(text) == text


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The page as headless Chromium leaves it, and what it wrote on its console."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        pytest.skip("no Chromium here: the page's charts are not checked in a browser")
    quiet = (
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    )
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        *quiet,
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)


@pytest.mark.parametrize("size", ["1400,900", "375,800"])
def test_a_browser_draws_every_chart_without_a_word_on_its_console(tmp_path, page, size) -> None:
    (tmp_path / "report.html").write_text(page)
    seen = browse(
        tmp_path / "report.html",
        tmp_path / "profile",
        f"--window-size={size}",
        "--virtual-time-budget=60000",
        "--dump-dom",
    )
    assert "CONSOLE" not in seen.stderr
    assert f'data-drawn="{len(figures_on(page))}"' in seen.stdout
    charts = re.findall(r'<div class="chart[^>]*>(.*?)</figure>', seen.stdout, re.DOTALL)
    assert len(charts) == len(figures_on(page))
    for chart in charts:
        assert chart.count("<path") > 5
        assert not re.search(r'\b(d|x|y|transform)="[^"]*NaN', chart)


def test_a_page_that_asks_the_network_for_something_is_told_no(tmp_path, page) -> None:
    asking = page.replace("\ndrawAll();", '\nfetch("http://127.0.0.1:9/").catch(() => {});\ndrawAll();')
    assert asking != page
    (tmp_path / "report.html").write_text(asking)
    seen = browse(tmp_path / "report.html", tmp_path / "profile", "--virtual-time-budget=30000", "--dump-dom")
    assert "Content Security Policy" in seen.stderr


def test_the_exported_page_shows_every_figure_beside_it_and_says_every_comment(exported) -> None:
    page = (exported / "README.md").read_text()
    linked = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert sorted(linked) == sorted(path.relative_to(exported).as_posix() for path in exported.rglob("*.svg"))
    result = made_up()
    for section in result.sections:
        assert section.comment in page
        assert all(answer.comment in page for answer in section.contrast_results)
    assert result.best_on_test.comment in page
    assert all(note in page for note in result.notes)


def test_every_link_of_the_exported_page_s_overview_has_its_heading(exported) -> None:
    page = (exported / "README.md").read_text()
    headings = {heading_anchor(line.removeprefix("## ")) for line in page.splitlines() if line.startswith("## ")}
    links = re.findall(r"\]\(#([^)]+)\)", page)
    assert len(links) == len(made_up().sections) + 1
    assert set(links) <= headings


def test_sections_with_seeds_of_their_own_are_not_said_to_have_one() -> None:
    def said(**seeds: tuple[int, ...]) -> str:
        arms = {"arms": {"a": {}}}
        of = Study.parse({"name": "s", "seeds": [0], "sections": {"x": arms | seeds, "y": arms}})
        return describe_seeds(StudyResult(of, analyze_study(of, []), None))

    assert said() == "one seed, 0"
    assert said(seeds=(0, 1, 2)) == "1 to 3 seeds an arm"
    assert said(seeds=(5,)) == "1 seed an arm"
