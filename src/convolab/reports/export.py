"""A study in files that can be handed in: every figure, every table, and a page in Markdown that shows them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from convolab.core.errors import require
from convolab.core.files import csv_text
from convolab.core.outputs import STUDY_EXPORT, require_outputs, write_json_output, write_output
from convolab.core.text import pluralize
from convolab.plots.study_figure import StudyFigure
from convolab.plots.style import save_chart
from convolab.reports import markdown, study_about, study_cards
from convolab.reports.study_cards import BestOnTestCard, SectionCard
from convolab.reports.study_contrasts import TableCell
from convolab.studies import tables
from convolab.studies.results import StudyResult
from convolab.studies.serialize import study_result_to_dict

README = "README.md"
UNFINISHED = "This export is not complete: run its command again.\n"
BEST_ON_TEST_TITLE = "Test accuracy of the best run"
MEANS = "Means are over the finished runs, with the 95 % t-interval of the mean over seeds below. Training times depend on what else the machine did."


def require_export_folder(folder: Path) -> None:
    """Raise LabError, before any work is done, unless the folder is new, empty, or holds an export."""
    require_outputs(STUDY_EXPORT, [folder / README])
    is_new = not folder.exists() or (folder / README).exists() or not any(folder.iterdir())
    require(is_new, f"{folder} holds other files, and no export: choose a new or empty folder")


def export_study(result: StudyResult, folder: Path) -> list[Path]:
    """Write every figure as SVG and PNG, every table as CSV, one folder per section, results.json, and a README.md.

    The tables hold the numbers as measured: fractions, nats, epochs and seconds. Returns the paths. Raises LabError if
    a file cannot be written, or is there and is no export's.
    """
    folder_names = section_folders([section.name for section in result.sections])
    cards = study_cards.section_cards(result)
    test = study_cards.best_on_test_card(result.best_on_test) if result.best_on_test else None
    write_output(
        folder / README, STUDY_EXPORT, UNFINISHED
    )  # so that after a kill the folder is still known as an export
    paths = []
    for card in cards:
        for figure in card.figures:
            paths += save_chart(
                figure.to_chart(), folder / folder_names[card.name] / figure.name, ("svg", "png"), STUDY_EXPORT
            )
    for figure in test.figures if test else ():
        paths += save_chart(figure.to_chart(), folder / figure.name, ("svg", "png"), STUDY_EXPORT)
    for section, name, rows in tables.study_tables(result):
        paths.append(folder / (folder_names[section] if section else "") / f"{name}.csv")
        write_output(paths[-1], STUDY_EXPORT, csv_text(rows))
    paths.append(folder / "results.json")
    write_json_output(paths[-1], STUDY_EXPORT, study_result_to_dict(result))
    paths.append(folder / README)
    write_output(paths[-1], STUDY_EXPORT, study_report_markdown(result, cards, test, folder_names))
    return paths


def study_report_markdown(
    result: StudyResult, cards: Sequence[SectionCard], test: BestOnTestCard | None, folder_names: Mapping[str, str]
) -> str:
    """The report as a page in Markdown beside the figures, which are in the sections' folders."""
    overview = " · ".join(study_about.study_overview(result))
    blocks = [
        markdown.heading(result.study.title or result.study.name),
        markdown.escape(f"{overview}. Written by convolab {version('convolab')}."),
        markdown.heading("Results", 2),
        overview_table(cards, test),
    ]
    for card in cards:
        blocks += section_blocks(card, f"{folder_names[card.name]}/")
    if test:
        blocks += [
            markdown.heading(BEST_ON_TEST_TITLE, 2),
            markdown.escape(test.comment),
            figure_links(test.figures, ""),
        ]
    runs = study_about.provenance(result.trial_results.values())
    blocks += [
        markdown.heading("Reproducibility", 2),
        markdown.item_list(markdown.escape(note) for note in study_about.failure_notes(result)),
        markdown.item_list(f"{markdown.escape(origin)} ({pluralize(count, 'run')})" for origin, count in runs),
        " ".join(filter(None, [MEANS, study_about.describe_tests(result.study, result.sections)])),
        markdown.code_block(result.study.to_toml(), "toml"),
    ]
    return markdown.document(blocks)


def overview_table(cards: Sequence[SectionCard], test: BestOnTestCard | None) -> str:
    """A row per section: its verdicts and the first sentences of its comment."""
    rows = [
        [
            markdown.cell(markdown.heading_link(card.title)),
            markdown.cell(
                *(
                    f"{badge.mark} {f'{count} × ' if count > 1 else ''}{badge.verdict}"
                    for badge, count in card.verdict_counts
                )
            ),
            markdown.cell(markdown.escape(card.summary)),
        ]
        for card in cards
    ]
    if test:
        trial = f"{test.trial.arm} of {test.trial.section}, seed {test.trial.seed}"
        choice = f"95 % interval {test.interval}: {trial}, chosen among {test.num_candidates}"
        link = markdown.heading_link(BEST_ON_TEST_TITLE)
        rows.append([link, f"**{test.accuracy}**", markdown.cell(markdown.escape(choice))])
    return markdown.table(["section", "verdicts", "summary"], rows)


def section_blocks(card: SectionCard, folder: str) -> list[str]:
    """A section: its note, comment, figures, arms and contrasts."""
    return [
        markdown.heading(card.title, 2),
        f"*{markdown.escape(card.note)}*" if card.note else "",
        markdown.escape(card.comment),
        figure_links(card.figures, folder, f" of {card.title}"),
        arms_markdown(card),
        markdown.item_list(f"{row.verdict.mark} {markdown.escape(row.comment)}" for row in card.contrasts),
    ]


def arms_markdown(card: SectionCard) -> str:
    """A row per arm: its runs, its metrics and its time."""

    def table_cell(value: TableCell) -> str:
        return markdown.cell(value.text, *value.small_lines)

    rows = [
        [
            markdown.cell(markdown.escape(arm.name)),
            markdown.cell(str(arm.runs), *arm.failure_counts),
            *map(table_cell, arm.cells),
            arm.train_time,
        ]
        for arm in card.arms
    ]
    return markdown.table(["arm", "runs", *card.metrics, "training time"], rows)


def figure_links(figures: Iterable[StudyFigure], folder: str, suffix: str = "") -> str:
    """The figures' images, one line each."""
    return "\n".join(markdown.image(f"{figure.title}{suffix}", f"{folder}{figure.name}.svg") for figure in figures)


def section_folders(names: Iterable[str]) -> dict[str, str]:
    """A folder's name for each section that every file system accepts, no two alike.

    >>> section_folders(["lr sgd", "lr/sgd?", "..", "LR sgd"])
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
