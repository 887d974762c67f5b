"""What became of trials, arms and contrasts: the nouns that conclusions, comments and reports speak of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from convolab.core.stats import PairedTest
from convolab.core.text import pluralize
from convolab.studies.metrics import Metric
from convolab.studies.study import Contrast, Trial
from convolab.training.trainer import EpochMetrics

TrialStatus = Literal["finished", "diverged", "stopped", "failed", "missing"]
Verdict = Literal["better", "worse", "no difference seen"]


@dataclass(frozen=True)
class TrialResult:
    """What became of one trial."""

    trial: Trial
    status: TrialStatus
    history: tuple[EpochMetrics, ...]  # of a diverged run the epochs before
    reason: str | None = None  # why it diverged or failed, in one line
    folder: Path | None = None
    summary: dict[str, Any] | None = None  # the run's summary.json: machine, versions, threads, seconds


@dataclass(frozen=True)
class Arm:
    """One arm's outcomes over the seeds, in their order."""

    name: str
    results: tuple[TrialResult, ...]

    @property
    def finished(self) -> tuple[TrialResult, ...]:
        return tuple(outcome for outcome in self.results if outcome.status == "finished")

    @property
    def diverged(self) -> tuple[TrialResult, ...]:
        return tuple(outcome for outcome in self.results if outcome.status == "diverged")

    def history(self, seed: int) -> tuple[EpochMetrics, ...]:
        """The epochs of the finished run with that seed."""
        return next(outcome.history for outcome in self.finished if outcome.trial.seed == seed)

    def values(self, metric: Metric) -> dict[int, float]:
        """The metric of every finished run, by seed."""
        return {outcome.trial.seed: metric.compute(outcome.history) for outcome in self.finished}


@dataclass(frozen=True)
class ContrastResult:
    """What was seen of one contrast. Values are as the metric has them: fractions, nats, epochs or seconds."""

    contrast: Contrast
    seeds: tuple[int, ...]  # those with which both arms finished
    arm_values: tuple[float, ...]  # the metric at each of these seeds
    baseline_values: tuple[float, ...]
    paired_test: PairedTest | None  # None: fewer than two such seeds, or differences without any spread to judge by
    p_adjusted: float | None  # the p-value after Holm's correction over the section's contrasts
    verdict: Verdict | None  # None: nothing can be decided, and `reason` says why
    reason: str | None
    curves_separate_from_epoch: (
        int | None
    )  # the epoch from which on the curves are apart until the end; None: they never are, or one run a side
    comment: str  # a short paragraph, from these numbers alone


UNFINISHED_PHRASES = {
    "diverged": "diverged",
    "failed": "failed",
    "stopped": "was stopped",
    "missing": "is not trained yet",
}


def describe_unfinished(arms: Sequence[Arm], statuses: Sequence[str] = tuple(UNFINISHED_PHRASES)) -> str:
    """Of how many runs what became, if not finished: "'a' diverged with 2 of 3 seeds, 'b' failed with 1 of 3 seeds"; else nothing."""
    parts = []
    for kind in statuses:
        for arm in arms:
            if count := sum(outcome.status == kind for outcome in arm.results):
                parts.append(
                    f"'{arm.name}' {UNFINISHED_PHRASES[kind]} with {count} of {pluralize(len(arm.results), 'seed')}"
                )
    return ", ".join(parts)
