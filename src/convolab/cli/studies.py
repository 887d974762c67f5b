"""What the commands study, sweep and compare share: their options, how a study is run, and what is printed of it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from convolab.cli.terminal import STOPPED, print_json, print_lines, print_note
from convolab.core.environment import require_device
from convolab.core.errors import require, suggest
from convolab.core.outputs import STUDY_REPORT, own_kind, require_outputs
from convolab.core.types import Json
from convolab.reports.live import InterruptHandler
from convolab.reports.live_study import StudyProgress

if TYPE_CHECKING:
    from convolab.studies.executor import Executor
    from convolab.studies.results import StudyResult
    from convolab.studies.study import Study

StudyName = Annotated[str, typer.Argument(help="coursework, or a study file (TOML).")]
StudyData = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Name of a dataset, or your images, such as folder:PATH.",
        show_default="digits, or the study's own",
    ),
]
StudyBudget = Annotated[
    str | None,
    typer.Option("--budget", help="Size of the coursework: quick or full.", show_default="quick; of digits full"),
]
StudySections = Annotated[list[str] | None, typer.Option("--section", help="Take only this section. Repeatable.")]
SeedCount = Annotated[
    int | None, typer.Option(min=1, help="Number of seeds, starting at 0.", show_default="3, or the study's own")
]
SweepSeeds = Annotated[
    int | None,
    typer.Option(min=1, help="Number of seeds, starting at 0.", show_default="3; with --search until decided"),
]
StudyOut = Annotated[
    Path | None,
    typer.Option(help="Folder of the study; repeating the command resumes it.", show_default="studies/NAME"),
]
ExecutorName = Annotated[str, typer.Option("--executor", help="local: one trial per core; ray: a Ray cluster.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="Address of the Ray cluster; auto: the one this machine belongs to.", show_default="a local cluster"
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Number of trials to run in parallel.", show_default="one per core")
]
RetrainDamaged = Annotated[bool, typer.Option("--retrain-damaged", help="Retrain damaged runs.")]
Hours = Annotated[
    float | None,
    typer.Option(help='With seeds "until decided": begin no further look after this long.', show_default="no limit"),
]
Export = Annotated[Path | None, typer.Option(help="Folder to write every figure (SVG, PNG) and table (CSV) to.")]


def choose_executor(name: str, address: str | None, workers: int | None, device: str) -> "Executor":
    """The executor of that name. Raises LabError for an unknown one, and for a device that is not there."""
    require(name in ("local", "ray"), f"unknown executor '{name}': {suggest(name, ('local', 'ray'))}")
    require(name == "ray" or address is None, "--address needs --executor ray")
    require(
        name == "local" or device == "cpu", "--device needs --executor local: on a Ray cluster, trials use processors"
    )
    if name == "ray":
        from convolab.studies.ray_executor import RayExecutor

        return RayExecutor(address, workers)
    from convolab.studies.forkserver import worker_context

    worker_context()  # imports torch while this process does
    from convolab.studies.executor import LocalExecutor

    require_device(device)
    return LocalExecutor(workers, device) if workers else LocalExecutor(device=device)


def read_plan(
    study: str,
    data: str | None,
    budget: str | None,
    sections: list[str] | None,
    seeds: int | None,
    data_dir: Path | None,
) -> "Study":
    """The study that a person names: the coursework, or a study's file. Raises LabError for what does not fit it."""
    from convolab.studies.coursework import CourseworkBudget, coursework
    from convolab.studies.study import Study

    require(budget in (None, "quick", "full"), f"unknown budget '{budget}': give quick or full")
    sections, seed_values = sections or [], range(seeds or 0)
    if study == "coursework":
        chosen_budget = cast("CourseworkBudget | None", budget)
        return coursework(
            data or "digits",
            chosen_budget,
            seeds=seed_values,
            sections=sections,
            data_dir=data_dir,
            on_message=print_note,
        )
    require(
        Path(study).is_file(),
        f"no study file '{study}': {suggest(study, ['coursework'])} (or a study file, TOML)",
    )
    require(
        budget is None,
        "--budget is for coursework alone: set data.limit and training.epochs in the study file",
    )
    return Study.read(study, data=data, seeds=seed_values, sections=sections)


def run_and_report_study(
    study: "Study",
    out: Path | None,
    *,
    data_dir: Path | None,
    executor: "Executor",
    retrain_damaged: bool,
    export: Path | None,
    as_json: bool,
    hours: float | None = None,
    log: str | None = None,
) -> None:
    """Run a study in `out`, by default studies/NAME, and report its results.

    Exits with status 1 if a trial failed, and with STOPPED after a Ctrl-C.
    """
    folder = out or Path("studies") / study.name
    page = folder / "report.html"
    with InterruptHandler("after the current steps") as interrupts:
        result = run_study_here(
            study, folder, data_dir, executor, retrain_damaged, export, interrupts.stop_requested, hours, log
        )
    from convolab.reports.studies import report_kind

    report_study(result, page, export, as_json, report_kind(result), is_stopped=interrupts.requested)
    if any(r.status == "failed" for r in result.trial_results.values()):
        raise typer.Exit(1)
    if interrupts.requested:
        raise typer.Exit(STOPPED)


def run_study_here(
    study: "Study",
    folder: Path,
    data_dir: Path | None,
    executor: "Executor",
    retrain_damaged: bool,
    export: Path | None,
    should_stop: Callable[[], bool],
    hours: float | None = None,
    log: str | None = None,
) -> "StudyResult":
    """Run a study in a folder with its progress shown, once it is sure that its report can be written."""
    from convolab.studies.runner import execute_study, require_hours

    require_hours(study, hours)
    require_study_outputs(own_kind(STUDY_REPORT, study.name), folder / "report.html", export)
    with StudyProgress(study) as progress:
        return execute_study(
            study,
            folder,
            data_dir=data_dir,
            executor=executor,
            retrain_damaged=retrain_damaged,
            hours=hours,
            log=log,
            on_event=progress.on_event,
            on_look=progress.print_line,
            on_plan=progress.on_plan,
            on_message=print_note,
            should_stop=should_stop,
        )


def require_study_outputs(kind: str, page: Path, export: Path | None) -> None:
    """Raise LabError, before a run starts, unless the report, its numbers and the export can be written."""
    require_outputs(kind, [page, page.with_suffix(".json")])
    if export is not None:
        from convolab.reports.export import require_export_folder

        require_export_folder(export)


def report_study(
    result: "StudyResult", page: Path, export: Path | None, as_json: bool, kind: str, *, is_stopped: bool = False
) -> None:
    """Write the report, and print what each section came to; intervals and single contrasts are in the report."""
    values = write_report_files(result, page, export, kind)
    if as_json:
        print_json(values)
        return
    for section in result.sections:
        title = f": {section.section.title}" if section.section.title else ""
        print_lines("", f"{section.name}{title}", *(f"  {line}" for line in section.comment.split("\n")))
    if result.best_on_test:
        print_lines("", f"best-on-test: {result.best_on_test.comment}")
    for note in result.notes:
        print_note(note)
    runs = result.trial_results.values()
    exported = f"; figures and tables: {export}" if export else ""
    goes_on = "; stopped: run the same command to continue" if is_stopped else ""
    print_lines("", f"{sum(r.is_complete for r in runs)} of {len(runs)} runs; report: {page}{exported}{goes_on}")


def write_report_files(result: "StudyResult", page: Path, export: Path | None, kind: str) -> dict[str, Json]:
    """Write the report, its numbers, and the figures and tables if asked for; returns the numbers."""
    from convolab.core.outputs import write_json_output
    from convolab.reports.export import export_study
    from convolab.reports.studies import write_study_report
    from convolab.studies.serialize import study_result_to_dict

    write_study_report(result, page, kind)
    values = {**study_result_to_dict(result), "report": str(page)}
    write_json_output(page.with_suffix(".json"), kind, values)
    if export:
        export_study(result, export)
    return values
