"""Calls from Python that a person gets wrong: each is answered in one line that says what to write instead."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.shape_checks import without_shape_checks

import convolab

STUDY = {
    "name": "rates",
    "seeds": [0],
    "recipe": {"model": {"name": "shallow_net"}, "training": {"epochs": 1}},
    "sections": {"lr": {"grid": {"optimizer.lr": [0.1, 0.01]}}},
}
SCRIPT = f"""
import convolab

print("top")
study = convolab.Study.from_dict({STUDY})
convolab.run_study(study, "out")
"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of a grid, without contrasts."""
    folder = tmp_path_factory.mktemp("grid") / "rates"
    convolab.run_study(convolab.Study.from_dict(STUDY), folder)
    return folder


@pytest.mark.slow
def test_a_script_that_its_workers_would_run_again_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    result = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout.count("top") == 1
    line = result.stderr.strip().splitlines()[-1]
    assert "line 6 of" in line
    assert 'put it below `if __name__ == "__main__":`' in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_rows_of_a_study_without_contrasts_are_its_arms(grid: Path) -> None:
    rows = convolab.compare(grid).rows()
    assert [row["arm"] for row in rows] == ["lr=0.1", "lr=0.01"]
    assert all(row["finished"] == 1 for row in rows)


@without_shape_checks
@pytest.mark.slow
def test_each_wrong_call_says_what_to_write(grid: Path) -> None:
    calls = {
        "give them as one list": lambda: convolab.compare("a", "b"),
        "give another run's folder too": lambda: convolab.compare(f"{grid}:lr=0.1"),
        f"one of its arms as {grid}:ARM": lambda: convolab.compare([grid, f"{grid}:lr=0.1"]),
        f"give the study's file, {grid / 'study.toml'}": lambda: convolab.power(grid),
        "did you mean 'coursework'": lambda: convolab.run_study("courswork"),
        "Study.from_dict makes one": lambda: convolab.run_study({"name": "x"}),
        "Conv2d is a class that needs arguments": lambda: convolab.summary(torch.nn.Conv2d, (3, 32, 32)),
    }
    for words, call in calls.items():
        with pytest.raises(convolab.LabError) as caught:
            call()
        assert words in str(caught.value)


NAMES = {"np": np, "torch": torch, **{name: getattr(convolab, name) for name in convolab.__all__}}
WRONG_VALUES = {
    "fool('chelsea', 'goldfish', max_steps=np.float32(2))": "fool: max_steps = 2.0 is of the wrong type: give int",
    "fool('chelsea', 'goldfish', budget=np.float32(2))": "budget = 2.0 is of the wrong type: give str",
    "fool('chelsea', 'goldfish', step_size=[])": "step_size = [] is of the wrong type: give float",
    "fool('chelsea', 'goldfish', objective=[])": "objective = [] is of the wrong type: give str",
    "locate('chelsea', top=[])": "top = [] is of the wrong type: give int",
    "locate('chelsea', threshold=10**400)": "threshold is a whole number of more digits than a float holds",
    "train('shallow_net', seed=10**5000)": "seed is a whole number of more digits than a float holds",
    "explain('chelsea', methods=[None])": "None is not the name of a method: choose from gradient",
    "summary('simple_convnet', (3, 32, 32), batch_size=np.float32(2))": "batch_size = 2.0 is of the wrong type",
    "summary('simple_convnet', (3, 32, 32), model=np.int64(3))": "model = 3 is of the wrong type: give Mapping",
    "summary('simple_convnet', (3, 32, 32), beside=[None])": "unknown counter 'None'",
    "receptive_field('chelsea', pixel=[None, 2])": "pixel [None, 2]: give a row below 224",
    "ImageClassifier(NET, mean='x', std=(1,), input_size=(8, 8), classes=['a'])": "mean = 'x': give a number for each channel",
    "fit(NET, load('digits').train, device='x')": "unknown device 'x': give cpu, cuda or mps",
    "fit(NET, load('digits').train, device='cuda:x')": "unknown device 'cuda:x': give cpu, cuda or mps",
    "fit(NET, load('digits').train, np.int64(3))": "validation = 3 is of the wrong type: give ImageDataset or Subset",
    "fit(NET, load('digits').train, optimizer=[])": "optimizer = []: give one of convolab's",
    "fit(NET, load('digits').train, optimizer='adamm')": "unknown optimizer 'adamm': did you mean 'adam'?",
    "fit(NET, load('digits').train, epochs=0)": "training.epochs = 0: give a number above 0",
    "fit(NET, load('digits').train, training=[3])": "training = [3]: give epochs=10",
    "train('shallow_net', device='x')": "unknown device 'x'",
    "register(None)": "give a function or class that makes a network",
    "Run(np.int64(3))": "folder = 3 is of the wrong type: give Path or str",
    "load('digits', data_dir=[])": "data_dir = [] is of the wrong type: give Path or str",
    "pretrained([])": "name = [] is of the wrong type: give str",
    "compare([None, None])": "None is not a run: give runs, or the folders of runs",
}


@without_shape_checks
@pytest.mark.slow
@pytest.mark.parametrize(("call", "message"), WRONG_VALUES.items())
def test_a_value_of_the_wrong_type_is_answered_in_one_line(call: str, message: str) -> None:
    with pytest.raises(convolab.LabError) as caught:
        eval(call, NAMES | {"NET": torch.nn.Flatten()})
    assert message in str(caught.value)


@pytest.mark.slow
@without_shape_checks
def test_numbers_of_numpy_and_lists_of_scales_are_taken(tmp_path: Path) -> None:
    run = convolab.train("shallow_net", epochs=np.int64(1), lr=np.float32(0.5), out=tmp_path / "run")
    assert (run.recipe.training.epochs, run.recipe.optimizer.lr) == (1, 0.5)
    finding = convolab.locate("motorcycle_left", scales=[0.25, "0.5"], alignment="resize")
    assert list(finding.metrics["scales"]) == ["0.25", "0.5"]


RIGHT_VALUES = {
    "locate('motorcycle_left', targets=np.int64(670), scales=np.float32(0.5), alignment='resize').metrics['scales']": [
        "0.5"
    ],
    "summary('simple_convnet', np.array([3, 32, 32]), batch_size=np.int64(2), classes=np.int64(3)).batch_size": 2,
    "len(build('shallow_net', [1, 8, 8], np.int64(10))(torch.zeros(1, 1, 8, 8))[0])": 10,
    "ImageClassifier(NET, mean=np.array([0.5]), std=torch.ones(1), input_size=(8, 8), classes=['a']).mean": (0.5,),
    "len(fit(NET, load('digits').train, training=Training(epochs=1), device=torch.device('cpu')))": 1,
    "len(fit(NET, load('digits').train, epochs=np.int64(2), lr=np.float32(0.1), optimizer='adam'))": 2,
}


@without_shape_checks
@pytest.mark.slow
@pytest.mark.parametrize(("call", "expected"), RIGHT_VALUES.items())
def test_what_means_the_same_as_a_number_a_tuple_or_a_name_is_taken(call: str, expected: object) -> None:
    found = eval(call, NAMES | {"NET": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))})
    assert (list(found) if isinstance(expected, list) else found) == expected
