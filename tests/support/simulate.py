"""Thousands of made-up studies, analyzed like real ones; prints as JSON how often they were right.

A program of its own, because the tests check the types of every call, which takes six times as long. In this folder's
parent: python -m support.simulate 5000 1500 2500
"""

import json
import sys
from dataclasses import dataclass, replace

import numpy as np
from support.histories import history, outcomes, study

from convolab.core.stats import detectable_noncentrality
from convolab.studies.analyze import analyze_study
from convolab.studies.results import SectionResult, TrialResult
from convolab.studies.study import Study

SEEDS = 3
NOISE = 0.01


@dataclass
class Maker:
    """Gives new numbers to the same trials, which take longer to make than to analyze."""

    of: Study
    arms: str

    def __post_init__(self) -> None:
        self.blank = outcomes(self.of, {arm: [history([0.5])] * SEEDS for arm in self.arms})

    def analyze(self, accuracies: np.ndarray, losses: np.ndarray) -> SectionResult:
        """The result of a section with these numbers, [arms, seeds, epochs] each."""
        rows, other = accuracies.reshape(len(self.blank), -1).tolist(), losses.reshape(len(self.blank), -1).tolist()
        made: list[TrialResult] = [
            replace(blank, history=history(row, loss)) for blank, row, loss in zip(self.blank, rows, other, strict=True)
        ]
        return analyze_study(self.of, made)[0]


def no_difference(studies: int) -> dict[str, float]:
    """Four arms that do not differ, four contrasts of two metrics, seeds that are better or worse for all arms."""
    contrasts = [("b", "a"), ("c", "a"), ("d", "a"), ("d", "c", "final_train_loss")]
    maker, chance = Maker(study("abcd", contrasts), "abcd"), np.random.default_rng(1)
    false = covered = decided = 0
    for _ in range(studies):
        luck = chance.normal(0, 2 * NOISE, (1, SEEDS, 1))  # of a seed
        accuracies, losses = (0.7 + luck + chance.normal(0, NOISE, (4, SEEDS, 2)) for _ in range(2))
        section = maker.analyze(accuracies, losses)
        false += any(answer.verdict in ("better", "worse") for answer in section.contrast_results)
        loss = section.contrast_results[3].paired_test.difference
        covered += loss.low <= 0 <= loss.high
        decided += all(answer.verdict for answer in section.contrast_results)
    return {"false": false / studies, "covered": covered / studies, "decided": decided / studies}


def coarse(studies: int) -> dict[str, float]:
    """The same for accuracies on 144 images, and for whole epochs to one: numbers that often tie."""
    contrasts = [("b", "a", "final_validation_accuracy"), ("b", "a", "epochs_to_validation_accuracy:0.9")]
    maker, chance = Maker(study("ab", contrasts), "ab"), np.random.default_rng(2)
    rising = np.array([0.7, 0.85, 0.88, 0.9, 0.92, 0.93])
    false = 0
    for _ in range(studies):
        counts = chance.binomial(144, rising, (2, SEEDS, 6)) / 144
        false += any(
            answer.verdict in ("better", "worse") for answer in maker.analyze(counts, 2 - counts).contrast_results
        )
    return {"false": false / studies}


def real_difference(studies: int) -> dict[str, float]:
    """One arm of four is better by just the minimum detectable effect of three seeds, the others are not."""
    contrasts = [(arm, "a", "final_train_loss") for arm in "bcd"]
    maker, chance = Maker(study("abcd", contrasts), "abcd"), np.random.default_rng(3)
    true = detectable_noncentrality(SEEDS - 1, 0.05 / 3) * NOISE * np.sqrt(2 / SEEDS)
    better = np.array([0, 0, 0, true]).reshape(4, 1, 1)
    found = wrong = covered = separated = 0
    for _ in range(studies):
        luck = chance.normal(0, 2 * NOISE, (1, SEEDS, 1))
        losses = 0.7 + luck - better + chance.normal(0, NOISE, (4, SEEDS, 1))
        first, second, third = maker.analyze(1 - losses, losses).contrast_results
        found += third.verdict == "better"
        wrong += third.verdict == "worse" or {first.verdict, second.verdict} != {"no significant difference"}
        covered += third.paired_test.difference.low <= -true <= third.paired_test.difference.high
        separated += third.verdict == "better" and third.curves_separate_from_epoch == 1
    return {
        "found": found / studies,
        "wrong": wrong / studies,
        "covered": covered / studies,
        "separated": separated / studies,
    }


if __name__ == "__main__":
    sizes = [int(text) for text in sys.argv[1:]]
    kinds = {"no_difference": no_difference, "coarse": coarse, "real_difference": real_difference}
    print(json.dumps({name: kind(size) for (name, kind), size in zip(kinds.items(), sizes, strict=True)}))
