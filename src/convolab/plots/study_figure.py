"""A figure of a study: a chart with its title, its caption and the tables that it draws."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from convolab.plots.style import apply_chart_style
from convolab.studies.tables import TableRows

FIGURE_WIDTH = 480  # pixels of a figure in a file; on a page it is as wide as its column
FIGURE_HEIGHT = 280  # pixels, without its titles
# The mark of a diverged run: an outline, so that it takes its color as a stroke.
DIVERGED_MARK = alt.MarkDef(type="point", shape="M-1,-1L1,1M-1,1L1,-1", size=50, strokeWidth=2, filled=False)

Tables = dict[str, TableRows]  # by name


@dataclass(frozen=True)
class StudyFigure:
    """A chart with its words, and the tables it draws.

    The chart names its tables (`alt.NamedData`) instead of holding them: a page stores them by column.
    """

    name: str  # of its files
    title: str
    subtitle: str
    chart: alt.LayerChart  # without data, size and titles
    tables: Tables
    height: int = FIGURE_HEIGHT  # pixels
    colored_by_arm: bool = False  # its colors are the section's arms, so that a page can have one legend for all such

    def to_chart(self) -> alt.TopLevelMixin:
        """The chart with its data, size, titles and style, to be saved as a file."""
        complete = self.chart.properties(width=FIGURE_WIDTH, height=self.height, datasets=self.tables)
        return apply_chart_style(complete, textwrap.wrap(self.title, 60), textwrap.wrap(self.subtitle, 95))


def tooltip_fields(*fields: str) -> list[alt.Tooltip]:
    """What is shown where a person points at a mark."""
    titles = {"low": "95 % from", "high": "to", "diverged_runs": "diverged"}
    numbers = {"mean", "low", "high", "value"}
    return [
        alt.Tooltip(f"{field}:Q", title=titles.get(field, field), format=".4~g")
        if field in numbers
        else alt.Tooltip(f"{field}:N", title=titles.get(field, field))
        for field in fields
    ]


def describe_run_count(counts: Sequence[int]) -> str:
    """How many runs the means are of.

    >>> describe_run_count([3, 2])
    '2 to 3 runs'
    """
    low = min(counts)
    high = max(counts)
    return f"{low} to {high} runs" if low < high else f"{high} runs"
