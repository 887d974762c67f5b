"""What became of trials, arms and contrasts: the nouns that conclusions, comments and reports speak of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from convolab.core.stats import Paired
from convolab.studies.metrics import Metric
from convolab.studies.study import Contrast, Trial
from convolab.training.trainer import Epoch

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

    def history(self, seed: int) -> tuple[Epoch, ...]:
        """The epochs of the finished run with that seed."""
        return next(outcome.history for outcome in self.finished if outcome.trial.seed == seed)

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
    parts_from: (
        int | None
    )  # the epoch from which on the curves are apart until the end; None: they never are, or one run a side
    comment: str  # a short paragraph, from these numbers alone


MISHAPS = {"diverged": "diverged", "failed": "failed", "stopped": "was stopped", "missing": "is not trained yet"}


def mishaps(arms: Sequence[Arm], kinds: Sequence[str] = tuple(MISHAPS)) -> str:
    """Of how many runs what became, if not finished: "'a' diverged with 2 of 3 seeds, 'b' failed with 1 of 3 seeds"; else nothing."""
    said = []
    for kind in kinds:
        for arm in arms:
            if count := sum(outcome.status == kind for outcome in arm.outcomes):
                said.append(f"'{arm.name}' {MISHAPS[kind]} with {count} of {plural(len(arm.outcomes), 'seed')}")
    return ", ".join(said)


def plural(count: int, noun: str) -> str:
    """
    >>> plural(1, "seed"), plural(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
