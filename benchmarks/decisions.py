"""How many runs it takes to decide: seeds "until decided", a fixed number of seeds of the same power, and AdaStop.

    python benchmarks/decisions.py --studies 2000 --adastop-studies 300

One arm differs from the first by an effect, in standard deviations of an outcome, the others do not; outcomes are normal,
every arm is compared with the first, without a margin. The fixed design has the smallest number of seeds with which Holm's
t-tests find the difference as often as ours does, chosen for each setting, and once for all settings of as many arms at
an effect of 1, because nobody knows the effect before. AdaStop (Mathieu et al. 2023, package `adastop`) gets blocks of 5
runs, at most 5 of them, and 5 %, as its documentation proposes; an arm that is in no open comparison gets no more runs.
"""

import argparse
import contextlib
import io
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from measure import verdict
from scipy.stats import t as student

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.simulate_sequential import decide_all

from convolab.core.sequential import planned_looks
from convolab.core.stats import ALPHA

EFFECTS, ARMS, MAX_SEEDS, MAX_FIXED = (0.0, 0.5, 1.0, 2.0, 5.0), (2, 4, 8), 20, 60
BLOCK, BLOCKS = 5, 5  # of AdaStop
GOALS = {"AdaStop": 0.7, "fixed": 0.6}


@dataclass(frozen=True)
class Figures:
    """What a design came to in one setting, over all studies."""

    runs: np.ndarray  # of each study
    found: float  # how often the true difference was found; of no effect, nothing
    false: float  # how often any false one was

    def __str__(self) -> str:
        half_width = 1.96 * self.runs.std() / np.sqrt(len(self.runs))
        return f"{self.runs.mean():.1f} ± {half_width:.1f} | {self.found:.2f} | {self.false:.3f}"


def draw(studies: int, arms: int, effect: float, seeds: int, seed: int) -> np.ndarray:
    """Outcomes [studies, arms, seeds]."""
    outcomes = np.random.default_rng(seed).standard_normal((studies, arms, seeds))
    outcomes[:, 1] += effect
    return outcomes


def until_decided(outcomes: np.ndarray, effect: float) -> Figures:
    decided = decide_all(outcomes[:, 1:, : planned_looks(MAX_SEEDS)[-1]] - outcomes[:, :1, :MAX_SEEDS], None)
    runs = np.array([max(d.seeds for d in of_study) + sum(d.seeds for d in of_study) for of_study in decided])
    found = np.array([[d.outcome == "different" for d in of_study] for of_study in decided])
    return figures_of(runs, found, effect)


def figures_of(runs: np.ndarray, found: np.ndarray, effect: float) -> Figures:
    """From the runs of each study and the differences [studies, contrasts] that were found."""
    false = found[:, 1:] if effect else found
    return Figures(runs, float(found[:, 0].mean()) if effect else 0.0, float(false.any(1).mean()))


def fixed(outcomes: np.ndarray, effect: float, seeds: int) -> Figures:
    """Paired t-tests with Holm's correction."""
    differences = outcomes[:, 1:, :seeds] - outcomes[:, :1, :seeds]
    statistic = differences.mean(-1) / differences.std(-1, ddof=1) * np.sqrt(seeds)
    p = 2 * student(seeds - 1).sf(np.abs(statistic))
    order = np.argsort(p, 1)
    contrasts = p.shape[1]
    passed = np.take_along_axis(p, order, 1) <= ALPHA / np.arange(contrasts, 0, -1)
    found = np.zeros_like(passed)
    np.put_along_axis(found, order, np.cumprod(passed, 1).astype(bool), 1)
    return figures_of(np.full(len(outcomes), seeds * outcomes.shape[1]), found, effect)


def fixed_of_power(outcomes: np.ndarray, effect: float, power: float) -> tuple[int, Figures] | None:
    """The smallest fixed design that finds the difference as often; None if even MAX_FIXED seeds do not."""
    for seeds in range(3, MAX_FIXED + 1):
        figures = fixed(outcomes, effect, seeds)
        if figures.found >= power:
            return seeds, figures
    return None


def adastop(outcomes: np.ndarray, effect: float) -> Figures:
    """AdaStop itself, one study after another."""
    from adastop import MultipleAgentsComparator

    arms = outcomes.shape[1]
    all_runs, all_found = [], []
    for index, study in enumerate(outcomes):
        pairs = np.array([(0, arm) for arm in range(1, arms)])
        comparator = MultipleAgentsComparator(n=BLOCK, K=BLOCKS, B=10_000, comparisons=pairs, alpha=ALPHA, seed=index)
        values = {f"arm {arm}": np.empty(0) for arm in range(arms)}
        for block in range(BLOCKS):
            for arm in {int(arm) for arm in np.ravel(pairs if block == 0 else comparator.current_comparisons)}:
                new = study[arm, block * BLOCK : (block + 1) * BLOCK]
                values[f"arm {arm}"] = np.concatenate([values[f"arm {arm}"], new])
            with contextlib.redirect_stdout(io.StringIO()):
                comparator.partial_compare(values, verbose=False)
            if comparator.is_finished:
                break
        all_runs.append(sum(len(of_arm) for of_arm in values.values()))
        all_found.append([comparator.decisions[str(pair)] in ("larger", "smaller") for pair in pairs])
    return figures_of(np.array(all_runs), np.array(all_found), effect)


def ratio_cell(ours: Figures, theirs: Figures, name: str) -> str:
    ratio = float(ours.runs.mean() / theirs.runs.mean())
    return f"{ratio:.2f} ({verdict(ratio <= GOALS[name])})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--adastop-studies", type=int, default=300)
    options = parser.parse_args()
    has_adastop = find_spec("adastop") is not None
    if not has_adastop:
        print("adastop is not installed (pip install adastop): its columns are left out\n")
    head = ["arms", "effect", "until decided: runs", "found", "false", "fixed of the same power: seeds", "ratio"]
    head += ["fixed for an effect of 1: runs", "found", "ratio"]
    head += ["AdaStop: runs", "found", "false", "ratio"] if has_adastop else []
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for arms in ARMS:
        at_one = draw(options.studies, arms, 1.0, MAX_FIXED, seed=1)
        planned = fixed_of_power(at_one, 1.0, until_decided(at_one, 1.0).found)
        for effect in EFFECTS:
            outcomes = draw(options.studies, arms, effect, MAX_FIXED, seed=2)
            ours = until_decided(outcomes, effect)
            row = [str(arms), f"{effect:g}", str(ours)]
            if not effect:
                row += ["", ""]
            elif same_power := fixed_of_power(outcomes, effect, ours.found):
                row += [str(same_power[0]), ratio_cell(ours, same_power[1], "fixed")]
            else:
                row += [f"more than {MAX_FIXED}", ""]
            if planned:
                for_one = fixed(outcomes, effect, planned[0])
                row += [f"{for_one.runs.mean():.0f}", f"{for_one.found:.2f}", ratio_cell(ours, for_one, "fixed")]
            else:
                row += [f"more than {MAX_FIXED * arms}", "", ""]
            if has_adastop:
                theirs = adastop(outcomes[: options.adastop_studies], effect)
                row += [str(theirs), ratio_cell(ours, theirs, "AdaStop")]
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
