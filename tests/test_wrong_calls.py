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


@pytest.mark.slow
@without_shape_checks
def test_numbers_of_numpy_and_lists_of_scales_are_taken(tmp_path: Path) -> None:
    run = convolab.train("shallow_net", epochs=np.int64(1), lr=np.float32(0.5), out=tmp_path / "run")
    assert (run.recipe.training.epochs, run.recipe.optimizer.lr) == (1, 0.5)
    finding = convolab.locate("motorcycle_left", scales=[0.25, "0.5"], alignment="resize")
    assert list(finding.metrics["scales"]) == ["0.25", "0.5"]
