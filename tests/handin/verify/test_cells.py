"""What one notebook shows by itself: its order, its outputs, its given cells, hidden code, its numbers."""

import json
from typing import Any

import pytest

from convolab.core.environment import package_version
from convolab.handin.homework import Homework
from convolab.handin.notebook_file import HandedInCell, parse_cell
from convolab.handin.notebooks import build_notebook
from convolab.handin.verify.cells import order_signs, output_signs
from convolab.handin.verify.execute import output_differences, text_difference
from convolab.handin.verify.given_cells import given_cell_signs, hidden_code_signs
from convolab.handin.verify.numbers import chart_points, ends_of, has_number, is_interval_of, number_signs

VERSION = package_version("convolab")
STREAM = {"output_type": "stream", "name": "stdout", "text": "0.97\n"}
CHART = '<svg><text>Title</text><path aria-label="epoch: {epoch}; {quantity}: {value}; training: a"/></svg>'


def cell(name: str, source: str = "print(1)", count: int | None = 1, **more: Any) -> HandedInCell:
    return parse_cell(
        {"cell_type": "code", "id": name, "source": source, "execution_count": count, "metadata": {}, **more}
    )


def chart(name: str, quantity: str, value: float, source: str = "draw()", epoch: int = 2) -> HandedInCell:
    svg = CHART.format(epoch=epoch, quantity=quantity, value=value)
    return cell(name, source, outputs=[{"output_type": "display_data", "data": {"image/svg+xml": svg}}])


def whats(signs: Any) -> list[str]:
    return [sign.what for sign in signs if sign.weight == "sign"]


def test_a_notebook_that_ran_from_top_to_bottom_has_no_sign() -> None:
    assert list(order_signs("q", [cell("a"), cell("b", count=2), cell("c", "", None)])) == []


def test_cells_that_ran_again_are_a_note_and_two_of_one_count_a_sign() -> None:
    [note] = order_signs("q", [cell("a", count=2), cell("b", count=5)])
    assert (note.weight, note.what) == ("note", "3 executions left no cell: cells were run again or deleted")
    assert (
        whats(order_signs("q", [cell("a", count=2), cell("b", count=2)]))[-1] == "two cells have the execution count 2"
    )
    assert whats(order_signs("q", [cell("a", count=2), cell("b", count=1)])) == [
        "run out of order: b ran before a cell above them"
    ]
    assert "two cells are called a" in whats(order_signs("q", [cell("a"), cell("a", count=2)]))[0]


@pytest.mark.parametrize(
    ("source", "is_possible"),
    [
        ("def f():\n    print(1)", False),
        ("class Net(nn.Module):\n    pass", False),
        ("x = 3", False),
        ("x: int = 3", False),
        ("# nothing", False),
        ("", False),
        ("x = f()", True),
        ("@register\nclass Net:\n    pass", True),
        ("class Net(make()):\n    print(1)", True),
        ("import antigravity", True),
        ("for i in range(3):\n    print(i)", True),
        ("x", True),
        ("%time f()", True),
    ],
)
def test_a_cell_of_definitions_shows_nothing(source: str, is_possible: bool) -> None:
    assert (whats(output_signs("q", [cell("a", source, outputs=[STREAM])])) == []) == is_possible


def test_warnings_and_progress_bars_are_no_output_of_a_cells_own() -> None:
    def warns(number: int) -> HandedInCell:
        text = f"/tmp/ipykernel_{number}/1.py:1: SyntaxWarning: invalid escape\n 40%|####      | {number} rows"
        return cell("a", "def f():\n    pass", outputs=[{"output_type": "stream", "name": "stderr", "text": text}])

    assert list(output_signs("q", [warns(1)])) == []
    assert list(output_differences([warns(1)], [warns(2)], 0.002)) == []


@pytest.mark.parametrize(
    ("source", "count", "is_possible"),
    [
        ("f()", 1, True),
        ("f()", 4, False),
        ("f();", 1, False),
        ("x = f()", 1, False),
        ("print(f())", 1, False),
        ("x", 1, True),
    ],
)
def test_a_result_is_of_its_own_cell_and_of_an_expression(source: str, count: int, is_possible: bool) -> None:
    result = {"output_type": "execute_result", "execution_count": count, "data": {"text/plain": "0.97"}}
    assert (whats(output_signs("q", [cell("a", source, outputs=[result])])) == []) == is_possible


def test_an_output_without_a_run_and_a_hidden_cell_are_signs() -> None:
    assert "the output is from elsewhere" in whats(output_signs("q", [cell("a", count=None, outputs=[STREAM])]))[0]
    for metadata in (
        {"jupyter": {"source_hidden": True}},
        {"tags": ["hide-input"]},
        {"hide_input": True},
        {"tags": ["remove_cell"]},
    ):
        assert whats(output_signs("q", [cell("a", metadata=metadata)])) == [
            "Jupyter hides it: open it in a text editor"
        ]
    assert whats(output_signs("q", [cell("a", metadata={"tags": ["gap"], "jupyter": "x"})])) == []


def test_an_image_of_another_size_than_its_text_is_a_sign() -> None:
    png = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAADCAIAAAA2iEnWAAAADElEQVR4nGNgoBUAAABFAAGR1sAKAAAAAElFTkSuQmCC"  # 2 x 3 pixels
    data = {"image/png": png, "text/plain": "ImageFigure of 2 x 3 pixels: .image is"}
    assert whats(output_signs("q", [cell("a", "x", outputs=[{"output_type": "display_data", "data": data}])])) == []
    data["text/plain"] = "ImageFigure of 996 x 860 pixels: .image is"
    found = whats(output_signs("q", [cell("a", "x", outputs=[{"output_type": "display_data", "data": data}])]))
    assert found == ["its figure has 2 x 3 pixels, and its text says otherwise"]
    data["image/png"] = "bm90IGFuIGltYWdl"
    assert whats(output_signs("q", [cell("a", "x", outputs=[{"output_type": "display_data", "data": data}])])) == [
        "its figure is not an image"
    ]


def course_cells(homework: Homework, form: Any = "solution") -> list[HandedInCell]:
    built = build_notebook(homework, "question2_training", form, "digits")
    return [
        cell(c.name, c.text)
        if c.type == "code"
        else parse_cell({"cell_type": "markdown", "id": c.name, "source": c.text})
        for c in built
    ]


@pytest.mark.slow
def test_the_courses_own_cells_are_given_cells_and_its_solution_hides_nothing(homework: Homework) -> None:
    info = homework.find_notebook("question2_training")
    for form in ("student", "solution"):
        cells = course_cells(homework, form)
        assert whats(given_cell_signs(homework, info, "digits", cells, VERSION)) == []
        assert list(hidden_code_signs(homework, info, cells, {})) == []


def test_settings_may_be_changed_and_checks_and_figures_may_not(homework: Homework) -> None:
    info = homework.find_notebook("question2_training")
    cells = {c.name: c for c in course_cells(homework)}

    def changed(name: str, old: str, new: str, version: str = VERSION) -> list[str]:
        assert old in cells[name].source
        edited = {**cells, name: cell(name, cells[name].source.replace(old, new))}
        return whats(given_cell_signs(homework, info, "digits", list(edited.values()), version))

    assert changed("q2-settings", "FAST = False", "FAST = True") == []
    assert changed("q2-settings", 'DATA = "digits"', 'DATA = "cifar10"') == []
    assert changed("q2-install", 'CONVOLAB = ""', 'CONVOLAB = "/content/a.whl"') == []
    assert changed("q2-12-check", "assert best_name in candidates", "assert True") == [
        "the check is not that of the homework: compare them"
    ]
    assert changed("q2-12-check", "assert best_name in candidates", "assert True", "0.0.1") == []  # a note
    assert changed("q2-12-figure", "{test_accuracy:.4f}", "0.9712") == [
        "the cell of the figure is not that of the homework: compare them"
    ]


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np",
        "from torch import nn",
        "import math, json",
        "from torchvision import transforms",
        "%time f()",
        "x = evaluate(net)",
        "net.eval()",
        "%matplotlib inline",
    ],
)
def test_what_answers_usually_import_and_call_is_not_hidden(homework: Homework, source: str) -> None:
    assert (
        list(hidden_code_signs(homework, homework.find_notebook("question2_training"), [cell("a", source)], {})) == []
    )


@pytest.mark.parametrize(
    "source",
    [
        "import solution", "from . import helper", "def f():\n    from my_code import net", "!python helper.py", "%load helper.py",
        "exec(code)", "eval('1')", "import builtins\nbuiltins.exec(x)", "__import__('helper')", "import pickle\npickle.load(f)",
        "import sys\nsys.path.append('..')", "%%bash\nls", "import subprocess\nsubprocess.run(['ls'])", "get_ipython().run_line_magic('run', 'a.py')",
    ],
)  # fmt: skip
def test_code_from_elsewhere_is_a_sign(homework: Homework, source: str) -> None:
    info = homework.find_notebook("question2_training")
    assert whats(hidden_code_signs(homework, info, [cell("a", source)], {})) != []


def test_an_installation_is_a_note_and_a_teacher_may_allow_a_package(mine: Homework) -> None:
    info = mine.notebooks[0]
    assert [sign.weight for sign in hidden_code_signs(mine, info, [cell("a", "!pip install rich")], {})] == ["note"]
    allowed = info.model_copy(update={"imports": ("einops",)})
    assert whats(hidden_code_signs(mine, info, [cell("a", "import einops")], {})) != []
    assert whats(hidden_code_signs(mine, allowed, [cell("a", "import einops")], {})) == []


def test_weights_of_ones_own_that_are_loaded_are_a_note(homework: Homework) -> None:
    info = homework.find_notebook("question2_training")
    source = "net.load_state_dict(torch.load('best.pt'))"
    [note] = hidden_code_signs(homework, info, [cell("a", source)], {})
    assert (note.weight, note.what) == ("note", "it calls torch.load: weights or data that the notebook does not show")


def test_a_number_is_found_within_the_last_digit_that_is_shown() -> None:
    assert has_number("0.8533", [0.85334])
    assert not has_number("0.8533", [0.8536])
    assert has_number("0.3333333333333333", [0.333333333333])


@pytest.mark.parametrize(("correct", "count"), [(319, 359), (359, 359), (0, 359), (5884, 10_000), (1, 2)])
def test_an_accuracy_and_its_interval_belong_together(correct: int, count: int) -> None:
    from convolab.core.stats import wilson_interval

    low, high = (round(bound, 4) for bound in wilson_interval(correct, count))
    accuracy = round(correct / count, 4)
    assert is_interval_of(accuracy, low, high)
    wrong = accuracy + 0.08 if accuracy < 0.9 else accuracy - 0.08
    assert not is_interval_of(wrong, low, high) or count < 10


def test_the_ends_of_curves_stand_elsewhere_in_the_notebook(mine: Homework) -> None:
    quantity = "validation accuracy (%)"
    [point] = chart_points(chart("a", quantity, 41.5))
    assert (point.quantity, point.series, point.x, ends_of([point])) == (quantity, "a", 2, [0.415])

    def ends(*others: HandedInCell) -> list[str]:
        return whats(number_signs(mine, mine.notebooks[0], [chart("figure", quantity, 41.5), *others], []))

    def printed(text: str) -> HandedInCell:
        return cell("b", "f()", outputs=[{"output_type": "stream", "name": "stdout", "text": text}])

    assert ends(printed("epoch 2, validation accuracy 41.50 %")) == []
    assert ends(printed("accuracies [0.415, 0.4]")) == []
    assert ends(chart("bars", quantity, 41.5)) == []
    assert ends(printed("validation accuracy 44.50 %")) == [
        "its chart ends at 41.50 %, which no other cell of the notebook has"
    ]
    assert ends(printed("41 epochs")) != []


def test_a_chart_has_the_title_of_its_code(mine: Homework) -> None:
    def titled(title: str) -> list[str]:
        return whats(
            number_signs(mine, mine.notebooks[0], [chart("a", "loss", 1.0, f'plot_curves(h, title="{title}")')], [])
        )

    assert titled("Title") == []
    assert titled("Another") == ["its chart does not have the title 'Another' that the code gives it"]


@pytest.mark.parametrize(
    ("own", "new", "is_equal"),
    [
        ("accuracy = 0.8533", "accuracy = 0.8533", True),
        ("accuracy = 0.8533", "accuracy = 0.8833", False),
        ("accuracy 85.33 %, 3.1 s", "accuracy 85.34 %, 9.8 s", True),
        ("accuracy 85.33 %", "accuracy 88.33 %", False),
        ("found = 2 of 4", "found = 3 of 4", False),
        ("largest difference 8.0e-07", "largest difference 9.5e-07", True),
        ("a\nb", "a", False),
        ("runs/simple_convnet-digits-20261126-182923", "runs/simple_convnet-digits-20261127-091500", True),
        ("<Net at 0x7f3a>", "<Net at 0x1b2c>", True),
        ("best = SGD", "best = Adam", False),
    ],
)
def test_texts_are_equal_within_the_tolerance_and_times_do_not_count(own: str, new: str, is_equal: bool) -> None:
    assert (text_difference(own, new, 0.002) == "") == is_equal


@pytest.mark.slow
def test_the_stored_solution_shows_nothing_that_speaks_against_it(homework: Homework) -> None:
    from pathlib import Path

    path = Path(__file__).resolve().parents[3] / "notebooks" / "solution" / "question2_training.ipynb"
    cells = [parse_cell(entry) for entry in json.loads(path.read_text())["cells"]]
    info = homework.find_notebook("question2_training")
    found = [
        *output_signs("q", cells),
        *given_cell_signs(homework, info, "cifar10", cells, VERSION),
        *hidden_code_signs(homework, info, cells, {}),
    ]
    assert whats(found) == []
    about_numbers = whats(number_signs(homework, info, cells, []))  # its runs are not there
    assert about_numbers
    assert all("no run in evidence/" in what for what in about_numbers)
