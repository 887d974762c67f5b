"""How a result shows itself: drawn in a notebook, as a figure, as rows of a table, as a file.

Layers import downwards only, and what draws a result lies above it. `VIEWS` names, for each kind of result, the class
that shows it, and `TRAINING_VIEW` what shows a training while it runs; they are imported when one is first shown. Nothing
else in the package looks upwards.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from convolab.core.calls import NearestNames
from convolab.core.errors import LabError

Row = dict[str, Any]
MimeBundle = dict[str, Any]

VIEWS = {
    "AnswerSheet": "convolab.reports.views:AnswerSheetView",
    "Arm": "convolab.reports.study_views:ArmView",
    "BestOnTest": "convolab.reports.study_views:BestOnTestView",
    "ContrastResult": "convolab.reports.study_views:ContrastView",
    "DatasetSplits": "convolab.reports.views:SplitsView",
    "Evaluation": "convolab.reports.views:EvaluationView",
    "EvaluationRecord": "convolab.reports.views:EvaluationView",
    "Finding": "convolab.reports.views:FindingView",
    "History": "convolab.reports.views:HistoryView",
    "ImageDataset": "convolab.reports.views:DatasetView",
    "Mistakes": "convolab.reports.views:MistakesView",
    "ModelSummary": "convolab.reports.views:SummaryView",
    "Playback": "convolab.reports.playback:PlaybackView",
    "QuestionAnswer": "convolab.reports.views:AnswerView",
    "Recipe": "convolab.reports.views:RecipeView",
    "Run": "convolab.reports.views:RunView",
    "SectionResult": "convolab.reports.study_views:SectionView",
    "Study": "convolab.reports.study_views:StudyPlanView",
    "StudyPower": "convolab.reports.power:PowerView",
    "StudyResult": "convolab.reports.study_views:StudyView",
    "Subset": "convolab.reports.views:DatasetView",
}
TRAINING_VIEW = "convolab.reports.live:live_training"


@runtime_checkable
class DrawnFigure(Protocol):
    """A figure that draws itself in a notebook and can be saved."""

    def save(self, path: Path | str) -> Path: ...

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> MimeBundle: ...


@runtime_checkable
class View(Protocol):
    """What `Displayable` needs to know of one result."""

    def html(self) -> str: ...

    def figure(self) -> DrawnFigure: ...

    def rows(self) -> Sequence[Row]: ...

    def save(self, path: Path) -> Path: ...


def view_of(result: object) -> View:
    """The view of a result."""
    place = next(VIEWS[kind.__name__] for kind in type(result).__mro__ if kind.__name__ in VIEWS)
    module, _, name = place.partition(":")
    return cast("View", getattr(import_module(module), name)(result))


def show_training(epochs: int, history: Sequence[object] | None) -> AbstractContextManager[Any]:
    """The callbacks of a training that a person watches; `history` are the epochs that were done before."""
    module, _, name = TRAINING_VIEW.partition(":")
    return getattr(import_module(module), name)(epochs, history)


class Displayable(NearestNames):
    """A result that draws itself in a notebook."""

    def plot(self) -> DrawnFigure:
        """Its figure, which a notebook draws; `.save(path)` writes it."""
        return view_of(self).figure()

    def save(self, path: Path | str) -> Path:
        """Write it in the format of the path's ending, and return the path; an unknown ending is a LabError."""
        return view_of(self).save(Path(path))

    def rows(self) -> list[Row]:
        """Its numbers as rows of a table, each a dict from column to value."""
        return list(view_of(self).rows())

    def to_frame(self) -> Any:  # noqa: ANN401 (a frame of whichever library is installed)
        """Its rows as a data frame of pandas, or of polars where pandas is not installed.

        Raises LabError if neither is.
        """
        for library in ("pandas", "polars"):
            if find_spec(library):
                return import_module(library).DataFrame(self.rows())
        raise LabError("a data frame needs pandas or polars: pip install pandas")

    def _repr_html_(self) -> str:
        return view_of(self).html()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Mapping[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}
