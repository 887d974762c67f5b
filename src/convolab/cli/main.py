"""The command line: the commands, and how an error is printed."""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_command

from convolab.cli.groups import LabCommand, LabGroup
from convolab.cli.streams import GuardedStreams
from convolab.cli.terminal import print_note
from convolab.core.errors import LabError, describe_exception
from convolab.core.files import translate_system_errors
from convolab.core.streams import is_terminal
from convolab.core.trust import trust_all

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Run other people's network code that this command opens, and remember it as trusted."
    ),
]


@dataclass(frozen=True)
class CommandEntry:
    """Where a command is, and its line in `convolab --help`."""

    target: str  # module in convolab.cli.commands : function, or a Typer with commands of its own
    summary: str
    page: str  # in docs/: the page that an error of the command points to


COMMAND_SECTIONS = {
    "Train": {
        "train": CommandEntry("train:train_command", "Train a network on a dataset.", "guide.md#train"),
        "resume": CommandEntry(
            "resume:resume_command", "Resume a stopped run, bit for bit, or give one more epochs.", "guide.md#train"
        ),
        "runs": CommandEntry("runs:runs_command", "List the runs in a folder.", "guide.md#train"),
        "test": CommandEntry("test:test_command", "Evaluate a run on the test set, once.", "guide.md#test-and-predict"),
        "predict": CommandEntry(
            "predict:predict_command", "Classify an image with a run's network.", "guide.md#test-and-predict"
        ),
        "export": CommandEntry(
            "export:export_command",
            "A run's network for other programs; figures and tables for a paper.",
            "guide.md#export",
        ),
        "data": CommandEntry("data:data_app", "Datasets: list, preview, download, clean.", "guide.md#look-at-the-data"),
    },
    "Compare": {
        "power": CommandEntry(
            "power:power_command", "Before a study: what it can show, seeds and hours.", "studies.md#before-a-study"
        ),
        "study": CommandEntry(
            "study:study_command", "Compare recipes over several seeds: a report.", "guide.md#study-sweep-compare"
        ),
        "sweep": CommandEntry(
            "sweep:sweep_command", "Try values of recipe keys, each with several seeds.", "guide.md#study-sweep-compare"
        ),
        "compare": CommandEntry(
            "compare:compare_command", "Compare runs that are already there.", "guide.md#study-sweep-compare"
        ),
    },
    "Look inside": {
        "summary": CommandEntry(
            "summary:summary_command", "Cost and receptive field of each layer of a network.", "summary.md"
        ),
        "explain": CommandEntry(
            "explain:explain_command", "Saliency maps: which pixels a prediction depends on.", "explain.md"
        ),
        "fool": CommandEntry("fool:fool_command", "Adversarial images that a network misclassifies.", "adversarial.md"),
        "locate": CommandEntry("locate:locate_command", "Find objects in images of any size.", "localization.md"),
        "locate-score": CommandEntry(
            "locate_score:locate_score_command", "Evaluate localization on images with boxes.", "localization.md"
        ),
    },
    "In the browser": {
        "app": CommandEntry("app:app_command", "All of it as a page in the browser, on this machine.", "app.md"),
    },
    "Homework": {
        "theory": CommandEntry("theory:theory_command", "Question 1, answered and checked.", "theory.md"),
        "correlate": CommandEntry(
            "correlate:correlate_command", "Question 1(b) in numbers: two short signals, correlated.", "theory.md"
        ),
        "handin": CommandEntry("handin:handin_app", "The homework: start, check, pack, verify.", "handin.md"),
    },
}
COMMANDS = {name: entry for section in COMMAND_SECTIONS.values() for name, entry in section.items()}
FIRST_STEPS = """\
Try one of these, here in this folder:
  convolab train simple_convnet                      a network on small digits, in seconds
  convolab explain chelsea                           which pixels make this a cat
  convolab study coursework                          the course's questions on training: minutes
  convolab handin start homework                     the course's homework, laid out to be done

convolab --help lists all commands, convolab COMMAND --help explains one.
"""


class LazyGroup(LabGroup):
    """The commands, each imported when it is called: `--help` needs none of them."""

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            print(f"{root.__doc__}\n\n{FIRST_STEPS}", end="")
            ctx.exit()
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: "Context") -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        width = max(map(len, COMMANDS))
        for title, section in COMMAND_SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.summary) for name, entry in section.items()])


def load_command(name: str) -> "Command":
    """A command of the table, imported."""
    module, _, attribute = COMMANDS[name].target.partition(":")
    target = getattr(importlib.import_module(f"convolab.cli.commands.{module}"), attribute)
    if isinstance(target, typer.Typer):
        return get_command(target)
    alone = typer.Typer(add_completion=False)
    alone.command(name, cls=LabCommand)(with_trust_option(target))
    return get_command(alone)


def with_trust_option(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the option --trust, which every command that is not a group has, those too that run no code."""

    @functools.wraps(command)
    def trusting_command(*, trust: bool, **arguments: object) -> None:
        try:
            with trust_all(trust):
                command(**arguments)
        except SystemExit as error:  # convolab's commands end by typer.Exit
            raise LabError(f"code that the command runs ended the program: {describe_exception(error)}") from error

    signature = inspect.signature(command)
    option = inspect.Parameter("trust", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Trust)
    vars(trusting_command)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), option])
    trusting_command.__annotations__["trust"] = Trust
    return trusting_command


app = typer.Typer(
    name="convolab",
    cls=LazyGroup,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than all else that `--help` needs; the commands' help has it
)


def print_version(wanted: bool) -> bool:
    if wanted:
        import convolab

        print(f"convolab {convolab.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A laboratory for convolutional networks."""


def help_line(command: str) -> str:
    """Where to read on after an error of a command: its help, and its page if the package is in a checkout.

    >>> help_line("sweep").startswith("more: convolab sweep --help")
    True
    """
    page, _, section = COMMANDS[command].page.partition("#")
    path = Path(__file__).resolve().parents[3] / "docs" / page
    about = f' ("{section.replace("-", " ")}")' if section else ""
    return f"more: convolab {command} --help" + (f", and {path}{about}" if path.is_file() else "")


def main() -> None:
    """Run the command line; a LabError becomes one line and exit code 2, in a terminal with a second one on help.

    So does what the operating system says of a path, and a result that could not be printed.
    """
    try:
        streams = GuardedStreams()
        try:
            with translate_system_errors():
                app()
        except SystemExit:
            streams.require_printed()
            raise
    except LabError as error:
        print_note(str(error))
        if is_terminal() and (command := next(iter(sys.argv[1:]), "")) in COMMANDS:
            print(f"\x1b[2m{help_line(command)}\x1b[0m", file=sys.stderr)
        sys.exit(2)
