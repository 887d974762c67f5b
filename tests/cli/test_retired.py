"""Commands and options of the first edition: one line that gives the new name."""

import pytest

from convolab.cli.main import COMMANDS, load_command
from convolab.cli.retired import RETIRED


@pytest.mark.parametrize(("retired", "replacement"), RETIRED.items())
def test_a_retired_name_gives_one_line_with_the_new_name_and_exit_code_2(run_cli, retired, replacement) -> None:
    command, _, option = retired.partition(" --")
    result = run_cli(*command.split(), *([f"--{option}", "1"] if option else []))
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert result.err.startswith("convolab: 'convolab ")
    # A retired command with a retired option is refused because of the command.
    assert f"'convolab {replacement}'" in result.err or f"'convolab {RETIRED.get(command)}'" in result.err


@pytest.mark.parametrize("replacement", sorted(set(RETIRED.values())))
def test_every_replacement_exists(replacement) -> None:
    command_path, _, option = replacement.partition(" --")
    name, _, subcommand = command_path.partition(" ")
    command = load_command(name)
    if subcommand:
        command = command.commands[subcommand]
    assert not option or f"--{option}" in {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_text(run_cli, name) -> None:
    result = run_cli(name, "--help")
    assert result.code == 0
    assert f"convolab {name}" in result.out


def test_an_unknown_command_gives_one_line_with_the_nearest_name(run_cli) -> None:
    result = run_cli("trian")
    assert (result.code, result.out) == (2, "")
    assert result.err == "convolab: there is no command 'convolab trian': did you mean 'train'?\n"
