"""`convolab handin`: the homework, from the first notebook to the file that is handed in."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.groups import LabCommand, LabGroup
from convolab.cli.options import AsJson
from convolab.cli.terminal import print_json, print_note, print_table
from convolab.core.errors import require
from convolab.core.text import pluralize

if TYPE_CHECKING:
    from convolab.handin.check import CheckResult

SUMMARY = "The homework: start, check, pack."
handin_app = typer.Typer(help=SUMMARY, cls=LabGroup, no_args_is_help=True, add_completion=False)
HomeworkFolder = Annotated[Path, typer.Argument(help="Folder of the homework.")]


@handin_app.command("start", cls=LabCommand)
def start_command(
    folder: HomeworkFolder,
    form: Annotated[str, typer.Option(help="student: with gaps to fill in; or solution.")] = "student",
    data: Annotated[str, typer.Option(help="What the notebooks train on: digits or cifar10.")] = "digits",
    i_am_teaching: Annotated[
        bool, typer.Option("--i-am-teaching", help="Needed with --form solution: you will not hand it in.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the notebooks, a file for question 1 and a README into a folder; nothing is overwritten."""
    from convolab.handin.homework import load_homework
    from convolab.handin.start import start_homework

    require(form != "solution" or i_am_teaching, "the solution is for teachers: add --i-am-teaching")
    files = start_homework(load_homework(), folder, form, data)
    if as_json:
        print_json({"folder": str(folder), "form": form, "data": data, "files": [str(file) for file in files]})
    else:
        print("\n".join(map(str, files)))
        print(f"read {files[-1]} first")


@handin_app.command("check", cls=LabCommand)
def check_command(
    folder: HomeworkFolder,
    details: Annotated[bool, typer.Option("--details", help="What is open in each cell, and what to do.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what is done and what is open; runs nothing of the notebooks. Exits with 1 if something is open."""
    from convolab.handin.check import check_folder
    from convolab.handin.homework import load_homework

    result = check_folder(load_homework(), folder)
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
            print(f"{file}: {what}")


def print_next(result: "CheckResult") -> None:
    """How much is done, and the first thing to do."""
    num_done = len(result.items) - len(result.open_items)
    details = "" if not result.open_items else "; --details lists what is open in each cell"
    print(f"{num_done} of {pluralize(len(result.items), 'item')} done{details}")
    for item in result.open_items[:1]:
        problem = item.problems[0]
        print(f"next: {item.id} {item.title}: {problem.what} ({problem.remedy})")


def print_details(result: "CheckResult") -> None:
    """A row for each item, then what to do for each that is open; what many cells share, once for a notebook."""
    from convolab.handin.check import ASPECTS, find_repeated_problems, find_shared_problems

    rows = [[item.id, item.title, *(item.state_of(aspect) for aspect in ASPECTS)] for item in result.items]
    print_table(["item", "title", *ASPECTS], rows)
    repeated, shared = find_repeated_problems(result.items), find_shared_problems(result.items)
    for item in result.open_items:
        for problem in item.problems:
            if (item.notebook, problem.what) not in repeated:
                print(f"{item.id} {problem.aspect}: {problem.what}\n    {problem.remedy}")
    for (file, what), cells in repeated.items():
        is_everywhere = what in shared.get(file, ())
        print(
            f"{file}: {what}" + ("" if is_everywhere else f"\n    {pluralize(len(cells), 'cell')}: {', '.join(cells)}")
        )


@handin_app.command("pack", cls=LabCommand)
def pack_command(
    folder: HomeworkFolder,
    name: Annotated[str, typer.Option(help="Who hands it in.")],
    out: Annotated[Path, typer.Option(help="The zip to write.")] = Path("handin.zip"),
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if an item is open.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the file to hand in: answers, notebooks, and the evidence of the runs; lists what is open."""
    from convolab.handin.homework import load_homework
    from convolab.handin.pack import pack_homework

    result = pack_homework(load_homework(), folder, out, name, strict=strict)
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
        print_note(f"{pluralize(len(result.check.open_items), 'item')} open: see OPEN.md in it")
    print(f"{out}: {pluralize(len(result.files), 'file')}")
