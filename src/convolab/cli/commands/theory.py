"""`convolab theory`: question 1 of the course, answered and checked."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.options import AsJson, DataDir, load_dataset_with_progress
from convolab.cli.terminal import print_json, print_note
from convolab.core.errors import require

if TYPE_CHECKING:
    from convolab.theory.priors import PriorsResult, PriorsTrial
    from convolab.theory.sheet import AnswerSheet


SHEET_SUFFIXES = (".md", ".html", ".pdf")


def theory_command(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder (all three formats) or one file: .md, .html or .pdf.",
            show_default="question1, unless --pdf is given",
        ),
    ] = None,
    pdf: Annotated[Path | None, typer.Option(help="Also write a typeset PDF to this file.")] = None,
    data: Annotated[str, typer.Option(help="Dataset of the experiment: digits, cifar10 or another.")] = "digits",
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the signals, the images and the initial weights.")] = 0,
    seeds: Annotated[int, typer.Option(min=3, help="Number of seeds, starting at --seed.")] = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the experiment of 1(a), which takes most of the time.")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads of the checks; each network of the experiment trains on one.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Answer question 1 and run a check of every answer; exits with 1 if a check fails."""
    require(pdf is None or pdf.suffix.lower() == ".pdf", f"--pdf {pdf}: the file name must end in .pdf")
    outputs = [path for path in (out, pdf) if path is not None] or [Path("question1")]
    for path in outputs:
        require_writable_output(path)
    from convolab.reports import theory as theory_report

    for path in outputs:
        theory_report.require_format_packages(path)
    sheet, experiment_result = make_answer_sheet(data, data_dir, seed, seeds, quick, threads)
    figures = theory_report.render_sheet_figures(sheet)
    files = [file for path in outputs for file in theory_report.write_sheet(sheet, figures, path)]
    if as_json:
        print_json(sheet_to_dict(sheet, experiment_result, files))
    else:
        print_answer_sheet(sheet, files)
    if sheet.failed_checks:
        print_note(f"{len(sheet.failed_checks)} of {len(sheet.checks)} checks failed")
        raise typer.Exit(1)


def require_writable_output(path: Path) -> None:
    """Raise LabError, before any work, if the sheet cannot be written there."""
    is_sheet_file = path.suffix.lower() in SHEET_SUFFIXES
    require(
        is_sheet_file or not path.is_file(),
        f"{path} is a file: give a folder, or a file name ending in .md, .html or .pdf",
    )
    require(not is_sheet_file or not path.is_dir(), f"{path} is a folder: choose another name, or drop the suffix")
    folder = (path.parent if is_sheet_file else path).absolute()
    existing_parent = next(parent for parent in (folder, *folder.parents) if parent.exists())
    require(
        existing_parent.is_dir() and os.access(existing_parent, os.W_OK),
        f"cannot write {path}: {existing_parent} is not a writable folder",
    )


def make_answer_sheet(
    data: str, data_dir: Path | None, seed: int, seeds: int, quick: bool, threads: int
) -> "tuple[AnswerSheet, PriorsResult | None]":
    """The sheet, and the result of the experiment; None with --quick."""
    import torch

    from convolab.theory import answer_correlation, answer_layers, answer_priors, priors
    from convolab.theory.sheet import AnswerSheet

    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        splits, experiment_result = None, None
        if not quick:
            config = priors.config_for_dataset(data, seed, seeds)
            splits = load_dataset_with_progress(data, data_dir, 32)
            with trial_progress_bar(config.num_trials) as on_trial:
                experiment_result = priors.run_priors_experiment(config, splits, on_trial)
        answers = (
            answer_priors.answer_question_1a(seed, experiment_result, splits),
            answer_correlation.answer_question_1b(seed),
            answer_layers.answer_question_1c(seed),
        )
    finally:
        torch.set_num_threads(threads_before)
    command_words = [
        "convolab theory",
        f"--seed {seed}",
        *(["--quick"] if quick else [f"--data {data}", f"--seeds {seeds}"]),
    ]
    provenance = (
        f"Answered by `{' '.join(command_words)}`, with torch {torch.__version__}; "
        "every check was run when this sheet was made."
    )
    title = "Question 1: what a convolution assumes, its derivatives, and what it costs"
    return AnswerSheet(title, provenance, answers), experiment_result


@contextmanager
def trial_progress_bar(total: int) -> "Iterator[Callable[[PriorsTrial], None] | None]":
    """A progress bar over the trials on a terminal; None in a pipe."""
    if not sys.stderr.isatty():
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
    """The summary of each answer, and every check with its result."""
    from convolab.reports.theory import check_status, checks_summary, strip_markup

    for answer in sheet.answers:
        print(f"{answer.name}  {strip_markup(answer.summary)}")
        for check in answer.checks:
            print(f"  {check_status(check)}: {strip_markup(check.claim)}\n          {strip_markup(check.result)}")
        print()
    print(checks_summary(sheet))
    print(f"full answers written to: {', '.join(map(str, files))}")


def sheet_to_dict(
    sheet: "AnswerSheet", experiment_result: "PriorsResult | None", files: list[Path]
) -> dict[str, object]:
    """What --json prints."""
    from dataclasses import asdict

    answers = [
        {
            "name": answer.name,
            "question": answer.question,
            "summary": answer.summary,
            "checks": [asdict(check) for check in answer.checks],
        }
        for answer in sheet.answers
    ]
    return {
        "title": sheet.title,
        "answers": answers,
        "num_checks": len(sheet.checks),
        "num_failed": len(sheet.failed_checks),
        "trials": [asdict(trial) for trial in experiment_result.trials] if experiment_result else None,
        "config": experiment_result.config.model_dump() if experiment_result else None,
        "files": [str(file) for file in files],
    }
