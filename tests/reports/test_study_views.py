"""How a study, its plan and the parts of its result show themselves in a notebook."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from support.histories import history
from support.other_splits import with_splits
from support.synthetic_study import synthetic_study

from convolab.core.display import Displayable
from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.studies.analyze import analyze_study
from convolab.studies.results import SectionResult, TrialResult
from convolab.studies.study import Study


def parts() -> dict[str, Displayable]:
    result = synthetic_study()
    section = result.sections[0]
    assert result.best_on_test is not None
    return {
        "study": result.study,
        "result": result,
        "section": section,
        "arm": section.arms[0],
        "contrast": section.contrast_results[0],
        "best": result.best_on_test,
        "splits": load("digits"),
    }


KINDS = ("study", "result", "section", "arm", "contrast", "best", "splits")


class Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words = ""

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_part_has_a_short_repr_html_rows_and_a_figure(kind: str, tmp_path) -> None:
    part = parts()[kind]
    assert 1 <= len(repr(part).splitlines()) <= 3
    assert len(repr(part)) <= 420
    bundle = part._repr_mimebundle_()
    assert bundle["text/plain"] == repr(part)
    assert len(bundle["text/html"]) > 100
    assert part.rows()
    assert all(isinstance(row, dict) for row in part.rows())
    if kind == "study":
        with pytest.raises(LabError, match="no figure"):
            part.plot()
    else:
        part.plot().save(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 2000


@pytest.mark.slow
def test_a_section_shows_its_comment_and_each_arm_and_its_rows_are_its_arms() -> None:
    section = synthetic_study().sections[1]
    words = Words()
    words.feed(section._repr_html_())
    assert section.comment in words.words
    for arm, row in zip(section.arms, section.rows(), strict=True):
        assert arm.name in words.words
        assert row["arm"] == arm.name
        assert [run["seed"] for run in arm.rows()] == [result.trial.seed for result in arm.results]


@pytest.mark.slow
def test_the_row_of_a_contrast_is_that_of_the_whole_result() -> None:
    result = synthetic_study()
    rows = [contrast.rows()[0] for section in result.sections for contrast in section.contrast_results]
    assert rows == [{key: value for key, value in row.items() if key != "section"} for row in result.rows()]


def results_of(section: dict[str, object], **changes: object) -> SectionResult:
    """A section's result where the loss of each run is its arm's number, and a bit more for each seed."""
    study = Study.from_dict({"name": "x", "sections": {"s": section}})
    arms = list(study.sections["s"].arm_overrides)
    results = [
        TrialResult(t, "finished", history([0.5], [1 + arms.index(t.arm) ** 2 + 0.1 * t.seed])) for t in study.trials
    ]
    return analyze_study(study, [replace(results[0], **changes), *results[1:]])[0]


def test_the_figure_of_an_interaction_names_the_two_differences_that_it_draws() -> None:
    arms = {name: {"optimizer.weight_decay": i / 100} for i, name in enumerate("abcd")}
    asked = {"arm": "b", "baseline": "a", "interaction": ["d", "c"], "metric": "final_train_loss"}
    (contrast,) = results_of({"arms": arms, "contrasts": [asked]}).contrast_results
    spec = contrast.plot().chart.to_dict()
    (rows,) = spec["datasets"].values()
    assert {row["arm"]: row["value"] for row in rows} == pytest.approx({"b − a": 1.0, "d − c": 5.0})
    assert contrast.contrast.label in spec["title"]["text"]
    assert "difference in final training loss (nats)" in str(spec)


def test_a_trend_that_could_not_be_tested_is_shown_without_a_figure() -> None:
    section = {"grid": {"optimizer.lr": [0.01, 0.03, 0.1, 0.3]}, "contrasts": [{"trend": "optimizer.lr"}]}
    (contrast,) = results_of(section, status="diverged").contrast_results
    assert contrast.seeds
    assert "a trend needs 4" in contrast._repr_html_()
    with pytest.raises(LabError, match="there is nothing to draw: of 3 arms no run diverged, and a trend needs 4"):
        contrast.plot()


@pytest.mark.parametrize("number", [0, 1])
def test_an_arm_with_a_run_that_has_no_epoch_yet_is_shown(number: int) -> None:
    arm = synthetic_study().sections[0].arms[0]
    results = list(arm.results)
    results[number] = replace(results[number], status="failed", history=())
    words = Words()
    words.feed(replace(arm, results=tuple(results))._repr_html_())
    assert "validation_loss" in words.words
    assert "failed0-" in words.words


def test_a_study_that_was_saved_is_the_study_that_is_read(tmp_path) -> None:
    study = Study.from_dict({"name": "rates", "sections": {"lr": {"grid": {"optimizer.lr": [0.1, 0.01]}}}})
    assert Study.read(study.save(tmp_path / "study.toml")) == study
    assert repr(study) == "Study('rates': 1 section, 2 arms, 6 runs)"
    assert [row["overrides"] for row in study.rows()] == ["optimizer.lr = 0.1", "optimizer.lr = 0.01"]


def test_what_is_loaded_has_a_row_for_each_split() -> None:
    splits = load("digits")
    assert [row["split"] for row in splits.rows()] == ["train", "test"]
    noted = with_splits(splits, unreadable=("a.png: broken", "b.png: broken"), notes=("careful",))
    assert repr(noted).endswith("(2 unreadable files and 1 note: print it)")
    assert str(noted).count("\n") == 4
    assert "careful" in noted._repr_html_()
