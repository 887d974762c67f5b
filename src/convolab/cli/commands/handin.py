"""`convolab handin`: the homework, from the first notebook to the file that is handed in."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.groups import LabCommand, LabGroup
from convolab.cli.options import AsJson
from convolab.cli.terminal import (
    print_fitting_table,
    print_json,
    print_lines,
    print_note,
    print_table,
    print_wrapped,
    status_spinner,
)
from convolab.core.errors import require
from convolab.core.escape import shell_word
from convolab.core.text import pluralize, truncate_list

if TYPE_CHECKING:
    from convolab.handin.check import CheckResult
    from convolab.handin.verify.verify import VerifyResult

SUMMARY = "The homework: start, check, pack, verify."
handin_app = typer.Typer(help=SUMMARY, cls=LabGroup, no_args_is_help=True, add_completion=False)
HomeworkFolder = Annotated[Path, typer.Argument(help="Folder of the homework.")]
PresentHomework = Annotated[
    Path, typer.Argument(help="Folder of the homework.", show_default="the folder that you are in")
]
HomeworkOption = Annotated[
    Path | None,
    typer.Option(
        "--homework", help="A teacher's own homework.toml.", show_default="the folder's copy, or the course's"
    ),
]
MAX_SHOWN_NAMES = 30  # of hand-ins of which one thing was found
MAX_SHOWN_SIGNS = 6  # of one hand-in in a terminal; the page has all


@handin_app.command("start", cls=LabCommand)
def start_command(
    folder: HomeworkFolder,
    form: Annotated[str, typer.Option(help="student: with gaps to fill in; or solution.")] = "student",
    data: Annotated[
        str | None, typer.Option(help="What the notebooks train on: digits or cifar10.", show_default="digits")
    ] = None,
    i_am_teaching: Annotated[
        bool, typer.Option("--i-am-teaching", help="Needed with --form solution: you will not hand it in.")
    ] = False,
    homework: HomeworkOption = None,
    as_json: AsJson = False,
) -> None:
    """Write the notebooks, a file for question 1 and a README into a folder; nothing is overwritten."""
    from convolab.handin.homework import read_homework
    from convolab.handin.start import start_homework

    require(form != "solution" or i_am_teaching, "the solution is for teachers: add --i-am-teaching")
    asked = read_homework(homework)
    data = data or ("digits" if "digits" in asked.datasets else asked.datasets[0])
    files = start_homework(asked, folder, form, data)
    if as_json:
        print_json({"folder": str(folder), "form": form, "data": data, "files": [str(file) for file in files]})
    else:
        print_lines(*map(str, files), f"read {files[-1]} first")


@handin_app.command("check", cls=LabCommand)
def check_command(
    folder: PresentHomework = Path("."),
    details: Annotated[bool, typer.Option("--details", help="What is open in each cell, and what to do.")] = False,
    homework: HomeworkOption = None,
    as_json: AsJson = False,
) -> None:
    """List what is done and what is open; runs nothing of the notebooks. Exits with 1 if something is open."""
    from convolab.handin.check import check_folder
    from convolab.handin.homework import find_homework

    result = check_folder(find_homework(folder, homework), folder)
    if as_json:
        print_json(result.to_dict())
    else:
        (print_details if details else print_overview)(result)
        print_next(result)
    if result.open_items:
        raise typer.Exit(1)


def print_overview(result: "CheckResult") -> None:
    """A row for each item, with what is open in a few words, then what a whole notebook lacks."""
    from convolab.handin.check import few_words, find_shared_problems

    shared = find_shared_problems(result.items)
    rows = [[item.id, item.title, few_words(item, shared.get(item.notebook, ()))] for item in result.items]
    print_table(["item", "title", "open"], rows)
    for file, problems in shared.items():
        for what in problems:
            print_wrapped(f"{file}: {what}")


def print_next(result: "CheckResult") -> None:
    """How much is done, and the first thing to do."""
    num_done = len(result.items) - len(result.open_items)
    details = "" if not result.open_items else "; --details lists what is open in each cell"
    print_lines(f"{num_done} of {pluralize(len(result.items), 'item')} done{details}")
    for item in result.open_items[:1]:
        problem = item.problems[0]
        print_wrapped(f"next: {item.id} {item.title}: {problem.what} ({problem.remedy})")


def print_details(result: "CheckResult") -> None:
    """A row for each item, then what to do for each that is open; what many cells share, once for a notebook."""
    from convolab.handin.check import ASPECTS, find_repeated_problems, find_shared_problems

    rows = [[item.id, item.title, *(item.state_of(aspect) for aspect in ASPECTS)] for item in result.items]
    print_table(["item", "title", *ASPECTS], rows)
    repeated, shared = find_repeated_problems(result.items), find_shared_problems(result.items)
    for item in result.open_items:
        for problem in item.problems:
            if (item.notebook, problem.what) not in repeated:
                print_wrapped(f"{item.id} {problem.aspect}: {problem.what}", f"    {problem.remedy}")
    for (file, what), cells in repeated.items():
        is_everywhere = what in shared.get(file, ())
        places = () if is_everywhere else (f"    {pluralize(len(cells), 'cell')}: {', '.join(cells)}",)
        print_wrapped(f"{file}: {what}", *places)


@handin_app.command("pack", cls=LabCommand)
def pack_command(
    name: Annotated[str, typer.Option(help="Who hands it in.")],
    folder: PresentHomework = Path("."),
    out: Annotated[Path, typer.Option(help="The zip to write.")] = Path("handin.zip"),
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if an item is open.")] = False,
    homework: HomeworkOption = None,
    as_json: AsJson = False,
) -> None:
    """Write the file to hand in: answers, notebooks, and the evidence of the runs; lists what is open."""
    from convolab.handin.homework import find_homework
    from convolab.handin.pack import pack_homework

    result = pack_homework(find_homework(folder, homework), folder, out, name, strict=strict)
    if as_json:
        open_ids = [item.id for item in result.check.open_items]
        print_json(
            {
                "out": str(out),
                "files": result.files,
                "notes": result.notes,
                "open": open_ids,
                "replaced": result.replaced,
            }
        )
        return
    if result.replaced:
        print_note(f"{out} was {result.replaced}: replaced")
    for note in result.notes:
        print_note(note)
    if result.check.open_items:
        count = pluralize(len(result.check.open_items), "item")
        print_note(f"{count} open: convolab handin check {shell_word(folder)} --details lists what to do")
    print_lines(f"{out}: {pluralize(len(result.files), 'file')}")


@handin_app.command("verify", cls=LabCommand)
def verify_command(
    hand_ins: Annotated[
        list[Path],
        typer.Argument(help="Zips of `convolab handin pack`, or folders that hold some, also in folders below."),
    ],
    homework: Annotated[
        Path | None,
        typer.Option(
            "--homework",
            help="The homework.toml that the hand-ins are of; others are refused.",
            show_default="the course's",
        ),
    ] = None,
    rerun: Annotated[
        str | None, typer.Option(help="Train so many runs of each again, or one by its name, or all.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Picks the runs: a number that only you know.")] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Execute the notebooks again.")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the code of the hand-ins that this needs, and remember it as trusted.")
    ] = False,
    unfenced: Annotated[
        bool, typer.Option("--unfenced", help="Run it without bubblewrap's fence, under limits alone.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the datasets; nothing is downloaded.", show_default="$CONVOLAB_DATA or ~/.cache/convolab"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report: class.html and class.csv.")] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write the table as CSV to this file; - prints it, and nothing else.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """For teachers: what is in the hand-ins of a class, and what contradicts itself. Exits with 1 if something does."""
    from convolab.handin.homework import read_homework
    from convolab.handin.notebooks import require_cells
    from convolab.handin.verify.report import (
        class_csv,
        require_class_table,
        require_report_folder,
        write_class_report,
        write_class_table,
    )
    from convolab.handin.verify.verify import verify_hand_ins

    is_printed = csv == Path("-")
    require(not (is_printed and as_json), "--csv - and --json both print all that is printed: give one of them")
    if csv is not None and not is_printed:
        require_class_table(csv)
    if out is not None:
        require_report_folder(out)
    asked = None if homework is None else read_homework(homework)
    if asked is not None:
        require_cells(asked, sources=False)
    with status_spinner("reading") as show:
        result = verify_hand_ins(
            hand_ins, asked, rerun=rerun, seed=seed, execute=execute, trust=trust, unfenced=unfenced,
            data_dir=data_dir, on_progress=show,
        )  # fmt: skip
    written = [] if out is None else write_class_report(result, out)
    if csv is not None and not is_printed:
        written.append(write_class_table(result, csv))
    if as_json:
        print_json(result.to_dict())
    elif is_printed:
        print(class_csv(result), end="")
    else:
        print_class(result, out)
        print_lines(*(f"written: {path}" for path in written))
    if result.suspicious:
        raise typer.Exit(1)


def print_class(result: "VerifyResult", out: Path | None) -> None:
    """The table, what its words mean, what hand-ins share, then what was found in each."""
    from convolab.handin.verify import report as class_report

    drop_order = ("versions", "file", "data", "runs")
    rows, meanings = class_report.class_rows(result), class_report.meanings_of(result)
    print_fitting_table(class_report.CLASS_COLUMNS, rows, drop_order, "see --csv or --out")
    print_wrapped(*(f"{word}: {meaning}" for word, meaning in meanings.items()))
    print_wrapped(*(class_report.group_line(result, number) for number in range(1, len(result.groups) + 1)))
    owners, listed = class_report.lines_of_several(result), set()
    for report in result.reports:
        if report.refused:
            print_wrapped(f"{report.file}: refused: {report.refused}")
        found = [*report.contradictions, *report.skipped, *report.confirmed]
        found = [sign for sign in found if sign not in listed]
        for sign in found[:MAX_SHOWN_SIGNS]:
            listed.add(sign)
            names = owners[sign]
            several = f"{len(names)} hand-ins ({truncate_list(names, MAX_SHOWN_NAMES)})"
            print_wrapped(f"{names[0] if len(names) == 1 else several}: {sign.line}")
        if len(found) > MAX_SHOWN_SIGNS:
            print_wrapped(f"{report.name}: and {len(found) - MAX_SHOWN_SIGNS} more, see --out")
    if any(sign.weight == "note" for sign in owners):
        print_lines(f"notes are listed in {out / class_report.PAGE if out else 'the report: add --out FOLDER'}")
    count, found_words, run_words = class_report.summary_lines(result)
    print_lines(f"{count}: {found_words}; {run_words}")
    if not result.count_done("rerun") and not result.count_done("execute"):
        print_wrapped(
            "who changes all files of a hand-in so that they agree is not found by reading them: --rerun trains runs "
            "again, --execute runs the notebooks again (docs/handin.md)"
        )
