"""What the parser refuses: one line, the nearest option or the other way, exit code 2."""

import pytest

from convolab.cli.main import load_command
from convolab.cli.retired import OTHER_WAYS, RECIPE_KEYS
from convolab.models.registry import factory_signature
from convolab.training.recipe import Recipe

USAGE = {
    "train --nosuch": "convolab train has no option '--nosuch'",
    "train simple_convnet --epoch 3": "did you mean '--epochs'?",
    "train simple_convnet --dropout 0.2": "has no option '--dropout': give --set 'model.dropout=X'",
    "train simple_convnet --epochs ten": "convolab train: --epochs ten: ",
    "train simple_convnet --epochs=ten": "'--epochs'",
    "train simple_convnet --epochs": "option '--epochs' requires an argument",
    "train shallow_net another": "(another)",
    "explain": "convolab explain: missing argument 'IMAGE...'",
    "fool chelsea": "missing option '--target'",
    "locate chelsea --top 0": "convolab locate: --top 0: ",
    "--nosuch": "known: --help",
    "data --nosuch": "convolab data has no option",
    "data show": "convolab data show: missing argument 'name'",
    "handin pack homework": "convolab handin pack: missing option '--name'",
    "runs -x": "has no option '-x'",
    **{f"{words} 1": remedy for words, remedy in OTHER_WAYS.items()},
}


@pytest.mark.parametrize(("words", "message"), USAGE.items())
def test_a_usage_error_is_one_line_with_the_command_and_what_to_do(run_cli, words: str, message: str) -> None:
    result = run_cli(*words.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("convolab: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    assert "Usage" not in result.err


def test_a_number_out_of_an_options_range_says_what_to_give(run_cli) -> None:
    assert "--threads 0: give at least 1: see" in run_cli("train", "shallow_net", "--threads", "0").err


@pytest.mark.parametrize("words", OTHER_WAYS)
def test_an_option_with_another_way_is_no_option_of_its_command(words: str) -> None:
    command, _, option = words.partition(" ")
    assert option not in {name for parameter in load_command(command).params for name in parameter.opts}


def test_every_key_that_takes_the_place_of_an_option_is_a_recipe_s() -> None:
    options = factory_signature("simple_convnet").parameters
    for section, _, key in (name.partition(".") for name in RECIPE_KEYS):
        assert section in Recipe.model_fields
        assert key == "name" or key in {
            *type(getattr(Recipe(), section)).model_fields,
            *(options if section == "model" else ()),
        }


def test_a_group_of_commands_alone_shows_its_help(run_cli) -> None:
    result = run_cli("handin")
    assert "start" in result.out + result.err
    assert "check" in result.out + result.err
