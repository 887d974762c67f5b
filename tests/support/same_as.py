"""The box "the same as": that its command is one, and that its Python runs."""

import shlex
from typing import Any

from convolab.cli.main import load_command


def require_command(line: str) -> str:
    """Parse a command as the command line does, and run nothing: the command's name."""
    program, name, *words = shlex.split(line)
    assert program == "convolab"
    load_command(name).make_context(name, words)
    return name


def run_python(text: str) -> dict[str, Any]:
    """Run it, and give its names."""
    names: dict[str, Any] = {}
    exec(text, names)
    return names
