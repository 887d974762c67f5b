"""Errors of checks and figures in one line."""

from traceback import extract_tb

import pytest

from convolab.core.errors import LabError
from convolab.handin.one_line_errors import one_line_errors


def run_cell(source: str, names: dict[str, object]) -> None:
    """Run a cell, compiled as a file of its own, as a notebook does."""
    exec(compile(source, f"cell-{hash(source)}.py", "exec"), {"one_line_errors": one_line_errors, **names})


def line_of(block: str, **names: object) -> str:
    """What a cell with a block of this code shows."""
    with pytest.raises(LabError) as caught:
        run_cell(f"with one_line_errors('part 5'):\n    {block}", names)
    assert caught.value._render_traceback_() == [f"LabError: {caught.value}"]
    assert caught.value.__suppress_context__
    return str(caught.value)


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ("assert 1 == 2, 'the loss is wrong'", "part 5: the loss is wrong"),
        ("assert 1 == 2, 'two\\nlines'", "part 5: two lines"),
        ("missing + 1", "part 5: there is no 'missing' yet: fill in and run the cells above"),
        ("gap[-1]", "part 5: not filled in yet, or a function returns nothing (TypeError: 'ellipsis' object is not subscriptable)"),
        ("a, b = nothing", "part 5: not filled in yet, or a function returns nothing (TypeError: cannot unpack non-iterable NoneType object)"),
        ("{}['with']", "part 5: KeyError: 'with'"),
        ("import json; json.loads('{')", "part 5: JSONDecodeError: Expecting property name"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_block_is_one_line_with_its_part(block: str, line: str) -> None:
    assert line_of(block, gap=..., nothing=None).startswith(line)


def test_an_error_of_the_laboratory_keeps_its_words() -> None:
    def fail() -> None:
        raise LabError("there is no epoch to draw")

    assert line_of("fail()", fail=fail) == "part 5: there is no epoch to draw"


def test_an_error_in_a_function_of_another_cell_keeps_its_traceback() -> None:
    names: dict[str, object] = {}
    exec(compile("def own():\n    return [][3]", "the-cell-above.py", "exec"), names)
    with pytest.raises(IndexError) as caught:
        run_cell("with one_line_errors('part 5'):\n    own()", names)
    assert extract_tb(caught.value.__traceback__)[-1].filename == "the-cell-above.py"


def test_a_block_in_which_nothing_is_wrong_is_as_without() -> None:
    names: dict[str, object] = {}
    run_cell("with one_line_errors('part 5'):\n    found['x'] = 3", {"found": names})
    assert names == {"x": 3}
