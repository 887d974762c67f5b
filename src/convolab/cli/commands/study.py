"""convolab study: many runs, one conclusion."""

from pathlib import Path
from typing import Annotated, cast

import typer

from convolab.cli.options import AsJson, DataDir
from convolab.cli.studies import (
    ExecutorName,
    Export,
    Hours,
    RayAddress,
    RetrainDamaged,
    SeedCount,
    StudyOut,
    Workers,
    choose_executor,
    run_and_report_study,
)
from convolab.core.errors import require


def study_command(
    study: Annotated[str, typer.Argument(help="coursework, or a study file (TOML).")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Name of a dataset, or your images, such as folder:PATH.", show_default="digits, or the study's own"
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Size of the coursework: quick or full.", show_default="quick; of digits full"),
    ] = None,
    section: Annotated[list[str] | None, typer.Option(help="Run only this section. Repeatable.")] = None,
    seeds: SeedCount = None,
    data_dir: DataDir = None,
    executor: ExecutorName = "local",
    address: RayAddress = None,
    workers: Workers = None,
    out: StudyOut = None,
    retrain_damaged: RetrainDamaged = False,
    hours: Hours = None,
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Train a recipe under named overrides (arms) and several seeds, and report what the runs support."""
    require(budget in (None, "quick", "full"), f"unknown budget '{budget}': give quick or full")
    chosen_executor = choose_executor(executor, address, workers)
    from convolab.studies.coursework import CourseworkBudget, coursework
    from convolab.studies.study import Study

    sections = section or []
    seed_values = range(seeds or 0)
    if study == "coursework":
        chosen_budget = cast("CourseworkBudget | None", budget)
        plan = coursework(data or "digits", chosen_budget, seeds=seed_values, sections=sections)
    else:
        require(Path(study).is_file(), f"no study file '{study}': give coursework, or a study file (TOML)")
        require(
            budget is None,
            "--budget is for coursework alone: set data.limit and training.epochs in the study file",
        )
        plan = Study.read(study, data=data, seeds=seed_values, sections=sections)
    run_and_report_study(
        plan,
        out,
        data_dir=data_dir,
        executor=chosen_executor,
        retrain_damaged=retrain_damaged,
        export=export,
        as_json=as_json,
        hours=hours,
    )
