"""A study: one base recipe under named overrides and several seeds, and the contrasts it exists to decide."""

import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import tomli_w
from pydantic import Field, ValidationError, model_validator

from convolab.core.display import Displayable
from convolab.core.errors import LabError, errors_name, require, suggest
from convolab.core.files import write_text
from convolab.core.plain_words import plain_problem
from convolab.core.sequential import FIRST_LOOK, MAX_PAIRS, planned_looks
from convolab.core.text import pluralize
from convolab.core.types import Frozen, Json, ValidationContext, python_values
from convolab.models.registry import trust_named
from convolab.studies.contrast import Contrast, Margins, Name
from convolab.studies.section import UNTIL_DECIDED, MaxSeeds, Section, Seeds
from convolab.training.parts import part_names
from convolab.training.recipe import FORMAT, Recipe, read_toml, require_known_format

RENAMED_STUDY_KEYS = {"change": "overrides", "against": "baseline"}  # the first edition's key -> today's
MAX_RUNS = 10_000  # of a study


@dataclass(frozen=True)
class Trial:
    """One arm of one section with one seed: what a run is trained for. Trials with the same recipe share their run."""

    section: str
    arm: str
    seed: int
    recipe: Recipe


class Study(Frozen, Displayable):
    """A base recipe, sections of named arms, seeds, and the contrasts it exists to decide.

    Attributes:
        format: of the study's file.
        name: of its folder.
        title: of its report.
        seeds: with which each arm of each section is trained; or "until decided": 0, 1, 2 and so on, for as long as a
            contrast of the arm is open, see `studies.decide`.
        max_seeds: where seeds are "until decided", the most for an arm.
        recipe: the base, as in a recipe's file; what is left out has its default.
        sections: arms that belong together, by name.
        margins: the largest differences that do not matter.
        test_best: test the run of the best validation accuracy of all, once.

    >>> sections = {"lr": {"grid": {"optimizer.lr": [0.1, 0.01]}}}
    >>> study = Study.from_dict({"name": "rates", "seeds": [0, 1], "sections": sections})
    >>> [(trial.arm, trial.seed) for trial in study.trials]
    [('lr=0.1', 0), ('lr=0.1', 1), ('lr=0.01', 0), ('lr=0.01', 1)]
    """

    _internal_names: ClassVar[frozenset[str]] = frozenset(
        {"first_seeds", "from_file_values", "looks", "possible_trials", "seeds_of", "seeds_text"}
    )

    format: int = FORMAT
    name: Name
    title: str = ""
    seeds: Seeds = (0, 1, 2)
    max_seeds: MaxSeeds = 20
    recipe: dict[str, dict[str, Json]] = {}
    sections: Annotated[dict[Name, Section], Field(min_length=1)]
    margins: Margins = Margins()
    test_best: bool = False

    def __repr__(self) -> str:
        arms = sum(len(section.arm_overrides) for section in self.sections.values())
        counts = (pluralize(len(self.sections), "section"), pluralize(arms, "arm"), pluralize(len(self.recipes), "run"))
        may_grow = any(self.looks(name) or section.widen for name, section in self.sections.items())
        most = "at most " if may_grow else ""
        return f"Study({self.name!r}: {', '.join(counts[:-1])}, {most}{counts[-1]})"

    @model_validator(mode="after")
    def check_trials(self, info: ValidationContext) -> "Study":
        """Every recipe of every trial is made here, so that a wrong key is found before the first step."""
        vars(self)["is_stored"] = bool((info.context or {}).get("is_stored"))  # no field: equal studies stay equal
        require_known_format(self.format, "this study")
        require(self.name not in (".", ".."), f"name = '{self.name}' is not a name of a folder: give another")
        for name in self.sections:
            self._check_seeds(name)
        num_runs = sum(len(section.arm_overrides) * len(self.seeds_of(name)) for name, section in self.sections.items())
        require(
            num_runs <= MAX_RUNS,
            f"the study has {num_runs:,} runs, and may have {MAX_RUNS:,}: give fewer arms or seeds",
        )
        arms_by_recipe: dict[tuple[str, str], str] = {}
        for trial in self.possible_trials:
            first_arm = arms_by_recipe.setdefault((trial.section, trial.recipe.key), trial.arm)
            require(
                first_arm == trial.arm,
                f"section '{trial.section}': the arms '{first_arm}' and '{trial.arm}' are the same recipe",
            )
            has_validation = trial.recipe.data.validation > 0
            section = self.sections[trial.section]
            metrics = [c.metric for c in section.contrasts if c.trend or trial.arm in c.named_arms] + list(
                section.metrics
            )
            for metric in metrics:
                require(
                    has_validation or not section.reported_metrics[metric].needs_validation,
                    f"section '{trial.section}': {metric} needs validation images, but the arm '{trial.arm}' has none: "
                    "set data.validation above 0",
                )
                require(
                    trial.recipe.validation_metric or section.reported_metrics[metric].quantity != "validation_metric",
                    f"section '{trial.section}': {metric} needs a metric of your own, but the arm '{trial.arm}' has none: "
                    "set validation_metric.name",
                )
        return self

    def _check_seeds(self, name: str) -> None:
        """Raise LabError for a section whose seeds, or whose most seeds, cannot be."""
        section = self.sections[name]
        seeds, most = self._own_or_study(name)
        if seeds == UNTIL_DECIDED:
            require(
                FIRST_LOOK <= most <= MAX_PAIRS,
                f"section '{name}': max_seeds is {most}: the first look is at {FIRST_LOOK} seeds, give {FIRST_LOOK} to {MAX_PAIRS}",
            )
            require(
                section.contrasts,
                f"section '{name}': seeds are \"until decided\", but it has no contrast: add one, or give its seeds as a list",
            )
        else:
            require(
                seeds and len(set(seeds)) == len(seeds),
                f"section '{name}': seeds {list(seeds)} must be non-empty and distinct",
            )

    def _own_or_study(self, name: str) -> tuple[Seeds, int]:
        """The seeds of a section and the most of them, its own or the study's."""
        section = self.sections[name]
        return (
            self.seeds if section.seeds is None else section.seeds,
            self.max_seeds if section.max_seeds is None else section.max_seeds,
        )

    def looks(self, section: str) -> tuple[int, ...]:
        """After how many seeds a section is looked at, if its seeds are "until decided"; else empty.

        >>> lr = {"arms": {"a": {}, "b": {"optimizer.lr": 0.1}}, "contrasts": [{"arm": "a", "baseline": "b"}]}
        >>> Study.from_dict({"name": "x", "seeds": "until decided", "max_seeds": 5, "sections": {"lr": lr}}).looks("lr")
        (3, 4, 5)
        """
        seeds, most = self._own_or_study(section)
        return planned_looks(most) if seeds == UNTIL_DECIDED else ()

    def seeds_of(self, section: str) -> tuple[int, ...]:
        """The seeds with which a section's arms may be trained."""
        seeds, most = self._own_or_study(section)
        return tuple(range(most)) if seeds == UNTIL_DECIDED else seeds

    def first_seeds(self, section: str) -> tuple[int, ...]:
        """The seeds with which each arm of a section is trained in any case: of the first look, or all."""
        looks = self.looks(section)
        return self.seeds_of(section)[: looks[0]] if looks else self.seeds_of(section)

    def seeds_text(self, section: str) -> str:
        """The seeds of a section in words: "0, 1, 2" or "until decided, at most 20"."""
        seeds, most = self._own_or_study(section)
        return f"{seeds}, at most {most}" if seeds == UNTIL_DECIDED else ", ".join(map(str, seeds))

    @classmethod
    def from_dict(cls, values: Mapping[str, Json]) -> "Study":
        """A study from nested values, as `tomllib` gives them. Raises LabError, naming the section and the key.

        Code of your own that the values name may run from now on.
        """
        values = python_values(values)
        for name in part_names(values):
            trust_named(name)
        return cls.from_file_values(values)

    @classmethod
    def from_file_values(cls, values: Mapping[str, Json], *, is_stored: bool = False) -> "Study":
        """As `from_dict`, for values that a file holds: code that they name runs only if it is trusted.

        `is_stored` is for a study that was run: see `Recipe.from_file_values`.
        """
        try:
            return cls.model_validate(values, context={"is_stored": is_stored})
        except ValidationError as error:
            raise LabError(format_study_error(error)) from error

    @classmethod
    def read(
        cls,
        path: Path | str,
        *,
        data: str | None = None,
        seeds: Sequence[int] = (),
        sections: Sequence[str] = (),
    ) -> "Study":
        """The study in a TOML file.

        Args:
            path: the file
            data: train on this dataset instead of the file's
            seeds: take these seeds instead of the file's, those of its sections too
            sections: take only these sections

        Raises LabError if the file cannot be read, naming the line or the key, or has no such section.
        """
        values = read_toml(path, "study")
        recipe = values.get("recipe", {})
        if data and isinstance(recipe, Mapping):
            keys = recipe.get("data")
            values["recipe"] = {**recipe, "data": {**(keys if isinstance(keys, Mapping) else {}), "name": data}}
        written = values.get("sections")
        if seeds:
            values["seeds"] = python_values(list(seeds))
            for section in written.values() if isinstance(written, dict) else ():
                if isinstance(section, dict):
                    section.pop("seeds", None)
        if sections and isinstance(written, dict):
            for name in sections:
                require(name in written, f"no section '{name}' in the study {path}: {suggest(name, written)}")
            values["sections"] = {name: section for name, section in written.items() if name in sections}
        with errors_name(path):
            return cls.from_file_values(values)

    def to_toml(self) -> str:
        """The study as a TOML file has it: the format's number, and every key that is not at its default."""
        values = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        return tomli_w.dumps({"format": self.format, **values})

    def write(self, path: Path | str) -> None:
        """Write the study as a TOML file, whatever is there; `save` replaces only what it wrote."""
        write_text(path, self.to_toml())

    @cached_property
    def base_recipe(self) -> Recipe:
        """The base recipe, every key."""
        return Recipe.from_file_values(self.recipe, stored=self._stored_sections)

    @property
    def _stored_sections(self) -> Collection[str]:
        """The sections of its recipes that have every key, because the study was run; see `Recipe.from_file_values`."""
        return Recipe.model_fields if vars(self).get("is_stored") else ()

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """Every arm of every section with every seed, in the order they are written.

        Where seeds are "until decided", those of the first look, and of a grid that may widen the arms that are written:
        what more is trained depends on them.
        """
        first_seeds = {name: set(self.first_seeds(name)) for name in self.sections}
        written = {name: section.written_arms for name, section in self.sections.items()}
        return tuple(
            t for t in self.possible_trials if t.seed in first_seeds[t.section] and t.arm in written[t.section]
        )

    @cached_property
    def possible_trials(self) -> tuple[Trial, ...]:
        """As `trials`, with every arm that a grid may get and every seed that an arm may need until it is decided."""
        return tuple(self._iter_trials())

    def _iter_trials(self) -> Iterator[Trial]:
        for name, section in self.sections.items():
            for arm, overrides in section.arm_overrides.items():
                try:
                    recipe = self.base_recipe.parse_overrides(
                        section.overrides, overrides, {"training.seed": 0}, stored=self._stored_sections
                    )
                except LabError as error:
                    added = "" if arm in section.written_arms else ", which `widen` adds"
                    raise LabError(f"section '{name}', arm '{arm}'{added}: {error}") from error
                for seed in self.seeds_of(name):
                    yield Trial(name, arm, seed, recipe.with_seed(seed))

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """The different recipes among the possible trials by key: what may have to be trained."""
        return {trial.recipe.key: trial.recipe for trial in self.possible_trials}


def format_study_error(error: ValidationError) -> str:
    """The first problem of a study, in one line; an unknown key goes before what is missing in its place."""
    errors = error.errors()
    details = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    path = [str(part) for part in details["loc"]]
    if path[:1] == ["seeds"] or path[2:3] == ["seeds"]:  # without the names of the kinds that seeds may be
        path = [part for part in path if not part.startswith(("tuple[", "literal["))]
        if isinstance(details["input"], str):
            return f'study: {".".join(path)} = {details["input"]!r}: give a list of whole numbers, or "{UNTIL_DECIDED}"'
    key_path = ".".join(path)
    if details["type"] != "extra_forbidden":
        if details["type"] == "missing":
            return f"study: {key_path} is missing: set it"
        return f"study: {key_path} = {reprlib.repr(details['input'])}: {plain_problem(details)}".replace("\n", " ")
    if new_name := RENAMED_STUDY_KEYS.get(path[-1]):
        return f"{key_path} is now called {'.'.join([*path[:-1], new_name])}"
    model = Contrast if "contrasts" in path else Section if "sections" in path else Study
    return f"a study has no key '{key_path}': {suggest(path[-1], model.model_fields)}"
