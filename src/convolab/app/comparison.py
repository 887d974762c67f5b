"""What runs or a study came to, as the page draws it: arms with their curves, verdicts with intervals, recipes' differences."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import convolab
from convolab.app.run_rows import thin_curve
from convolab.app.same_as import SameAs, command_line, option_words, python_call, python_literal
from convolab.core.stats import mean_interval
from convolab.core.types import Json

if TYPE_CHECKING:
    from convolab.studies.results import ContrastResult, SectionResult, StudyResult

MAX_COMPARED = 200  # runs
MAX_DIFFERENCES = 60  # keys of recipes that are listed


def result_values(result: "StudyResult") -> dict[str, Json]:
    """All that the page shows of a result."""
    runs = result.trial_results.values()
    return {
        "title": result.study.title or result.study.name,
        "num_runs": len(runs),
        "num_complete": sum(run.is_complete for run in runs),
        "sections": [section_values(section) for section in result.sections],
        "notes": list(result.notes),
    }


def section_values(section: "SectionResult") -> dict[str, Json]:
    """A section's arms, its curves, its contrasts by metric, and its comment."""
    from convolab.studies.formatting import choose_decimals, format_mean, interval_half_width
    from convolab.studies.results import mean_curve
    from convolab.studies.section import format_arm_value
    from convolab.studies.tables import finished_metric_values

    quantities = section.section.curves
    curves: dict[str, Json] = {
        quantity: [
            [[epoch, interval.mean] for epoch, interval in thin_curve(mean_curve(arm, quantity))]
            for arm in section.arms
        ]
        for quantity in quantities
    }
    means: list[Json] = []
    for arm in section.arms:
        row: dict[str, Json] = {}
        for metric in section.section.reported_metrics.values():
            if values := list(finished_metric_values(arm, metric).values()):
                interval = metric.possible(mean_interval(values))
                row[metric.title] = format_mean(
                    metric, interval, choose_decimals(metric, interval_half_width(interval))
                )
        means.append(row)
    arms: list[Json] = [
        {
            "name": arm.name,
            "finished": len(arm.finished),
            "runs": len(arm.results),
            "means": row,
            "overrides": {key: format_arm_value(value) for key, value in overrides.items()},
        }
        for arm, row, overrides in zip(
            section.arms, means, (section.section.arm_overrides.get(arm.name, {}) for arm in section.arms), strict=True
        )
    ]
    return {
        "name": section.name,
        "title": section.section.title,
        "arms": arms,
        "curves": curves,
        "contrasts": [shown_contrast(contrast) for contrast in section.contrast_results],
        "comment": section.comment,
    }


def shown_contrast(result: "ContrastResult") -> dict[str, Json]:
    """A contrast in the unit that a person reads: percentage points, nats, epochs or seconds."""
    from convolab.studies.formatting import display_scale

    metric = result.contrast.parsed_metric
    scale, paired = display_scale(metric), result.paired_test
    difference = paired.difference if paired else None
    return {
        "label": result.contrast.label,
        "metric": metric.title,
        "unit": "percentage points" if metric.unit == "%" else metric.unit,
        "higher_is_better": metric.higher_is_better,
        "mean": difference and scale * difference.mean,
        "low": difference and scale * difference.low,
        "high": difference and scale * difference.high,
        "margin": None if result.margin is None else scale * result.margin,
        "seeds": len(result.seeds),
        "verdict": result.verdict,
        "reason": result.reason,
        "comment": result.comment,
    }


def same_as_compare(folders: Sequence[Path], out: str = "comparison.html") -> SameAs:
    """The same comparison as a command and as Python."""
    words = option_words("compare", *map(str, folders), options={"out": out})
    call = python_call("convolab.compare", [str(folder) for folder in folders], keywords={})
    return SameAs(command_line(words), f"import convolab\n\nresult = {call}\nresult.save({python_literal(out)})")


def same_as_study(folder: Path) -> SameAs:
    """What shows a study: its command goes on with it and writes its report."""
    words = option_words("study", str(folder / "study.toml"), options={"out": folder})
    report = python_literal(folder / "report.html")
    return SameAs(
        command_line(words),
        f"import convolab\n\nresult = convolab.compare({python_literal(folder)})\nresult.save({report})",
    )


def recipe_differences(runs: Sequence["convolab.Run"]) -> dict[str, list[str]]:
    """The keys in which recipes differ, and each one's value; seeds are among them."""
    from convolab.studies.section import format_arm_value
    from convolab.training.recipe_changes import flat_recipe

    flat = [flat_recipe(run.recipe) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    different = [key for key in keys if len({repr(one.get(key)) for one in flat}) > 1][:MAX_DIFFERENCES]
    return {key: [format_arm_value(one[key]) if key in one else "" for one in flat] for key in different}


def report_page(result: "StudyResult") -> str:
    """The report as a page of its own."""
    from convolab.reports.studies import study_report_html

    return study_report_html(result)
