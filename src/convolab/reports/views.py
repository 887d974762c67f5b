"""How each kind of result shows itself in Python: as HTML for a notebook, as a figure, as rows, as a file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from convolab.analysis.summary import ModelSummary
from convolab.core.display import Row
from convolab.core.errors import require
from convolab.core.escape import html_text
from convolab.core.files import csv_text
from convolab.core.outputs import (
    CONFUSION_MATRIX,
    CONTACT_SHEET,
    MISTAKES,
    NETWORK_SUMMARY,
    QUESTION_1,
    TRAINING_CURVES,
    own_kind,
    write_json_output,
    write_output,
)
from convolab.data.dataset import ImageDataset, Subset
from convolab.data.png import png_url
from convolab.data.splits import DatasetSplits
from convolab.inspection.result import Finding
from convolab.plots.figure import ChartFigure, ImageFigure
from convolab.plots.images import contact_sheet
from convolab.plots.panels import render_finding
from convolab.plots.summary import layer_costs_chart
from convolab.plots.theory import render_sheet_figure
from convolab.plots.training import confusion_matrix_chart, curves_title, training_curves_chart
from convolab.reports.mistakes import mistakes_csv, mistakes_page, mistakes_rows
from convolab.reports.result_view import (
    MAX_ROWS,
    WARNING_STYLE,
    ResultView,
    details,
    figure_html,
    paragraph,
    rows_to_html,
    scalar_entries,
)
from convolab.reports.summary import LAYER_HEADINGS, layer_table, layers_csv, summary_foot
from convolab.reports.theory import block_html, inline_html, render_sheet_figures, write_sheet
from convolab.theory.sheet import AnswerSheet, QuestionAnswer, SheetFigure
from convolab.training.class_scores import class_scores
from convolab.training.evaluation import Evaluation
from convolab.training.history import History
from convolab.training.predictions import Mistakes
from convolab.training.recipe import Recipe, flat_recipe
from convolab.training.run import Run
from convolab.training.run_records import EvaluationRecord

IMAGE_ENDINGS = (".png", ".jpg", ".pdf")
MAX_SHEET_CLASSES = 20  # of a sheet of images


class HistoryView(ResultView):
    """The epochs of a training."""

    kind = TRAINING_CURVES

    def __init__(self, history: History, title: str = "training") -> None:
        self.history = history
        self.title = title

    def rows(self) -> Sequence[Row]:
        return [dict(epoch.to_record()) for epoch in self.history]

    def figure(self) -> ChartFigure:
        require(self.history, "no epoch is done yet: there is nothing to draw")
        return ChartFigure(training_curves_chart(self.history, self.title), self.kind)

    def html(self) -> str:
        if not self.history:
            return "<p>no epoch is done yet</p>"
        return figure_html(self.figure()) + paragraph(repr(self.history))


class RunView(HistoryView):
    """A run: its state, curves and recipe."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.history, curves_title(run.recipe))
        self.run = run
        self.kind = own_kind(TRAINING_CURVES, run.summary["recipe_key"])

    def html(self) -> str:
        curves = figure_html(self.figure()) if self.history else ""
        return curves + paragraph(repr(self.run)) + details("recipe", self.run.recipe.to_toml())


class EvaluationView(ResultView):
    """Loss, accuracy and confusion matrix of a network on a dataset."""

    kind = CONFUSION_MATRIX

    def __init__(self, evaluation: Evaluation | EvaluationRecord) -> None:
        self.evaluation = evaluation
        self.confusion = torch.as_tensor(evaluation.confusion)

    def rows(self) -> Sequence[Row]:
        totals, correct = self.confusion.sum(1), self.confusion.diagonal()
        scores = class_scores(self.confusion.tolist(), self.evaluation.classes)
        return [
            {
                "class": name,
                "images": int(total),
                "correct": int(right),
                "accuracy": scores[name].recall,
                "precision": scores[name].precision,
                "recall": scores[name].recall,
                "f1": scores[name].f1,
            }
            for name, total, right in zip(self.evaluation.classes, totals, correct, strict=True)
        ]

    def figure(self) -> ChartFigure:
        chart = confusion_matrix_chart(self.confusion.tolist(), self.evaluation.classes, "confusion matrix")
        return ChartFigure(chart, self.kind)

    def html(self) -> str:
        return paragraph(repr(self.evaluation)) + figure_html(self.figure())


class MistakesView(ResultView):
    """The images that a network gets wrong."""

    kind = MISTAKES

    def __init__(self, mistakes: Mistakes) -> None:
        self.mistakes = mistakes

    def rows(self) -> Sequence[Row]:
        return mistakes_rows(self.mistakes)

    def html(self) -> str:
        cards = "".join(
            f'<figure style="display:inline-block;width:9em;margin:0.5em;vertical-align:top">'
            f'<img alt="{html_text(mistake.name)}" style="width:100%;image-rendering:pixelated" '
            f'src="{png_url(mistake.image)}"><figcaption>{html_text(mistake.predicted)} '
            f"{100 * mistake.probability:.1f} %, is {html_text(mistake.true)}</figcaption></figure>"
            for mistake in self.mistakes.entries[:MAX_ROWS]
        )
        return paragraph(repr(self.mistakes)) + cards

    def writers(self) -> Mapping[str, Callable[[Path], object]]:
        title = f"Mistakes on {self.mistakes.dataset}"
        return {
            ".html": lambda path: write_output(path, self.kind, mistakes_page(self.mistakes, title)),
            ".csv": lambda path: write_output(path, self.kind, mistakes_csv(self.mistakes)),
        }


class DatasetView(ResultView):
    """A sheet of images."""

    kind = CONTACT_SHEET
    figure_endings = IMAGE_ENDINGS

    def __init__(self, dataset: ImageDataset | Subset) -> None:
        self.dataset = dataset

    def rows(self) -> Sequence[Row]:
        counts = self.dataset.labels.bincount(minlength=len(self.dataset.classes)).tolist()
        return [{"class": name, "images": count} for name, count in zip(self.dataset.classes, counts, strict=True)]

    def figure(self) -> ImageFigure:
        return ImageFigure(
            contact_sheet(self.dataset, max_classes=MAX_SHEET_CLASSES),
            f"images of {self.dataset.name}, a row for each class",
            self.kind,
        )

    def html(self) -> str:
        return figure_html(self.figure())


class FindingView(ResultView):
    """What explain, fool, locate or receptive_field found: the sentences, then the figure."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        self.kind = finding.tool

    def rows(self) -> Sequence[Row]:
        """A row per method of explain, per image and target of fool, per box of locate, per kind of receptive field."""
        metrics = self.finding.metrics
        match self.finding.tool:
            case "explain":
                return [{"method": name, **scalar_entries(values)} for name, values in metrics["methods"].items()]
            case "fool":
                return [
                    {
                        **scalar_entries(image),
                        "target": image["target"]["class"],
                        "class_before": image["before"]["class"],
                        "class_after": image["after"]["class"],
                        "target_probability": image["after"]["target_probability"],
                    }
                    for image in metrics["images"]
                ]
            case "receptive_field":
                kinds = {kind: metrics[kind] for kind in ("theoretical", "effective") if metrics[kind]}
                return [{"kind": kind, "box": patch["box"], **patch["top"][0]} for kind, patch in kinds.items()]
            case _:
                return [
                    {"class": name, **detection}
                    for name, found in metrics["classes"].items()
                    for detection in found["detections"]
                ]

    def figure(self) -> ImageFigure:
        return ImageFigure(render_finding(self.finding), self.finding.heading, self.kind)

    def html(self) -> str:
        warnings = "".join(f'<p style="{WARNING_STYLE}">{html_text(text)}</p>' for text in self.finding.warnings)
        return figure_html(self.figure()) + "".join(map(paragraph, self.finding.summary)) + warnings

    def writers(self) -> Mapping[str, Callable[[Path], object]]:
        return {
            ".png": lambda path: self.figure().save(path),
            ".npz": self.finding.save_arrays,
            ".json": lambda path: write_json_output(path, self.finding.tool, self.finding.to_dict()),
        }


class RecipeView(ResultView):
    """A recipe as its file has it."""

    kind = "recipe"

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def rows(self) -> Sequence[Row]:
        return [{"key": key, "value": value} for key, value in flat_recipe(self.recipe).items()]

    def html(self) -> str:
        return rows_to_html([{"key": row["key"], "value": repr(row["value"])} for row in self.rows()])

    def writers(self) -> Mapping[str, Callable[[Path], object]]:
        return {".toml": lambda path: write_output(path, self.kind, self.recipe.to_toml())}


class SummaryView(ResultView):
    """What a network costs, layer by layer."""

    kind = NETWORK_SUMMARY

    def __init__(self, summary: ModelSummary) -> None:
        self.summary = summary

    def rows(self) -> Sequence[Row]:
        return [layer.to_dict() for layer in self.summary.layers]

    def figure(self) -> ChartFigure:
        return ChartFigure(layer_costs_chart(self.summary), self.kind)

    def html(self) -> str:
        rows = [dict(zip(LAYER_HEADINGS, row, strict=True)) for row in layer_table(self.summary)]
        return rows_to_html(rows) + "".join(map(paragraph, summary_foot(self.summary)))

    def writers(self) -> Mapping[str, Callable[[Path], object]]:
        return {
            **super().writers(),
            ".csv": lambda path: write_output(path, self.kind, layers_csv([self.summary])),
            ".json": lambda path: write_json_output(path, self.kind, self.summary.to_dict()),
        }


class SplitsView(ResultView):
    """What `load` gives: a row for each split, and a sheet of the training images."""

    kind = CONTACT_SHEET
    figure_endings = IMAGE_ENDINGS

    def __init__(self, splits: DatasetSplits) -> None:
        self.splits = splits

    def rows(self) -> Sequence[Row]:
        return [
            {"split": name, "images": len(data), "shape": "x".join(map(str, data.shape)), "classes": len(data.classes)}
            for name, data in self.splits.by_name.items()
        ]

    def figure(self) -> ImageFigure:
        return DatasetView(self.splits.train).figure()

    def html(self) -> str:
        skipped = [f"skipped (unreadable): {file}" for file in self.splits.unreadable]
        notes = "".join(map(paragraph, [*skipped[:MAX_ROWS], *self.splits.notes]))
        return rows_to_html(self.rows()) + notes + figure_html(self.figure())


class AnswerView(ResultView):
    """One part of question 1, answered and checked."""

    kind = QUESTION_1

    def __init__(self, answer: QuestionAnswer) -> None:
        self.answer = answer

    def rows(self) -> Sequence[Row]:
        return [{"claim": check.claim, "result": check.result, "passed": check.passed} for check in self.answer.checks]

    def html(self) -> str:
        figures = {
            block.name: render_sheet_figure(block) for block in self.answer.blocks if isinstance(block, SheetFigure)
        }
        blocks = [block_html(block, figures) for block in self.answer.blocks]
        return f"<h4>{html_text(self.answer.name)}</h4><p>{inline_html(self.answer.summary)}</p>{''.join(blocks)}"

    def writers(self) -> Mapping[str, Callable[[Path], object]]:
        return {".csv": lambda path: write_output(path, self.kind, csv_text(self.rows()))}


class AnswerSheetView(ResultView):
    """Question 1, answered and checked."""

    kind = QUESTION_1

    def __init__(self, sheet: AnswerSheet) -> None:
        self.sheet = sheet

    def rows(self) -> Sequence[Row]:
        return [{"part": answer.name, **row} for answer in self.sheet.answers for row in AnswerView(answer).rows()]

    def html(self) -> str:
        return "".join(AnswerView(answer).html() for answer in self.sheet.answers)

    def writers(self) -> Mapping[str, Callable[[Path], object]]:
        figures = render_sheet_figures(self.sheet)
        return {ending: lambda path: write_sheet(self.sheet, figures, path) for ending in (".pdf", ".html", ".md")}
