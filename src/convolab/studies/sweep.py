"""A grid of values of some recipe keys as a study: every arm is compared with the first."""

import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from convolab.core.errors import require
from convolab.core.escape import file_name_part
from convolab.core.types import Json
from convolab.studies.search import Range, space_of
from convolab.studies.section import Section
from convolab.studies.study import Study
from convolab.training.recipe import Recipe, parse_value

MAX_NAMED_KEYS = 3  # in the name of the study


def parse_sweep_values(text: str) -> tuple[str, tuple[Json, ...]]:
    """`section.key=a,b,c`: the key and its values, read as TOML, or as plain strings if they are not TOML.

    >>> parse_sweep_values("optimizer.lr=0.1,0.01"), parse_sweep_values("model.channels=[8],[8,16]")
    (('optimizer.lr', (0.1, 0.01)), ('model.channels', ([8], [8, 16])))
    >>> parse_sweep_values("schedule.name=step,cosine")
    ('schedule.name', ('step', 'cosine'))
    """
    key, equals, values = text.partition("=")
    require(equals and key.strip() and values.strip(), f"'{text}' is not a sweep: write section.key=value,value")
    try:
        return key.strip(), tuple(tomllib.loads(f"values = [{values}]")["values"])
    except (ValueError, RecursionError):
        return key.strip(), tuple(parse_value(value) for value in values.split(","))


def sweep_study(recipe_name: str, base: Recipe, grid: Mapping[str, Sequence[Json]], seeds: Sequence[int]) -> Study:
    """The study of a grid around a recipe, with every arm compared with the first."""
    for key, values in space_of(grid, base).items():
        require(
            not isinstance(values, Range),
            f"{key} is given as a range, which is for a search: give --search N, or values",
        )
    first, *others = Section(grid={key: tuple(values) for key, values in grid.items()}).arm_overrides
    metrics = ("best_validation_accuracy", "final_train_loss") if base.data.validation else ("final_train_loss",)
    section: dict[str, Json] = {
        "grid": grid,
        "curves": ["train_loss", "validation_loss", "validation_accuracy"],
        "contrasts": [{"arm": arm, "baseline": first, "metric": metric} for metric in metrics for arm in others],
    }
    return Study.from_dict(
        {
            "name": sweep_name(recipe_name, base, grid),
            "title": f"{recipe_name}: {', '.join(grid)}",
            "seeds": seeds,
            "recipe": base.to_dict(),
            "sections": {"sweep": section},
        }
    )


def sweep_name(recipe_name: str, base: Recipe, keys: Collection[str]) -> str:
    """The name of the study of a sweep: its network, its first keys and its dataset."""
    swept = "-".join(key.rpartition(".")[2] for key in list(keys)[:MAX_NAMED_KEYS])
    swept += f"-and-{len(keys) - MAX_NAMED_KEYS}-more" if len(keys) > MAX_NAMED_KEYS else ""
    network = Path(recipe_name).name.removesuffix(".toml").replace(".py:", "-")
    return file_name_part(f"{network}-{swept}-{Path(base.data.name).name}")
