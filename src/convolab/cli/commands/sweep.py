"""convolab sweep: a grid of values of some recipe keys as a study, or a search among them."""

from typing import Annotated

import typer

from convolab.cli.options import (
    AsJson,
    BatchSize,
    DataDir,
    DataOption,
    Device,
    EpochsOption,
    Log,
    SetOption,
    recipe_changes,
)
from convolab.cli.searches import SamplerName, SearchCount, SearchSeed, run_and_report_search
from convolab.cli.studies import (
    ExecutorName,
    Export,
    RayAddress,
    RetrainDamaged,
    StudyOut,
    SweepSeeds,
    Workers,
    choose_executor,
    run_and_report_study,
)
from convolab.core.errors import require


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
    seeds: SweepSeeds = None,
    data_dir: DataDir = None,
    executor: ExecutorName = "local",
    address: RayAddress = None,
    workers: Workers = None,
    device: Device = "cpu",
    out: StudyOut = None,
    retrain_damaged: RetrainDamaged = False,
    log: Log = None,
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Grid search over recipe keys with several seeds; every arm is compared with the first.

    With --search N: sample N configurations, train them by successive halving, and compare the winner with the default.
    """
    chosen_executor = choose_executor(executor, address, workers, device)
    from convolab.studies.sweep import parse_sweep_values, sweep_name, sweep_study
    from convolab.training.recipe import Recipe

    values = dict(parse_sweep_values(text) for text in grid)
    base = Recipe.read(recipe) if recipe.endswith(".toml") else Recipe.from_dict({"model": {"name": recipe}})
    network = {} if recipe.endswith(".toml") else {"model.name": recipe}
    named_options = {"data.name": data, "training.epochs": epochs, "training.batch_size": batch_size}
    changes = recipe_changes({**network, **named_options}, overrides)
    require(
        "training.seed" not in {*values, *changes},
        "training.seed is set by --seeds N: the seeds 0 to N - 1 for each arm",
    )
    for key in values:
        is_set = key in changes and key not in network
        require(not is_set, f"{key} is swept, so it cannot be set to one value too: leave one of them out")
    base = base.with_overrides(changes)
    require(
        len(values) == len(grid),
        "a key is given twice: list all its values at once, such as optimizer.lr=0.1,0.01",
    )
    if search is not None:
        require(log is None, "--log is for a grid: the runs of a search go on from rung to rung, and keep none")
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
        log=log,
    )
