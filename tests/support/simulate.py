"""Thousands of simulated studies, analyzed like real ones; prints as JSON how often they were right.

A script of its own, because the tests check the types of every call, which takes six times as long. Run it in the
folder `tests`: python -m support.simulate 5000 1500 2500 5000
"""

import json
import sys
from dataclasses import dataclass, replace

import numpy as np
from support.histories import history, study_of_arms, trial_results

from convolab.core.stats import detectable_noncentrality
from convolab.studies.analyze import analyze_study
from convolab.studies.results import SectionResult, TrialResult
from convolab.studies.study import Study

SEEDS = 3
NOISE = 0.01


@dataclass
class StudySimulator:
    """Analyzes one study with many sets of numbers. Its trials take longer to make than to analyze: they are made once."""

    study: Study
    arms: str

    def __post_init__(self) -> None:
        self.empty = trial_results(self.study, {arm: [history([0.5])] * SEEDS for arm in self.arms})

    def analyze(self, accuracies: np.ndarray, losses: np.ndarray) -> SectionResult:
        """The result of a section with these numbers, [arms, seeds, epochs] each."""
        accuracy_rows = accuracies.reshape(len(self.empty), -1).tolist()
        loss_rows = losses.reshape(len(self.empty), -1).tolist()
        results: list[TrialResult] = [
            replace(result, history=history(accuracy_row, loss_row))
            for result, accuracy_row, loss_row in zip(self.empty, accuracy_rows, loss_rows, strict=True)
        ]
        return analyze_study(self.study, results)[0]


def no_difference(studies: int) -> dict[str, float]:
    """Four arms that do not differ, four contrasts of two metrics, seeds that are better or worse for all arms."""
    contrasts = [("b", "a"), ("c", "a"), ("d", "a"), ("d", "c", "final_train_loss")]
    simulator, rng = StudySimulator(study_of_arms("abcd", contrasts), "abcd"), np.random.default_rng(1)
    false = covered = decided = 0
    for _ in range(studies):
        seed_effect = rng.normal(0, 2 * NOISE, (1, SEEDS, 1))
        accuracies, losses = (0.7 + seed_effect + rng.normal(0, NOISE, (4, SEEDS, 2)) for _ in range(2))
        section = simulator.analyze(accuracies, losses)
        false += any(result.verdict in ("better", "worse") for result in section.contrast_results)
        loss = section.contrast_results[3].paired_test.difference
        covered += loss.low <= 0 <= loss.high
        decided += all(result.p_adjusted is not None for result in section.contrast_results)
    return {"false": false / studies, "covered": covered / studies, "decided": decided / studies}


def coarse(studies: int) -> dict[str, float]:
    """The same for accuracies on 144 images, and for the number of epochs to a threshold: numbers that often tie."""
    contrasts = [("b", "a", "final_validation_accuracy"), ("b", "a", "epochs_to_validation_accuracy:0.9")]
    simulator, rng = StudySimulator(study_of_arms("ab", contrasts), "ab"), np.random.default_rng(2)
    mean_accuracies = np.array([0.7, 0.85, 0.88, 0.9, 0.92, 0.93])
    false = 0
    for _ in range(studies):
        counts = rng.binomial(144, mean_accuracies, (2, SEEDS, 6)) / 144
        false += any(
            result.verdict in ("better", "worse") for result in simulator.analyze(counts, 2 - counts).contrast_results
        )
    return {"false": false / studies}


def real_difference(studies: int) -> dict[str, float]:
    """One arm of four is better by just the minimum detectable effect of three seeds, the others are not."""
    contrasts = [(arm, "a", "final_train_loss") for arm in "bcd"]
    simulator, rng = StudySimulator(study_of_arms("abcd", contrasts), "abcd"), np.random.default_rng(3)
    true_difference = detectable_noncentrality(SEEDS - 1, 0.05 / 3) * NOISE * np.sqrt(2 / SEEDS)
    better = np.array([0, 0, 0, true_difference]).reshape(4, 1, 1)
    found = wrong = covered = separated = 0
    for _ in range(studies):
        seed_effect = rng.normal(0, 2 * NOISE, (1, SEEDS, 1))
        losses = 0.7 + seed_effect - better + rng.normal(0, NOISE, (4, SEEDS, 1))
        first, second, third = simulator.analyze(1 - losses, losses).contrast_results
        found += third.verdict == "better"
        wrong += third.verdict == "worse" or bool({first.verdict, second.verdict} & {"better", "worse"})
        covered += third.paired_test.difference.low <= -true_difference <= third.paired_test.difference.high
        separated += third.verdict == "better" and third.curves_separate_from_epoch == 1
    return {
        "found": found / studies,
        "wrong": wrong / studies,
        "covered": covered / studies,
        "separated": separated / studies,
    }


def just_not_equivalent(studies: int) -> dict[str, float]:
    """Three arms that differ from the first by just the margin: none of them is equivalent to it."""
    contrasts = [(arm, "a", "final_train_loss") for arm in "bcd"]
    simulator, rng = StudySimulator(study_of_arms("abcd", contrasts), "abcd"), np.random.default_rng(4)
    shift = np.array([0, 1, -1, 1]).reshape(4, 1, 1) * simulator.study.margins.loss
    false = 0
    for _ in range(studies):
        losses = 0.7 + shift + rng.normal(0, 0.3 * simulator.study.margins.loss, (4, SEEDS, 1))
        section = simulator.analyze(1 - losses, losses)
        false += any(result.verdict == "equivalent" for result in section.contrast_results)
    return {"false": false / studies}


if __name__ == "__main__":
    sizes = [int(text) for text in sys.argv[1:]]
    kinds = {"no_difference": no_difference, "coarse": coarse, "real_difference": real_difference}
    kinds["just_not_equivalent"] = just_not_equivalent
    print(json.dumps({name: kind(size) for (name, kind), size in zip(kinds.items(), sizes, strict=True)}))
