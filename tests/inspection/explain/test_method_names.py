"""The list of methods: which names are accepted and refused, and that the docs have the same list."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from convolab.core.errors import LabError
from convolab.inspection.explain.method_names import (
    DEFAULT_METHODS,
    METHOD_NAMES,
    parse_methods,
    parse_sample_count,
)
from convolab.inspection.explain.methods import METHODS

DOCS = Path(__file__).resolve().parents[3] / "docs" / "explain.md"


def test_names_are_given_in_a_list_or_with_commas_and_used_once() -> None:
    assert parse_methods("gradcam, gradient,gradcam") == ("gradcam", "gradient")
    assert parse_methods(["gradcam", "gradient"]) == ("gradcam", "gradient")
    assert parse_methods(DEFAULT_METHODS) == DEFAULT_METHODS


def test_an_unknown_method_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(LabError, match="unknown method 'gradcamm': did you mean 'gradcam'"):
        parse_methods("gradient,gradcamm")
    with pytest.raises(LabError, match="no method given: choose from gradient, smoothgrad"):
        parse_methods(" , ")


def test_integrated_is_an_alias_of_integrated_gradients_with_one_hint() -> None:
    hints: list[str] = []
    assert parse_methods("integrated,cam,integrated", on_hint=hints.append) == ("integrated_gradients", "cam")
    assert hints == ["the method integrated is now called integrated_gradients"]
    with pytest.warns(FutureWarning, match="now called integrated_gradients"):
        parse_methods("integrated")


def test_a_number_of_more_digits_than_python_reads_is_refused_in_one_line() -> None:
    with pytest.raises(LabError, match=r"^9{20} samples of smoothgrad: give a whole number from 1 to"):
        parse_sample_count("9" * 5000, ["smoothgrad"])


def test_every_method_is_the_function_of_its_name() -> None:
    assert [method.__name__ for method in METHODS.values()] == list(METHOD_NAMES)


def test_the_table_in_the_docs_lists_the_methods_in_order() -> None:
    table = DOCS.read_text().partition("| `--method` |")[2]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))[: len(METHOD_NAMES)] == METHOD_NAMES


@pytest.mark.slow
def test_the_names_are_imported_without_torch() -> None:
    code = "import sys; import convolab.inspection.explain.method_names; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
