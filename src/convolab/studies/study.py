"""A study: one base recipe under named changes and several seeds, and the questions it exists to decide."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import Field, StringConstraints, ValidationError, model_validator

from convolab.core.errors import LabError, require, suggest
from convolab.core.files import write_text
from convolab.core.types import Frozen, NonNegativeInt
from convolab.studies.metrics import QUANTITIES, Metric
from convolab.training.recipe import Recipe, read_toml

Name = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[^/\\\n\t]+$")]
Overrides = dict[str, Any]  # `section.key` of a recipe -> value


class Contrast(Frozen):
    """A question: is `arm` better than `against`, by `metric`?"""

    arm: Name
    baseline: Name
    metric: str = "best_validation_accuracy"  # see `Metric.parse`

    @property
    def parsed_metric(self) -> Metric:
        return Metric.parse(self.metric)


class Section(Frozen):
    """Arms that belong together: what is changed, what is drawn and what is asked.

    Arms are named changes to the base recipe; or a `grid` of values of some keys gives an arm for every combination.
    """

    title: str = ""
    note: str = ""  # what a reader should know before the curves
    overrides: Overrides = {}  # to the base recipe, in every arm
    arms: dict[Name, Overrides] = {}
    grid: dict[str, tuple[Any, ...]] = {}
    seeds: tuple[NonNegativeInt, ...] | None = None  # left out: the study's
    curves: tuple[str, ...] = ("train_loss", "validation_accuracy")  # quantities to draw against epochs
    contrasts: tuple[Contrast, ...] = ()
    metrics: tuple[str, ...] = ()  # numbers to list for each arm, besides those that its contrasts ask about

    @model_validator(mode="after")
    def check_consistency(self) -> "Section":
        require(bool(self.arms) != bool(self.grid), "give either arms or a grid")
        require(all(self.grid.values()), "a key of the grid has no values")
        for quantity in self.curves:
            require(quantity in QUANTITIES, f"no curve '{quantity}': {suggest(quantity, QUANTITIES)}")
        for contrast in self.contrasts:
            for arm in (contrast.arm, contrast.baseline):
                require(
                    arm in self.arm_overrides,
                    f"a contrast names the arm '{arm}', which is not there: {suggest(arm, self.arm_overrides)}",
                )
            require(contrast.arm != contrast.baseline, f"a contrast sets the arm '{contrast.arm}' against itself")
        _ = self.reported_metrics
        return self

    @property
    def reported_metrics(self) -> dict[str, Metric]:
        """The numbers to list for each arm, by name, each once."""
        return {name: Metric.parse(name) for name in (*(contrast.metric for contrast in self.contrasts), *self.metrics)}

    @cached_property
    def arm_overrides(self) -> dict[str, Overrides]:
        """Every arm's own changes, those of the grid too."""
        if self.arms:
            return self.arms
        short_keys = [key.rpartition(".")[2] for key in self.grid]
        names = (
            short_keys if len(set(short_keys)) == len(short_keys) else list(self.grid)
        )  # the short name of a key, unless two keys share it
        combinations = list(itertools.product(*self.grid.values()))
        arms = {
            ", ".join(f"{name}={format_arm_value(value)}" for name, value in zip(names, values, strict=True)): dict(
                zip(self.grid, values, strict=True)
            )
            for values in combinations
        }
        require(len(arms) == len(combinations), "a value stands twice in the grid")
        return arms


def format_arm_value(value: Any) -> str:
    """A value as an arm's name has it.

    >>> shown(0.001), shown([16, 32]), shown(True)
    ('0.001', '16-32', 'true')
    """
    if isinstance(value, list | tuple):
        return "-".join(map(format_arm_value, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Trial:
    """One arm of one section with one seed: what a run is trained for. Two trials with the same recipe share their run."""

    section: str
    arm: str
    seed: int
    recipe: Recipe


class Study(Frozen):
    """A base recipe, sections of named arms, seeds, and the contrasts it exists to decide.

    >>> study = Study.parse({"name": "rates", "seeds": [0, 1], "sections": {"lr": {"grid": {"optimizer.lr": [0.1, 0.01]}}}})
    >>> [(trial.arm, trial.seed) for trial in study.trials]
    [('lr=0.1', 0), ('lr=0.1', 1), ('lr=0.01', 0), ('lr=0.01', 1)]
    """

    name: Name
    title: str = ""
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 2)
    recipe: dict[str, dict[str, Any]] = {}  # the base, as a recipe's file has it; what is left out has its default
    sections: Annotated[dict[Name, Section], Field(min_length=1)]
    test_best: bool = False  # test the run of the best validation accuracy of all, once

    @model_validator(mode="after")
    def check_trials(self) -> "Study":
        """Every recipe of every trial is made here, so that a wrong key is found before the first step."""
        for name, section in self.sections.items():
            seeds = self.seeds if section.seeds is None else section.seeds
            require(
                seeds and len(set(seeds)) == len(seeds),
                f"section '{name}': seeds {list(seeds)} repeat, or there are none: give each once",
            )
        by_recipe: dict[tuple[str, str], str] = {}
        for trial in self.trials:
            first_arm = by_recipe.setdefault((trial.section, trial.recipe.key), trial.arm)
            require(
                first_arm == trial.arm,
                f"section '{trial.section}': the arms '{first_arm}' and '{trial.arm}' are the same recipe",
            )
            has_validation = trial.recipe.data.validation > 0
            section = self.sections[trial.section]
            metrics = [c.metric for c in section.contrasts if trial.arm in (c.arm, c.baseline)] + list(section.metrics)
            for metric in metrics:
                require(
                    has_validation or not section.reported_metrics[metric].needs_validation,
                    f"section '{trial.section}': {metric} needs validation pictures, and the arm '{trial.arm}' holds none back: set data.validation",
                )
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Study":
        """A study from nested values. Raises LabError, naming the section and the key."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key_path = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                model = Contrast if "contrasts" in first["loc"] else Section if "sections" in first["loc"] else Study
                raise LabError(
                    f"a study has no key '{key_path}': {suggest(str(first['loc'][-1]), model.model_fields)}"
                ) from error
            raise LabError(
                f"study: {key_path} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}".replace(
                    "\n", " "
                )
            ) from error

    @classmethod
    def read(cls, path: Path | str) -> "Study":
        """The study in a TOML file. Raises LabError if it cannot be read, naming the line or the key."""
        return cls.parse(read_toml(path))

    def to_toml(self) -> str:
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True, exclude_defaults=True))

    def write(self, path: Path | str) -> None:
        write_text(path, self.to_toml())

    @cached_property
    def base_recipe(self) -> Recipe:
        """The base recipe, every key."""
        return Recipe.from_dict(self.recipe)

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """Every arm of every section with every seed, in the order they are written."""
        return tuple(self._iter_trials())

    def _iter_trials(self) -> Iterator[Trial]:
        for name, section in self.sections.items():
            for arm, overrides in section.arm_overrides.items():
                for seed in self.seeds if section.seeds is None else section.seeds:
                    try:
                        recipe = (
                            self.base_recipe.with_overrides(section.overrides)
                            .with_overrides(overrides)
                            .with_overrides({"training.seed": seed})
                        )
                    except LabError as error:
                        raise LabError(f"section '{name}', arm '{arm}': {error}") from error
                    yield Trial(name, arm, seed, recipe)

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """The different recipes among the trials by key: what has to be trained."""
        return {trial.recipe.key: trial.recipe for trial in self.trials}

    def select_sections(self, names: list[str]) -> "Study":
        """The study with some of its sections. Raises LabError for one it has not, with the nearest."""
        for name in names:
            require(
                name in self.sections, f"no section '{name}' in the study {self.name}: {suggest(name, self.sections)}"
            )
        kept = {name: section for name, section in self.sections.items() if name in names}
        return Study.parse(
            {
                **self.model_dump(exclude_unset=True),
                "sections": {name: kept[name].model_dump(exclude_unset=True) for name in kept},
            }
        )
