"""What cells of one hand-in have in common."""

from pathlib import Path

from convolab.handin.homework import Homework
from convolab.handin.notebook_file import HandedInCell, parse_cell
from convolab.handin.verify.archive import HandIn
from convolab.handin.verify.copies import Traces, copy_signs
from convolab.handin.verify.verify import trace_notebooks


def figure(name: str) -> HandedInCell:
    outputs = [{"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}}]
    return parse_cell({"cell_type": "code", "id": name, "source": "chart", "execution_count": 1, "outputs": outputs})


def signs_of(homework: Homework, *names: str) -> list[str]:
    """The signs of a hand-in in which some cells show one figure."""
    [info] = homework.notebooks
    traces = Traces("Ada", "0" * 64)
    hand_in = HandIn(Path("a.zip"), "0" * 64, {f"{info.name}.ipynb": b"{}"}, {})
    trace_notebooks(homework, hand_in, {info.name: list(map(figure, names))}, traces)
    [signs] = copy_signs([traces])
    return [sign.what for sign in signs]


def test_a_figure_that_a_person_shows_again_in_a_cell_of_their_own_is_no_sign(mine: Homework) -> None:
    assert signs_of(mine, "q5-2-figure", "again", "q5-1-mean") == []
    assert signs_of(mine, "q5-2-figure", "q5-2-second-figure") == [
        "its figure is that of q5-2-second-figure",
        "its figure is that of q5-2-figure",
    ]
