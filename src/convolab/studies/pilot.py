"""What finished runs say of a study before it is trained: how much its differences spread, and how long a run takes."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from convolab.core.errors import LabError, require
from convolab.core.free_cores import threads_lent
from convolab.core.stats import mean_std
from convolab.core.text import join_with_and, pluralize
from convolab.data.catalog import DATASETS
from convolab.data.splits import DatasetSplits
from convolab.studies.analyze import analyze_study
from convolab.studies.contrast import Contrast, relative_spread
from convolab.studies.metrics import Metric
from convolab.studies.power import ArmKey, Spread, arm_recipes, question_key, recipe_without_seed
from convolab.studies.results import TrialResult
from convolab.studies.runner import estimate_costs
from convolab.studies.section import Section
from convolab.studies.stored_study import read_stored_study
from convolab.studies.study import Study
from convolab.studies.study_folder import STUDY_FILE
from convolab.studies.trials import require_saved_metrics
from convolab.training.callbacks import Callbacks
from convolab.training.find_runs import list_run_folders
from convolab.training.history import EpochMetrics
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.setup import build_trainer, train_validation_split

MEASURED_SECONDS = 2.0  # of training, to see how long a run takes


@dataclass(frozen=True)
class Pilot:
    """What runs say of a study."""

    spreads: dict[tuple[str, Contrast], Spread]  # by section and contrast, as far as there are two seeds
    run_seconds: dict[ArmKey, float] | None  # of a run on one core; None if they do not say
    num_runs: int
    notes: tuple[str, ...]


def read_pilot(study: Study, folder: Path) -> Pilot:
    """What the finished runs in a folder, and the folders below it, say of a study.

    A contrast has the spread of its own pairs, if the folder is of a study that asks the same or holds the very runs;
    else that of all pairs of arms that have its metric. Nothing is trained.

    Raises LabError if there is no such folder.
    """
    require(folder.is_dir(), f"there is no folder {folder}: give the folder of a study, or one that holds runs")
    runs, notes = finished_runs(folder)
    names = {run.recipe.data.name for run in runs}
    own = {recipe.data.name for recipe in study.recipes.values()}
    other = f", on {join_with_and(sorted(names))} instead of {join_with_and(sorted(own))}" if names - own else ""
    if runs:
        notes.insert(
            0, f"what is not given is estimated from {pluralize(len(runs), 'finished run')} in {folder}{other}"
        )
    path = folder / STUDY_FILE
    found = own_spreads(read_stored_study(path), runs) if path.exists() else {}
    for key, spread in own_spreads(study, runs).items():
        found[key] = max(found.get(key, spread), spread, key=lambda known: known.degrees_of_freedom or 0)
    asked = [(name, contrast) for name, section in study.sections.items() for contrast in section.contrasts]
    pooled = {contrast.metric: pooled_spread(values_by_arm(contrast.parsed_metric, runs)) for _, contrast in asked}
    spreads = {
        key: found.get(question_key(*key)) or spread_of_pairs(key[1], study.sections[key[0]], pooled) for key in asked
    }
    return Pilot({key: s for key, s in spreads.items() if s}, seconds_of_runs(study, runs), len(runs), tuple(notes))


def own_spreads(study: Study, runs: Sequence[Run]) -> dict[tuple[str, str], Spread]:
    """The spreads of a study's contrasts that have pairs among the runs, by what they ask."""
    by_key = {run.recipe.key: run for run in runs}
    results = [
        TrialResult(trial, "finished", tuple(by_key[trial.recipe.key].history))
        for trial in study.possible_trials
        if trial.recipe.key in by_key
    ]
    return {
        question_key(section.name, result.contrast): Spread(
            test.standard_error * math.sqrt(test.difference.count), "its own pairs", test.difference.count - 1
        )
        for section in analyze_study(study, results)
        for result in section.contrast_results
        if (test := result.paired_test)
    }


def spread_of_pairs(contrast: Contrast, section: Section, pooled: Mapping[str, Spread | None]) -> Spread | None:
    """A contrast's spread if every pair of arms spreads alike; that of an interaction or a trend follows from its weights."""
    spread = pooled[contrast.metric]
    axis = section.axis(contrast.trend)[0] if contrast.trend else {}
    sides = contrast.sides({arm: position for arm, position in axis.items() if arm in section.written_arms})
    return replace(spread, value=relative_spread(sides) * spread.value) if spread else None


def finished_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """The finished runs below a folder, and a note about each that cannot be read."""
    runs, notes = [], []
    for path in list_run_folders(folder):
        try:
            run = Run(path)
            require_saved_metrics(run)
            runs += [run] if run.status == "finished" and run.history else []
        except LabError as error:
            notes.append(f"left out: {error}")
    return runs, notes


def values_by_arm(metric: Metric, runs: Sequence[Run]) -> dict[tuple[str, str], dict[int, float]]:
    """The metric of the runs that have it: by the key of their data and their recipe without seed, then by seed."""
    arms: dict[tuple[str, str], dict[int, float]] = {}
    for run in runs:
        if metric.is_measured(run.history):
            of_arm = arms.setdefault((run.summary["data_key"], recipe_without_seed(run.recipe)), {})
            of_arm[run.recipe.training.seed] = metric.compute(run.history)
    return arms


def pooled_spread(arms: Mapping[tuple[str, str], Mapping[int, float]]) -> Spread | None:
    """The root mean square of the spreads of all pairs of arms on the same data; None without two seeds of two arms.

    Its degrees of freedom are those of what is left when each arm and each seed has a mean of its own.

    >>> pooled_spread({("digits", "a"): {0: 0.5, 1: 0.7}, ("digits", "b"): {0: 0.5, 1: 0.5}})
    Spread(value=0.14142135623730948, source='all pairs of the metric', degrees_of_freedom=1)
    """
    squares, count, used = 0.0, 0, set[tuple[str, str, int]]()
    for (first, of_first), (second, of_second) in combinations(arms.items(), 2):
        seeds = of_first.keys() & of_second.keys()
        if first[0] != second[0] or len(seeds) < 2:
            continue
        std = mean_std([of_first[seed] - of_second[seed] for seed in sorted(seeds)])[1]
        squares += (len(seeds) - 1) * std**2
        count += len(seeds) - 1
        used |= {(*arm, seed) for arm in (first, second) for seed in seeds}
    if squares == 0:
        return None
    num_means = len({used_run[:2] for used_run in used}) + len({used_run[::2] for used_run in used})
    df = len(used) - num_means + len({data for data, _, _ in used})
    return Spread(math.sqrt(squares / count), "all pairs of the metric", max(1, df))


def seconds_of_runs(study: Study, runs: Sequence[Run]) -> dict[ArmKey, float] | None:
    """How long a run of each arm takes on one core; None if that of an arm is not known.

    From runs that took one thread: those of the same recipe, else by the seconds per image of the same network on the
    same kind of images.
    """
    same_recipe: dict[str, list[tuple[float, float]]] = {}  # seconds and images of each run
    same_network: dict[tuple[str, int, str], list[tuple[float, float]]] = {}
    for run in runs:
        seconds = sum(epoch.train_seconds for epoch in run.history)
        images = sum(map(epoch_images, run.history))
        if run.summary["threads"] == 1 and run.summary["device"] == "cpu" and 0 < seconds * images < math.inf:
            same_recipe.setdefault(recipe_without_seed(run.recipe), []).append((seconds, images))
            same_network.setdefault(network_and_images(run.recipe), []).append((seconds, images))
    result: dict[ArmKey, float] = {}
    for arm, recipe in arm_recipes(study).items():
        if timed := same_recipe.get(recipe_without_seed(recipe)):
            result[arm] = sum(seconds for seconds, _ in timed) / len(timed)
        elif (timed := same_network.get(network_and_images(recipe))) and (count := recipe_images(recipe)):
            rate = sum(seconds for seconds, _ in timed) / sum(images for _, images in timed)
            result[arm] = rate * count * recipe.training.epochs
        else:
            return None
    return result


def network_and_images(recipe: Recipe) -> tuple[str, int, str]:
    """What decides, but for the augmentation, how long an image takes."""
    return recipe.data.name, recipe.data.image_size, recipe.model.model_dump_json()


def epoch_images(epoch: EpochMetrics) -> float:
    """Images that an epoch trained on."""
    return epoch.images_per_second * epoch.train_seconds


def recipe_images(recipe: Recipe) -> float | None:
    """How many images an epoch has; None for a person's own data without a limit."""
    known = DATASETS[recipe.data.name].num_train if recipe.data.name in DATASETS else None
    count = recipe.data.limit or known
    return None if count is None else count * (1 - recipe.data.validation)


class StopAfterSeconds(Callbacks):
    """End a training some seconds after its first step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started: float | None = None

    def should_stop(self) -> bool:
        now = time.perf_counter()
        self.started = now if self.started is None else self.started
        return now - self.started > self.seconds


def measure_run_seconds(study: Study, splits: DatasetSplits) -> dict[ArmKey, float]:
    """How long a run of each arm takes on one core: its first recipe is trained for two seconds, the others cost in proportion.

    Raises LabError for a recipe that cannot be trained on these images.
    """
    costs = estimate_costs(study.possible_trials, splits)
    recipe = study.trials[0].recipe
    with threads_lent(1):
        trainer, clock = build_trainer(recipe, splits, "cpu"), StopAfterSeconds(MEASURED_SECONDS)
        for _ in trainer.iter_epochs(clock):
            pass
    progress = trainer.progress
    seconds = progress.seconds + sum(epoch.train_seconds for epoch in progress.history)
    images = progress.num_images + sum(map(epoch_images, progress.history))
    train, _ = train_validation_split(recipe, splits)
    scale = seconds / images * recipe.training.epochs * len(train) / costs[recipe.key]
    return {arm: costs[other.key] * scale for arm, other in arm_recipes(study).items()}
