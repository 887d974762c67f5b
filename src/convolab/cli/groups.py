"""Commands and groups of commands that name the new word for one of the first edition, and the click below typer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typer.core import TyperCommand, TyperGroup

from convolab.cli.retired import refuse_retired
from convolab.core.errors import LabError, suggest

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter
else:
    try:  # what the methods below take: typer's own copy of click, or click itself in older versions of typer
        from typer._click import Command, Context, HelpFormatter
    except ImportError:
        from click import Command, Context, HelpFormatter

__all__ = ["Command", "Context", "HelpFormatter", "LabCommand", "LabGroup"]


def command_words(context: Context) -> str:
    """The command of a context as it was typed, without the program's name."""
    if context.parent is None:
        return ""
    return f"{command_words(context.parent)} {context.info_name}".strip()


def hide_flag_types(parameters: Sequence[object]) -> None:
    """Let the help show a flag without `<bool>`: a flag takes no value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            vars(parameter)["display_type_rich"] = lambda ctx: None


class LabCommand(TyperCommand):
    """A command that names the new word for an option of the first edition, and whose help gives flags no type."""

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        hide_flag_types(self.get_params(ctx))
        super().format_help(ctx, formatter)

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

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        hide_flag_types(self.get_params(ctx))
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            words = f"{command_words(ctx)} {args[0]}".strip()
            refuse_retired(words)
            raise LabError(f"there is no command 'convolab {words}': {suggest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)
