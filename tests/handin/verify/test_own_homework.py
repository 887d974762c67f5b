"""A homework that a teacher changed runs from start to verify, with no line of the package touched."""

import json
from pathlib import Path

import pytest
from support.small_homework import NOTEBOOK, SOURCE, TOML, copy_as, own_comment, write_teachers_files

from convolab.core.errors import LabError
from convolab.handin.check import check_folder
from convolab.handin.homework import Homework, find_homework, load_homework, read_homework
from convolab.handin.notebooks import build_notebook, require_cells
from convolab.handin.start import start_homework

TEACHER = Path("teacher")
COURSE = load_homework()


def changed_course(folder: Path, *changes: tuple[str, str], more: str = "") -> Path:
    """The course's file with other values."""
    text = COURSE.text
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(text + more)
    return folder / "mine.toml"


@pytest.mark.slow
def test_a_changed_homework_runs_from_start_to_verify_by_its_commands(run_cli, solved: Path) -> None:
    write_teachers_files(TEACHER)
    refused = run_cli("handin", "start", "work", "--homework", "none.toml")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    started = run_cli("handin", "start", "work", "--homework", "teacher/mine.toml")
    assert (started.code, started.err) == (0, "")
    assert (Path("work") / "homework.toml").read_text() == TOML
    answers = Path("work/question1_answers.md").read_text()
    assert "from 64 to 256" in answers  # 4 maps of 64 samples
    assert "--samples 64 --maps 4 --kernel-size 5 --name" in Path("work/README.md").read_text()
    cells = {
        cell["id"]: "".join(cell["source"]) for cell in json.loads(Path(f"work/{NOTEBOOK}.ipynb").read_text())["cells"]
    }
    assert "WIDTHS = [8, 32]" in cells["q5-1-mean"]
    assert "'optimizer.lr': 0.01" in cells["q5-2-runs"]
    checked = run_cli("handin", "check", "work")  # the folder knows its homework
    assert checked.code == 1
    assert "0 of 4 items done" in checked.out
    for number, name in enumerate(("Ada", "Bela")):
        copy_as(solved, Path(name), name, number)
        assert run_cli("handin", "check", name).code == 0
        packed = run_cli("handin", "pack", name, "--name", name, "--out", f"inbox/{name}.zip")
        assert packed.code == 0, packed.err
    verified = run_cli("handin", "verify", "inbox", "--homework", "teacher/mine.toml", "--out", "report", "--json")
    assert (verified.code, verified.err) == (0, "")
    result = json.loads(verified.out)
    assert [entry["total_points"] for entry in result["hand_ins"]] == [17.5, 17.5]
    assert result["points"] == 17.5
    assert {entry["points"]["5.2"] for entry in result["hand_ins"]} == {5}
    assert Path("report/class.html").is_file()
    assert "points 5.1" in Path("report/class.csv").read_text().splitlines()[0]


@pytest.mark.slow
def test_the_course_with_other_sizes_arms_recipe_points_and_one_question_more(tmp_path: Path) -> None:
    more = """
[arms]
SGD_RATES = [0.2, 0.02]
GAMMAS = [1.0, 0.3]

[[notebooks]]
name = "question5_width"
title = "One question more"
source = "question5_width.py"
recipe = "comparison"
num_runs = { digits = 4, digits-fast = 2, cifar10 = 3, cifar10-fast = 2 }

[[items]]
id = "5.1"
question = 5
title = "one question more"
notebook = "question5_width"
code = ["q5-1-mean"]
points = 3
"""
    write_teachers_files(tmp_path)
    path = changed_course(
        tmp_path, ("points = 20", "points = 30\nsizes = { samples = 32 }"), ('"schedule.name" = "one_cycle"', '"schedule.name" = "cosine"'),
        ('"optimizer.momentum" = 0.9', '"optimizer.momentum" = 0.8\n"model.name" = "resnet_small"'), more=more,
    )  # fmt: skip
    mine = read_homework(path)
    assert mine.points == COURSE.points + 10 + 3
    start_homework(mine, tmp_path / "work")
    again = find_homework(tmp_path / "work")
    assert again.items == mine.items
    assert len(check_folder(again, tmp_path / "work").items) == len(COURSE.items) + 3
    texts = {cell.name: cell.text for cell in build_notebook(mine, "question2_training", "solution", "digits")}
    assert "SGD_RATES = [0.2, 0.02]" in texts["q2-11-train"]
    assert "\nGAMMAS = [1.0, 0.3]\n" in texts["q2-11-train"]
    assert "'model.name': 'resnet_small'" in texts["q2-13-runs"]


def test_a_recipe_may_name_another_network_than_the_notebook() -> None:
    from convolab.training.recipe import Recipe

    recipe = Recipe.from_dict({"model": {"name": "simple_convnet"}}).with_overrides({"model.name": "resnet_small"})
    assert recipe.model.name == "resnet_small"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("points = 20", "points = -1"), "question1.points"),
        (("points = 20", 'points = 20\nmood = "good"'), "question1.mood"),
        (("points = 20", "points = 20\nsizes = { samples = 64, width = 3 }"), "question1.sizes.width"),
        (('id = "2.2"', 'id = "2.1"'), "two items are called 2.1"),
        (('notebook = "question2_training"', 'notebook = "question2_trainin"'), "did you mean 'question2_training'"),
        (('recipe = "comparison"', 'recipe = "comparson"'), "did you mean 'comparison'"),
        (("[budgets.digits-fast]", "[budgets.digits-quick]"), "there is no dataset 'digits-quick'"),
        (('answers = "question1_answers.md"', 'answers = "../answers.md"'), "is not a file's name"),
        (
            ('name = "question2_training"', 'name = "question2_training"\nsource = "../../etc/passwd"'),
            "is not a file's name",
        ),
        (("points = 20", "points = true"), "question1.points = True: give a number"),
        (("min_comment_words", "min_coment_words"), "did you mean 'min_comment_words'"),
        (('"optimizer.lr" = 0.01', '"optimizer.lr" = -0.01'), "recipes.comparison: optimizer.lr = -0.01: give"),
        (('"optimizer.name" = "sgd"', '"optimizer.name" = "sdg"'), "unknown optimizer 'sdg': did you mean 'sgd'"),
        (("epochs = 20", "epochs = 0"), "budgets.digits.epochs = 0: give at least 1"),
        (("[budgets.digits", "[budgets.digitz"), "there is no dataset 'digitz': did you mean 'digits'"),
        (('id = "2.2"', 'id = "1"'), "an item is called 1, as question 1 is"),
        (
            ('id = "2.2"\nquestion = 2\npoints = 4', 'id = "2.2"\nquestion = 2\npoints = "four"'),
            "item 2.2: points = 'four'",
        ),
        (('code = ["q2-2-class"]', 'coed = ["q2-2-class"]'), "item 2.2: there is no key 'coed': did you mean 'code'"),
        (('pdf = "question1.pdf"', 'pdf = "README.md"'), "two files would be called README.md"),
        (("format = 1", "format = 1\n[["), "is not TOML"),
        (("format = 1", "format = 2"), "format"),
    ],
)
def test_a_damaged_homework_is_refused_in_one_line_that_names_the_entry(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    path = changed_course(tmp_path, change)
    with pytest.raises(LabError) as caught:
        read_homework(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'checks = ["q5-1-check"]',
            'checks = ["q5-1-chek"]',
            "item 5.1: question5_width has no cell 'q5-1-chek': did you mean 'q5-1-check'",
        ),
        ("WIDTHS = [8, 32]", "WIDTH = [8, 32]", "arms.WIDTH: no notebook has a line"),
        ("kernel_size = 5", "kernel_size = 4", "kernel"),
        ('source = "question5_width.py"', 'source = "none.py"', "cannot read"),
        ('source = "question5_width.py"\n', "", "the notebook question5_width has no source"),
    ],
)
def test_what_a_notebook_lacks_is_named_before_anything_is_laid_out(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    write_teachers_files(tmp_path)
    assert old in TOML
    (tmp_path / "other.toml").write_text(TOML.replace(old, new))
    with pytest.raises(LabError, match=words):
        start_homework(read_homework(tmp_path / "other.toml"), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_the_dataset_is_set_in_a_teachers_own_notebook_however_its_line_ends(tmp_path: Path) -> None:
    mine = write_teachers_files(tmp_path)
    source = tmp_path / f"{NOTEBOOK}.py"
    course_line = 'DATA = "digits"  # or "cifar10"'

    def data_line(homework: Homework, data: str, line: str) -> str:
        source.write_text(SOURCE.replace(course_line, line))
        settings = build_notebook(homework, NOTEBOOK, "student", data)[1].text
        return next(line for line in settings.splitlines() if line.startswith("DATA = "))

    assert data_line(mine, "digits", course_line) == 'DATA = "digits"'  # it has no other dataset
    budgets = {
        key.replace("digits", data): mine.budgets[key] for data in ("cifar10", "cifar100") for key in mine.budgets
    }
    on_cifar = mine.model_copy(update={"budgets": budgets})
    assert data_line(on_cifar, "cifar100", course_line) == 'DATA = "cifar100"  # or "cifar10"'
    assert data_line(on_cifar, "cifar100", 'DATA = "digits"') == 'DATA = "cifar100"  # or "cifar10"'
    assert data_line(on_cifar, "cifar10", 'DATA = "digits"  # small') == 'DATA = "cifar10"  # or "cifar100": small'
    source.write_text(SOURCE.replace(course_line, 'DATA = str("digits")'))
    with pytest.raises(LabError, match='question5_width has no line DATA = "cifar10": add one'):
        require_cells(on_cifar)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("num_runs = { digits = 4", "num_runs = { digits = 3"), "num_runs.digits is 3, budgets.digits.seeds 4"),
        (('comments = ["q2-5-comment"]', 'comments = ["q2-5-check"]'), "the cell 'q2-5-check' has no tag comment"),
        (('figures = ["q2-5-figure"]', 'figures = ["q2-5-text"]'), "the cell 'q2-5-text' is a text"),
        (
            ("[recipes.comparison]", "[arms]\nSGD_RATES = []\n[recipes.comparison]"),
            "arms.SGD_RATES = []: give what can take",
        ),
        (("[recipes.comparison]", '[arms]\nDATA = "cifar10"\n[recipes.comparison]'), "the student chooses it"),
        (('"optimizer.momentum" = 0.9', '"model.name" = "net.py:Net"'), "cannot read"),
    ],
)
def test_what_contradicts_the_courses_notebooks_is_named_before_anything_is_laid_out(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    path = changed_course(tmp_path, change)
    with pytest.raises(LabError) as caught:
        start_homework(read_homework(path), tmp_path / "work")
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "work").exists()


def test_a_network_of_the_teachers_own_is_laid_out_beside_the_notebooks(tmp_path: Path) -> None:
    path = changed_course(tmp_path, ('"optimizer.momentum" = 0.9', '"model.name" = "net.py:Net"'))
    (tmp_path / "net.py").write_text("raise SystemExit  # is copied, and not run\n")
    start_homework(read_homework(path), tmp_path / "work")
    assert (tmp_path / "work" / "net.py").read_text() == (tmp_path / "net.py").read_text()


def test_the_files_of_all_parts_of_the_teachers_own_are_laid_out_and_none_of_another_folder(tmp_path: Path) -> None:
    loss, no_transform = ('"optimizer.momentum" = 0.9', '"loss.name" = "hinge.py:hinge"'), '"data.augment" = []'
    path = changed_course(tmp_path, loss, (no_transform, '"data.augment" = ["flip", "blur.py:blur(2)"]'))
    for name in ("hinge.py", "blur.py"):
        (tmp_path / name).write_text("raise SystemExit  # is copied, and not run\n")
    start_homework(read_homework(path), tmp_path / "work")
    assert {file.name for file in (tmp_path / "work").glob("*.py")} == {"hinge.py", "blur.py"}
    elsewhere = changed_course(tmp_path, (no_transform, '"data.augment" = ["../blur.py:blur"]'))
    with pytest.raises(LabError, match="must lie beside the homework's"):
        start_homework(read_homework(elsewhere), tmp_path / "other")


def test_a_part_that_no_item_asks_for_is_given_so_that_later_cells_run(tmp_path: Path) -> None:
    path = changed_course(tmp_path)
    text = path.read_text()
    first, last = text.index('[[items]]\nid = "2.10"'), text.index('[[items]]\nid = "2.11"')
    path.write_text(text[:first] + text[last:])
    cells = {cell.name: cell for cell in build_notebook(read_homework(path), "question2_training", "student", "digits")}
    assert "schedule_histories = {" in cells["q2-10-train"].text
    assert "sgd_histories, adam_histories, gamma_histories = ..., ..., ..." in cells["q2-11-train"].text


def test_a_link_in_place_of_the_folders_copy_is_not_followed(tmp_path: Path) -> None:
    write_teachers_files(tmp_path / "teacher")
    (tmp_path / "homework.toml").symlink_to(tmp_path / "teacher" / "mine.toml")
    assert find_homework(tmp_path).file is None


def test_the_text_of_the_teachers_own_question_is_no_comment(mine: Homework, tmp_path: Path) -> None:
    start_homework(mine, tmp_path / "work")
    assert own_comment(1) != own_comment(2)
    problems = [problem for item in check_folder(mine, tmp_path / "work").items for problem in item.problems]
    assert any(problem.aspect == "comment" for problem in problems)
