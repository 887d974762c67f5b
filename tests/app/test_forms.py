"""What the page does, its command does and its Python does: read by the command line, and executed."""

import ast
import inspect
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

import convolab
from convolab.app.choices import option_control
from convolab.app.forms import SweepForm, TrainForm
from convolab.cli.main import load_command
from convolab.core.errors import LabError
from convolab.training.recipe import Recipe, parse_override, parse_value

FORMS: list[dict[str, str]] = [
    {},
    {"net": "shallow_net", "option.hidden": "32", "epochs": "3"},
    {"data": "cifar10", "lr": ".05", "batch_size": "64", "seed": "7"},
    {"optimizer": "adam", "lr": "0.002", "schedule": "cosine", "augment": "crop:2, flip"},
    {"data": "cifar10", "augment": "none", "more": "training.clip_norm=1\n\ndata.limit=500"},
    {"option.channels": "[8, 16]", "option.residual": "true", "option.activation": "gelu", "option.dropout": "0.25"},
    {"net": "timm/resnet18", "playback": "1"},
    {"more": 'schedule.name=one_cycle\nschedule.pct_start=0.25\noptimizer.nesterov=true\nmodel.freeze=["conv.*"]'},
]


def recipe_of_command(command: str) -> Recipe:
    """The recipe that `convolab train` makes of a command."""
    program, name, *words = shlex.split(command)
    assert (program, name) == ("convolab", "train")
    values = load_command("train").make_context("train", words).params
    keys = {"network": "model.name", "data": "data.name", "epochs": "training.epochs", "lr": "optimizer.lr", "batch_size": "training.batch_size",
            "seed": "training.seed"}  # fmt: skip
    named = {key: values[option] for option, key in keys.items() if values[option] is not None}
    return Recipe().with_overrides(named | dict(parse_override(text) for text in values["overrides"] or []))


class Caught(Exception):
    """In the place of a training."""


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Python would train: runs and studies are caught before their first step."""
    found: list[Any] = []

    def start(*arguments: object, **_: object) -> None:
        found.append(arguments)
        raise Caught

    digits = convolab.load("digits")
    monkeypatch.setattr("convolab.training.run.Run.start", start)
    monkeypatch.setattr("convolab.api.load", lambda *_, **__: digits)
    monkeypatch.setattr("convolab.api_studies.execute_study", start)
    return found


def execute(python: str) -> None:
    with pytest.raises(Caught):
        exec(python, {"__name__": "__main__"})


@pytest.mark.parametrize("values", FORMS, ids=range(len(FORMS)))
def test_the_command_and_the_python_of_a_training_make_its_recipe(
    values: dict[str, str], caught: list[Any], tmp_path: Path
) -> None:
    form = TrainForm.parse(values)
    same = form.same_as(tmp_path / "a b", None)
    assert recipe_of_command(same.command) == form.recipe()
    execute(same.python)
    assert caught[0][0] == form.recipe()
    assert str(tmp_path / "a b") in shlex.split(same.command)


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"grid": "optimizer.lr=0.1,0.01", "net": "shallow_net", "epochs": "2"},
        {
            "grid": "model.residual=false,true\ntraining.batch_size=64,32",
            "seeds": "2",
            "optimizer": "adam",
            "lr": "0.01",
            "seed": "9",
        },
        {"grid": "schedule.name=step,cosine", "augment": "crop:2", "more": "data.limit=300"},
    ],
    ids=range(3),
)
def test_the_command_and_the_python_of_a_study_make_the_same_study(
    values: dict[str, str], caught: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = SweepForm.parse(values)
    same = form.same_as(tmp_path / "out", None)
    execute(same.python)
    started: list[Any] = []
    monkeypatch.setattr("convolab.cli.commands.sweep.choose_executor", lambda *_: None)
    monkeypatch.setattr(
        "convolab.cli.commands.sweep.run_and_report_study", lambda plan, out, **_: started.append((plan, out))
    )
    _, _, *words = shlex.split(same.command)
    load_command("sweep").main(words, standalone_mode=False)
    (by_python, out), (by_command, _) = caught[0], started[0]
    assert by_python.recipes.keys() == by_command.recipes.keys() == form.study().recipes.keys()
    assert by_python.to_toml().split("[sections")[1:] == by_command.to_toml().split("[sections")[1:]
    assert str(out) == str(tmp_path / "out")


def test_the_python_is_one_a_person_can_read() -> None:
    python = TrainForm.parse({"net": "shallow_net", "epochs": "3"}).same_as(Path("runs/a"), None).python
    assert python == 'import convolab\n\nrun = convolab.train("shallow_net", epochs=3, out="runs/a")'
    ast.parse(TrainForm.parse(FORMS[-1]).same_as(Path('a"b'), Path("data")).python)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": "fast"}, "optimizer.lr"),
        ({"more": "nonsense"}, "is not an override"),
        ({"option.hiden": "3", "net": "shallow_net"}, "did you mean 'hidden'"),
        ({"augment": "flap"}, "flip"),
        ({"more": "data.limit=5\ndata.limit=6", "net": "shallow_net"}, "is given twice"),
        ({"epochs": 3}, "must be a text"),
        ({"net": "timm/resnet1888"}, "timm has no network 'resnet1888': did you mean 'resnet18'"),
        ({"net": "timm/resnet18", "option.drop_rat": "0.5"}, "has no option 'drop_rat': did you mean 'drop_rate'"),
    ],
)
def test_a_wrong_control_is_named_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        TrainForm.parse(values).recipe()


def test_a_key_that_is_varied_has_no_other_value() -> None:
    with pytest.raises(LabError, match=r"optimizer\.lr is varied"):
        SweepForm.parse({"lr": "0.1", "grid": "optimizer.lr=0.1,0.2"})
    with pytest.raises(LabError, match="a study varies something"):
        SweepForm.parse({})
    with pytest.raises(LabError, match="٣ seeds: give a number"):
        SweepForm.parse({"grid": "optimizer.lr=0.1,0.01", "seeds": "٣"})


@pytest.mark.parametrize(
    ("network", "option", "value"),
    [("timm/resnet18", "output_stride", "5"), ("torchvision/resnet18", "groups", "3")],
)
def test_options_that_a_library_cannot_build_are_refused_by_the_check(network: str, option: str, value: str) -> None:
    with pytest.raises(LabError, match=f"cannot be built.*leave out or change model.{option}$"):
        TrainForm.parse({"net": network, f"option.{option}": value, "data": "cifar10"}).recipe()
    with pytest.raises(LabError, match=f"cannot be built.*leave out or change model.{option}$"):
        SweepForm.parse({"net": network, "data": "cifar10", "grid": f"model.{option}={value}"}).study()


def test_options_for_images_whose_size_is_not_known_are_left_to_the_training() -> None:
    values = {"net": "torchvision/resnet18", "option.groups": "3", "data": "folder:of/mine"}
    assert TrainForm.parse(values).recipe().model.options == {"groups": 3}


@pytest.mark.slow
def test_a_librarys_weights_stand_in_the_command_and_the_python_and_are_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object) -> None:
        raise AssertionError("the weights are fetched")

    monkeypatch.setattr("convolab.training.sections.sha256_of_weights", fetch)
    start = "model.weights=pretrained\nmodel.pretrained_lr_factor=0.1"
    values = {"net": "torchvision/resnet18", "data": "cifar10", "more": start}
    training, study = TrainForm.parse(values), SweepForm.parse({**values, "grid": "optimizer.lr=0.1,0.01"})
    assert training.recipe().model.name == "torchvision/resnet18"
    assert len(study.study().recipes) == 6
    for same in (training.same_as(tmp_path, None), study.same_as(tmp_path, None)):
        assert "model.weights=pretrained" in same.command
        assert "model.pretrained_lr_factor=0.1" in same.command
    assert '"weights": "pretrained", "pretrained_lr_factor": 0.1}' in study.same_as(tmp_path, None).python
    for key in ("model.weights=pretrained", "model.pretrained_lr_factor=0.1,1"):
        base = {} if key.startswith("model.weights") else {**values, "more": "model.weights=pretrained"}
        with pytest.raises(LabError, match="cannot vary here, where no weights are downloaded: use convolab sweep"):
            SweepForm.parse({**base, "grid": key})


def test_a_copied_command_with_control_characters_is_one_line_and_right(tmp_path: Path) -> None:
    folder = tmp_path / "it's\n\x1b[31m0 \u202e"
    same = TrainForm.parse({}).same_as(folder, None)
    assert same.command.isprintable()
    printed = subprocess.run(
        ["bash", "-c", same.command.replace("convolab", r"printf '%s\0'", 1)], capture_output=True, check=True
    )
    assert printed.stdout.decode().split("\0")[-2] == str(folder)
    line = same.python.splitlines()[-1]
    assert line.isprintable()
    assert str(folder) in [node.value for node in ast.walk(ast.parse(same.python)) if isinstance(node, ast.Constant)]


def default_shown(default: object) -> object:
    """What the control of a network's option with this default begins with."""
    return option_control(inspect.Parameter("option", inspect.Parameter.KEYWORD_ONLY, default=default))["default"]


@pytest.mark.parametrize("default", [["conv", "pool"], [8, 16], True, 0.5, "relu"])
def test_an_options_default_is_shown_as_a_recipe_reads_it_back_lists_of_texts_too(default: object) -> None:
    assert parse_value(str(default_shown(default))) == default


def test_an_options_default_that_no_recipe_can_hold_is_shown_as_python_shows_it() -> None:
    assert default_shown((None, 1)) == "(None, 1)"
    assert default_shown(len) == str(len)
