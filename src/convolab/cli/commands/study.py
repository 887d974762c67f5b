"""Many runs: studies, sweeps, comparisons."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from convolab.cli.options import AsJson, DataDir
from convolab.cli.progress import StudyProgress
from convolab.cli.terminal import InterruptHandler, print_json, print_note
from convolab.core.errors import require, suggest

Seeds = Annotated[
    int | None, typer.Option(min=1, help="How many seeds, from 0 on.", show_default="3, or the study's own")
]
StudyOut = Annotated[
    Path | None, typer.Option(help="The study's folder; the same command goes on there.", show_default="studies/NAME")
]
ExecutorName = Annotated[str, typer.Option("--engine", help="local: a trial a core; ray: a cluster.")]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Of the Ray cluster; auto: the one this machine belongs to.", show_default="a local one"),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Trials side by side.", show_default="one a core")]
RetrainDamaged = Annotated[bool, typer.Option("--repair", help="Train damaged runs anew.")]
Export = Annotated[Path | None, typer.Option(help="A folder for every figure as SVG and PNG and every table as CSV.")]


def study_command(
    study: Annotated[str, typer.Argument(help="coursework, or a study's file (TOML).")],
    data: Annotated[
        str | None,
        typer.Option(help="A picture set's name, or folder:PATH.", show_default="digits, or the study's own"),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Of the coursework: quick or full.", show_default="quick; of digits full")
    ] = None,
    section: Annotated[list[str] | None, typer.Option(help="Only this section. May be repeated.")] = None,
    seeds: Seeds = None,
    data_dir: DataDir = None,
    executor: ExecutorName = "local",
    address: RayAddress = None,
    workers: Workers = None,
    out: StudyOut = None,
    retrain_damaged: RetrainDamaged = False,
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Train the same recipe under named changes and several seeds, and conclude no more than the runs carry."""
    require(budget in (None, "quick", "full"), f"no budget '{budget}': give quick or full")
    executor_backend = choose_executor(executor, address, workers)
    from convolab.studies.coursework import coursework
    from convolab.studies.study import Study

    seed_values = None if seeds is None else tuple(range(seeds))
    if study == "coursework":
        study_plan = coursework(data or "digits", budget, seeds=seed_values or (0, 1, 2), sections=tuple(section or ()))
    else:
        require(Path(study).is_file(), f"there is no study '{study}': give coursework, or a study's file (TOML)")
        require(budget is None, "a study's file has no budgets: set data.limit and training.epochs in it")
        study_plan = Study.read(study)
        values = study_plan.model_dump(exclude_unset=True)
        if data:
            values["recipe"] = {
                **values.get("recipe", {}),
                "data": {**values.get("recipe", {}).get("data", {}), "name": data},
            }
        if seed_values:
            values["seeds"] = seed_values
        study_plan = Study.parse(values).select_sections(section or list(study_plan.sections))
    run_and_report_study(
        study_plan,
        out or Path("studies") / study_plan.name,
        data_dir,
        executor_backend,
        retrain_damaged,
        export,
        as_json,
    )


def sweep_command(
    recipe: Annotated[str, typer.Argument(help="A recipe's file (TOML), or a network's name.")],
    grid: Annotated[
        list[str], typer.Argument(help="Keys and their values, as optimizer.lr=0.1,0.01; several keys are combined.")
    ],
    data: Annotated[
        str | None, typer.Option(help="A picture set's name, or folder:PATH.", show_default="the recipe's")
    ] = None,
    seeds: Seeds = None,
    data_dir: DataDir = None,
    executor: ExecutorName = "local",
    address: RayAddress = None,
    workers: Workers = None,
    out: StudyOut = None,
    retrain_damaged: RetrainDamaged = False,
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Try values of some recipe keys, each with several seeds; every arm is held against the first."""
    executor_backend = choose_executor(executor, address, workers)
    from convolab.studies.study import Study
    from convolab.training.recipe import Recipe

    base = Recipe.read(recipe) if recipe.endswith(".toml") else Recipe.from_dict({"model": {"name": recipe}})
    base = base.with_overrides({"data.name": data} if data else {})
    values = dict(parse_sweep_values(text) for text in grid)
    require(len(values) == len(grid), "a key stands twice: give all its values at once, as optimizer.lr=0.1,0.01")
    section: dict[str, Any] = {"grid": values, "curves": ["train_loss", "validation_loss", "validation_accuracy"]}
    name = f"{Path(recipe).stem}-{'-'.join(key.rpartition('.')[2] for key in values)}-{Path(base.data.name).name}"
    study_values = {
        "name": name,
        "title": f"{recipe}: {', '.join(values)}",
        "seeds": tuple(range(seeds or 3)),
        "recipe": base.to_dict(),
    }
    first, *others = Study.parse({**study_values, "sections": {"sweep": section}}).sections["sweep"].arm_overrides
    metrics = ("best_validation_accuracy", "final_train_loss") if base.data.validation else ("final_train_loss",)
    section["contrasts"] = [{"arm": arm, "against": first, "metric": metric} for metric in metrics for arm in others]
    study_plan = Study.parse({**study_values, "sections": {"sweep": section}})
    run_and_report_study(
        study_plan, out or Path("studies") / name, data_dir, executor_backend, retrain_damaged, export, as_json
    )


def compare_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Folders of runs, or STUDY:ARM of a study's folder; the others are held against the first."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("comparison.html"),
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Set runs side by side; runs that differ only in their seed are one arm."""
    from convolab.studies.compare import compare_runs as compared
    from convolab.studies.compare import find_runs_of_arm

    report_study(compared([run for place in runs for run in find_runs_of_arm(place)]), out, export, as_json)


def choose_executor(name: str, address: str | None, workers: int | None) -> Any:
    """The engine of that name. Raises LabError for another."""
    require(name in ("local", "ray"), f"no engine '{name}': {suggest(name, ('local', 'ray'))}")
    require(name == "ray" or address is None, "--address is a Ray cluster's: give --engine ray too")
    if name == "ray":
        from convolab.studies.ray_executor import RayExecutor

        return RayExecutor(address, workers)
    from convolab.studies.forkserver import forkserver_context

    forkserver_context()  # imports torch while this process does
    from convolab.studies.executor import LocalExecutor

    return LocalExecutor(workers) if workers else LocalExecutor()


def parse_sweep_values(text: str) -> tuple[str, tuple[Any, ...]]:
    """`section.key=a,b,c`: the key and its values, read as TOML, and as plain strings where they are none.

    >>> parse_values("optimizer.lr=0.1,0.01"), parse_values("model.channels=[8],[8,16]"), parse_values("schedule.name=step,cosine")
    (('optimizer.lr', (0.1, 0.01)), ('model.channels', ([8], [8, 16])), ('schedule.name', ('step', 'cosine')))
    """
    key, equals, values = text.partition("=")
    require(equals and key.strip() and values.strip(), f"'{text}' sweeps nothing: write section.key=value,value")
    try:
        return key.strip(), tuple(tomllib.loads(f"values = [{values}]")["values"])
    except tomllib.TOMLDecodeError:
        return key.strip(), tuple(value.strip() for value in values.split(","))


def run_and_report_study(
    study: Any,
    folder: Path,
    data_dir: Path | None,
    executor: Any,
    retrain_damaged: bool,
    export: Path | None,
    as_json: bool,
) -> None:
    """Conduct a study and show what came of it; exit 1 if a trial failed."""
    from convolab.studies.runner import run_study

    with StudyProgress(study) as live_progress, InterruptHandler("after the steps under way") as interrupts:
        result = run_study(
            study,
            folder,
            data_dir=data_dir,
            executor=executor,
            repair=retrain_damaged,
            on_event=live_progress.on_event,
            on_plan=live_progress.on_plan,
            on_message=print_note,
            stop=interrupts.stop_requested,
        )
    report_study(result, folder / "report.html", export, as_json)
    if any(outcome.status == "failed" for outcome in result.trial_results.values()):
        raise typer.Exit(1)


def report_study(result: Any, page: Path, export: Path | None, as_json: bool) -> None:
    """Write the report, and say in words what each section came to; intervals and single contrasts are in the report."""
    from convolab.core.files import write_json
    from convolab.reports.export import export_study as write_export
    from convolab.reports.studies import write_study_report
    from convolab.studies.serialize import study_result_to_dict

    write_study_report(result, page)
    if export:
        write_export(result, export)
    report_values = study_result_to_dict(result) | {"report": str(page)}
    write_json(page.with_suffix(".json"), report_values)
    if as_json:
        print_json(report_values)
        return
    for section in result.sections:
        print(f"\n{section.name}: {section.section.title}" if section.section.title else f"\n{section.name}")
        print(f"  {section.comment}")
    if result.best:
        print(f"\nbest-on-test: {result.best.comment}")
    for note in result.notes:
        print_note(note)
    num_done = sum(outcome.status in ("finished", "diverged") for outcome in result.trial_results.values())
    print(
        f"\n{num_done} of {len(result.trial_results)} runs; report: {page}"
        + (f"; figures and tables: {export}" if export else "")
    )
