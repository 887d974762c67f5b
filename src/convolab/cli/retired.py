"""The commands and options of the first edition: who types one gets one line that names the new one."""

from typing import TYPE_CHECKING

from typer.core import TyperCommand, TyperGroup

from convolab.core.errors import LabError, suggest

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter
else:
    try:  # what the methods below take: typer's own copy of click, or click itself in older versions of typer
        from typer._click import Command, Context, HelpFormatter
    except ImportError:
        from click import Command, Context, HelpFormatter

__all__ = ["RETIRED", "Command", "Context", "HelpFormatter", "LabCommand", "LabGroup", "refuse_retired"]

# What was typed after `convolab` -> what is typed today.
RETIRED = {
    "account": "summary",
    "summary --batch": "summary --batch-size",
    "summary --convention": "summary --beside",
    "data fetch": "data download",
    "data show --size": "data show --image-size",
    "study --engine": "study --executor",
    "study --repair": "study --retrain-damaged",
    "sweep --engine": "sweep --executor",
    "sweep --repair": "sweep --retrain-damaged",
    "test --unfinished": "test --allow-unfinished",
    "fool --step": "fool --step-size",
    "fool --steps": "fool --max-steps",
    "fool --sources": "fool --surrogates",
    "fool --transfer": "fool --victims",
    "locate --placement": "locate --alignment",
    "locate --over": "locate --granularity",
    "locate --check": "locate --sliding-window-check",
    "locate --score": "locate-score",
    "locate --count": "locate-score --num-objects",
    "locate-score --over": "locate-score --granularity",
    "locate-score --count": "locate-score --num-objects",
}


def refuse_retired(words: str) -> None:
    """Raise LabError if `words`, a command or a command and an option, have a new name.

    >>> refuse_retired("study --engine")
    Traceback (most recent call last):
    convolab.core.errors.LabError: 'convolab study --engine' is now called 'convolab study --executor'
    """
    if words in RETIRED:
        raise LabError(f"'convolab {words}' is now called 'convolab {RETIRED[words]}'")


def command_words(context: Context) -> str:
    """The command of a context as it was typed, without the program's name."""
    if context.parent is None:
        return ""
    return f"{command_words(context.parent)} {context.info_name}".strip()


class LabCommand(TyperCommand):
    """A command that names the new word for an option of the first edition."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # typer has the parser's exceptions in private modules, which moved between its versions.
            if option := getattr(error, "option_name", None):
                refuse_retired(f"{command_words(ctx)} {option}")
            raise


class LabGroup(TyperGroup):
    """A group that names the new word for a command of the first edition."""

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            words = f"{command_words(ctx)} {args[0]}".strip()
            refuse_retired(words)
            raise LabError(f"there is no command 'convolab {words}': {suggest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)
