"""Numbers in a notebook, and where they stand a second time: in the runs' evidence, in a chart, in an interval."""

import html
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from convolab.core.stats import wilson_interval
from convolab.core.text import truncate_list
from convolab.handin.check import printed_value
from convolab.handin.homework import Homework, NotebookInfo, Value
from convolab.handin.notebook_file import HandedInCell, one_line
from convolab.handin.verify.evidence import RunEvidence
from convolab.handin.verify.signs import Sign, as_note

NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
LABELED = re.compile(rf"(?m)^(?P<label>[^=\n]*\b(?:accuracy|loss)\b[^=\n]*) = (?P<number>{NUMBER})(?P<percent> ?%)?")
SHOWN_ACCURACY = re.compile(r"\baccuracy (?P<number>\d+(?:\.\d+)?) ?%")
NAMED_LIST = re.compile(rf"(?m)^(?P<label>[\w' ]+) \[(?P<numbers>{NUMBER}(?:, {NUMBER})*)\]$")
INTERVAL = re.compile(rf"95 ?% interval ({NUMBER}) to ({NUMBER})")
MARK_LABEL = re.compile(r'aria-label="([^"]*)"')
CHART_TEXT = re.compile(r"<text[^<>]*>([^<]*)<")
TITLE_ARGUMENT = re.compile(r'\btitle="([^"{}]+)"')
LIVE_LINE = re.compile(
    r"epoch (\d+)/\d+ +training loss ([\d.]+), accuracy ([\d.]+) ?%(?: +validation loss ([\d.]+), accuracy ([\d.]+) ?%)?"
)
LAST_DIGIT = 1.01 / 2  # of the last digit that is shown
MAX_POINTS = 20_000  # of one chart
MAX_NUMBERS = 20_000  # of a notebook's texts that are compared
MAX_CLAIMS = 200  # of one cell
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
    points = {cell.name: chart_points(cell) for cell in cells}
    accuracies = [accuracy for run in runs for accuracy in run.accuracies]
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
    for cell in cells:
        yield from live_line_signs(f"{info.name}, {cell.name}", cell, runs)
        yield from chart_title_signs(f"{info.name}, {cell.name}", cell)
    if info.charts_repeat:
        yield from chart_end_signs(info.name, cells, points)
    yield from unsupported_notes(homework, info, cells, points, accuracies)


def value_signs(place: str, value: Value, cell: HandedInCell, points: Sequence[ChartPoint]) -> Iterator[Sign]:
    """A number of the homework that is not where it must stand a second time."""
    number = printed_value(cell.text, value.label)
    if number is None:
        return
    if value.support == "chart" and points and not has_number(shown_digits(cell.text, value.label), ends_of(points)):
        yield Sign(place, f"{value.label} = {number:g}: the chart of the cell does not have it")
    if value.support == "interval":
        found = INTERVAL.search(cell.text)
        if found is None or not is_interval_of(number, float(found[1]), float(found[2])):
            yield Sign(place, f"{value.label}: the printed 95 % interval does not fit {number:g}")


def labeled_numbers(text: str, label: str) -> list[str]:
    """The numbers that a text gives a label: one after `=`, or a list in brackets."""
    lists = [found["numbers"].split(", ") for found in NAMED_LIST.finditer(text) if found["label"] == label]
    single = shown_digits(text, label)
    return [number for numbers in lists for number in numbers] + ([single] if single else [])


def shown_digits(text: str, label: str) -> str:
    """The last number that a text gives a label, with the digits that it shows."""
    found = re.findall(rf"(?m)^\W*{re.escape(label)} = ({NUMBER})", text)
    return found[-1] if found else ""


def has_number(text: str, values: Iterable[float]) -> bool:
    """Whether one of some values is a number as it is shown, within its last digit."""
    number, step = float(text), 10.0 ** -len(text.partition(".")[2].partition("e")[0])
    return any(abs(value - number) <= max(LAST_DIGIT * step, CHART_DIGITS) for value in values)


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


def live_line_signs(place: str, cell: HandedInCell, runs: Sequence[RunEvidence]) -> Iterator[Sign]:
    """What `convolab.train` showed while it trained, against the metrics of the runs."""
    shown = re.sub(r"<[^<>]*>", "", cell.html)
    for found in LIVE_LINE.finditer(shown):
        wanted = [text for text in found.groups()[1:] if text is not None]
        if not any(
            epoch.epoch == int(found[1])
            and all(
                map(
                    has_number,
                    wanted,
                    live_values(
                        epoch.train_loss, epoch.train_accuracy, epoch.validation_loss, epoch.validation_accuracy
                    ),
                )
            )
            for run in runs
            for epoch in run.history
        ):
            yield Sign(place, f"it shows `{one_line(found[0])}`, and no run in evidence/ has such an epoch")


def live_values(*values: float | None) -> list[list[float]]:
    """Losses, and accuracies in percent, each as a list of one, or of none where it is missing."""
    factors = (1, 100, 1, 100)
    return [[] if value is None else [factor * value] for value, factor in zip(values, factors, strict=True)]


def chart_points(cell: HandedInCell) -> list[ChartPoint]:
    """The marks of a cell's charts: what they say of themselves to a screen reader."""
    points = []
    for kind, payload in cell.figures:
        if kind != "image/svg+xml":
            continue
        for label in list(dict.fromkeys(MARK_LABEL.findall(payload)))[:MAX_POINTS]:
            parts = [part.partition(": ") for part in html.unescape(str(label)).split("; ")]
            fields = {name: text for name, _, text in parts}
            x = as_number(fields.pop("epoch", ""))
            series = fields.pop("training", "") or fields.pop("name", "")
            numbers = {name: number for name, text in fields.items() if (number := as_number(text)) is not None}
            points += [ChartPoint(name, series, x, number) for name, number in numbers.items()]
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
    texts = html.unescape(" ".join(CHART_TEXT.findall(charts[0])))
    if "".join(titles[0].split()) not in "".join(texts.split()):
        yield Sign(place, f"its chart does not have the title '{one_line(titles[0])}' that the code gives it")


def chart_end_signs(
    notebook: str, cells: Sequence[HandedInCell], points: dict[str, list[ChartPoint]]
) -> Iterator[Sign]:
    """Accuracies at the end of validation curves that stand nowhere else in the notebook."""
    ends = {name: ends_of(found) for name, found in points.items()}
    numbers = [(cell.name, number) for cell in cells for number in shown_numbers(cell.text)][:MAX_NUMBERS]
    for cell in cells:
        curves = [point for point in points[cell.name] if point.x is not None and point.quantity == VALIDATION_CURVE]
        if not curves:
            continue
        others = [value for name, values in ends.items() if name != cell.name for value in values]
        texts = [number for name, number in numbers if name != cell.name]
        missing = [
            value
            for value in ends_of(curves)
            if not any(abs(value - other) < CHART_ROUNDING for other in others) and not shown_as(value, texts)
        ]
        if missing:
            shown = truncate_list([f"{100 * value:.2f} %" for value in missing])
            yield Sign(
                f"{notebook}, {cell.name}", f"its chart ends at {shown}, which no other cell of the notebook has"
            )


def shown_numbers(text: str) -> list[tuple[str, bool]]:
    """The numbers of a text, and whether each is in percent."""
    return [(found[1], bool(found[2])) for found in re.finditer(rf"(?<![\w.])({NUMBER})( ?%)?", text)]


def shown_as(value: float, numbers: Iterable[tuple[str, bool]]) -> bool:
    """Whether a fraction is among numbers that are shown with three digits or more, as a fraction or in percent."""
    return any(
        has_number(text, [100 * value if is_percent else value])
        for text, is_percent in numbers
        if len(text.replace(".", "").lstrip("-0")) >= 3 or (is_percent and "." in text)
    )


def unsupported_notes(
    homework: Homework,
    info: NotebookInfo,
    cells: Sequence[HandedInCell],
    points: dict[str, list[ChartPoint]],
    accuracies: Sequence[float],
) -> Iterator[Sign]:
    """Printed accuracies and losses that stand nowhere a second time: only an execution can show them."""
    items = homework.items_of(info.name)
    supported = {(value.cell, value.label) for item in items for value in item.values if value.support}
    supported |= {(printed.cell, printed.label) for item in items for printed in item.evidence}
    checks = {name for item in items for name in item.checks}
    everywhere = [*accuracies, *(value for found in points.values() for value in ends_of(found))]
    numbers = [(cell.name, number) for cell in cells for number in shown_numbers(cell.text)][:MAX_NUMBERS]
    for cell in cells:
        if cell.type != "code" or cell.name in checks:
            continue
        texts = [number for name, number in numbers if name != cell.name] if "accuracy" in cell.text else []
        claims = [
            (found, 100 if found["percent"] else 1, found["label"].strip()) for found in LABELED.finditer(cell.text)
        ]
        claims += [(found, 100, "") for found in SHOWN_ACCURACY.finditer(cell.text)]
        for found, factor, label in claims[:MAX_CLAIMS]:
            number = float(found["number"])
            is_known = (cell.name, label) in supported or number in (0.0, 1.0, 100.0)
            if (
                not is_known
                and not has_number(found["number"], [factor * value for value in everywhere])
                and not (shown_as(number / factor, texts))
            ):
                yield as_note(f"{info.name}, {cell.name}", f"`{one_line(found[0])}` stands nowhere a second time")
