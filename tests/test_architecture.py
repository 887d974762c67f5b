"""The figure of the layers is drawn from the present imports."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.slow
def test_the_figure_of_the_layers_is_that_of_the_present_imports() -> None:
    spec = importlib.util.spec_from_file_location("architecture", DOCS / "architecture.py")
    assert spec is not None
    assert spec.loader is not None
    architecture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(architecture)
    assert architecture.draw() == (DOCS / "architecture.svg").read_text(), "run `make architecture`"
