"""convolab sweep: a grid of values of some recipe keys as a study, or a search among them."""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.options import AsJson, BatchSize, DataDir, DataOption, EpochsOption, SetOption
from convolab.cli.searches import SamplerName, SearchCount, SearchSeed, run_and_report_search
from convolab.cli.studies import (
    ExecutorName,
    Export,
    RayAddress,
    RetrainDamaged,
    SeedCount,
    StudyOut,
    Workers,
    choose_executor,
    run_and_report_study,
)
from convolab.core.errors import require
from convolab.core.escape import file_name_part
from convolab.core.types import Json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from convolab.studies.study import Study
    from convolab.training.recipe import Recipe

MAX_NAMED_KEYS = 3  # in the name of the study


def sweep_command(
    recipe: Annotated[str, typer.Argument(help="A recipe's file (TOML), or a network's name.")],
    grid: Annotated[
        list[str],
        typer.Argument(
            help="Keys and values, such as optimizer.lr=0.1,0.01; several keys make a grid. With --search also ranges, "
            "such as optimizer.lr=0.003..0.3."
        ),
    ],
    data: DataOption = None,
    overrides: SetOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchSize = None,
    search: SearchCount = None,
    sampler: SamplerName = None,
    search_seed: SearchSeed = None,
    seeds: SeedCount = None,
    data_dir: DataDir = None,
    executor: ExecutorName = "local",
    address: RayAddress = None,
    workers: Workers = None,
    out: StudyOut = None,
    retrain_damaged: RetrainDamaged = False,
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Grid search over recipe keys with several seeds; every arm is compared with the first.

    With --search N: sample N configurations, train them by successive halving, and compare the winner with the default.
    """
    chosen_executor = choose_executor(executor, address, workers)
    from convolab.training.recipe import Recipe, parse_override

    values = dict(parse_sweep_values(text) for text in grid)
    base = Recipe.read(recipe) if recipe.endswith(".toml") else Recipe.from_dict({"model": {"name": recipe}})
    named_options = {"data.name": data, "training.epochs": epochs, "training.batch_size": batch_size}
    changes = {key: value for key, value in named_options.items() if value is not None}
    changes |= dict(parse_override(text) for text in overrides or [])
    require(
        "training.seed" not in {*values, *changes},
        "training.seed is set by --seeds N: the seeds 0 to N - 1 for each arm",
    )
    for key in values:
        require(key not in changes, f"{key} is swept, so it cannot be set to one value too: leave one of them out")
    base = base.with_overrides(changes)
    require(
        len(values) == len(grid),
        "a key is given twice: list all its values at once, such as optimizer.lr=0.1,0.01",
    )
    if search is not None:
        from convolab.studies.search import Search, space_of

        name = f"{sweep_name(recipe, base, values)}-search"
        plan = Search(name, base, space_of(values, base), search, sampler or "random", search_seed or 0)
        run_and_report_search(
            plan, seeds, out, data_dir=data_dir, executor=chosen_executor, retrain_damaged=retrain_damaged,
            export=export, as_json=as_json,
        )  # fmt: skip
        return
    require(
        sampler is None and search_seed is None, "--sampler and --search-seed are for a search: give --search N too"
    )
    plan = sweep_study(recipe, base, values, range(seeds or 3))
    run_and_report_study(
        plan,
        out,
        data_dir=data_dir,
        executor=chosen_executor,
        retrain_damaged=retrain_damaged,
        export=export,
        as_json=as_json,
    )


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
        from convolab.training.recipe import parse_value

        return key.strip(), tuple(parse_value(value) for value in values.split(","))


def sweep_study(
    recipe_name: str, base: "Recipe", grid: "Mapping[str, Sequence[Json]]", seeds: "Sequence[int]"
) -> "Study":
    """The study of a grid around a recipe, with every arm compared with the first."""
    from convolab.studies.search import Range, space_of
    from convolab.studies.section import Section
    from convolab.studies.study import Study

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


def sweep_name(recipe_name: str, base: "Recipe", keys: "Collection[str]") -> str:
    """The name of the study of a sweep: its network, its first keys and its dataset."""
    swept = "-".join(key.rpartition(".")[2] for key in list(keys)[:MAX_NAMED_KEYS])
    swept += f"-and-{len(keys) - MAX_NAMED_KEYS}-more" if len(keys) > MAX_NAMED_KEYS else ""
    network = Path(recipe_name).name.removesuffix(".toml").replace(".py:", "-")
    return file_name_part(f"{network}-{swept}-{Path(base.data.name).name}")
