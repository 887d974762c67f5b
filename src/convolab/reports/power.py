"""What a study can show, as rows, as a table and as a page's part."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from convolab.core.display import Row
from convolab.core.files import csv_text
from convolab.core.outputs import STUDY_POWER, own_kind, write_json_output, write_output
from convolab.core.text import NO_VALUE
from convolab.reports.result_view import ResultView, paragraph, rows_to_html
from convolab.studies.formatting import difference_unit, display_scale
from convolab.studies.power import ContrastPower, Spread, StudyPower

IN_SPREADS = "spreads"  # the unit of differences whose spread is not known
DROP_ORDER = ("20 seeds", "3 seeds", "12 seeds", "mean seeds", "to match", "metric", "8 seeds", "spread")
EXPLANATION = (
    'N seeds: the smallest difference that N fixed seeds show with the wanted power; until decided: that of seeds "until '
    'decided", and how many it takes on average.',
    "To differ, to match: fixed seeds that show a difference of the margin's size, or equivalence if there is none "
    "(at the 90 % upper bound of the spread).",
    "Each contrast is tested at 5 % divided by the number of its section's contrasts, the strictest level of Holm's "
    "correction: fewer seeds may do.",
)


def power_rows(result: StudyPower) -> list[Row]:
    """A row for each contrast, differences in the unit that it names: accuracies in percentage points.

    Where a spread is not known, differences but for the margin are in spreads. A number of seeds is None where over 1,000
    would be needed, or the margin or the spread is not known.
    """
    return [power_row(contrast, result.seed_counts) for contrast in result.contrasts]


def power_row(contrast: ContrastPower, seed_counts: Sequence[int]) -> Row:
    metric, spread = contrast.contrast.parsed_metric, contrast.spread
    scale = display_scale(metric) if spread else 1
    row: Row = {
        "section": contrast.section,
        "arm": contrast.contrast.arm,
        "baseline": contrast.contrast.baseline,
        "metric": contrast.contrast.metric,
        "level": contrast.level,
        "unit": difference_unit(metric) if spread else IN_SPREADS,
        "spread": spread and scale * spread.value,
        "spread_high": spread and scale * spread.high,
        "spread_from": spread and spread.source,
        "degrees_of_freedom": spread and spread.degrees_of_freedom,
    }
    for seeds in seed_counts:
        row[f"smallest_difference_{seeds}_seeds"] = scale * contrast.smallest_difference(seeds)
    return row | {
        "smallest_difference_until_decided": scale * contrast.smallest_difference(),
        "max_seeds_until_decided": contrast.looks[-1],
        "mean_seeds_until_decided": contrast.sequential.mean_seeds,
        "margin": display_scale(metric) * contrast.margin if contrast.margin else None,
        "seeds_to_differ": spread and contrast.seeds_to_differ(spread.value),
        "seeds_to_differ_high": spread and contrast.seeds_to_differ(spread.high),
        "seeds_to_match": spread and contrast.seeds_to_match(spread.value),
        "seeds_to_match_high": spread and contrast.seeds_to_match(spread.high),
    }


def power_table(result: StudyPower) -> tuple[list[str], list[list[str]]]:
    """Headings and cells. Where no spread is known, a section's contrasts are all the same, and have one line."""
    headings = ["section", "contrast", "metric", "unit", "spread", *(f"{n} seeds" for n in result.seed_counts)]
    lines: dict[tuple[str, str, str], list[str]] = {}
    for contrast in result.contrasts:
        row = power_row(contrast, result.seed_counts)
        asked = contrast.contrast
        names = (contrast.section, asked.label, asked.metric)
        if not any(other.spread for other in result.contrasts):
            names = (contrast.section, f"each of {contrast.num_tests}", NO_VALUE)
        unit = "points" if row["unit"] == "percentage points" else row["unit"]
        smallest = [f"{row[f'smallest_difference_{n}_seeds']:.3g}" for n in result.seed_counts]
        lines[names] = [
            *names,
            unit,
            with_bound(contrast.spread, lambda value, row=row: f"{row['spread'] * value:.2g}"),
            *smallest,
            f"{row['smallest_difference_until_decided']:.3g}",
            f"{row['mean_seeds_until_decided']:.1f}",
            seeds_cell(contrast, contrast.seeds_to_differ),
            seeds_cell(contrast, contrast.seeds_to_match),
        ]
    return [*headings, "until decided", "mean seeds", "to differ", "to match"], list(lines.values())


def with_bound(spread: Spread | None, text: Callable[[float], str]) -> str:
    """A text of the spread's ratio to its estimate, 1, and in parentheses of that of its upper bound."""
    if spread is None:
        return NO_VALUE
    return text(1) + (f" ({text(spread.high / spread.value)})" if spread.degrees_of_freedom else "")


def seeds_cell(contrast: ContrastPower, seeds: Callable[[float], int | None]) -> str:
    spread = contrast.spread
    if spread is None or contrast.margin is None:
        return NO_VALUE
    return with_bound(spread, lambda ratio: str(seeds(ratio * spread.value) or "over 1,000"))


def power_to_dict(result: StudyPower) -> Row:
    """All of it, as JSON holds it."""
    own = {name: len(result.study.seeds_of(name)) for name in result.study.sections}
    return {
        "study": result.study.name,
        "power": result.contrasts[0].power,
        "contrasts": power_rows(result),
        "planned_seeds": own,
        "planned_seconds": result.duration(own),
        "notes": list(result.notes),
        "conclusion": result.conclusion,
    }


class PowerView(ResultView):
    """What a study can show: a table, and a sentence."""

    def __init__(self, result: StudyPower) -> None:
        self.result = result
        self.kind = own_kind(STUDY_POWER, result.study.name)

    def rows(self) -> Sequence[Row]:
        return power_rows(self.result)

    def html(self) -> str:
        headings, lines = power_table(self.result)
        table = rows_to_html([dict(zip(headings, line, strict=True)) for line in lines])
        return table + "".join(map(paragraph, (self.result.conclusion, *EXPLANATION, *self.result.notes)))

    def writers(self) -> Mapping[str, Callable[[Path], object]]:
        return {
            ".csv": lambda path: write_output(path, self.kind, csv_text(self.rows())),
            ".json": lambda path: write_json_output(path, self.kind, power_to_dict(self.result)),
        }
