"""The course's question 1, answered, with the checks that were run just now."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convolab.cli.options import AsJson, DataDir, load_pictures
from convolab.cli.terminal import print_json, say
from convolab.core.errors import need

if TYPE_CHECKING:
    from convolab.theory.priors import Findings, Trial
    from convolab.theory.sheet import Sheet


ENDINGS = (".md", ".html", ".pdf")


def theory(
    out: Annotated[
        Path | None,
        typer.Option(
            help="A folder for the sheet in all forms, or one file: .md, .html or .pdf.",
            show_default="question1, without --pdf",
        ),
    ] = None,
    pdf: Annotated[Path | None, typer.Option(help="A file for the typeset sheet.")] = None,
    data: Annotated[
        str, typer.Option(help="The picture set of the experiment: digits, cifar10, or any other.")
    ] = "digits",
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the signals, the pictures and the first weights.")] = 0,
    seeds: Annotated[int, typer.Option(min=3, help="Trainings of each kind, from --seed on.")] = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave the experiment of 1(a) out: seconds instead of a minute.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads; networks this small are fastest on one.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Answer question 1, each answer with the check that was run just now; exit 1 if one fails."""
    need(pdf is None or pdf.suffix.lower() == ".pdf", f"--pdf {pdf}: end it in .pdf")
    places = [place for place in (out, pdf) if place is not None] or [Path("question1")]
    for place in places:
        check_place(place)
    from convolab.reports import theory as theory_report

    sheet, findings = answered(data, data_dir, seed, seeds, quick, threads)
    drawings = theory_report.draw_all(sheet)
    files = [file for place in places for file in theory_report.write(sheet, drawings, place)]
    if as_json:
        print_json(facts(sheet, findings, files))
    else:
        show(sheet, files)
    if sheet.failed:
        say(f"{len(sheet.failed)} of {len(sheet.checks)} checks failed")
        raise typer.Exit(1)


def check_place(place: Path) -> None:
    """Raise LabError, before any work, if the sheet cannot be written there."""
    known = place.suffix.lower() in ENDINGS
    need(known or not place.is_file(), f"{place} is a file: give a folder, or a file that ends in {', '.join(ENDINGS)}")
    need(not known or not place.is_dir(), f"{place} is a folder: give it another name, or take the ending away")
    folder = (place.parent if known else place).absolute()
    above = next(parent for parent in (folder, *folder.parents) if parent.exists())
    need(
        above.is_dir() and os.access(above, os.W_OK), f"cannot write {place}: {above} is not a folder you may write to"
    )


def answered(
    data: str, data_dir: Path | None, seed: int, seeds: int, quick: bool, threads: int
) -> "tuple[Sheet, Findings | None]":
    """The sheet, and what the experiment found."""
    import torch

    from convolab.theory import answer_correlation, answer_layers, answer_priors, priors
    from convolab.theory.sheet import Sheet

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pictures, findings = None, None
        if not quick:
            plan, pictures = priors.experiment(data, seed, seeds), load_pictures(data, data_dir, 32)
            with trial_bar(plan.trials) as on_trial:
                findings = priors.run(plan, pictures, on_trial)
        answers = (
            answer_priors.answer(seed, findings, pictures),
            answer_correlation.answer(seed),
            answer_layers.answer(seed),
        )
    finally:
        torch.set_num_threads(before)
    words = ["convolab theory", f"--seed {seed}", *(["--quick"] if quick else [f"--data {data}", f"--seeds {seeds}"])]
    made = f"Answered by `{' '.join(words)}`, with torch {torch.__version__}; every check was run for this sheet."
    title = "Question 1: what a convolution assumes, its derivatives, and what it costs"
    return Sheet(title, made, answers), findings


@contextmanager
def trial_bar(total: int) -> "Iterator[Callable[[Trial], None] | None]":
    """A bar of trainings on a terminal; None in a pipe."""
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


def show(sheet: "Sheet", files: list[Path]) -> None:
    """The answers in short, and every check with its result."""
    from convolab.reports.theory import plain, summary, verdict

    for answer in sheet.answers:
        print(f"{answer.name}  {plain(answer.short)}")
        for check in answer.checks:
            print(f"  {verdict(check)}: {plain(check.claim)}\n         {plain(check.found)}")
        print()
    print(summary(sheet))
    print(f"the answers in full: {', '.join(map(str, files))}")


def facts(sheet: "Sheet", findings: "Findings | None", files: list[Path]) -> dict[str, Any]:
    """What --json prints."""
    from dataclasses import asdict

    answers = [
        {
            "name": answer.name,
            "question": answer.question,
            "answer": answer.short,
            "checks": [asdict(check) for check in answer.checks],
        }
        for answer in sheet.answers
    ]
    return {
        "title": sheet.title,
        "answers": answers,
        "checks": len(sheet.checks),
        "failed": len(sheet.failed),
        "trials": [asdict(trial) for trial in findings.trials] if findings else None,
        "experiment": findings.experiment.model_dump() if findings else None,
        "files": [str(file) for file in files],
    }
