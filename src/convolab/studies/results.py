"""What a study came to: its runs gathered into arms, its contrasts answered, its best run tested."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from convolab.core.errors import need
from convolab.core.stats import LEVEL, Interval, Paired, holm, inflation, mean_interval, paired
from convolab.studies import narrative
from convolab.studies.metrics import Metric
from convolab.studies.outcomes import Answer, Arm, Outcome, Word, mishaps
from convolab.studies.study import Contrast, Section, Study
from convolab.training.trainer import Epoch

VALIDATION = Metric("best", "validation_accuracy")  # by which the run to test is chosen


@dataclass(frozen=True)
class SectionResult:
    """A section with its arms in the order written, its answers and its comment."""

    name: str
    section: Section
    arms: tuple[Arm, ...]
    answers: tuple[Answer, ...]
    comment: str


@dataclass(frozen=True)
class BestOnTest:
    """The run of the best validation accuracy among all finished ones, tested once."""

    outcome: Outcome
    candidates: int  # runs it was chosen among
    validation_accuracy: float
    validation_count: int  # pictures
    inflation: (
        float  # by how much choosing the best of so many is expected to flatter the validation accuracy, a fraction
    )
    record: dict[str, Any]  # what Run.test gives: accuracy, interval, correct, count, per_class, confusion
    comment: str


@dataclass(frozen=True)
class StudyResult:
    """All that a report shows."""

    study: Study
    sections: tuple[SectionResult, ...]
    best: BestOnTest | None
    notes: tuple[str, ...] = ()  # what went wrong: trials that failed or are missing, each in one line

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """One outcome a run, by recipe key: trials that share a run count once."""
        return {o.trial.recipe.key: o for section in self.sections for arm in section.arms for o in arm.outcomes}


def mean_curve(arm: Arm, quantity: str) -> list[tuple[int, Interval]]:
    """An arm's mean over its runs at each epoch that all its finished runs have, with the t-interval (no width for one run).

    Gives (epoch, interval) pairs; none where no run is finished, or the runs held no validation pictures back.
    """
    metric = Metric("final", quantity)
    histories = [outcome.history for outcome in arm.finished]
    if not histories or (
        metric.needs_validation and any(history[0].validation_accuracy is None for history in histories)
    ):
        return []
    epochs = zip(*(metric.curve(history) for history in histories), strict=False)  # as far as the shortest goes
    return [(i + 1, mean_interval(values)) for i, values in enumerate(epochs)]


def conclude(study: Study, outcomes: Sequence[Outcome]) -> tuple[SectionResult, ...]:
    """Answer every contrast of every section from the outcomes of its trials; a trial without an outcome is missing."""
    known = {(o.trial.section, o.trial.arm, o.trial.seed): o for o in outcomes}
    gathered: dict[str, dict[str, list[Outcome]]] = {}
    for trial in study.trials:
        outcome = known.get((trial.section, trial.arm, trial.seed)) or Outcome(trial, "missing", ())
        gathered.setdefault(trial.section, {}).setdefault(trial.arm, []).append(outcome)
    results = []
    for name, section in study.sections.items():
        arms = tuple(Arm(arm, tuple(outcomes)) for arm, outcomes in gathered[name].items())
        answers = answer_all(section.contrasts, arms)
        results.append(SectionResult(name, section, arms, answers, narrative.on_section(section, arms, answers)))
    return tuple(results)


def answer(contrast: Contrast, arm: Arm, against: Arm) -> Answer:
    """Answer one contrast that stands alone."""
    return answer_all([contrast], [arm, against])[0]


def answer_all(contrasts: Sequence[Contrast], arms: Sequence[Arm]) -> tuple[Answer, ...]:
    """Answer contrasts that share one chance of 5 % to see a difference where there is none (Holm's correction).

    All of them count in the correction, those that nothing can be decided about too: it was fixed before the first run.
    """
    named = {arm.name: arm for arm in arms}
    pairs = [(named[contrast.arm], named[contrast.against]) for contrast in contrasts]
    seen = [look(contrast, *pair, len(contrasts)) for contrast, pair in zip(contrasts, pairs, strict=True)]
    adjusted = holm([1.0 if answer.reason else answer.paired.p for answer in seen])
    decided = [decide(answer, p) for answer, p in zip(seen, adjusted, strict=True)]
    return tuple(
        replace(answer, comment=narrative.on_contrast(answer, *pair, len(contrasts)))
        for answer, pair in zip(decided, pairs, strict=True)
    )


def look(contrast: Contrast, arm: Arm, against: Arm, tests: int) -> Answer:
    """All of an answer but its verdict, as one of `tests` comparisons. Runs are paired by seed.

    Of an `until` metric, times are compared up to the length of the shortest run that never reached the level (restricted
    times, Royston & Parmar 2013, BMC Med. Res. Methodol. 13): what would have come after that nobody saw.
    """
    metric = contrast.measure
    values, rivals = arm.values(metric), against.values(metric)
    seeds = tuple(seed for seed in values if seed in rivals)
    runs = [(arm.history(seed), against.history(seed)) for seed in seeds]
    histories = [history for pair in runs for history in pair]
    end = metric.end(histories)
    first, second = (tuple(min(of[seed], end) for seed in seeds) for of in (values, rivals))
    comparison = paired(first, second, metric.resolution(histories), tests)
    reason = why_undecided(metric, arm, against, seeds, comparison)
    return Answer(
        contrast=contrast,
        seeds=seeds,
        arm=first,
        against=second,
        paired=comparison,
        adjusted=None,
        verdict=None,
        reason=reason,
        parts_from=None if reason else parts_from(metric, runs),
        comment="",
    )


def why_undecided(
    metric: Metric, arm: Arm, against: Arm, seeds: Sequence[int], comparison: Paired | None
) -> str | None:
    """Why nothing can be said of a contrast, if so, in one line."""
    if arm.diverged or against.diverged:
        return mishaps([arm, against], ["diverged"]) + ": the runs that survive are no fair choice"
    if len(seeds) < 2:
        lost = mishaps([arm, against])
        alone = (
            "one run decides nothing: give several seeds"
            if seeds
            else "there is no seed with which both arms are finished"
        )
        return f"{alone} ({lost})" if lost else alone
    if not any(
        metric.reached(run.history) for side in (arm, against) for run in side.finished if run.trial.seed in seeds
    ):
        return f"no run reached {metric.aim}"
    return None if comparison else "the differences are the same with every seed: there is no spread to judge them by"


def decide(answer: Answer, adjusted: float) -> Answer:
    """An answer with its verdict, from the p-value after the correction."""
    if answer.reason:
        return answer
    ahead = (answer.paired.difference.mean > 0) == answer.contrast.measure.higher_is_better
    verdict: Word = "no difference seen" if adjusted > LEVEL else "better" if ahead else "worse"
    return replace(answer, adjusted=adjusted, verdict=verdict)


def parts_from(metric: Metric, runs: Sequence[tuple[Sequence[Epoch], Sequence[Epoch]]]) -> int | None:
    """The first epoch from which on the 95 % interval of the paired difference lies on one side of 0, until the end.

    The end is that of the shortest run, and the curve the metric's `Metric.curve`. Each epoch's interval stands for itself.
    """
    histories = [history for pair in runs for history in pair]
    grain, since, side = metric.grain(histories), None, 0
    curves = [
        zip(*(metric.curve(pair[i]) for pair in runs), strict=False) for i in (0, 1)
    ]  # epoch by epoch, a value a seed
    epochs = list(zip(*curves, strict=False))
    for epoch in range(len(epochs), 0, -1):
        comparison = paired(*epochs[epoch - 1], grain)
        here = 0 if comparison is None else int(comparison.difference.low > 0) - int(comparison.difference.high < 0)
        if here == 0 or here == -side:
            break
        since, side = epoch, here
    return since


def best_on_test(
    outcome: Outcome, outcomes: Sequence[Outcome], validation_count: int, record: dict[str, Any]
) -> BestOnTest:
    """What the test of one finished run says, which was chosen among `outcomes` by its validation accuracy.

    `record` is what its `Run.test` gave; `validation_count` the pictures it was chosen on. See `best_of` for the choice.
    Raises LabError if no outcome has a validation accuracy.
    """
    accuracies = [VALIDATION.of(o.history) for o in candidates(outcomes)]
    need(accuracies, "no run is finished that held validation pictures back: there is no best to test")
    best = BestOnTest(
        outcome=outcome,
        candidates=len(accuracies),
        validation_accuracy=VALIDATION.of(outcome.history),
        validation_count=validation_count,
        inflation=inflation(accuracies, validation_count),
        record=record,
        comment="",
    )
    return replace(
        best,
        comment=narrative.on_test(
            outcome.trial,
            best.candidates,
            best.validation_accuracy,
            validation_count,
            best.inflation,
            record["correct"],
            record["count"],
        ),
    )


def best_of(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The finished run of the best validation accuracy, the first of equals; None where no run has one."""
    return max(candidates(outcomes), key=lambda outcome: VALIDATION.of(outcome.history), default=None)


def candidates(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The finished runs that have a validation accuracy, each once however many trials share it."""
    runs: dict[str, Outcome] = {}
    for outcome in outcomes:
        if outcome.status == "finished" and outcome.history[0].validation_accuracy is not None:
            runs.setdefault(outcome.trial.recipe.key, outcome)
    return list(runs.values())
