"""A search: configurations drawn from ranges and lists of values, of which the best third goes on at each rung.

Pure functions of the search and of the scores so far: killing it and going on, or training elsewhere, changes nothing.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from convolab.core.errors import LabError, require, suggest
from convolab.core.rng import derive_seed
from convolab.core.types import Json
from convolab.studies.section import MAX_ARMS, UNTIL_DECIDED, Overrides, grid_arm_name
from convolab.studies.study import Study
from convolab.training.history import EpochMetrics, best_epoch_of
from convolab.training.recipe import Recipe

SAMPLERS_BY_NAME = ("random", "tpe")
FIXED_KEYS = ("training.epochs", "training.seed", "data.name", "data.validation", "data.limit", "data.image_size")
# Of searches: a study of two arms hardly gets as far, so its seeds are fresh ones. A number of its own and not that of
# `study.MAX_RUNS`: to lift that limit must not change the recipes of a search that goes on.
FIRST_SEED = 10_000
TPE_BATCH = 4  # configurations asked for at a time, however many are trained in parallel
ETA = 3  # of successive halving: one in so many goes on, for so many times as long
MAX_WHOLE = 2**53  # beyond which floats leave whole numbers out
MAX_DRAWS = 100  # for each configuration, before the space is taken to have no more

RungScore = tuple[float, float]  # validation accuracy, and the loss's negative, which decides between equals

# Batches of configurations; what is sent back is the best validation accuracy of each so far, 0 for one that diverged.
Proposals = Generator[list[Overrides], list[float], None]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included: whole ones, or on a log scale, or, from 0 on, on a linear one.

    >>> Range(0.001, 0.1).at(0.5), Range(8, 64, whole=True).at(0.5), Range(0, 0.5).at(0.5)
    (0.01, 36, 0.25)
    """

    low: int | float
    high: int | float
    whole: bool = False

    def at(self, share: int | float) -> int | float:
        """The value that a share of the others, in [0, 1], is below; not whole ones have four digits."""
        if self.whole:
            return min(int(self.low + share * (self.high - self.low + 1)), int(self.high))
        value = self.low + share * (self.high - self.low)
        if self.low > 0:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        return min(max(float(f"{value:.4g}"), self.low), self.high)


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Json, ...]

    def at(self, share: int | float) -> Json:
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]


Space = Mapping[str, Range | Choice]  # by recipe key


def parse_range(key: str, text: str, current: Json) -> Range | None:
    """The range that a text such as 0.003..0.3 stands for; None for a text that is none.

    Whole ends give whole numbers, unless the recipe's present value has a point. Raises LabError, naming the key.

    >>> parse_range("optimizer.lr", "0.003..0.3", 0.1), parse_range("training.batch_size", "16..256", 128)
    (Range(low=0.003, high=0.3, whole=False), Range(low=16, high=256, whole=True))
    """
    ends = text.split("..")
    numbers = [number for end in ends if (number := parse_number(end)) is not None]
    if len(ends) < 2 or not numbers:
        return None
    what = f"{key}={text}"
    require(len(numbers) == len(ends) == 2, f"{what} is not a range: write {key}=low..high")
    low, high = numbers
    require(low < high, f"{what}: a range goes from a lower number to a higher one")
    whole = isinstance(low, int) and isinstance(high, int) and not isinstance(current, float)
    require(whole or type(current) is not int, f"{what}: {key} takes whole numbers: give whole ends")
    require(max(map(abs, numbers)) <= (MAX_WHOLE if whole else math.inf), f"{what}: its ends are too large")
    require(whole or low >= 0, f"{what}: a range is drawn on a log scale, where no number is negative: list the values")
    return Range(low, high, whole) if whole else Range(float(low), float(high))


def parse_number(text: str) -> int | float | None:
    """A finite number in a text, else None."""
    for kind in (int, float):
        with suppress(ValueError, OverflowError):
            return number if math.isfinite(number := kind(text)) else None
    return None


def space_of(values: Mapping[str, Sequence[Json]], recipe: Recipe) -> Space:
    """The space of a sweep's values: a text that is a range stands for it. Raises LabError, naming the key.

    >>> space_of({"optimizer.lr": ["0.003..0.3"], "schedule.name": ["step", "cosine"]}, Recipe())
    {'optimizer.lr': Range(low=0.003, high=0.3, whole=False), 'schedule.name': Choice(values=('step', 'cosine'))}
    """
    space: dict[str, Range | Choice] = {}
    defaults = recipe.to_dict()
    for key, given in values.items():
        section, _, name = key.partition(".")
        current = defaults.get(section, {}).get(name)
        ranges = [parse_range(key, value, current) if isinstance(value, str) else None for value in given]
        require(not any(ranges) or len(given) == 1, f"{key} is given a range and more: give one range, or values")
        space[key] = ranges[0] or Choice(tuple(given))
    return space


def rung_epochs(epochs: int) -> list[int]:
    """After how many epochs a search halves: at 1/9 and 1/3 of all of them, where that is one or more; and all.

    >>> rung_epochs(30), rung_epochs(5), rung_epochs(2)
    ([3, 10, 30], [1, 5], [2])
    """
    return [rung for rung in (epochs // ETA**2, epochs // ETA, epochs) if rung]


def score_at(history: Sequence[EpochMetrics], epochs: int) -> RungScore | None:
    """The best validation accuracy within some epochs, with that epoch's loss; None without any epoch."""
    best = best_epoch_of(history[:epochs])
    return None if best is None else (best.validation_accuracy or 0.0, -(best.validation_loss or 0.0))


def best_third(scores: Mapping[str, RungScore | None]) -> list[str]:
    """The names of the best third, the best first and one at least; without a score none goes on.

    >>> best_third({"a": (0.9, -0.3), "b": None, "c": (0.9, -0.2), "d": (0.5, -1.0)})
    ['c']
    """
    scored = {name: score for name, score in scores.items() if score is not None}
    return sorted(scored, key=lambda name: scored[name], reverse=True)[: max(1, len(scores) // ETA)]


@dataclass(frozen=True)
class Search:
    """What is searched, and how. Raises LabError for what cannot be.

    Attributes:
        name: of its study and folder.
        recipe: the default, which the configurations change; its epochs are those of the last rung.
        space: what each key may be.
        count: configurations to sample.
        sampler: "random", or "tpe", Optuna's, which learns from the scores at the first rung.
        seed: of the sampling and, beyond `FIRST_SEED`, of the trainings.
    """

    name: str
    recipe: Recipe
    space: Space
    count: int
    sampler: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        require(1 <= self.count <= MAX_ARMS, f"a search of {self.count:,} configurations: give 1 to {MAX_ARMS:,}")
        require(self.seed >= 0, f"the search's seed is {self.seed}: give 0 or more")
        require(
            self.sampler in SAMPLERS_BY_NAME,
            f"unknown sampler '{self.sampler}': {suggest(self.sampler, SAMPLERS_BY_NAME)}",
        )
        for key, values in self.space.items():
            given = values.values if isinstance(values, Choice) else ()
            require(all(given.count(value) == 1 for value in given), f"{key} is given a value twice: leave one out")
            require(
                key not in FIXED_KEYS,
                f"{key} cannot be searched, because all configurations need the same: give it by --set",
            )
        require(
            self.recipe.data.validation > 0,
            "a search chooses by validation accuracy, but data.validation is 0: set it above 0",
        )
        for share in (0, 1):  # what is wrong with an end of a range is found before a draw comes near it
            self.recipe.with_overrides({key: values.at(share) for key, values in self.space.items()})

    @property
    def decision_name(self) -> str:
        """Of the study that compares the winner with the default."""
        return f"{self.name}-decision"

    def study(self, configurations: Sequence[Overrides]) -> Study:
        """The study whose arms are the configurations, numbered."""
        names = [key.rpartition(".")[2] for key in self.space]
        arms = {
            f"{number}. {grid_arm_name(names, [overrides[key] for key in self.space])}": overrides
            for number, overrides in enumerate(configurations, 1)
        }
        section = {"arms": arms, "metrics": ["best_validation_accuracy"]}
        return self._study(self.name, [FIRST_SEED + self.seed], "search", section)

    def decision(self, winner: str, overrides: Overrides, num_seeds: int | None) -> Study:
        """The study that compares the winner with the default, with seeds that the search has not used."""
        chosen = f"the best of a search among {self.count} configurations ({self.sampler} sampling, successive halving)"
        section = {
            "title": f"the default against the search's winner, {winner}",
            "note": f"The winner was {chosen}; no seed of this comparison was used in choosing it.",
            "arms": {"default": {}, "winner": overrides},
            "curves": ["train_loss", "validation_loss", "validation_accuracy"],
            "contrasts": [{"arm": "winner", "baseline": "default"}],
        }
        seeds = list(range(num_seeds)) if num_seeds else UNTIL_DECIDED
        return self._study(self.decision_name, seeds, "decision", section)

    def _study(self, name: str, seeds: Json, section_name: str, section: Mapping[str, Any]) -> Study:
        values = {"name": name, "seeds": seeds, "recipe": self.recipe.to_dict(), "sections": {section_name: section}}
        return Study.from_dict(values)


def propose(search: Search) -> Proposals:
    """The configurations of a search, batch by batch, by its sampler."""
    return propose_random(search) if search.sampler == "random" else propose_tpe(search)


def propose_random(search: Search) -> Proposals:
    """All in one batch, none twice: each draw is a function of the search's seed, its number and the key."""
    drawn: dict[str, Overrides] = {}
    for number in range(MAX_DRAWS * search.count):
        shares = {key: derive_seed(search.seed, "search", number, key) / 2**63 for key in search.space}
        overrides = {key: values.at(shares[key]) for key, values in search.space.items()}
        drawn.setdefault(repr(overrides), overrides)
        if len(drawn) == search.count:
            break
    yield list(drawn.values())


def propose_tpe(search: Search) -> Proposals:
    """By Optuna's tree-structured Parzen estimator: the same accuracies, in the same order, give the same proposals."""
    optuna = import_optuna()
    distributions = {
        key: optuna.distributions.CategoricalDistribution(range(len(values.values)))
        if isinstance(values, Choice)
        else optuna.distributions.FloatDistribution(0.0, 1.0)  # the share, which is on the range's own scale
        for key, values in search.space.items()
    }
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it reports that there is a study
    sampler = optuna.samplers.TPESampler(seed=derive_seed(search.seed, "search") % 2**32)
    optuna_study = optuna.create_study(direction="maximize", sampler=sampler)
    optuna.logging.set_verbosity(verbosity)
    for start in range(0, search.count, TPE_BATCH):
        trials = [optuna_study.ask(distributions) for _ in range(min(TPE_BATCH, search.count - start))]
        accuracies = yield [
            {
                key: values.values[trial.params[key]] if isinstance(values, Choice) else values.at(trial.params[key])
                for key, values in search.space.items()
            }
            for trial in trials
        ]
        for trial, accuracy in zip(trials, accuracies, strict=True):
            optuna_study.tell(trial, accuracy)


def import_optuna() -> Any:  # noqa: ANN401 (a module that need not be there)
    """The module `optuna`. Raises LabError if it is not installed."""
    try:
        return import_module("optuna")
    except ImportError as error:
        raise LabError(
            "Optuna is not installed: pip install 'convolab[optuna]', or search with --sampler random"
        ) from error
