"""What a study came to: its runs gathered into arms, its contrasts answered, its best run tested."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from convolab.ground.statistics import Interval, Paired
from convolab.studies.metrics import Metric
from convolab.studies.study import Contrast, Section, Study, Trial
from convolab.training.loop import Epoch

Status = Literal["finished", "diverged", "stopped", "failed", "missing"]
Word = Literal["better", "worse", "no difference seen"]


@dataclass(frozen=True)
class Outcome:
    """What became of one trial."""

    trial: Trial
    status: Status
    history: tuple[Epoch, ...]  # of a diverged run the epochs before
    reason: str | None = None  # why it diverged or failed, in one line
    folder: Path | None = None
    summary: dict[str, Any] | None = None  # the run's summary.json: machine, versions, threads, seconds


@dataclass(frozen=True)
class Arm:
    """One arm's outcomes over the seeds, in their order."""

    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def finished(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.status == "finished")

    @property
    def diverged(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.status == "diverged")

    def values(self, metric: Metric) -> dict[int, float]:
        """The metric of every finished run, by seed."""
        return {outcome.trial.seed: metric.of(outcome.history) for outcome in self.finished}


@dataclass(frozen=True)
class Answer:
    """What was seen of one contrast. Values are as the metric has them: fractions, nats, epochs or seconds."""

    contrast: Contrast
    seeds: tuple[int, ...]  # those with which both arms finished
    arm: tuple[float, ...]  # the metric at each of these seeds
    against: tuple[float, ...]
    paired: Paired | None  # None: fewer than two such seeds, or differences without any spread to judge by
    adjusted: float | None  # the p-value after Holm's correction over the section's contrasts
    verdict: Word | None  # None: nothing can be decided, and `reason` says why
    reason: str | None
    parts_from: int | None  # the epoch from which on the curves are apart until the end; None: they never are, or one run a side
    comment: str  # a short paragraph, from these numbers alone


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
    inflation: float  # by how much choosing the best of so many is expected to flatter the validation accuracy, a fraction
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
    """An arm's mean over its runs at each epoch that all its finished runs have, with the t-interval (no width for one run)."""
    raise NotImplementedError


def conclude(study: Study, outcomes: Sequence[Outcome]) -> tuple[SectionResult, ...]:
    """Answer every contrast of every section from the outcomes of its trials."""
    raise NotImplementedError
