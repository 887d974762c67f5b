"""How `convolab sweep --search` is run: the search, its winner against the default, the winner's test; and what is printed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.studies import require_study_outputs, run_study_here, write_report_files
from convolab.cli.terminal import STOPPED, print_json, print_lines, print_note, print_table
from convolab.core.outputs import SEARCH_TABLE, STUDY_REPORT, own_kind, require_outputs
from convolab.core.text import NO_VALUE, format_percent, pluralize, truncate_list
from convolab.core.types import Json
from convolab.reports.live import InterruptHandler
from convolab.reports.live_study import StudyProgress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convolab.studies.executor import Executor
    from convolab.studies.results import StudyResult
    from convolab.studies.search import Search
    from convolab.studies.search_runner import SearchResult, TriedConfiguration
    from convolab.training.run_records import EvaluationRecord

SearchCount = Annotated[
    int | None,
    typer.Option(
        "--search",
        help="Sample so many configurations, train them by successive halving, and compare the winner with the default.",
        show_default="no search, but a grid",
    ),
]
SamplerName = Annotated[
    str | None,
    typer.Option(help="Of a search: random, or tpe (needs Optuna: pip install optuna).", show_default="random"),
]
SearchSeed = Annotated[int | None, typer.Option(help="Of a search's sampling and trainings.", show_default="0")]
MAX_LISTED = 30  # configurations that are printed; the table has all
COLUMNS = ("configuration", "rung_epochs", "validation_accuracy", "validation_loss", "status", "run")


def run_and_report_search(
    search: "Search",
    num_seeds: int | None,
    out: Path | None,
    *,
    data_dir: Path | None,
    executor: "Executor",
    retrain_damaged: bool,
    export: Path | None,
    as_json: bool,
) -> None:
    """Search in `out`, by default studies/NAME, decide about the winner in its folder decision/, and test it once."""
    from convolab.core.files import csv_text
    from convolab.core.outputs import write_output
    from convolab.reports.studies import report_kind
    from convolab.studies.search_runner import execute_search
    from convolab.training.run import Run

    folder = out or Path("studies") / search.name
    table, page = folder / "configurations.csv", folder / "decision" / "report.html"
    table_kind = own_kind(SEARCH_TABLE, search.name)
    require_outputs(table_kind, [table], csv_header=",".join(COLUMNS))
    require_study_outputs(own_kind(STUDY_REPORT, search.decision_name), page, export)
    with InterruptHandler("after the current steps") as interrupts:
        with StudyProgress() as progress:
            result = execute_search(
                search,
                folder,
                data_dir=data_dir,
                executor=executor,
                retrain_damaged=retrain_damaged,
                on_event=progress.on_event,
                on_rung=progress.print_line,
                on_plan=progress.on_search_plan,
                on_message=print_note,
                should_stop=interrupts.stop_requested,
            )
        write_output(table, table_kind, csv_text([one.to_row() for one in result.tried]))
        winner, decision = result.winner, None
        if winner and not result.is_default_best:
            plan = search.decision(winner.name, winner.overrides, num_seeds)
            (section,) = plan.sections
            seeds = plan.seeds_text(section)
            print_note(
                f"comparing the winner, {winner.name}, with the default on seeds the search has not used: {seeds}"
            )
            decision = run_study_here(
                plan, page.parent, data_dir, executor, retrain_damaged, export, interrupts.stop_requested
            )
    report = write_report_files(decision, page, export, report_kind(decision)) if decision else None
    run = Run(winner.result.folder) if winner and winner.result.folder and not interrupts.requested else None
    test = run.test(data_dir=data_dir, on_message=print_note) if run and run.has_test_images else None
    if as_json:
        values: dict[str, Json] = {
            "search": search.name,
            "is_complete": result.is_complete and not interrupts.requested,
            "configurations": [one.to_row() for one in result.tried],
            "winner": {"overrides": winner.overrides, **winner.to_row()} if winner else None,
            "decision": report,
            "test": test.to_dict() if test else None,
        }
        print_json(values)
    else:
        print_tried(result.tried)
        print_lines("", *conclusions(result, decision, test))
        if run and (others := tested_before(folder, run.folder)):
            print_note(f"the test set was used before in this search, with {truncate_list(others)}")
        reported = f"; report: {page}" if report else ""
        is_stopped = interrupts.requested or not result.is_complete
        print_lines(
            "", f"table: {table}{reported}" + ("; stopped: run the same command to continue" if is_stopped else "")
        )
    results = [one.result for one in result.tried] + [*(decision.trial_results.values() if decision else ())]
    if any(one.status == "failed" for one in results):
        raise typer.Exit(1)
    if interrupts.requested:
        raise typer.Exit(STOPPED)


def print_tried(tried: "Sequence[TriedConfiguration]") -> None:
    """The best configurations as a table."""
    rows = [
        [
            one.name,
            str(one.rung),
            format_percent(one.score[0] if one.score else None),
            f"{-one.score[1]:.4f}" if one.score else NO_VALUE,
            one.result.reason or one.result.status if one.result.status in ("diverged", "failed") else "",
        ]
        for one in tried[:MAX_LISTED]
    ]
    print_table(["configuration", "epochs", "validation accuracy", "validation loss", "problem"], rows)
    if len(tried) > MAX_LISTED:
        print_lines(f"and {len(tried) - MAX_LISTED} more, in the table")


def conclusions(result: "SearchResult", decision: "StudyResult | None", test: "EvaluationRecord | None") -> list[str]:
    """What a search came to, in plain words."""
    winner = result.winner
    if winner is None or winner.score is None:
        return (
            ["no configuration was trained for all epochs"] if result.is_complete else ["the search is not at its end"]
        )
    lines = [
        f"winner: {winner.name}",
        f"  validation accuracy in the search {format_percent(winner.score[0])}: it was chosen as the best of "
        f"{pluralize(len(result.tried), 'configuration')}, so this number is biased upwards",
    ]
    if decision is None:
        lines.append("  it is the default itself, so there is nothing to compare")
    else:
        (section,) = decision.sections
        lines += [f"  on fresh seeds: {contrast.comment}" for contrast in section.contrast_results]
        lines += [f"  {note}" for note in decision.notes]
    if test is None:
        return [*lines, "  it was not tested"]
    low, high = test.interval
    return [
        *lines,
        f"  test accuracy of its run in the search {format_percent(test.accuracy)} (95 % interval {100 * low:.2f} to "
        f"{format_percent(high)}): {test.correct} of {test.count} images, tested once",
    ]


def tested_before(folder: Path, tested: Path) -> list[str]:
    """The other runs of a search that were tested, because another search in the same folder had another winner."""
    return sorted({path.parent.name for path in folder.glob("runs/*/test.json")} - {tested.name})
