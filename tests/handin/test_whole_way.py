"""The whole way of a person on the embedded images: start, fill in, run, check, pack. Nothing is made up but the words."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from support.small_homework import own_comment

from convolab.handin.homework import Homework
from convolab.handin.notebooks import build_notebook, cell_json

nbformat = pytest.importorskip("nbformat", reason="notebooks are not installed: pip install 'convolab[notebook]'")
pytestmark = pytest.mark.long
LIMIT = 15 * 60  # seconds, on two cores


def fill_in(path: Path, homework: Homework) -> None:
    """The solution's lines in place of a notebook's gaps, and a comment of one's own in each cell for one."""
    content = json.loads(path.read_text())
    solved = {cell.name: cell for cell in build_notebook(homework, path.stem, "solution", "digits")}
    for number, cell in enumerate(content["cells"]):
        tags = cell["metadata"].get("tags", [])
        if tags == ["gap"]:
            cell["source"] = cell_json(solved[cell["metadata"]["name"]])["source"]
        elif tags == ["comment"]:
            cell["source"] = own_comment(number)
    path.write_text(json.dumps(content))


def run_all_cells(path: Path) -> None:
    """Restart the kernel, run all cells in order, and save."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=LIMIT, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CONVOLAB_")}
    client.execute(env={**environment, "PYDEVD_DISABLE_FILE_VALIDATION": "1"})
    nbformat.write(notebook, path)


def test_a_person_gets_from_start_to_a_strict_pack_on_the_embedded_images_in_a_quarter_of_an_hour(
    homework: Homework, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # as a person runs it

    def handin(*arguments: str) -> str:
        command = [sys.executable, "-m", "convolab", "handin", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    started = time.monotonic()
    handin("start", "work")
    work = tmp_path / "work"
    answers = work / homework.question1.answers
    answers.write_text(re.sub(r"(?m)^(## 1\([abc]\))$", rf"\1\n\n{own_comment(0)}\n", answers.read_text()))
    for notebook in homework.notebooks:
        fill_in(work / f"{notebook.name}.ipynb", homework)
        run_all_cells(work / f"{notebook.name}.ipynb")
    num_items = len(homework.items) + 2  # question 1 and the runs
    assert f"{num_items} of {num_items} items done" in handin("check", "work")
    handin("pack", "work", "--name", "A Person", "--strict")
    seconds = time.monotonic() - started
    with zipfile.ZipFile(tmp_path / "handin.zip") as archive:
        names = archive.namelist()
    assert "OPEN.md" not in names
    assert {f"{notebook.name}.ipynb" for notebook in homework.notebooks} | {homework.question1.answers} <= set(names)
    assert seconds < LIMIT, f"it took {seconds:.0f} s"
