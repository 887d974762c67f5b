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
for command in (
    training.train,
    training.resume,
    training.runs,
    training.test,
    training.predict,
    study.study,
    study.sweep,
    study.compare,
    summary.account,
    theory.theory,
    explain.explain,
    fool.fool,
    locate.locate,
):
    app.command()(command)
app.add_typer(data.app, name="data")


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
