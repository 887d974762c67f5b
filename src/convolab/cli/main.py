"""The command line: which words there are, and how an error is said."""

import os
import sys

import typer

from convolab.cli.commands import data, explain, fool, locate, study, summary, theory, training
from convolab.core.errors import LabError

app = typer.Typer(
    name="convolab",
    help="A laboratory for convolutional networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS = {
    "train": training.train_command,
    "resume": training.resume_command,
    "runs": training.runs_command,
    "test": training.test_command,
    "predict": training.predict_command,
    "study": study.study_command,
    "sweep": study.sweep_command,
    "compare": study.compare_command,
    "summary": summary.summary_command,
    "theory": theory.theory_command,
    "explain": explain.explain_command,
    "fool": fool.fool_command,
    "locate": locate.locate_command,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(data.data_app, name="data")


def main() -> None:
    """Run the command line; a LabError becomes one line and exit code 2."""
    try:
        app()
    except LabError as error:
        print(f"convolab: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read our output has closed it, e.g. `convolab runs | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
