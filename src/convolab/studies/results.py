"""What a study came to: the results of its trials, arms, contrasts and sections, and its best run on the test set."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from convolab.core.calls import NearestNames
from convolab.core.display import Displayable
from convolab.core.escape import escape_line
from convolab.core.stats import Interval, PairedTest, mean_interval
from convolab.core.text import format_percent, pluralize
from convolab.studies.contrast import Contrast
from convolab.studies.decide import Look
from convolab.studies.metrics import Metric
from convolab.studies.section import Section
from convolab.studies.study import Study, Trial
from convolab.studies.trend import Optimum, WeightedArms
from convolab.training.history import EpochMetrics
from convolab.training.run_records import COMPLETED, EvaluationRecord, RunSummary

TrialStatus = Literal["finished", "diverged", "failed", "stopped", "missing"]
TRIAL_STATUSES: tuple[TrialStatus, ...] = get_args(TrialStatus)
MAX_REPR_COMMENT = 240  # characters
Verdict = Literal["better", "worse", "equivalent", "undecided"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, repr=False)
class TrialResult(NearestNames):
    """What became of one trial."""

    trial: Trial
    status: TrialStatus
    history: tuple[EpochMetrics, ...]  # for a diverged run, the epochs before it diverged
    reason: str | None = None  # why it diverged or failed, in one line
    folder: Path | None = None
    summary: RunSummary | None = None

    def __repr__(self) -> str:
        place = f"{self.trial.section!r}, {self.trial.arm!r}, seed {self.trial.seed}"
        return f"TrialResult({place}: {self.status}, {pluralize(len(self.history), 'epoch')})"

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to train."""
        return self.status in COMPLETED


@dataclass(frozen=True, repr=False)
class Arm(Displayable):
    """One arm's results over the seeds, in the order of the seeds."""

    name: str
    results: tuple[TrialResult, ...]

    def __repr__(self) -> str:
        return f"Arm({self.name!r}: {len(self.finished)} of {pluralize(len(self.results), 'run')} finished)"

    @property
    def finished(self) -> tuple[TrialResult, ...]:
        return tuple(result for result in self.results if result.status == "finished")

    @property
    def diverged(self) -> tuple[TrialResult, ...]:
        return tuple(result for result in self.results if result.status == "diverged")

    def history(self, seed: int) -> tuple[EpochMetrics, ...]:
        """The epochs of the finished run with that seed."""
        return next(result.history for result in self.finished if result.trial.seed == seed)

    def values(self, metric: Metric) -> dict[int, float]:
        """The metric of every finished run, by seed."""
        return {result.trial.seed: metric.compute(result.history) for result in self.finished}


@dataclass(frozen=True, repr=False)
class ContrastResult(Displayable):
    """What was found for one contrast. Values are in the metric's own unit: fractions, nats, epochs or seconds."""

    contrast: Contrast
    seeds: tuple[int, ...]  # those with which both arms finished
    # The metric at each of these seeds; of an interaction, the first pair's difference; none of a trend without a test.
    arm_values: tuple[float, ...]
    baseline_values: tuple[float, ...]  # the other arm's; of an interaction, the second pair's difference
    paired_test: PairedTest | None  # None: fewer than two such seeds, or the same difference at all of them
    margin: float | None  # the largest difference that does not matter; None: no difference is too small to matter
    # Most of what follows is decided later: until then it is empty.
    p_adjusted: float | None = None  # the p-value after Holm's correction over the section's contrasts
    p_equivalent: float | None = None  # the same of the tests that the difference lies within the margin
    verdict: Verdict = "undecided"
    reason: str | None = None  # why it is undecided
    seeds_needed: int | None = None  # that would probably decide it, if it is undecided
    curves_separate_from_epoch: int | None = None  # until the end; None: they do not, or there is one run per arm
    comment: str = ""  # a short paragraph, from these numbers alone
    # Where seeds are "until decided": the interval of `paired_test` is then a repeated one.
    looks: tuple[Look, ...] = ()
    sides: tuple[WeightedArms, WeightedArms] = ((), ())  # what is compared with what: arms with their weights
    involved: tuple[str, ...] = ()  # the arms that take part: in a trend those of which no run diverged
    optimum: Optimum | None = None  # of a trend's parabola, if it has one
    out_of_time: bool = False  # whether it is undecided because the hours were over
    next_look: int | None = None  # seeds of the look that it waits for, if the study was stopped before it

    @property
    def is_tested(self) -> bool:
        """Whether there was a test, whatever came out."""
        return self.paired_test is not None and (self.p_adjusted is not None or bool(self.looks))

    def __repr__(self) -> str:
        asked = f"{self.contrast.arm!r} against {self.contrast.baseline!r}, {self.contrast.metric}"
        if not self.contrast.is_plain:
            asked = f"{self.contrast.label}, {self.contrast.metric}"
        return f"ContrastResult({asked}: {self.verdict})\n{escape_line(self.comment, MAX_REPR_COMMENT)}"


@dataclass(frozen=True, repr=False)
class SectionResult(Displayable):
    """A section with its arms in the order written, its contrasts' results and its comment."""

    name: str
    section: Section
    arms: tuple[Arm, ...]
    contrast_results: tuple[ContrastResult, ...]
    comment: str

    def __repr__(self) -> str:
        counts = f"{pluralize(len(self.arms), 'arm')}, {pluralize(len(self.contrast_results), 'contrast')}"
        return f"SectionResult({self.name!r}: {counts})\n{escape_line(self.comment, MAX_REPR_COMMENT)}"


@dataclass(frozen=True, repr=False)
class BestOnTest(Displayable):
    """The run of the best validation accuracy among all finished ones, tested once."""

    trial_result: TrialResult
    num_candidates: int  # runs it was chosen from
    validation_accuracy: float
    num_validation_images: int
    selection_bias: float  # by how much choosing the best is expected to inflate the validation accuracy, a fraction
    test_result: EvaluationRecord
    comment: str

    def __repr__(self) -> str:
        trial, test = self.trial_result.trial, self.test_result
        run = f"{trial.section!r}, {trial.arm!r}, seed {trial.seed}"
        return f"BestOnTest({run}: {format_percent(test.accuracy)} of {test.count:,} test images)"

    @property
    def chance_margin(self) -> float:
        """How far validation and test accuracy of equally hard images differ by chance, at most, 95 times in 100.

        From two binomial samples with a success and a failure added to each (Agresti & Caffo 2000, Am. Stat. 54).
        """
        num_correct = self.validation_accuracy * self.num_validation_images
        samples = [
            (num_correct, self.num_validation_images),
            (self.test_result.correct, self.test_result.count),
        ]
        fractions = [((correct + 1) / (count + 2), count + 2) for correct, count in samples]
        return 1.96 * math.sqrt(sum(fraction * (1 - fraction) / count for fraction, count in fractions))


@dataclass(frozen=True, repr=False)
class StudyResult(Displayable):
    """All that a report shows."""

    study: Study
    sections: tuple[SectionResult, ...]
    best_on_test: BestOnTest | None
    notes: tuple[str, ...] = ()  # what went wrong, each in one line: trials that failed, how many are not trained

    def __repr__(self) -> str:
        runs = self.trial_results.values()
        complete = sum(run.is_complete for run in runs)
        sections = pluralize(len(self.sections), "section")
        return f"StudyResult('{self.study.name}': {complete} of {pluralize(len(runs), 'run')}, {sections})"

    @property
    def trial_results(self) -> dict[str, TrialResult]:
        """One result per run, by recipe key: trials that share a run count once."""
        results = [result for section in self.sections for arm in section.arms for result in arm.results]
        return {result.trial.recipe.key: result for result in results}


def with_common_seeds(arms: Sequence[Arm]) -> list[Arm]:
    """The arms with the runs of those seeds that all of them have finished, so that their means can be compared."""
    common = set[int].intersection(*({run.trial.seed for run in arm.finished} for arm in arms)) if arms else set[int]()
    return [Arm(arm.name, tuple(run for run in arm.finished if run.trial.seed in common)) for arm in arms]


def train_seconds(results: Iterable[TrialResult]) -> float | None:
    """The seconds of training of some runs together; None if a file of one does not say them."""
    seconds = math.fsum(epoch.train_seconds for result in results for epoch in result.history)
    return seconds if math.isfinite(seconds) else None


def mean_curve(arm: Arm, quantity: str) -> list[tuple[int, Interval]]:
    """An arm's mean over its runs at each epoch that all its finished runs have, with the t-interval.

    Gives (epoch, interval) pairs; the interval of one run has no width. Empty where no run is finished, or a run has no
    such quantity, because it had no validation images.
    """
    metric = Metric("final", quantity)
    histories: Sequence[Sequence[EpochMetrics]] = [result.history for result in arm.finished]
    if not histories:
        return []
    if not all(map(metric.is_measured, histories)):
        return []
    epochs = zip(*(metric.curve(history) for history in histories), strict=False)  # as far as the shortest goes
    return [(epoch, metric.possible(mean_interval(values))) for epoch, values in enumerate(epochs, 1)]
