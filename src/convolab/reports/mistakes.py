"""The images that a network gets wrong, as a page that opens without a network and as a table."""

from pathlib import Path

from convolab.core.display import Row
from convolab.core.files import csv_text
from convolab.core.outputs import MISTAKES, own_kind, write_output
from convolab.core.text import format_percent
from convolab.data.png import png_url
from convolab.plots.chart_page import page_environment
from convolab.training.predictions import MISTAKE_COLUMNS, Mistake, Mistakes
from convolab.training.run import Run


def mistake_paths(stem: Path) -> list[Path]:
    """The files of a gallery: `stem` with their endings."""
    return [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("html", "csv")]


def mistakes_kind(run: Run) -> str:
    """What a run's gallery is as an output."""
    return own_kind(MISTAKES, run.summary["recipe_key"])


def write_mistakes(mistakes: Mistakes, stem: Path, title: str, kind: str = MISTAKES) -> list[Path]:
    """Write STEM.html and STEM.csv; gives their paths. Raises LabError if they cannot be written."""
    html_path, csv_path = mistake_paths(stem)
    write_output(html_path, kind, mistakes_page(mistakes, title))
    write_output(csv_path, kind, mistakes_csv(mistakes))
    return [html_path, csv_path]


def mistakes_rows(mistakes: Mistakes) -> list[Row]:
    """A row per mistake, the worst first; probabilities in [0, 1]."""
    return [
        {
            "rank": rank,
            "image": mistake.name,
            "index": mistake.index,
            "true": mistake.true,
            "predicted": mistake.predicted,
            "probability": mistake.probability,
            "true_probability": mistake.true_probability,
        }
        for rank, mistake in enumerate(mistakes.entries, 1)
    ]


def mistakes_csv(mistakes: Mistakes) -> str:
    """The table; of no mistakes its headings alone."""
    return csv_text(mistakes_rows(mistakes)) if mistakes.entries else ",".join(MISTAKE_COLUMNS) + "\n"


def mistakes_page(mistakes: Mistakes, title: str = "Mistakes") -> str:
    """The page: every image with what it is and what it was classified as."""
    template = page_environment("convolab.reports").get_template("mistakes.html")
    shown = "all of them" if len(mistakes.entries) == mistakes.num_wrong else f"the first {len(mistakes.entries)}"
    return template.render(
        title=title,
        mistakes=mistakes,
        shown=shown,
        cards=[(mistake, png_url(mistake.image), alt_text(mistake)) for mistake in mistakes.entries],
        percent=format_percent,
    )


def alt_text(mistake: Mistake) -> str:
    """What a card shows, for those who cannot see it."""
    return f"{mistake.name}: {mistake.true}, classified as {mistake.predicted}"
