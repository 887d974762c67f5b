"""Results that show themselves."""

from importlib import import_module

import pytest

from convolab.core import display
from convolab.core.errors import LabError


@pytest.mark.parametrize(("kind", "place"), display.VIEWS.items())
def test_the_view_of_every_kind_of_result_is_where_the_table_says(kind: str, place: str) -> None:
    module, _, name = place.partition(":")
    view = getattr(import_module(module), name)
    for method in ("html", "figure", "rows", "save"):
        assert callable(getattr(view, method))


def test_without_a_library_of_frames_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "find_spec", lambda name: None)
    with pytest.raises(LabError, match="pandas or polars"):
        display.Displayable().to_frame()


def test_a_notebook_shows_one_line_of_an_error_and_no_traceback() -> None:
    assert LabError("a line")._render_traceback_() == ["LabError: a line"]
