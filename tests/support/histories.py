"""Histories and trial results that nobody trained, for tests that need to know the numbers."""

from collections.abc import Mapping, Sequence

from convolab.studies.results import Arm, TrialResult, TrialStatus
from convolab.studies.study import Study
from convolab.training.trainer import EpochMetrics


def history(
    accuracies: Sequence[float], losses: Sequence[float] | None = None, gap: float = 0.0, seconds: float = 2.0
) -> tuple[EpochMetrics, ...]:
    """An epoch per validation accuracy; training accuracy is `gap` higher, validation loss twice the training loss."""
    losses = losses or [2.0 - accuracy for accuracy in accuracies]
    return tuple(
        EpochMetrics(i + 1, loss, accuracy + gap, 2 * loss, accuracy, 0.01, seconds, 1000.0, "running")
        for i, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True))
    )


def study(
    arms: Sequence[str] = ("a", "b"),
    contrasts: Sequence[tuple[str, ...]] = (("a", "b"),),
    seeds: Sequence[int] = (0, 1, 2),
) -> Study:
    """A section of arms that differ in their weight decay; contrasts are (arm, baseline) or (arm, baseline, metric)."""
    asked = [dict(zip(("arm", "baseline", "metric"), contrast, strict=False)) for contrast in contrasts]
    changes = {arm: {"optimizer.weight_decay": i / 1000} for i, arm in enumerate(arms)}
    return Study.from_dict(
        {"name": "made up", "seeds": list(seeds), "sections": {"section": {"arms": changes, "contrasts": asked}}}
    )


def outcomes(
    of: Study,
    histories: Mapping[str, Sequence[Sequence[EpochMetrics]]],
    status: Mapping[tuple[str, int], TrialStatus] | None = None,
) -> list[TrialResult]:
    """The outcomes of a study's trials from each arm's histories, in the order of its seeds."""
    left = {arm: list(runs) for arm, runs in histories.items()}
    status = status or {}
    return [
        TrialResult(trial, status.get((trial.arm, trial.seed), "finished"), tuple(left[trial.arm].pop(0)))
        for trial in of.trials
    ]


def arm(name: str, of: Sequence[TrialResult]) -> Arm:
    return Arm(name, tuple(outcome for outcome in of if outcome.trial.arm == name))
