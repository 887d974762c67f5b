"""A section of a study: arms that belong together, named one by one or by a grid of values."""

import itertools
import math
import re
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from convolab.core.errors import require, suggest
from convolab.core.types import Frozen, Json, NonNegativeInt
from convolab.studies.contrast import MAX_NAME_LENGTH, Contrast, Name
from convolab.studies.metrics import QUANTITIES, Metric
from convolab.studies.trend import MIN_TREND_ARMS, axis_positions

MAX_ARMS = 1_000  # of a section
MAX_NUMBER = 1e300  # in a grid
MAX_WIDENING = 5  # values, at each end of a grid
UNTIL_DECIDED = "until decided"
Overrides = dict[str, Json]  # `section.key` of a recipe -> value


def refuse_yes_no(value: object) -> object:
    """Python takes True for 1. Raises LabError for it."""
    require(not isinstance(value, bool), "give a whole number")
    return value


NotYesNo = BeforeValidator(refuse_yes_no)
Seeds = tuple[Annotated[NonNegativeInt, NotYesNo], ...] | Literal["until decided"]
MaxSeeds = Annotated[int, NotYesNo]


class Section(Frozen):
    """Arms that belong together: how they differ, what is drawn and what is asked.

    Arms are named overrides of the base recipe; or a `grid` of values of some keys makes an arm of every combination. A
    grid of one number may `widen`: where its best arm stands at an end, the next value is trained too, up to so many.
    """

    title: str = ""
    note: str = ""  # what a reader should know before the curves
    overrides: Overrides = {}  # of the base recipe, in every arm
    arms: dict[Name, Overrides] = {}
    grid: dict[str, tuple[Json, ...]] = {}
    widen: Annotated[int, Field(ge=0, le=MAX_WIDENING, strict=True)] = 0
    seeds: Seeds | None = None  # left out: the study's
    max_seeds: MaxSeeds | None = None  # left out: the study's
    curves: tuple[str, ...] = ("train_loss", "validation_accuracy")  # quantities to draw against epochs
    contrasts: tuple[Contrast, ...] = ()
    metrics: tuple[str, ...] = ()  # numbers to list for each arm, besides those that its contrasts ask about

    @model_validator(mode="after")
    def check_consistency(self) -> "Section":
        require(bool(self.arms) != bool(self.grid), "give either arms or a grid, not both")
        require(all(self.grid.values()), "a key of the grid has no values")
        self._check_widening()
        for quantity in self.curves:
            require(quantity in QUANTITIES, f"unknown curve '{quantity}': {suggest(quantity, QUANTITIES)}")
        asked: set[object] = set()
        for contrast in self.contrasts:
            pair = frozenset((contrast.arm, contrast.baseline))  # its other direction is the same question
            question = (contrast.label if contrast.interaction else pair, contrast.metric)
            require(
                question not in asked, f"contrasts: {contrast.label} by {contrast.metric} is asked twice: leave one out"
            )
            asked.add(question)
            for arm in contrast.named_arms:
                known = self.arm_overrides
                require(arm in known, f"contrasts: '{arm}' is not an arm of the section: {suggest(arm, known)}")
            require(
                contrast.arm != contrast.baseline,
                f"contrasts: the arm '{contrast.arm}' is compared with itself: give another baseline",
            )
            if contrast.interaction:
                pairs = {frozenset((contrast.arm, contrast.baseline)), frozenset(contrast.interaction)}
                require(
                    len(pairs) == 2 and contrast.interaction[0] != contrast.interaction[1],
                    f"the interaction {contrast.label} compares a difference with itself: give two pairs of arms",
                )
            if contrast.trend:
                require(
                    list(self.grid) == [contrast.trend]
                    and len(sorted_numbers(self.grid[contrast.trend])) >= MIN_TREND_ARMS,
                    f"a trend needs a grid of {MIN_TREND_ARMS} or more numbers of {contrast.trend} alone",
                )
            require(
                contrast.parsed_metric.unit != "%" or (contrast.margin or 0) < 1,
                f"the margin of {contrast.metric} is {contrast.margin}: give a fraction, 0.01 for one percentage point",
            )
        _ = self.reported_metrics
        return self

    def _check_widening(self) -> None:
        if not self.widen:
            return
        numbers = [value for values in self.grid.values() for value in sorted_numbers(values)]
        require(
            len(self.grid) == 1 and len(numbers) >= 3,
            f"widen = {self.widen}: only a grid of three or more numbers of one key has ends to go on from",
        )
        require(
            self.ranking_metric,
            f"widen = {self.widen}: add a contrast, whose metric says which arm is best",
        )

    @property
    def ranking_metric(self) -> Metric | None:
        """What says which arm is best: the first contrast's metric that is no time; None where there is none."""
        metrics = [contrast.parsed_metric for contrast in self.contrasts]
        return next((metric for metric in metrics if metric.threshold is None), None)

    @cached_property
    def full_grid(self) -> tuple[Json, ...]:
        """The values of a grid of one key, with those that may be added when it widens, in the order they are written."""
        (values,) = self.grid.values()
        numbers = sorted_numbers(values)
        if not self.widen:
            return values
        lower, upper = further_values(numbers[::-1], self.widen)[::-1], further_values(numbers, self.widen)
        is_falling = values[0] == numbers[-1]
        return (*upper[::-1], *values, *lower[::-1]) if is_falling else (*lower, *values, *upper)

    @cached_property
    def written_arms(self) -> frozenset[str]:
        """The arms that are trained in any case: all but those that a grid may add when it widens."""
        if not self.widen:
            return frozenset(self.arm_overrides)
        ((key, values),) = self.grid.items()
        return frozenset(arm for arm, overrides in self.arm_overrides.items() if overrides[key] in values)

    def axis(self, key: str) -> tuple[dict[str, float], bool]:
        """Where each arm of a grid of one number stands, in rising order, and whether the axis is logarithmic."""
        values = {arm: float(cast("float", overrides[key])) for arm, overrides in self.arm_overrides.items()}
        rising = dict(sorted(values.items(), key=lambda item: item[1]))
        positions, is_log = axis_positions(list(rising.values()))
        return dict(zip(rising, positions, strict=True)), is_log

    @cached_property
    def reported_metrics(self) -> dict[str, Metric]:
        """The numbers to list for each arm, by name, each once."""
        return {name: Metric.parse(name) for name in (*(contrast.metric for contrast in self.contrasts), *self.metrics)}

    @cached_property
    def arm_overrides(self) -> dict[str, Overrides]:
        """Every arm's own overrides, those of the grid too."""
        if self.arms:
            return self.arms
        short_keys = [key.rpartition(".")[2] for key in self.grid]
        names = short_keys if len(set(short_keys)) == len(short_keys) else list(self.grid)
        grid = dict.fromkeys(self.grid, self.full_grid) if self.widen else self.grid
        num_arms = math.prod(len(values) for values in grid.values())
        require(
            num_arms <= MAX_ARMS,
            f"the grid has {num_arms:,} arms, and a section may have {MAX_ARMS:,}: give fewer values",
        )
        for key, values in grid.items():
            require(all(values.count(value) == 1 for value in values), f"the grid holds a value twice (of {key})")
        combinations = list(itertools.product(*grid.values()))
        arms = dict.fromkeys(grid_arm_name(names, values) for values in combinations)
        if len(arms) < len(combinations):  # some differ after the sixth digit only, or in folders
            exact = [grid_arm_name(names, values, format_number=repr) for values in combinations]
            arms = dict.fromkeys(name if exact.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(exact, 1))
        return {name: dict(zip(grid, values, strict=True)) for name, values in zip(arms, combinations, strict=True)}

    @cached_property
    def grid_positions(self) -> dict[str, tuple[int, ...]]:
        """Each arm's index along every key of the grid: in order of size for numbers, else as written."""
        grid = dict.fromkeys(self.grid, self.full_grid) if self.widen else self.grid
        orders: dict[str, Sequence[Json]] = {key: sorted_numbers(values) or values for key, values in grid.items()}
        return {
            arm: tuple(order.index(overrides[key]) for key, order in orders.items())
            for arm, overrides in self.arm_overrides.items()
        }

    def grid_neighbors(self, arm: str) -> list[str]:
        """The arms of the grid that differ from one by a single step of a single key."""
        center = self.grid_positions[arm]
        return [
            name
            for name, position in self.grid_positions.items()
            if sum(abs(a - b) for a, b in zip(position, center, strict=True)) == 1
        ]

    def is_at_grid_edge(self, arm: str) -> bool:
        """Whether an arm has the smallest or the largest of three or more numbers that a key of the grid was given."""
        return any(
            len(values) > 2 and sorted_numbers(values) and index in (0, len(values) - 1)
            for values, index in zip(self.grid.values(), self.grid_positions[arm], strict=True)
        )

    def with_arms(self, arms: Collection[str]) -> "Section":
        """The section with these arms only, of those that its grid may get by widening; it widens no more."""
        if not self.widen:
            return self
        ((key, _),) = self.grid.items()
        values = [overrides[key] for arm, overrides in self.arm_overrides.items() if arm in arms]
        contrasts = [contrast for contrast in self.contrasts if all(arm in arms for arm in contrast.named_arms)]
        fields = {name: getattr(self, name) for name in Section.model_fields}
        return Section.model_validate({**fields, "grid": {key: values}, "widen": 0, "contrasts": contrasts})


def sorted_numbers(values: Sequence[Json]) -> list[int | float]:
    """The values in order of size if all of them are numbers, else nothing."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    require(
        all(abs(number) <= MAX_NUMBER for number in numbers),
        f"a grid has a number beyond {MAX_NUMBER:g}: give smaller ones",
    )
    return sorted(numbers) if len(numbers) == len(values) else []


def further_values(numbers: Sequence[int | float], count: int) -> list[int | float]:
    """The next numbers after the last of three or more: each has to the last but one the ratio that the last has to the
    third last. Where a number is not above 0, distances take the place of ratios.

    >>> further_values([0.01, 0.03, 0.1], 3), further_values([0.1, 0.03, 0.01], 2), further_values([0, 2, 4], 1)
    ([0.3, 1.0, 3.0], [0.003, 0.001], [6])
    >>> further_values([3, 2, 1], 2)
    []
    """
    known = list(numbers)
    for _ in range(count):
        third, second, last = known[-3:]
        value = second * last / third if min(known) > 0 else second + last - third
        is_whole = all(isinstance(number, int) for number in numbers)
        following = round(value) if is_whole else float(f"{value:.6g}")
        if (following - last) * (last - second) <= 0:  # of whole numbers, or near 0 or infinity
            break
        known.append(following)
    return known[len(numbers) :]


def grid_arm_name(
    names: Sequence[str], values: Sequence[Json], format_number: Callable[[float], str] = "{:g}".format
) -> str:
    """The name of a combination of values in a grid.

    >>> grid_arm_name(["lr", "name"], [0.1, "nets/mine.py:Net"])
    'lr=0.1, name=mine.py:Net'
    """
    pairs = [f"{name}={format_arm_value(value, format_number)}" for name, value in zip(names, values, strict=True)]
    return usable_name(", ".join(pairs))


def format_arm_value(value: Json, format_number: Callable[[float], str] = "{:g}".format) -> str:
    """A value as it appears in an arm's name; of a path only the last part.

    >>> format_arm_value(0.001), format_arm_value([16, 32]), format_arm_value(True), format_arm_value("nets/a.py:Net")
    ('0.001', '16-32', 'true', 'a.py:Net')
    """
    if isinstance(value, list | tuple):
        return "-".join(format_arm_value(one, format_number) for one in value) or "none"
    if isinstance(value, float):
        return format_number(value)
    return str(value).lower() if isinstance(value, bool) else re.split(r"[/\\]", str(value).rstrip("/\\"))[-1]


def usable_name(text: str) -> str:
    """A text that a `Name` can be: in one line, without slashes, cut where it is too long.

    >>> usable_name("a\\nb/c"), len(usable_name("a" * 300)) < MAX_NAME_LENGTH
    ('a b c', True)
    """
    text = re.sub(r"[/\\\s]", " ", text) or "unnamed"
    return text if len(text) < MAX_NAME_LENGTH - 10 else text[: MAX_NAME_LENGTH - 20] + "..."  # a number may follow
