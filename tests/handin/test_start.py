"""Laying out the homework."""

import json
from pathlib import Path

import pytest

from convolab.core.errors import LabError
from convolab.handin.homework import Homework
from convolab.handin.start import start_homework


def test_start_writes_notebooks_answers_and_what_to_do(tmp_path: Path, homework: Homework) -> None:
    files = start_homework(homework, tmp_path / "new" / "work")
    assert [file.name for file in files] == [
        "question2_training.ipynb", "question3_4_inspection.ipynb", "question1_answers.md", "README.md",
    ]  # fmt: skip
    assert all(file.is_file() for file in files)
    assert "convolab handin check work" in files[-1].read_text()
    assert "TODO" in files[0].read_text()
    answers = files[2].read_text()
    for wording in (
        "Which two assumptions",
        "for which data do they fail",
        "derivatives of $z$",
        "10 feature maps",
        "(MACs)",
    ):
        assert wording in answers


def test_the_solution_on_cifar10_is_written_where_it_is_asked_for(tmp_path: Path, homework: Homework) -> None:
    files = start_homework(homework, tmp_path, "solution", "cifar10")
    cells = json.loads(files[0].read_text())["cells"]
    text = "".join(line for cell in cells for line in cell["source"])
    assert 'DATA = "cifar10"' in text
    assert "TODO" not in text


def test_nothing_is_overwritten_and_nothing_is_written_then(started: Path, homework: Homework) -> None:
    (started / "README.md").write_text("mine")
    (started / "question2_training.ipynb").unlink()
    with pytest.raises(LabError, match=r"README.md already, and nothing is overwritten"):
        start_homework(homework, started)
    assert (started / "README.md").read_text() == "mine"
    assert not (started / "question2_training.ipynb").exists()


def test_a_dangling_link_is_not_written_through(tmp_path: Path, homework: Homework) -> None:
    (tmp_path / "README.md").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LabError, match="nothing is overwritten"):
        start_homework(homework, tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_in_place_of_the_folder_and_unknown_words_are_refused_before_anything_is_written(
    tmp_path: Path, homework: Homework
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="is a file: choose a folder"):
        start_homework(homework, tmp_path / "file")
    with pytest.raises(LabError, match="there is no homework on 'mnist'"):
        start_homework(homework, tmp_path / "a", data="mnist")
    with pytest.raises(LabError, match="did you mean 'student'"):
        start_homework(homework, tmp_path / "a", "studnt")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_commands_of_what_to_do_can_be_copied_for_any_folder(tmp_path: Path, homework: Homework) -> None:
    start_homework(homework, tmp_path / "my $HOME work")
    assert "`convolab handin check 'my $HOME work'`" in (tmp_path / "my $HOME work" / "README.md").read_text()
