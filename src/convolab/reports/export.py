"""A study in files that can be handed in: every figure, every table, and a page in Markdown that shows them."""

import re
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from convolab.core.files import whole_file, write_text
from convolab.plots import studies as study_plots
from convolab.plots.training import save_chart
from convolab.reports import page
from convolab.reports import studies as study_report
from convolab.studies import tables
from convolab.studies.results import StudyResult


def export(result: StudyResult, folder: Path) -> list[Path]:
    """Write every figure as SVG and PNG and every table as CSV, a folder a section, and README.md, which shows them; gives the paths.

    The tables hold the numbers as they were measured: fractions, nats, epochs and seconds. Raises LabError if the place cannot
    be written.
    """
    places = folders([section.name for section in result.sections])
    drawn = [(places[section.name], figure) for section in result.sections for figure in study_plots.figures(section)]
    drawn += [("", figure) for figure in (study_plots.best_figures(result.best) if result.best else [])]
    paths = []
    for place, figure in drawn:
        paths += save_chart(figure.whole(), folder / place / figure.name, ("svg", "png"))
    for section, name, table in tables.every_table(result):
        paths.append(folder / (places[section] if section else "") / f"{name}.csv")
        with whole_file(paths[-1]) as part:
            table.write_csv(part)
    paths.append(folder / "README.md")
    write_text(paths[-1], markdown(result, places))
    return paths


def markdown(result: StudyResult, places: dict[str, str]) -> str:
    """The report as a page in Markdown beside the figures; `places` are the sections' folders."""
    environment = Environment(
        loader=PackageLoader("convolab.reports"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = lambda text: text.replace("|", "\\|").replace("\n", " ")
    colours = page.palette(result)
    cards = [
        {
            **study_report.card(section, colours),
            "anchor": anchor(section.section.title or section.name),
            "figures": shown(study_plots.figures(section), f"{places[section.name]}/"),
        }
        for section in result.sections
    ]
    test = (
        {**study_report.best_card(result.best, colours), "figures": shown(study_plots.best_figures(result.best), "")}
        if result.best
        else None
    )
    return environment.get_template("report.md").render(
        title=result.study.title or result.study.name,
        study=result.study.to_toml(),
        cards=cards,
        test=test,
        facts=study_report.facts(result),
        notes=study_report.mishap_notes(result),
        origins=study_report.origins(result.outcomes.values()),
        convolab=version("convolab"),
    )


def shown(figures: Iterable[study_plots.Figure], place: str) -> list[dict[str, Any]]:
    return [{"title": figure.title, "file": f"{place}{figure.name}.svg"} for figure in figures]


def anchor(title: str) -> str:
    """What Markdown's readers make of a heading for links to it.

    >>> anchor("Can each network learn one batch by heart?")
    'can-each-network-learn-one-batch-by-heart'
    """
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def folders(names: Iterable[str]) -> dict[str, str]:
    """A folder's name for each section that every file system takes, no two alike.

    >>> folders(["lr sgd", "lr/sgd?", "..", "LR sgd"])
    {'lr sgd': 'lr-sgd', 'lr/sgd?': 'lr-sgd-2', '..': 'section', 'LR sgd': 'LR-sgd-3'}
    """
    taken: Counter[str] = Counter()
    found = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_+=.-]+", "-", name).strip("-.") or "section"
        while taken[plain.casefold()]:
            taken[plain.casefold()] += 1
            plain = f"{plain}-{taken[plain.casefold()]}"
        taken[plain.casefold()] += 1
        found[name] = plain
    return found
