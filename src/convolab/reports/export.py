"""A study in files that can be handed in: every figure, every table, and a page in Markdown that shows them."""

import re
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from convolab.core.files import atomic_write, write_text
from convolab.plots import studies as study_plots
from convolab.plots.training import save_chart
from convolab.reports import page
from convolab.reports import studies as study_report
from convolab.studies import tables
from convolab.studies.results import StudyResult


def export_study(result: StudyResult, folder: Path) -> list[Path]:
    """Write every figure as SVG and PNG and every table as CSV, a folder a section, and README.md, which shows them; gives the paths.

    The tables hold the numbers as they were measured: fractions, nats, epochs and seconds. Raises LabError if the place cannot
    be written.
    """
    folder_names = section_folders([section.name for section in result.sections])
    placed_figures = [
        (folder_names[section.name], figure)
        for section in result.sections
        for figure in study_plots.section_figures(section)
    ]
    placed_figures += [
        ("", figure)
        for figure in (study_plots.best_on_test_figures(result.best_on_test) if result.best_on_test else [])
    ]
    paths = []
    for place, figure in placed_figures:
        paths += save_chart(figure.to_vega_lite(), folder / place / figure.name, ("svg", "png"))
    for section, name, table in tables.study_tables(result):
        paths.append(folder / (folder_names[section] if section else "") / f"{name}.csv")
        with atomic_write(paths[-1]) as part:
            table.write_csv(part)
    paths.append(folder / "README.md")
    write_text(paths[-1], study_report_markdown(result, folder_names))
    return paths


def study_report_markdown(result: StudyResult, folder_names: dict[str, str]) -> str:
    """The report as a page in Markdown beside the figures; `places` are the sections' folders."""
    environment = Environment(
        loader=PackageLoader("convolab.reports"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = lambda text: text.replace("|", "\\|").replace("\n", " ")
    colors = page.study_palette(result)
    cards = [
        {
            **study_report.section_card(section, colors),
            "anchor": heading_anchor(section.section.title or section.name),
            "figures": figure_links(study_plots.section_figures(section), f"{folder_names[section.name]}/"),
        }
        for section in result.sections
    ]
    test = (
        {
            **study_report.best_on_test_card(result.best_on_test, colors),
            "figures": figure_links(study_plots.best_on_test_figures(result.best_on_test), ""),
        }
        if result.best_on_test
        else None
    )
    return environment.get_template("report.md").render(
        title=result.study.title or result.study.name,
        study=result.study.to_toml(),
        cards=cards,
        test=test,
        facts=study_report.study_overview(result),
        notes=study_report.failure_notes(result),
        origins=study_report.provenance(result.trial_results.values()),
        convolab=version("convolab"),
    )


def figure_links(figures: Iterable[study_plots.StudyFigure], folder: str) -> list[dict[str, Any]]:
    return [{"title": figure.title, "file": f"{folder}{figure.name}.svg"} for figure in figures]


def heading_anchor(title: str) -> str:
    """What Markdown's readers make of a heading for links to it.

    >>> anchor("Can each network learn one batch by heart?")
    'can-each-network-learn-one-batch-by-heart'
    """
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def section_folders(names: Iterable[str]) -> dict[str, str]:
    """A folder's name for each section that every file system takes, no two alike.

    >>> folders(["lr sgd", "lr/sgd?", "..", "LR sgd"])
    {'lr sgd': 'lr-sgd', 'lr/sgd?': 'lr-sgd-2', '..': 'section', 'LR sgd': 'LR-sgd-3'}
    """
    name_counts: Counter[str] = Counter()
    folder_names = {}
    for name in names:
        safe_name = re.sub(r"[^A-Za-z0-9_+=.-]+", "-", name).strip("-.") or "section"
        while name_counts[safe_name.casefold()]:
            name_counts[safe_name.casefold()] += 1
            safe_name = f"{safe_name}-{name_counts[safe_name.casefold()]}"
        name_counts[safe_name.casefold()] += 1
        folder_names[name] = safe_name
    return folder_names
