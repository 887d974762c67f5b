"""The report of a study as one HTML file that contains everything it needs."""

import json
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from convolab.core.files import write_text
from convolab.plots.chart_page import vega_libraries
from convolab.reports import study_cards
from convolab.reports.page import VEGA_THEME, css_variable, figure_payload, study_palette
from convolab.studies.results import StudyResult


def write_study_report(result: StudyResult, path: Path) -> Path:
    """Write the report as one HTML file that opens without the network. Raises LabError if it cannot be written.

    The results come first, then a card per section, then everything that is needed to reproduce them.
    """
    write_text(path, study_report_html(result))
    return path


def study_report_html(result: StudyResult) -> str:
    """The page. Its charts are drawn by the Vega libraries that it contains."""
    environment = Environment(
        loader=PackageLoader("convolab.reports"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cards = study_cards.section_cards(result)
    figures = [figure for card in cards for figure in card.figures]
    test = study_cards.best_on_test_card(result.best_on_test, len(figures)) if result.best_on_test else None
    figures += test.figures if test else ()
    colors = study_palette(result)
    payload = {"theme": VEGA_THEME, "figures": [figure_payload(figure, colors) for figure in figures]}
    return environment.get_template("report.html").render(
        study=result.study,
        cards=cards,
        test=test,
        overview=study_cards.study_overview(result),
        base_recipe=result.study.base_recipe.to_toml(),
        notes=study_cards.failure_notes(result),
        section_times=study_cards.section_times(result),
        provenance=study_cards.provenance(result.trial_results.values()),
        colors={color: (css_variable(color), dark) for color, dark in colors.items()},
        payload=Markup(json.dumps(payload, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")),
        libraries=Markup(vega_libraries()),
        convolab=version("convolab"),
    )
