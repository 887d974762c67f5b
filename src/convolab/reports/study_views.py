"""How a study, its plan and each part of its result show themselves in Python."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from convolab.core.display import Row
from convolab.core.errors import require
from convolab.core.escape import html_text
from convolab.core.files import csv_text
from convolab.core.outputs import CONFUSION_MATRIX, own_kind, write_json_output, write_output
from convolab.core.text import NO_VALUE, format_percent
from convolab.plots.figure import ChartFigure
from convolab.plots.studies import contrast_chart
from convolab.plots.study_finals import final_values_chart
from convolab.plots.training import confusion_matrix_chart, trials_chart
from convolab.reports.result_view import ResultView, figure_html, paragraph, rows_to_html
from convolab.reports.studies import report_kind, write_study_report
from convolab.reports.study_cards import format_overrides, section_card
from convolab.studies import tables
from convolab.studies.results import Arm, BestOnTest, ContrastResult, SectionResult, StudyResult
from convolab.studies.serialize import study_result_to_dict
from convolab.studies.study import Study

NOTHING_TO_DRAW = "no run is finished yet: there is nothing to draw"


class StudyPlanView(ResultView):
    """A study before it is run: its sections' arms, and what each changes in the base recipe."""

    kind = "study"

    def __init__(self, study: Study) -> None:
        self.study = study
        self.kind = own_kind(self.kind, study.name)

    def rows(self) -> Sequence[Row]:
        return [
            {
                "section": name,
                "arm": arm,
                "overrides": format_overrides({**section.overrides, **overrides}) or NO_VALUE,
                "seeds": self.study.seeds_text(name),
            }
            for name, section in self.study.sections.items()
            for arm, overrides in section.arm_overrides.items()
        ]

    def html(self) -> str:
        return paragraph(repr(self.study)) + rows_to_html(self.rows())

    def writers(self) -> Mapping[str, Callable[[Path], object]]:
        return {
            ".toml": lambda path: write_output(path, self.kind, self.study.to_toml()),
            ".csv": lambda path: write_output(path, self.kind, csv_text(self.rows())),
        }


class StudyView(ResultView):
    """A study: what each section came to, with its figure; `save("report.html")` writes the whole report.

    Its rows are its contrasts; of a study without any, such as a grid, its arms.
    """

    def __init__(self, result: StudyResult) -> None:
        self.result = result
        self.kind = report_kind(result)

    def rows(self) -> Sequence[Row]:
        sections = self.result.sections
        table = tables.contrasts_table if any(section.contrast_results for section in sections) else tables.arms_table
        return [{"section": section.name, **row} for section in sections for row in table(section)]

    def section_figures(self) -> Iterable[tuple[str, ChartFigure]]:
        for section in self.result.sections:
            figure = section_figure(section, self.kind)
            if figure is not None:
                yield section.name, figure

    def figure(self) -> ChartFigure:
        figures = [figure for _, figure in self.section_figures()]
        require(figures, NOTHING_TO_DRAW)
        return figures[0]

    def html(self) -> str:
        figures = dict(self.section_figures())
        parts = []
        for section in self.result.sections:
            parts += [f"<h4>{html_text(section.section.title or section.name)}</h4>"]
            parts += map(paragraph, section.comment.split("\n"))
            parts += [figure_html(figures[section.name])] if section.name in figures else []
        if self.result.best_on_test:
            parts += ["<h4>The best run on the test set</h4>", paragraph(self.result.best_on_test.comment)]
        return "".join([*parts, *map(paragraph, self.result.notes)])

    def writers(self) -> Mapping[str, Callable[[Path], object]]:
        return {
            ".html": lambda path: write_study_report(self.result, path),
            ".json": lambda path: write_json_output(path, self.kind, study_result_to_dict(self.result)),
            ".csv": lambda path: write_output(path, self.kind, csv_text(self.rows())),
        }


class SectionView(ResultView):
    """A section: its comment, its figure, its arms and what its contrasts say. Its rows are its arms."""

    def __init__(self, section: SectionResult) -> None:
        self.section = section
        self.kind = own_kind("section", section.name)

    def rows(self) -> Sequence[Row]:
        return tables.arms_table(self.section)

    def figure(self) -> ChartFigure:
        figure = section_figure(self.section, self.kind)
        require(figure, NOTHING_TO_DRAW)
        assert figure is not None
        return figure

    def html(self) -> str:
        figure, card = section_figure(self.section, self.kind), section_card(self.section)
        arms = [
            {"arm": arm.name, "runs": arm.runs}
            | {
                name: " / ".join((cell.text, *cell.small_lines))
                for name, cell in zip(card.metrics, arm.cells, strict=True)
            }
            for arm in card.arms
        ]
        parts = [f"<h4>{html_text(card.title)}</h4>", *map(paragraph, self.section.comment.split("\n"))]
        parts += [figure_html(figure)] if figure is not None else []
        return "".join([*parts, rows_to_html(arms), *(paragraph(c.comment) for c in self.section.contrast_results)])


class ContrastView(ResultView):
    """A contrast: its two sides seed by seed, and what that supports. Its row is its result."""

    def __init__(self, contrast: ContrastResult) -> None:
        self.contrast = contrast
        self.kind = own_kind("contrast", f"{contrast.contrast.arm} and {contrast.contrast.baseline}")

    def rows(self) -> Sequence[Row]:
        return [tables.contrast_values(self.contrast)]

    def figure(self) -> ChartFigure:
        require(self.contrast.arm_values, f"there is nothing to draw: {self.contrast.reason}")
        return ChartFigure(contrast_chart(self.contrast), self.kind)

    def html(self) -> str:
        return paragraph(self.contrast.comment) + (figure_html(self.figure()) if self.contrast.arm_values else "")


class ArmView(ResultView):
    """An arm: the curves of its runs. Its rows are its runs."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self.kind = own_kind("arm", arm.name)

    def rows(self) -> Sequence[Row]:
        rows: list[Row] = []
        for result in self.arm.results:
            last = dict(result.history[-1].to_record()) if result.history else {}
            last.pop("epoch", None)
            rows.append({"seed": result.trial.seed, "status": result.status, "epochs": len(result.history), **last})
        return rows

    def figure(self) -> ChartFigure:
        points = [
            {"trial": f"seed {result.trial.seed}", "epoch": epoch.epoch, "accuracy": 100 * accuracy}
            for result in self.arm.results
            for epoch in result.history
            if (
                accuracy := epoch.validation_accuracy if epoch.validation_accuracy is not None else epoch.train_accuracy
            )
            is not None
        ]
        require(points, NOTHING_TO_DRAW)
        is_validation = any(e.validation_accuracy is not None for r in self.arm.results for e in r.history)
        title = f"{'validation' if is_validation else 'training'} accuracy of {self.arm.name}"
        return ChartFigure(trials_chart(points, title, "a line for each seed"), self.kind)

    def html(self) -> str:
        has_epochs = any(result.history for result in self.arm.results)
        return (
            paragraph(repr(self.arm)) + (figure_html(self.figure()) if has_epochs else "") + rows_to_html(self.rows())
        )


class BestOnTestView(ResultView):
    """The tested run: its confusion matrix. Its rows are the classes."""

    kind = CONFUSION_MATRIX

    def __init__(self, best: BestOnTest) -> None:
        self.best = best

    def rows(self) -> Sequence[Row]:
        return tables.per_class_table(self.best)

    def figure(self) -> ChartFigure:
        test = self.best.test_result
        recipe = self.best.trial_result.trial.recipe
        title = f"{recipe.model.name} on the test images of {recipe.data.name}: {format_percent(test.accuracy)}"
        return ChartFigure(confusion_matrix_chart(test.confusion, test.classes, title), self.kind)

    def html(self) -> str:
        return paragraph(self.best.comment) + figure_html(self.figure())


def section_figure(section: SectionResult, kind: str) -> ChartFigure | None:
    """The final values of a section's arms in its first metric; None where no run is finished."""
    figure = final_values_chart(section, tables.table_metrics(section)[:1])
    return None if figure is None else ChartFigure(figure.to_chart(), kind)
