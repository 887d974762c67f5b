"""`convolab theory`: question 1 of the course, answered and checked."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.options import AsJson, DataDir, load_dataset_with_progress
from convolab.cli.terminal import print_json, print_lines, print_note
from convolab.core.errors import require
from convolab.core.escape import shell_word
from convolab.core.outputs import QUESTION_1, require_outputs
from convolab.core.streams import is_terminal
from convolab.core.text import join_with_and

if TYPE_CHECKING:
    from convolab.data.splits import DatasetSplits
    from convolab.theory.priors import PriorsTrial
    from convolab.theory.question1 import SheetSettings
    from convolab.theory.sheet import AnswerSheet


SHEET_SUFFIXES = (".md", ".html", ".pdf")
TEMPLATE_SUFFIXES = (".md", ".markdown", ".txt")
LIKE_A_FILE = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}")  # an ending such as .docx; not that of a folder such as v1.2


def theory_command(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder (all three formats) or one file: .md, .html or .pdf.",
            show_default="question1, unless --pdf is given",
        ),
    ] = None,
    pdf: Annotated[Path | None, typer.Option(help="Also write a typeset PDF to this file.")] = None,
    name: Annotated[str, typer.Option(help="Your name, for the head of the sheet.")] = "",
    date: Annotated[str, typer.Option(help="A date, for the head of the sheet.")] = "",
    answers: Annotated[
        Path | None,
        typer.Option(
            help="Your own answers (Markdown); what convolab computed for each answered part follows as an appendix.",
            show_default=False,
        ),
    ] = None,
    answers_template: Annotated[
        Path | None, typer.Option(help="Write a file to fill in for --answers, and nothing else.", show_default=False)
    ] = None,
    samples: Annotated[int, typer.Option(help="1(c): the signal length n, f's inputs.")] = 100,
    outputs: Annotated[
        int | None, typer.Option(help="1(c): outputs of the fully-connected layer f.", show_default="maps x samples")
    ] = None,
    kernel_size: Annotated[int, typer.Option(help="1(c): the kernel size of the convolution g, odd.")] = 3,
    maps: Annotated[int, typer.Option(help="1(c): feature maps (output channels) of g.")] = 10,
    jacobian_size: Annotated[int, typer.Option(help="1(b): the signal length n of the Jacobians shown.")] = 6,
    data: Annotated[str, typer.Option(help="Dataset of the experiment: digits, cifar10 or another.")] = "digits",
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the signals, the images and the initial weights.")] = 0,
    seeds: Annotated[int, typer.Option(min=3, max=100, help="Number of seeds, starting at --seed.")] = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the experiment of 1(a), which takes most of the time.")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads of the checks; each network of the experiment trains on one.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Answer question 1 and run a check of every answer; exits with 1 if a check fails."""
    paths = [] if answers_template else choose_outputs(out, pdf)
    from convolab.theory.layers import LayerSizes
    from convolab.theory.own_answers import read_own_answers, write_answers_template
    from convolab.theory.question1 import EXPERIMENT_IMAGE_SIZE, SheetSettings, questions

    settings = SheetSettings(
        sizes=LayerSizes(samples, maps, kernel_size, outputs),
        jacobian_size=jacobian_size,
        data=None if quick else data,
        seed=seed,
        seeds=seeds,
        name=name,
        date=date,
        answers_file=None if answers is None else str(answers),
        own_answers=None if answers is None else read_own_answers(answers),
    )
    if answers_template is not None:
        suffix = answers_template.suffix
        is_text = suffix.lower() in TEMPLATE_SUFFIXES or not LIKE_A_FILE.fullmatch(suffix)
        require(is_text, f"--answers-template {answers_template}: it is Markdown, so give a name that ends in .md")
        print_template(write_answers_template(answers_template, questions(settings.sizes)), as_json)
        return
    require_sheet_can_be_written(settings, paths)
    splits = load_dataset_with_progress(data, data_dir, EXPERIMENT_IMAGE_SIZE) if settings.has_experiment else None
    sheet = make_sheet_with_progress(settings, splits, threads)
    write_and_print(sheet, paths, as_json)


def choose_outputs(out: Path | None, pdf: Path | None) -> list[Path]:
    """Where the sheet is written. Raises LabError, before any work, if it cannot be."""
    require(pdf is None or pdf.suffix.lower() == ".pdf", f"--pdf {pdf}: the file name must end in .pdf")
    paths = [path for path in (out, pdf) if path is not None] or [Path("question1")]
    for path in paths:
        require_sheet_or_folder(path)
    return paths


def require_sheet_or_folder(path: Path) -> None:
    """Raise LabError if the path is of another kind than its ending says."""
    is_sheet_file = path.suffix.lower() in SHEET_SUFFIXES
    is_unknown = not is_sheet_file and LIKE_A_FILE.fullmatch(path.suffix) and not path.exists()
    require(
        not is_unknown,
        f"{path}: {path.suffix} is not written: give a folder, or a file name ending in .md, .html or .pdf",
    )
    require(
        is_sheet_file or not path.is_file(),
        f"{path} is a file: give a folder, or a file name ending in .md, .html or .pdf",
    )
    require(not is_sheet_file or not path.is_dir(), f"{path} is a folder: choose another name, or drop the suffix")


def require_sheet_can_be_written(settings: "SheetSettings", paths: list[Path]) -> None:
    """Raise LabError, before any work, if a package is missing, a formula is wrong, or the answers would be replaced."""
    from convolab.reports.theory import figure_files, require_format_packages, require_typesettable, sheet_files

    own_answers = settings.own_answers or {}
    files = [file for path in paths for file in sheet_files(path)]
    for file in files:
        is_input = settings.answers_file is not None and file.exists() and file.samefile(settings.answers_file)
        require(not is_input, f"{file} holds your answers and would be replaced: choose another output")
    figures = [figure for file in files if file.suffix.lower() == ".md" for figure in figure_files(file)]
    require_outputs(QUESTION_1, [*files, *figures])
    for path in paths:
        require_format_packages(path)
        require_typesettable([block for blocks in own_answers.values() for block in blocks], path)


def make_sheet_with_progress(settings: "SheetSettings", splits: "DatasetSplits | None", threads: int) -> "AnswerSheet":
    """The sheet, with a progress bar over the experiment; torch has its threads back afterwards."""
    from convolab.core.free_cores import threads_lent
    from convolab.theory.priors import config_for_dataset
    from convolab.theory.question1 import make_sheet

    with threads_lent(threads):
        if settings.data is None or not settings.has_experiment:
            return make_sheet(settings, None)
        config = config_for_dataset(settings.data, settings.seed, settings.seeds)
        with trial_progress_bar(config.num_trials) as on_trial:
            return make_sheet(settings, splits, on_trial)


def write_and_print(sheet: "AnswerSheet", paths: list[Path], as_json: bool) -> None:
    """Write the sheet, and print what it says; exits with 1 if a check failed."""
    from convolab.reports import theory as theory_report

    figures = theory_report.render_sheet_figures(sheet)
    files = [file for path in paths for file in theory_report.write_sheet(sheet, figures, path)]
    if as_json:
        print_json(sheet_to_dict(sheet, files))
    else:
        print_answer_sheet(sheet, files)
    if sheet.open_parts:
        print_note(f"not answered yet: {join_with_and(sheet.open_parts)}")
    if sheet.failed_checks:
        print_note(f"{len(sheet.failed_checks)} of {len(sheet.checks)} checks failed")
        raise typer.Exit(1)


def print_template(path: Path, as_json: bool) -> None:
    """Say where the template is and what to do with it."""
    if as_json:
        print_json({"files": [str(path)]})
    else:
        print_lines(f"written to: {path}", f"fill it in, then: convolab theory --answers {shell_word(path)}")


@contextmanager
def trial_progress_bar(total: int) -> "Iterator[Callable[[PriorsTrial], None] | None]":
    """A progress bar over the trials on a terminal; None in a pipe."""
    if not is_terminal():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=total)
        yield lambda trial: bar.update(
            task, advance=1, description=f"{trial.network}, {trial.arrangement}, seed {trial.seed}"
        )


def print_answer_sheet(sheet: "AnswerSheet", files: list[Path]) -> None:
    """The short answer of each part, or whether a person has answered it, and every check with its result."""
    from convolab.reports.theory import check_status, checks_summary, strip_markup

    for answer in sheet.answers:
        own = "not answered yet" if answer.is_open else "answered in your own words" if answer.question else ""
        print_lines(f"{answer.name}  {strip_markup(answer.summary) or own}".rstrip())
        for check in answer.checks:
            print_lines(
                f"  {check_status(check)}: {strip_markup(check.claim)}", f"          {strip_markup(check.result)}"
            )
        print_lines("")
    content = "your answers" if sheet.is_own else "full answers"
    content += f", without {join_with_and(sheet.open_parts)}," if sheet.open_parts else ""
    print_lines(
        checks_summary(sheet) + (" They do not look at your answers." if sheet.is_own and sheet.checks else ""),
        f"{content} written to: {', '.join(map(str, files))}",
    )


def sheet_to_dict(sheet: "AnswerSheet", files: list[Path]) -> dict[str, object]:
    """What --json prints."""
    answers = [
        {
            "name": answer.name,
            "question": answer.question,
            "summary": answer.summary,
            "checks": [asdict(check) for check in answer.checks],
        }
        for answer in sheet.answers
    ]
    experiment = sheet.experiment
    return {
        "title": sheet.title,
        "answers": answers,
        "open": list(sheet.open_parts),
        "num_checks": len(sheet.checks),
        "num_failed": len(sheet.failed_checks),
        "trials": [asdict(trial) for trial in experiment.trials] if experiment else None,
        "config": experiment.config.model_dump() if experiment else None,
        "files": [str(file) for file in files],
    }
