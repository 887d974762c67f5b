"""Commands and options of the first edition: one line that names the new word."""

import pytest

from convolab.cli.main import COMMANDS, load_command
from convolab.cli.retired import RETIRED


@pytest.mark.parametrize(("words", "replacement"), RETIRED.items())
def test_a_retired_word_is_one_line_that_names_the_new_one_and_exit_2(lab, words, replacement) -> None:
    command, _, option = words.partition(" --")
    result = lab(*command.split(), *([f"--{option}", "1"] if option else []))
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert result.err.startswith("convolab: 'convolab ")
    # A retired command with a retired option is refused for the command.
    assert f"'convolab {replacement}'" in result.err or f"'convolab {RETIRED.get(command)}'" in result.err


@pytest.mark.parametrize("replacement", sorted(set(RETIRED.values())))
def test_every_replacement_exists(replacement) -> None:
    words, _, option = replacement.partition(" --")
    name, _, subcommand = words.partition(" ")
    command = load_command(name)
    if subcommand:
        command = command.commands[subcommand]
    assert not option or f"--{option}" in {word for parameter in command.params for word in parameter.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_has_its_help(lab, name) -> None:
    result = lab(name, "--help")
    assert result.code == 0
    assert f"convolab {name}" in result.out


def test_an_unknown_command_is_one_line_with_the_nearest_one(lab) -> None:
    result = lab("trian")
    assert (result.code, result.out) == (2, "")
    assert result.err == "convolab: there is no command 'convolab trian': did you mean 'train'?\n"
