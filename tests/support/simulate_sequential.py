"""Thousands of simulated studies with seeds "until decided"; prints as JSON how often they were wrong, and what they cost.

A script of its own, because the tests check the types of every call. Run it in the folder `tests`:
python -m support.simulate_sequential 5000
"""

import json
import sys
from collections.abc import Callable

import numpy as np

from convolab.core.sequential import Estimate, planned_looks
from convolab.core.stats import ALPHA
from convolab.studies.decide import Decision, Sample, decide_contrasts

LOOKS = planned_looks(20)
SIGMA_LOG = 0.8  # of the lognormal outcomes: their skewness is 3.7
DIVERGING = 0.02  # of the runs
COLLAPSING = 0.15

Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Student's t with 3 degrees of freedom, scaled to a standard deviation of 1."""
    return rng.standard_t(3, shape) / np.sqrt(3)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Lognormal, with mean 0 and standard deviation 1."""
    variance = SIGMA_LOG**2
    mean, spread = np.exp(variance / 2), np.sqrt((np.exp(variance) - 1) * np.exp(variance))
    return (np.exp(SIGMA_LOG * rng.standard_normal(shape)) - mean) / spread


def skewed_baseline(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Only the baseline, the first arm, is skewed, so every difference is, half as much."""
    return beside_normal(rng, shape, skewed, 1.0)


def skewed_unsteady(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """As `skewed_baseline`, and the other arms spread 0.3 times as much: differences are nearly as skewed as it."""
    return beside_normal(rng, shape, skewed, 0.3)


def collapsing(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Of the baseline 15 % of the runs come out far worse: by 20 times the spread of the other runs and arms."""
    return beside_normal(rng, shape, collapses, 0.13)


def collapses(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Two kinds of outcomes; all together have mean 0 and standard deviation 1, nearly."""
    is_bad = rng.random(shape) < COLLAPSING
    return 0.13 * (rng.standard_normal(shape) - 20 * (is_bad - COLLAPSING))


def beside_normal(rng: np.random.Generator, shape: tuple[int, ...], baseline: "Noise", spread: float) -> np.ndarray:
    """A baseline, and other arms that are normal with a spread."""
    noise = spread * rng.standard_normal(shape)
    noise[:, 0] = baseline(rng, noise[:, 0].shape)
    return noise


def unequal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Every second arm spreads four times as much."""
    return rng.standard_normal(shape) * np.where(np.arange(shape[1]) % 2, 4.0, 1.0)[None, :, None]


NOISES: dict[str, Noise] = {
    noise.__name__: noise for noise in (normal, heavy, skewed, skewed_baseline, skewed_unsteady, collapsing, unequal)
}


def estimate_all(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard errors [studies, contrasts, looks] of differences [studies, contrasts, seeds]."""
    means = np.stack([differences[..., :n].mean(-1) for n in LOOKS], -1)
    errors = np.stack([differences[..., :n].std(-1, ddof=1) / np.sqrt(n) for n in LOOKS], -1)
    return means, errors


def decide_all(
    differences: np.ndarray, margin: float | None, diverged: np.ndarray | None = None
) -> list[list[Decision]]:
    """The decisions of every study; `diverged` are the pairs [studies, contrasts, seeds] in which a run diverged."""
    means, errors = (values.tolist() for values in estimate_all(differences))
    first_lost = np.full(differences.shape[:2], LOOKS[-1] + 1)
    if diverged is not None:
        first_lost = np.where(diverged.any(-1), diverged.argmax(-1) + 1, first_lost)
    lost = first_lost.tolist()
    index = {seeds: i for i, seeds in enumerate(LOOKS)}

    def decide_one(study: int) -> list[Decision]:
        def sample(contrast: int, seeds: int) -> Sample:
            if seeds >= lost[study][contrast]:
                return "lost"
            i = index[seeds]
            return Estimate(means[study][contrast][i], errors[study][contrast][i], seeds)

        return decide_contrasts(sample, [margin] * differences.shape[1], LOOKS)

    return [decide_one(study) for study in range(len(differences))]


def simulate(
    studies: int,
    arms: int,
    noise: str,
    effects: list[float],
    margin: float | None,
    diverging: float = 0.0,
    seed: int = 0,
) -> dict[str, float]:
    """Every arm against the first, which the others differ from by `effects`, in standard deviations of an outcome.

    Gives the fraction of studies with a false difference (where the effect is 0, or of the wrong sign) and with a false
    equivalence (where it is the margin or more), of contrasts whose last interval covers the effect and of those with a
    true effect that were found, and the mean number of seeds of a contrast and of runs of an arm.
    """
    rng = np.random.default_rng(seed)
    outcomes = NOISES[noise](rng, (studies, arms, LOOKS[-1]))
    truth = np.array(effects)
    differences = outcomes[:, 1:] + truth[:, None] - outcomes[:, :1]
    lost = rng.random(outcomes.shape) < diverging
    decided = decide_all(differences, margin, lost[:, 1:] | lost[:, :1])
    false = equivalent = covered = intervals = found = seeds = runs = 0
    for decisions in decided:
        is_false = is_equivalent = False
        for decision, effect in zip(decisions, effects, strict=True):
            seeds += decision.seeds
            if not decision.looks:
                continue
            last = decision.looks[-1].difference
            intervals += 1
            covered += last.low <= effect <= last.high
            is_false |= decision.outcome == "different" and last.mean * effect <= 0
            is_equivalent |= decision.outcome == "equivalent" and abs(effect) >= (margin or 0)
            found += decision.outcome == "different" and last.mean * effect > 0
        false += is_false
        equivalent += is_equivalent
        runs += max(d.seeds for d in decisions) + sum(d.seeds for d in decisions)
    contrasts = studies * (arms - 1)
    return {
        "false": false / studies,
        "false_equivalent": equivalent / studies,
        "covered": covered / max(1, intervals),
        "found": found / max(1, studies * sum(effect != 0 for effect in effects)),
        "seeds": seeds / contrasts,
        "runs_per_arm": runs / (studies * arms),
    }


def all_settings() -> dict[str, dict[str, object]]:
    """What is simulated, by name."""
    settings: dict[str, dict[str, object]] = {}
    for noise in NOISES:
        for arms in (2, 4, 10):
            same: dict[str, object] = {"arms": arms, "noise": noise, "effects": [0.0] * (arms - 1)}
            settings[f"no difference, {noise}, {arms} arms"] = {**same, "margin": None}
            at_margin = [1.0 if i % 2 else -1.0 for i in range(arms - 1)]
            for ratio in (0.1, 0.3, 1.0):  # of the spread to the margin
                effects = [effect / ratio for effect in at_margin]
                name = f"at the margin of {1 / ratio:g} sd, {noise}, {arms} arms"
                settings[name] = {**same, "effects": effects, "margin": 1 / ratio}
    for arms in (2, 4, 10):
        base = {"arms": arms, "noise": "normal", "margin": None}
        settings[f"no difference, diverging, {arms} arms"] = {
            **base,
            "effects": [0.0] * (arms - 1),
            "diverging": DIVERGING,
        }
        for effect in (0.5, 1.0, 2.0, 5.0, 10.0):
            settings[f"one differs by {effect:g} sd, {arms} arms"] = {**base, "effects": [effect] + [0.0] * (arms - 2)}
    return settings


if __name__ == "__main__":
    studies, chosen = int(sys.argv[1]), sys.argv[2:]
    results = {
        name: simulate(studies, **setting, seed=i)  # type: ignore[arg-type]
        for i, (name, setting) in enumerate(all_settings().items())
        if not chosen or any(part in name for part in chosen)
    }
    print(json.dumps({"alpha": ALPHA, "results": results}))
