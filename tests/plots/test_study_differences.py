"""The forest plot of a section's differences."""

import pytest
from support.synthetic_study import synthetic_section

from convolab.plots.study_differences import differences_figures


@pytest.mark.slow
def test_the_title_of_an_axis_that_long_labels_leave_little_room_ends_with_the_axis() -> None:
    """In the middle it is cut on a phone: the labels take up to 230 pixels of 320."""
    figures = differences_figures(synthetic_section("transforms"))
    assert figures
    for figure in figures:
        axes = [layer["encoding"]["x"].get("axis", {}) for layer in figure.chart.to_dict()["layer"]]
        assert any(axis.get("titleAnchor") == "end" for axis in axes)
