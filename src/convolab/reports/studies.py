"""The report of a study as one HTML file that contains everything it needs."""

from importlib.metadata import version
from pathlib import Path

from convolab.core.outputs import STUDY_REPORT, own_kind, write_output
from convolab.plots.chart_page import chart_values, page_environment
from convolab.reports import study_about, study_cards
from convolab.reports.page import figure_payload, study_palette
from convolab.studies.results import StudyResult


def report_kind(result: StudyResult) -> str:
    """What a study's report and its numbers are as outputs: no other study's are replaced by them."""
    return own_kind(STUDY_REPORT, result.study.name)


def write_study_report(result: StudyResult, path: Path, kind: str = "") -> Path:
    """Write the report as one HTML file that opens without the network. Raises LabError if it cannot be written.

    It replaces a file of its kind only, which is by default the report of this study.

    The results come first, then a card per section, then everything that is needed to reproduce them.
    """
    write_output(path, kind or report_kind(result), study_report_html(result))
    return path


def study_report_html(result: StudyResult) -> str:
    """The page. Its charts are drawn by the Vega libraries that it contains."""
    cards = study_cards.section_cards(result)
    figures = [figure for card in cards for figure in card.figures]
    test = study_cards.best_on_test_card(result.best_on_test, len(figures)) if result.best_on_test else None
    figures += test.figures if test else ()
    colors = study_palette(result)
    template = page_environment("convolab.reports").get_template("report.html")
    return template.render(
        title=result.study.title or result.study.name,
        study=result.study,
        cards=cards,
        test=test,
        overview=study_about.study_overview(result),
        base_recipe=result.study.base_recipe.to_toml(),
        notes=study_about.failure_notes(result),
        section_times=study_about.section_times(result),
        provenance=study_about.provenance(result.trial_results.values()),
        glossary=study_about.used_terms(result),
        convolab=version("convolab"),
        **chart_values([figure_payload(figure, colors) for figure in figures], colors),
    )
