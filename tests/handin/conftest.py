"""A folder with the homework, as it looks when a person has done all of it; no kernel is needed."""

import json
from pathlib import Path

import pytest
from support.homework_folder import pretend_to_run

from convolab.handin.homework import Homework, load_homework
from convolab.handin.notebooks import build_notebook, notebook_json
from convolab.handin.start import start_homework


@pytest.fixture(scope="session")
def homework() -> Homework:
    return load_homework()


@pytest.fixture
def started(tmp_path: Path, homework: Homework) -> Path:
    """A folder as `start` makes it."""
    start_homework(homework, tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def done(started: Path, homework: Homework) -> Path:
    """A folder in which nothing is open: outputs, comments and runs are made up."""
    for notebook in homework.notebooks:
        cells = build_notebook(homework, notebook.name, "solution", "digits")
        content = json.loads(notebook_json(cells))
        pretend_to_run(content, homework)
        (started / f"{notebook.name}.ipynb").write_text(json.dumps(content))
    (started / homework.question1.pdf).write_bytes(b"%PDF-1.7\n")
    for number in range(3):
        run = started / "runs" / f"simple_convnet-{number}"
        run.mkdir(parents=True)
        for name in ("recipe.toml", "metrics.jsonl", "summary.json", "best.safetensors"):
            (run / name).write_text(f"{name} of run {number}")
    return started
