"""Figures, tables and methods for a paper."""

import re
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from support.synthetic_study import STUDY, study_of_1000_runs, synthetic_result, synthetic_study

import convolab
from convolab.core import outputs
from convolab.core.errors import LabError
from convolab.core.text import NO_VALUE
from convolab.plots import style
from convolab.reports.export import export_study, require_export_folder, study_report_markdown
from convolab.reports.paper import (
    arms_paper_table,
    contrasts_paper_table,
    export_paper,
    latex_escape,
    latex_table,
    markdown_table,
    paper_parts,
)
from convolab.reports.paper_figures import (
    export_figures,
    figure_spec,
    figure_svg,
    parse_length,
    require_figure_folder,
    study_charts,
)
from convolab.reports.studies import study_report_html
from convolab.studies.analyze import analyze_study
from convolab.studies.metrics import Metric
from convolab.studies.results import StudyResult
from convolab.studies.study import Study
from convolab.studies.tables import finished_metric_interval, table_metrics
from convolab.training.run import Run

HOSTILE = r"\input{/etc/passwd} & 50% _a_ $x^2$ #1 ~ <b>|"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = convolab.train("shallow_net", epochs=2, out=tmp_path_factory.mktemp("paper") / "run")
    run.test()
    return run


def test_a_hostile_name_is_text_in_latex_and_in_markdown() -> None:
    table = (HOSTILE, ["arm", "runs"], [[HOSTILE, "3"]])
    plain = latex_table(table)
    row = next(line for line in plain.splitlines() if line.endswith(r"& 3 \\"))
    assert row.strip() == latex_escape(HOSTILE) + r" & 3 \\"
    unescaped = re.sub(r"\\[{}$&#%_]|\\text\w+\{\}", "", latex_escape(HOSTILE))
    assert not set(unescaped) & set("\\{}$&#%_^~<>|")
    assert "<b>" not in markdown_table(table)


def test_a_star_at_the_start_of_a_row_is_not_taken_for_a_part_of_the_line_break_in_latex() -> None:
    rows = latex_table(("stars", ["arm"], [["a"], ["*b"]])).splitlines()
    assert "    {*}b \\\\" in rows


def test_quotation_marks_need_no_encoding_of_fonts_in_latex() -> None:
    assert latex_escape('seeds "until decided"') == "seeds ''until decided''"


def test_the_tables_of_a_study_have_the_numbers_of_its_results() -> None:
    section = synthetic_study().sections[0]
    _, headings, rows = arms_paper_table(section)
    for arm, row in zip(section.arms, rows, strict=True):
        assert row[:2] == [arm.name, str(len(arm.finished))]
        for metric, heading, text in zip(table_metrics(section), headings[2:], row[2:], strict=True):
            mean = finished_metric_interval(arm, metric)
            scale = 100 if metric.unit == "%" else 1
            assert f"({metric.unit})" in heading
            assert float(text.partition(" ")[0]) == pytest.approx(
                scale * mean.mean, abs=0.006 if metric.unit == "nats" else 0.06
            )
    _, _, rows = contrasts_paper_table(synthetic_study().study, section)
    for result, row in zip(section.contrast_results, rows, strict=True):
        scale = 100 if Metric.parse(result.contrast.metric).unit == "%" else 1
        assert float(row[3].partition(" ")[0]) == pytest.approx(scale * result.paired_test.difference.mean, abs=0.06)
        assert row[5] == result.verdict


@pytest.mark.slow
def test_the_methods_of_a_run_name_its_data_seed_optimizer_and_versions(run: Run, tmp_path: Path) -> None:
    export_paper(run, tmp_path / "paper")
    text = (tmp_path / "paper" / "methods.md").read_text().replace("\\", "")
    for part in ("1 network was trained", "digits", "sgd (lr 0.01", "2 epochs", "batches of 128", "seed 0", "10 %"):
        assert part in text
    assert run.summary["data"]["train_sha256"][:12] in text
    for name, number in run.summary["versions"].items():
        assert f"{name} {number}" in text
    table = (tmp_path / "paper" / "table.tex").read_text()
    assert r"\toprule" in table
    assert f"{100 * run.test_result.accuracy:.2f}" in table
    export_paper(run, tmp_path / "paper")  # onto its own
    (tmp_path / "paper" / "table.md").write_text("mine")
    with pytest.raises(LabError, match="no sign that convolab wrote it as paper"):
        export_paper(run, tmp_path / "paper")


@pytest.mark.slow
def test_the_methods_of_a_run_that_stopped_by_itself_name_the_epochs_that_it_took(tmp_path: Path) -> None:
    run = convolab.train("shallow_net", epochs=5, overrides={"training.goal": 0.01}, out=tmp_path / "run")
    assert len(run.history) == 1
    _, methods = paper_parts(run)
    assert "Training took at most 5 epochs of batches" in methods
    assert "The run ended after 1 epoch." in methods


@pytest.mark.slow
def test_the_methods_of_a_study_say_how_many_runs_ended_early(run: Run) -> None:
    study = synthetic_study().study
    ends = {("lr=3", 0): 3, ("lr=3", 1): 7}
    results = [synthetic_result(trial, last_epoch=ends.get((trial.arm, trial.seed))) for trial in study.trials]
    results = [replace(result, summary=run.summary) for result in results]
    result = StudyResult(study, analyze_study(study, results), None)
    _, methods = paper_parts(result)
    assert "Training took at most 12 epochs of batches" in methods
    assert f"2 of {len(result.trial_results)} runs ended earlier, after 3 to 7 epochs." in methods


@pytest.mark.slow
def test_a_folder_with_other_files_gets_no_tables(run: Run, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="holds other files, and no export of convolab: choose a new or empty folder"):
        export_paper(run, run.folder)
    assert not (run.folder / "table.md").exists()
    export_paper(run, tmp_path / "paper")
    assert len(export_paper(run, tmp_path / "paper")) == 4


@pytest.mark.slow
def test_figures_have_the_width_and_the_font_size_that_were_asked_for(run: Run, tmp_path: Path) -> None:
    width = parse_length("84mm", "--width")
    paths = export_figures(run, tmp_path / "figures", width, 7.5)
    assert sorted(paths) == sorted((tmp_path / "figures").iterdir())  # so that they are counted right
    paths = [path for path in paths if path.name != "figures.md"]
    assert {path.stem for path in paths} == {"loss", "accuracy", "confusion", "reliability"}
    for path in paths:
        content = path.read_bytes()
        if path.suffix == ".pdf":
            box = re.search(rb"/MediaBox ?\[([\d. ]+)\]", content)[1].split()
            assert float(box[2]) == pytest.approx(84 * 72 / 25.4, abs=0.01)
            assert b"/FontFile" in content
        else:
            text = content.decode()
            svg = re.search(r'width="([\d.]+)pt" height="[\d.]+pt" viewBox="0 0 ([\d.]+)', text)
            assert float(svg[1]) == float(svg[2]) == pytest.approx(width)  # so that a unit is a point
            assert set(re.findall(r'font-size="([^"]+)"', text)) == {"7.5px"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(LabError, match="holds other files"):
        require_figure_folder(tmp_path / "other")


def test_the_rows_of_a_figure_are_as_high_as_their_text_needs_however_many_they_are() -> None:
    arms = {f"arm {i}": {"optimizer.weight_decay": i / 1000} for i in range(33)}
    study = Study.from_dict({"name": "x", "seeds": [0], "sections": {"s": {"arms": arms, "curves": []}}})
    result = StudyResult(study, analyze_study(study, [synthetic_result(trial) for trial in study.trials]), None)
    ((_, rows),) = study_charts(result)
    svg = figure_svg(figure_spec(rows, 238.0, 8.0))
    width, height = map(float, re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2])
    assert width == pytest.approx(238.0)
    assert height > 33 * 2 * 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["study", "figures"])
def test_an_export_that_was_killed_is_done_again_by_the_same_command(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, folder = study_of_1000_runs(sections=1, arms=3, seeds=2, epochs=2), tmp_path / "out"

    def export() -> list[Path]:
        if kind == "figures":
            require_figure_folder(folder)
            return export_figures(result, folder, 238.0, 8.0)
        require_export_folder(folder)
        return export_study(result, folder)

    written: list[Path] = []

    def write_and_die(path: Path, kind: str) -> AbstractContextManager[Path]:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        return before(path, kind)

    before = outputs.output_file
    with monkeypatch.context() as patch:
        for module in (outputs, style):
            patch.setattr(module, "output_file", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            export()
    assert len(list(folder.rglob("*.*"))) == 2
    paths = export()
    assert sorted(paths) == sorted(path for path in folder.rglob("*") if path.is_file())
    assert not any("not complete" in path.read_text() for path in folder.glob("*.md"))


@pytest.mark.parametrize("text", ["84", "wide", "-8pt", "2mm", "9000mm", "84 mm 3"])
def test_a_length_without_a_unit_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(LabError, match=f"--width {text}"):
        parse_length(text, "--width")


def test_the_methods_of_a_study_name_the_keys_that_each_arm_sets_and_their_values() -> None:
    optimizers = {"mine": {"optimizer.lr": 0.02, "optimizer.name": "adam"}, "sgd": {"optimizer.lr": 0.05}}
    study = Study.from_dict(
        {
            "name": "x",
            "recipe": {"optimizer": {"lr": 0.01}},
            "sections": {
                "act": {"arms": {"gelu": {"model.activation": "gelu"}, "relu": {}}},
                "opt": {"overrides": {"training.epochs": 4}, "arms": optimizers},
                "rates": {"grid": {"optimizer.lr": [0.123456789, 0.1]}},
            },
        }
    )
    results = [replace(synthetic_result(trial, 1.0), summary=None) for trial in study.trials]
    _, methods = paper_parts(StudyResult(study, analyze_study(study, results), None))
    for sentence in (
        "Arms of section act: gelu (model.activation gelu); relu.",
        "Arms of section opt (training.epochs 4): mine (optimizer.lr 0.02, optimizer.name adam, optimizer.betas [0.9, 0.999], "
        "optimizer.weight_decay 0.0); sgd (optimizer.lr 0.05).",
        "Arms of section rates: lr=0.123457 (optimizer.lr 0.123456789); lr=0.1 (optimizer.lr 0.1).",
    ):
        assert sentence in methods


def test_a_column_that_is_headed_p_has_the_numbers_alone() -> None:
    _, headings, rows = contrasts_paper_table(synthetic_study().study, synthetic_study().sections[0])
    numbers = [row[headings.index("p")] for row in rows]
    assert all(number == NO_VALUE or re.fullmatch(r"(< )?[01](\.\d+)?", number) for number in numbers)
    assert set(numbers) != {NO_VALUE}


def until_decided_and_widened() -> StudyResult:
    """A contrast that is decided at the first look, and a grid of rates whose best stands at an end."""
    arms = {"with": {"model.batch_norm": True}, "without": {"model.batch_norm": False}}
    asked = [{"arm": "with", "baseline": "without", "metric": "final_train_loss"}]
    study = Study.from_dict(
        {
            "name": "x",
            "seeds": [0, 1, 2],
            "sections": {
                "norm": {"arms": arms, "contrasts": asked, "seeds": "until decided", "max_seeds": 5},
                "rates": {
                    "grid": {"optimizer.lr": [0.001, 0.01, 0.1]},
                    "widen": 1,
                    "contrasts": [{"arm": "lr=0.01", "baseline": "lr=0.001", "metric": "final_train_loss"}],
                },
            },
        }
    )
    losses = {"with": 0.2, "without": 1.1, "lr=0.001": 1.5, "lr=0.01": 1.0, "lr=0.1": 0.8, "lr=1": 0.9}
    trials = [trial for trial in study.possible_trials if trial.arm in losses]
    results = [replace(synthetic_result(trial, losses[trial.arm]), summary=None) for trial in trials]
    return StudyResult(study, analyze_study(study, results), None)


@pytest.mark.slow
def test_a_paper_says_how_seeds_until_decided_were_tested_and_that_a_grid_was_widened() -> None:
    tables, methods = paper_parts(until_decided_and_widened())
    norm, rates = (caption for caption, _, _ in tables if "differences" in caption)
    assert "looks that were planned" in norm
    assert "Holm's correction" not in norm
    assert "their intervals hold however often one looks, but are not corrected" in norm.lower()
    assert "Holm's correction" in rates
    assert "intervals are not corrected" in rates
    assert "looks" not in rates
    assert "section norm went on, looked at after 3, 4 and 5 seeds" in methods
    assert "within a margin of 0.02 nats" in methods
    assert "The grid of section rates was widened by lr=1" in methods
    rows = next(rows for caption, _, rows in tables if caption == norm)
    assert rows[0][4] != NO_VALUE  # the last look's


def test_contrasts_that_had_no_look_yet_are_described_as_until_decided_too() -> None:
    values = {**STUDY, "sections": {"norm": {**STUDY["sections"]["batch-norm-sgd"], "seeds": "until decided"}}}
    study = Study.from_dict(values)
    results = [synthetic_result(trial) for trial in study.trials[:2]]
    result = StudyResult(study, analyze_study(study, results), None)
    assert not any(contrast.looks for contrast in result.sections[0].contrast_results)
    caption, _, _ = contrasts_paper_table(study, result.sections[0])
    assert "looks that were planned" in caption
    page = study_report_html(result)
    for text in (caption, study_report_markdown(result, (), None, {}), page):
        assert "Holm's correction over" not in text
        assert "Holm-corrected" not in text
    assert "of the paired t-test, at the last look.\n" in page


@pytest.mark.slow
def test_an_exported_report_does_not_claim_holms_correction_for_seeds_until_decided(tmp_path: Path) -> None:
    result = until_decided_and_widened()
    export_study(replace(result, sections=result.sections[:1]), tmp_path / "norm")
    export_study(replace(result, sections=result.sections[1:]), tmp_path / "rates")
    norm, rates = ((tmp_path / name / "README.md").read_text() for name in ("norm", "rates"))
    assert "looks that were planned" in norm
    assert "Holm's correction over" not in norm
    assert "Holm's correction over" in rates
    assert "looks that were planned" not in rates
