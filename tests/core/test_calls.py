"""Wrong arguments and wrong names in Python: one line, with the nearest."""

import copy
import inspect
import pickle
import subprocess
import sys

import pytest
import torch

import convolab
from convolab.core.calls import NearestNames, UnknownAttribute
from convolab.training.history import EpochMetrics

CALLS = {
    "summary('simple_convnet', 32)": "input_shape = 32",
    "summary('simple_convnet', (3, 0))": "input_shape = (3, 0) is not a shape",
    "summary('simple_convnet', (3, 32, 32), 4)": "name the others, such as batch_size=...",
    "summary('simple_convnet', inputshape=(3, 32, 32))": "did you mean 'input_shape'?",
    "train('simple_convnet', 'digits', 3)": "name the others, such as epochs=...",
    "load()": "load needs name: load(name, data_dir=None",
    "load(5)": "load: name = 5 is of the wrong type: give str",
    "load('digits', imagesize=8)": "did you mean 'image_size'?",
    "explain()": "explain needs image",
    "explain('chelsea', methods=5)": "methods = 5 is of the wrong type",
    "fool('chelsea')": "fool needs target",
    "locate('chelsea', top='x')": "top = 'x' is of the wrong type: give int",
    "build('simple_convnet')": "build needs shape and classes",
    "fit(5, 6)": "fit: net = 5",
    "Run()": "Run needs folder",
    "Run('x', trsut=True)": "did you mean 'trust'?",
    "ImageDataset(1)": "ImageDataset needs labels, classes and name",
    "Training(epoch=3)": "did you mean 'epochs'?",
    "Training(3)": "Training takes keywords alone",
    "Recipe(optimizers={})": "did you mean 'optimizer'?",
    "Study(nam='x')": "did you mean 'name'?",
    "ImageClassifier(torch.nn.Flatten(), means=(0.5,))": "did you mean 'mean'?",
}


@pytest.mark.slow
@pytest.mark.parametrize(("call", "message"), CALLS.items())
def test_arguments_that_do_not_fit_give_one_line_that_names_the_keyword(call: str, message: str) -> None:
    with pytest.raises(convolab.LabError) as caught:
        eval(call, {"torch": torch, **{name: getattr(convolab, name) for name in convolab.__all__}})
    assert message in str(caught.value)


def test_an_error_inside_a_function_keeps_its_own_words() -> None:
    with pytest.raises(convolab.LabError, match=r"'digit'.*did you mean 'digits'"):
        convolab.load("digit")


@pytest.mark.parametrize(
    ("owner", "name", "nearest"),
    [
        (convolab, "explan", "explain"),
        (convolab, "Trainig", "Training"),
        (convolab.Recipe(), "optimzer", "optimizer"),
        (convolab.Recipe().optimizer, "lrr", "lr"),
        (EpochMetrics(1, 0.5, 0.5), "train_acuracy", "train_accuracy"),
    ],
)
def test_an_attribute_that_is_not_there_is_answered_with_the_nearest(owner, name: str, nearest: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}': did you mean '{nearest}'?") as caught:
        getattr(owner, name)
    assert caught.value._render_traceback_()[0].endswith(f"did you mean '{nearest}'?")
    assert not hasattr(owner, name)


@pytest.mark.slow
def test_results_of_each_kind_name_the_nearest_attribute() -> None:
    splits = convolab.load("digits")
    for owner, name, nearest in ((splits, "trian", "train"), (splits.train, "label", "labels")):
        with pytest.raises(UnknownAttribute, match=f"did you mean '{nearest}'"):
            getattr(owner, name)
    with pytest.raises(UnknownAttribute, match="did you mean 'channels'"):
        _ = convolab.ImageClassifier(
            torch.nn.Flatten(), mean=(0.5,), std=(0.25,), input_size=(1, 2), classes=("dark", "light")
        ).chanels


def test_a_property_that_fails_by_itself_keeps_its_own_error() -> None:
    class Broken(NearestNames):
        @property
        def length(self) -> int:
            return len(self.missing_part)  # pyright: ignore[reportAttributeAccessIssue]

    with pytest.raises(AttributeError, match="missing_part"):
        Broken().length  # noqa: B018


@pytest.mark.slow
def test_what_was_checked_is_still_pickled_copied_and_explained() -> None:
    recipe = convolab.Recipe()
    assert pickle.loads(pickle.dumps(recipe)) == recipe == copy.deepcopy(recipe)
    assert pickle.loads(pickle.dumps(convolab.load)) is convolab.load
    assert "image_size" in inspect.signature(convolab.load).parameters
    code = f"import pickle; print(pickle.loads({pickle.dumps(convolab.load)!r})('digits').train.name)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "digits\n"


@pytest.mark.slow
def test_ipython_prints_one_line() -> None:
    interactive = pytest.importorskip("IPython.core.interactiveshell", reason="IPython is not installed")
    shell = interactive.InteractiveShell()
    result = shell.run_cell("import convolab\nconvolab.explan", silent=True)
    assert isinstance(result.error_in_exec, UnknownAttribute)


def test_the_signature_of_what_a_person_calls_is_short_enough_to_read() -> None:
    functions = [found for name in convolab.__all__ if inspect.isfunction(found := getattr(convolab, name))]
    assert len(functions) > 10
    assert [function.__name__ for function in functions if len(str(inspect.signature(function))) > 1600] == []
