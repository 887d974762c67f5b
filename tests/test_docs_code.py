"""The code on the pages of the documentation runs, and prints what the pages say. tests/support/pages.py says how."""

import shlex
from pathlib import Path

import pytest
from support.pages import PAGES, is_run, read_blocks, run_page
from typer.main import get_command

from convolab.cli.main import app
from convolab.core.errors import LabError, require

RUNNING = [page for page in PAGES if any(is_run(block) for block in read_blocks(page))]
LONG = tuple(f"docs/{name}.md" for name in ("guide", "homework_q2_choices", "own", "own_parts", "trained"))  # trainings


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.long if page in LONG else ()) for page in RUNNING]
)
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run_page(page)


def commands_that_are_not_run(page: str) -> list[str]:
    """The lines that begin with `convolab` in blocks that are not run."""
    blocks = [block for block in read_blocks(page) if not is_run(block) and block.language in ("", "sh")]
    return [line for block in blocks for line in block.commands if line.startswith("convolab ")]


def parse_command(line: str) -> None:
    """Let the command line parse a command, and nothing more. Raises for an unknown name or option, and a wrong value."""
    command = get_command(app)
    context = command.make_context("convolab", [], resilient_parsing=True)
    words = shlex.split(line, comments=True)[1:]
    while hasattr(command, "resolve_command"):  # a group
        name = words.pop(0)
        command = command.get_command(context, name)
        require(command, f"there is no command {name}")
        if hasattr(command, "resolve_command"):
            context = command.make_context(name, [], parent=context, resilient_parsing=True)
    command.make_context(line, words, parent=context)


@pytest.mark.parametrize("page", [page for page in PAGES if commands_that_are_not_run(page)])
def test_the_command_line_knows_every_command_that_a_page_shows(page: str) -> None:
    for line in commands_that_are_not_run(page):
        try:
            parse_command(line)
        except LabError as error:
            pytest.fail(f"{line}: {error}")


@pytest.mark.parametrize(
    "line",
    ["convolab nosuch", "convolab handin checkk work", "convolab train simple_convnet --nosuch 3", "convolab train --epochs x"],
)  # fmt: skip
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    with pytest.raises(LabError):
        parse_command(line)
