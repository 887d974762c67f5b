"""The texts on the cards of a report."""

from convolab.reports.study_cards import describe_seeds, first_sentences
from convolab.studies.analyze import analyze_study
from convolab.studies.results import StudyResult
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
