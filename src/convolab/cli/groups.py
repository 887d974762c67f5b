"""Commands and groups of commands that answer wrong words in one line."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from typer.core import TyperCommand, TyperGroup

from convolab.cli.retired import NEEDS_VALUE, OTHER_WAYS, refuse_retired
from convolab.core.errors import LabError, suggest

if TYPE_CHECKING:  # typer's own copy of click, which its older versions do not have: nothing of it is needed to run
    from typer._click import Command, Context, HelpFormatter

# What the parser says, by pydantic, of a text that is not a number.
PARSED_NUMBER = re.compile(r"Input should be a valid (integer|number)(?:, unable to parse string as an? \w+)?")
BOUND = re.compile(r"Input should be (greater|less) than or equal to (\S+)")
NUMBERS = {"integer": "a whole number", "number": "a number"}


def command_words(context: "Context") -> str:
    """The command of a context as it was typed, without the program's name."""
    if context.parent is None:
        return ""
    return f"{command_words(context.parent)} {context.info_name}".strip()


def hide_flag_types(parameters: Sequence[object]) -> None:
    """Let the help show a flag without `<bool>`: a flag takes no value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            vars(parameter)["display_type_rich"] = lambda ctx: None


@contextmanager
def shown_brackets(command: TyperCommand | TyperGroup, parts: Sequence[object]) -> Iterator[None]:
    """Let the help show what stands in square brackets, such as z[k], which rich takes for its own markup.

    `parts` are what the help lists, with a text each: the parameters, and a group's commands.
    """
    if command.rich_markup_mode is None:  # then rich, which takes long to import, is not asked
        yield
        return
    from rich.markup import escape

    texts = [(vars(part), text) for part in (command, *parts) if (text := getattr(part, "help", None))]
    try:
        for fields, text in texts:
            fields["help"] = escape(text)
        yield
    finally:
        for fields, text in texts:
            fields["help"] = text


@contextmanager
def translate_usage_errors(command: "Command", context: "Context", args: Sequence[str]) -> Iterator[None]:
    """What the parser says of the arguments of a command, as a LabError of one line, with the nearest option.

    typer has the parser's exceptions in private modules, which moved between its versions: they are recognized by what
    they have. A group without arguments shows its help in place of an error.
    """
    given = list(args)  # the parser takes them out
    try:
        yield
    except Exception as error:
        format_message = getattr(error, "format_message", None)
        if format_message is None or type(error).__name__ == "NoArgsIsHelpError":
            raise
        words = command_words(context)
        program = f"convolab {words}".strip()
        option = getattr(error, "option_name", None)
        if option is None or type(error).__name__ != "NoSuchOption":
            if type(error).__name__ == "BadOptionUsage" and (value := NEEDS_VALUE.get(f"{words} {option}")):
                raise LabError(f"{program}: {option} takes a value: {value}") from None
            names: list[str] = getattr(getattr(error, "param", None), "opts", [])
            value = next((word for name, word in pairwise(given) if name in names), None)
            message = format_message() if value is None else f"{names[0]} {value}: {getattr(error, 'message', '')}"
            message = PARSED_NUMBER.sub(lambda found: f"give {NUMBERS[found[1]]}", message)
            message = BOUND.sub(
                lambda found: f"give at {'least' if found[1] == 'greater' else 'most'} {found[2]}", message
            )
            message = " ".join(message.split()).rstrip(".")
            if type(error).__name__ == "MissingParameter" and (
                about := getattr(getattr(error, "param", None), "help", None)
            ):
                message += f" ({about[:1].lower()}{about[1:].partition('. ')[0].rstrip('.')})"
            raise LabError(f"{program}: {message[:1].lower()}{message[1:]}: see {program} --help") from None
        refuse_retired(f"{words} {option}")
        options = [
            name for parameter in command.get_params(context) for name in parameter.opts if name.startswith("--")
        ]
        hint = OTHER_WAYS.get(f"{words} {option}") or suggest(option, options)
        raise LabError(f"{program} has no option '{option}': {hint}") from None


LINE_IN_PARAGRAPH = re.compile(r"(?<!\n)\n *(?=[^\s-])")


class LabCommand(TyperCommand):
    """A command that answers a wrong option in one line, and whose help gives flags no type."""

    def format_help(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        hide_flag_types(self.get_params(ctx))
        # Else the terminal breaks a paragraph where the source does, and again at its own width.
        self.help = self.help and LINE_IN_PARAGRAPH.sub(" ", self.help)
        with shown_brackets(self, self.get_params(ctx)):
            super().format_help(ctx, formatter)

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        with translate_usage_errors(self, ctx, args):
            return super().parse_args(ctx, args)


class LabGroup(TyperGroup):
    """A group that names the new word for a command of the first edition, and answers a wrong option in one line."""

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        with translate_usage_errors(self, ctx, args):
            return super().parse_args(ctx, args)

    def format_help(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        hide_flag_types(self.get_params(ctx))
        with shown_brackets(self, [*self.get_params(ctx), *self.commands.values()]):
            super().format_help(ctx, formatter)

    def resolve_command(self, ctx: "Context", args: list[str]) -> "tuple[str | None, Command | None, list[str]]":
        if self.get_command(ctx, args[0]) is None:
            words = f"{command_words(ctx)} {args[0]}".strip()
            refuse_retired(words)
            raise LabError(f"there is no command 'convolab {words}': {suggest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)
