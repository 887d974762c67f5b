"""Numbers in a notebook, and where they stand a second time: in the runs' evidence, in a chart, in an interval."""

import math
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from convolab.core.stats import wilson_interval
from convolab.core.text import truncate_list
from convolab.handin.check import NUMBER, printed_digits, printed_value
from convolab.handin.homework import Homework, NotebookInfo, Value
from convolab.handin.notebook_file import MAX_OUTPUT_LINE, TAG, HandedInCell, one_line, unescape_html
from convolab.handin.verify.evidence import RunEvidence
from convolab.handin.verify.signs import Sign, as_note
from convolab.training.history import EpochMetrics

# Texts of strangers are searched with these, so none may read a line again and again: what a label has is looked for ahead.
LABELED = re.compile(
    rf"(?m)^(?=[^=\n]*\b(?:accuracy|loss)\b)(?P<label>[^=\n]*) = (?P<number>{NUMBER})(?P<percent> ?%)?"
)
SHOWN_ACCURACY = re.compile(r"\baccuracy (?P<number>\d+(?:\.\d+)?) ?%")
NAMED_LIST = re.compile(rf"(?m)^(?P<label>[\w' ]+) \[(?P<numbers>{NUMBER}(?:, {NUMBER})*)\]$")
INTERVAL = re.compile(rf"95 ?% interval ({NUMBER}) to ({NUMBER})")
MARK_LABEL = re.compile(r'aria-label="([^"]*)"')
CHART_TEXT = re.compile(r"<text[^<>]*>([^<]*)<")
TITLE_ARGUMENT = re.compile(r'\btitle="([^"{}]+)"')
SHOWN_NUMBER = re.compile(rf"(?<![\w.])({NUMBER})( ?%)?")
LIVE_LINE = re.compile(
    rf"epoch (\d{{1,9}})/\d{{1,9}} +training loss ({NUMBER}), accuracy ({NUMBER}) ?%"
    rf"(?: +validation loss ({NUMBER}), accuracy ({NUMBER}) ?%)?"
)
LAST_DIGIT = 1.01 / 2  # of the last digit that is shown
MAX_POINTS = 100_000  # of a notebook's charts
MAX_NUMBERS = 20_000  # of a notebook's texts that are compared
MAX_CLAIMS = 200  # of one cell
MAX_LIVE_LINES = 2_000  # of a notebook
VALIDATION_CURVE = "validation accuracy (%)"  # as `plot_curves` calls it
CHART_ROUNDING = 1e-6  # between two charts of one value
CHART_DIGITS = 1e-9  # charts and texts write numbers with 12 digits or more


@dataclass(frozen=True)
class ChartPoint:
    """A mark of a chart in SVG, as it describes itself."""

    quantity: str  # such as validation accuracy (%)
    series: str
    x: float | None
    value: float


def number_signs(
    homework: Homework, info: NotebookInfo, cells: Sequence[HandedInCell], runs: Sequence[RunEvidence]
) -> Iterator[Sign]:
    """Numbers of a notebook that neither the evidence nor the notebook's own charts have."""
    named = {cell.name: cell for cell in reversed(cells)}
    points: dict[str, list[ChartPoint]] = {}
    left = MAX_POINTS
    for cell in cells:
        points[cell.name] = chart_points(cell)[:left]
        left -= len(points[cell.name])
    accuracies = ascending(accuracy for run in runs for accuracy in run.accuracies)
    for item in homework.items_of(info.name):
        for value in item.values:
            cell = named.get(value.cell)
            if cell is not None and value.support:
                yield from value_signs(f"{info.name}, {value.cell}", value, cell, points[value.cell])
        for printed in item.evidence:
            cell = named.get(printed.cell)
            for text in labeled_numbers(cell.text, printed.label) if cell else ():
                if not has_number(text, accuracies):
                    what = f"{printed.label} {text}: no run in evidence/ has this accuracy"
                    yield Sign(f"{info.name}, {printed.cell}", what)
    yield from live_line_signs(info.name, cells, runs)
    for cell in cells:
        yield from chart_title_signs(f"{info.name}, {cell.name}", cell)
    texts = NotebookNumbers(cells)
    if info.charts_repeat:
        yield from chart_end_signs(info.name, points, texts)
    yield from unsupported_notes(homework, info, cells, points, texts, accuracies)


def value_signs(place: str, value: Value, cell: HandedInCell, points: Sequence[ChartPoint]) -> Iterator[Sign]:
    """A number of the homework that is not where it must stand a second time."""
    number = printed_value(cell.text, value.label)
    if number is None:
        return
    digits = printed_digits(cell.text, value.label)
    if value.support == "chart" and points and not has_number(digits, ascending(ends_of(points))):
        yield Sign(place, f"{value.label} = {number:g}: the chart of the cell does not have it")
    if value.support == "interval":
        found = INTERVAL.search(cell.text)
        if found is None or not is_interval_of(number, float(found[1]), float(found[2])):
            yield Sign(place, f"{value.label}: the printed 95 % interval does not fit {number:g}")


def labeled_numbers(text: str, label: str) -> list[str]:
    """The numbers that a text gives a label: one after `=`, or a list in brackets."""
    lists = [found["numbers"].split(", ") for found in NAMED_LIST.finditer(text) if found["label"] == label]
    single = printed_digits(text, label)
    return [number for numbers in lists for number in numbers] + ([single] if single else [])


def ascending(values: Iterable[float]) -> list[float]:
    """Numbers in order, so that one of them is found at once, however many a hand-in has; without NaN, which has no place."""
    return sorted(value for value in values if not math.isnan(value))


def count_near(ordered: Sequence[float], value: float, slack: float) -> int:
    """How many of some numbers in ascending order are no further from a value than the slack."""
    return bisect_right(ordered, value + slack) - bisect_left(ordered, value - slack)


def last_digit_slack(text: str) -> float:
    """How far a value may be from a number that is shown for it."""
    return max(LAST_DIGIT * 10.0 ** -len(text.partition(".")[2].lower().partition("e")[0]), CHART_DIGITS)


def has_number(text: str, ordered: Sequence[float], factor: int = 1) -> bool:
    """Whether one of some values in ascending order, times a factor, is a number as it is shown, within its last digit."""
    return count_near(ordered, float(text) / factor, last_digit_slack(text) / factor) > 0


def is_interval_of(accuracy: float, low: float, high: float) -> bool:
    """Whether a 95 % interval of Wilson is one of this accuracy, for some number of images.

    >>> is_interval_of(0.5884, 0.5787, 0.5980), is_interval_of(0.6884, 0.5787, 0.5980)
    (True, False)
    """
    if not 0 <= low <= accuracy <= high <= 1 or low == high:
        return False
    below, above = 1, 10_000_000  # the width falls with the number of images
    while below < above:
        middle = (below + above) // 2
        start, end = wilson_interval(round(accuracy * middle), middle)
        below, above = (middle + 1, above) if end - start > high - low else (below, middle)
    start, end = wilson_interval(round(accuracy * below), below)
    slack = 2e-3 + 1 / below  # the digits that are not shown, and the whole number of hits
    return abs(start - low) <= slack and abs(end - high) <= slack


def live_line_signs(notebook: str, cells: Sequence[HandedInCell], runs: Sequence[RunEvidence]) -> Iterator[Sign]:
    """What `convolab.train` showed while it trained, against the metrics of the runs."""
    epochs: dict[int, list[EpochMetrics]] = defaultdict(list)
    for run in runs:
        for epoch in run.history:
            epochs[epoch.epoch].append(epoch)
    lines = ((cell.name, found) for cell in cells for found in LIVE_LINE.finditer(TAG.sub("", cell.html)))
    for name, found in islice(lines, MAX_LIVE_LINES):
        shown = [text for text in found.groups()[1:] if text is not None]
        if not any(all(map(has_number, shown, live_values(epoch))) for epoch in epochs.get(int(found[1]), ())):
            yield Sign(
                f"{notebook}, {name}", f"it shows `{one_line(found[0])}`, and no run in evidence/ has such an epoch"
            )


def live_values(epoch: EpochMetrics) -> list[list[float]]:
    """Losses, and accuracies in percent, each as a list of one, or of none where it is missing."""
    values = (epoch.train_loss, epoch.train_accuracy, epoch.validation_loss, epoch.validation_accuracy)
    factors = (1, 100, 1, 100)
    return [[] if value is None else [factor * value] for value, factor in zip(values, factors, strict=True)]


def chart_points(cell: HandedInCell) -> list[ChartPoint]:
    """The marks of a cell's charts: what they say of themselves to a screen reader."""
    points: list[ChartPoint] = []
    for kind, payload in cell.figures:
        if kind != "image/svg+xml":
            continue
        for label in dict.fromkeys(found[1] for found in MARK_LABEL.finditer(payload)):
            parts = [part.partition(": ") for part in unescape_html(label[:MAX_OUTPUT_LINE]).split("; ")]
            fields = {name: text for name, _, text in parts}
            x = as_number(fields.pop("epoch", ""))
            series = fields.pop("training", "") or fields.pop("name", "")
            numbers = {name: number for name, text in fields.items() if (number := as_number(text)) is not None}
            points += [ChartPoint(name, series, x, number) for name, number in numbers.items()]
            if len(points) >= MAX_POINTS:
                return points[:MAX_POINTS]
    return points


def as_number(text: str) -> float | None:
    """A number, if a text is one; charts write the minus sign of typography."""
    try:
        number = float(text.replace("\u2212", "-"))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def ends_of(points: Sequence[ChartPoint]) -> list[float]:
    """The values at the end of each curve, and all bars; those in percent as fractions."""
    last: dict[tuple[str, str], ChartPoint] = {}
    bars = []
    for point in points:
        if point.x is None:
            bars.append(point)
        elif (point.quantity, point.series) not in last or point.x >= (last[point.quantity, point.series].x or 0):
            last[point.quantity, point.series] = point
    return [point.value / (100 if "%" in point.quantity else 1) for point in (*last.values(), *bars)]


def chart_title_signs(place: str, cell: HandedInCell) -> Iterator[Sign]:
    """A chart without the title that its cell gives it."""
    titles = TITLE_ARGUMENT.findall(cell.source) if "plot_curves(" in cell.source or "plot_bars(" in cell.source else []
    charts = [payload for kind, payload in cell.figures if kind == "image/svg+xml"]
    if len(titles) != 1 or len(charts) != 1:
        return
    texts = unescape_html(" ".join(CHART_TEXT.findall(charts[0])))
    if "".join(titles[0].split()) not in "".join(texts.split()):
        yield Sign(place, f"its chart does not have the title '{one_line(titles[0])}' that the code gives it")


class ShownNumbers:
    """Numbers as texts show them, to find those that a fraction may be shown as: with three digits or more, or in percent."""

    def __init__(self, numbers: Iterable[tuple[str, bool]]) -> None:
        self.by_slack: dict[tuple[float, int], list[float]] = defaultdict(list)  # in order, by slack and factor
        for text, is_percent in numbers:
            if len(text.replace(".", "").lstrip("-0")) >= 3 or (is_percent and "." in text):
                self.by_slack[last_digit_slack(text), 100 if is_percent else 1].append(float(text))
        for ordered in self.by_slack.values():
            ordered.sort()

    def count(self, value: float) -> int:
        """How many of them a fraction may be shown as."""
        return sum(count_near(ordered, factor * value, slack) for (slack, factor), ordered in self.by_slack.items())


class NotebookNumbers:
    """The numbers that the cells of a notebook print."""

    def __init__(self, cells: Sequence[HandedInCell]) -> None:
        by_cell: dict[str, list[tuple[str, bool]]] = defaultdict(list)  # the number, and whether it is in percent
        found = ((cell.name, number) for cell in cells for number in SHOWN_NUMBER.finditer(cell.text))
        for name, number in islice(found, MAX_NUMBERS):
            by_cell[name].append((number[1], bool(number[2])))
        self.of_all = ShownNumbers(number for numbers in by_cell.values() for number in numbers)
        self.of_cells = {name: ShownNumbers(numbers) for name, numbers in by_cell.items()}

    def has_elsewhere(self, value: float, cell: str) -> bool:
        """Whether another cell than this one shows a fraction."""
        own = self.of_cells[cell].count(value) if cell in self.of_cells else 0
        return self.of_all.count(value) > own


def chart_end_signs(
    notebook: str, points: Mapping[str, Sequence[ChartPoint]], texts: NotebookNumbers
) -> Iterator[Sign]:
    """Accuracies at the end of validation curves that stand nowhere else in the notebook."""
    ends = {name: ascending(ends_of(found)) for name, found in points.items()}
    all_ends = ascending(value for values in ends.values() for value in values)
    for name, found in points.items():
        curves = [point for point in found if point.x is not None and point.quantity == VALIDATION_CURVE]
        missing = [
            value
            for value in ends_of(curves)
            if count_near(all_ends, value, CHART_ROUNDING) == count_near(ends[name], value, CHART_ROUNDING)
            and not texts.has_elsewhere(value, name)
        ]
        if missing:
            shown = truncate_list([f"{100 * value:.2f} %" for value in missing])
            yield Sign(f"{notebook}, {name}", f"its chart ends at {shown}, which no other cell of the notebook has")


def unsupported_notes(
    homework: Homework,
    info: NotebookInfo,
    cells: Sequence[HandedInCell],
    points: Mapping[str, Sequence[ChartPoint]],
    texts: NotebookNumbers,
    accuracies: Sequence[float],
) -> Iterator[Sign]:
    """Printed accuracies and losses that stand nowhere a second time: only an execution can show them."""
    items = homework.items_of(info.name)
    supported = {(value.cell, value.label) for item in items for value in item.values if value.support}
    supported |= {(printed.cell, printed.label) for item in items for printed in item.evidence}
    checks = {name for item in items for name in item.checks}
    everywhere = ascending([*accuracies, *(value for found in points.values() for value in ends_of(found))])
    for cell in cells:
        if cell.type != "code" or cell.name in checks:
            continue
        labeled = (
            (found, 100 if found["percent"] else 1, found["label"].strip()) for found in LABELED.finditer(cell.text)
        )
        accuracies_shown = ((found, 100, "") for found in SHOWN_ACCURACY.finditer(cell.text))
        for found, factor, label in islice(chain(labeled, accuracies_shown), MAX_CLAIMS):
            number = float(found["number"])
            is_known = (cell.name, label) in supported or number in (0.0, 1.0, 100.0)
            is_elsewhere = "accuracy" in cell.text and texts.has_elsewhere(number / factor, cell.name)
            if not (is_known or is_elsewhere or has_number(found["number"], everywhere, factor)):
                yield as_note(f"{info.name}, {cell.name}", f"`{one_line(found[0])}` stands nowhere a second time")
