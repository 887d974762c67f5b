"""Histories, trial results and records of a test with given numbers, without training."""

from collections.abc import Mapping, Sequence

from convolab.core.stats import wilson_interval
from convolab.studies.results import Arm, TrialResult, TrialStatus
from convolab.studies.study import Study
from convolab.training.history import EpochMetrics
from convolab.training.run_records import EvaluationRecord


def history(
    accuracies: Sequence[float], losses: Sequence[float] | None = None, gap: float = 0.0, seconds: float = 2.0
) -> tuple[EpochMetrics, ...]:
    """An epoch per validation accuracy; training accuracy is `gap` higher, validation loss twice the training loss."""
    losses = losses or [2.0 - accuracy for accuracy in accuracies]
    return tuple(
        EpochMetrics(i + 1, loss, accuracy + gap, 2 * loss, accuracy, 0.01, seconds, 1000.0, "running")
        for i, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True))
    )


def study_of_arms(
    arms: Sequence[str] = ("a", "b"),
    contrasts: Sequence[tuple[str, ...]] = (("a", "b"),),
    seeds: Sequence[int] = (0, 1, 2),
) -> Study:
    """A section of arms that differ in their weight decay; contrasts are (arm, baseline) or (arm, baseline, metric)."""
    contrast_dicts = [dict(zip(("arm", "baseline", "metric"), contrast, strict=False)) for contrast in contrasts]
    arm_overrides = {arm: {"optimizer.weight_decay": i / 1000} for i, arm in enumerate(arms)}
    return Study.from_dict(
        {
            "name": "made up",
            "seeds": list(seeds),
            "sections": {"section": {"arms": arm_overrides, "contrasts": contrast_dicts}},
        }
    )


def trial_results(
    study: Study,
    histories: Mapping[str, Sequence[Sequence[EpochMetrics]]],
    status: Mapping[tuple[str, int], TrialStatus] | None = None,
) -> list[TrialResult]:
    """The results of a study's trials from each arm's histories, in the order of its seeds."""
    remaining = {arm: list(runs) for arm, runs in histories.items()}
    status = status or {}
    return [
        TrialResult(trial, status.get((trial.arm, trial.seed), "finished"), tuple(remaining[trial.arm].pop(0)))
        for trial in study.trials
    ]


def arm_of(name: str, results: Sequence[TrialResult]) -> Arm:
    """An arm with its results among those of all arms."""
    return Arm(name, tuple(result for result in results if result.trial.arm == name))


def evaluation_record(correct: int, count: int = 10_000) -> EvaluationRecord:
    """The record of a test on images of one class."""
    accuracy, interval = correct / count, list(wilson_interval(correct, count))
    confusion = [[correct, count - correct], [0, 0]]
    per_class = {"cat": accuracy, "dog": None}
    return EvaluationRecord(
        accuracy, interval, correct, count, 0.9, per_class, confusion, 1, "2026-01-01T12:00:00+00:00"
    )
