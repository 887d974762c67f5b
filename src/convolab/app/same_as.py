"""The same as a command and as Python: what a person copies from the page, written from the values of its controls."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from convolab.core.escape import command_line as command_line  # the tabs take it from here
from convolab.core.types import Json

MAX_LINE = 88  # characters of a call of Python before it is broken


@dataclass(frozen=True)
class SameAs:
    """Two texts that do what the page does."""

    command: str
    python: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def option_words(*words: str, options: Mapping[str, object]) -> list[str]:
    """A command of convolab as words: options that are None or False are left out, a list is an option given several times.

    >>> option_words("train", "shallow_net", options={"epochs": 3, "seed": None, "set": ["model.hidden=8"], "json": True})
    ['train', 'shallow_net', '--epochs', '3', '--set', 'model.hidden=8', '--json']
    """
    result = list(words)
    for name, value in options.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is None or one is False:
                continue
            text = str(one)
            if one is True:
                result.append(f"--{name}")
            elif text.startswith("-"):  # else it would be read as an option
                result.append(f"--{name}={text}")
            else:
                result += [f"--{name}", text]
    return result


def python_call(function: str, *arguments: Json | Path, keywords: Mapping[str, object]) -> str:
    """A call as Python's text; keywords that are None are left out.

    >>> python_call("convolab.train", "shallow_net", keywords={"epochs": 3, "data": None})
    'convolab.train("shallow_net", epochs=3)'
    """
    parts = [python_literal(argument) for argument in arguments]
    parts += [f"{name}={python_literal(value)}" for name, value in keywords.items() if value is not None]
    line = f"{function}({', '.join(parts)})"
    return line if len(line) <= MAX_LINE else f"{function}(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def python_literal(value: object) -> str:
    """A value as Python's text, with double quotes and what does not print as escapes.

    >>> python_literal({"model.channels": (8, 16), "name": "it's"})
    '{"model.channels": [8, 16], "name": "it\\'s"}'
    """
    match value:
        case str() | Path():
            text = json.dumps(str(value), ensure_ascii=False)
            return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
        case Mapping():
            return "{" + ", ".join(f"{python_literal(k)}: {python_literal(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(python_literal, value)) + "]"
        case _:
            return repr(value)
