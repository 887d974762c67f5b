"""The texts on the cards of a report."""

from dataclasses import replace

from support.synthetic_study import synthetic_section

from convolab.reports.study_about import describe_seeds
from convolab.reports.study_cards import first_sentences, metric_cell
from convolab.studies.analyze import analyze_study
from convolab.studies.metrics import Metric
from convolab.studies.results import Arm, StudyResult
from convolab.studies.study import Study


def test_a_summary_ends_at_the_end_of_a_sentence() -> None:
    text = "'a' is better (0.5 nats against 0.7). 'b' diverged. Nothing more."
    assert first_sentences(text, 10) == "'a' is better (0.5 nats against 0.7)."
    assert first_sentences(text, 55) == "'a' is better (0.5 nats against 0.7). 'b' diverged."
    assert first_sentences(text) == text


def test_sections_with_seeds_of_their_own_are_not_described_as_one_seed() -> None:
    def description(**seeds: tuple[int, ...]) -> str:
        arms = {"arms": {"a": {}}}
        study = Study.from_dict({"name": "s", "seeds": [0], "sections": {"x": arms | seeds, "y": arms}})
        return describe_seeds(StudyResult(study, analyze_study(study, []), None))

    assert description() == "one seed, 0"
    assert description(seeds=(0, 1, 2)) == "1 to 3 seeds per arm"
    assert description(seeds=(5,)) == "1 seed per arm"


def test_a_negative_number_of_a_single_run_has_the_minus_that_is_as_wide_as_plus() -> None:
    arm = synthetic_section("transforms").arms[1]
    gaps = [
        replace(run, history=tuple(replace(epoch, train_accuracy=0.0) for epoch in run.history))
        for run in arm.results[:1]
    ]
    cell = metric_cell(Arm(arm.name, tuple(gaps)), Metric.parse("final_gap"), 1)
    assert cell.text.startswith("\N{MINUS SIGN}")
    assert cell.small_lines == ("one run",)
