"""What a paper needs of a run or a study: a table in LaTeX and in Markdown, and a paragraph on the methods.

Every number is from the records of the runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from convolab.core.errors import require
from convolab.core.escape import escape_line
from convolab.core.outputs import PAPER, require_outputs, write_output
from convolab.core.text import NO_VALUE, format_p_cell, join_with_and, pluralize
from convolab.reports import markdown
from convolab.reports.study_about import describe_tests
from convolab.studies.formatting import choose_decimals, display_scale, format_margin, interval_half_width
from convolab.studies.metrics import Metric
from convolab.studies.results import Arm, SectionResult, StudyResult
from convolab.studies.section import Section
from convolab.studies.study import Study
from convolab.studies.tables import finished_metric_interval, table_metrics
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.run_code import code_records
from convolab.training.run_records import RunSummary

LATEX_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "[": "{[}", "]": "{]}", "*": "{*}", "−": "$-$", "×": r"$\times$", "±": r"$\pm$",
}  # fmt: skip
TABLE_TEX, TABLE_MD, METHODS_MD, METHODS_TEX = "table.tex", "table.md", "methods.md", "methods.tex"
INTERVAL_NOTE = "95 % intervals in brackets"

PaperTable = tuple[str, list[str], list[list[str]]]  # caption, headings, rows


def latex_escape(text: str) -> str:
    r"""Text in one line that is text only in LaTeX, whatever is in it.

    >>> print(latex_escape(r"50 % of a_b & \input{x}"))
    50 \% of a\_b \& \textbackslash{}input\{x\}
    """
    return "".join(LATEX_SIGNS.get(sign, sign) for sign in escape_line(" ".join(text.split())))


def latex_table(table: PaperTable) -> str:
    """A table of the package booktabs."""
    caption, headings, rows = table
    lines = [" & ".join(map(latex_escape, cells)) + r" \\" for cells in (headings, *rows)]
    return "\n".join(
        [
            r"\begin{table}", r"  \centering", rf"  \caption{{{latex_escape(caption)}}}",
            rf"  \begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}", r"    \toprule", f"    {lines[0]}", r"    \midrule",
            *(f"    {line}" for line in lines[1:]), r"    \bottomrule", r"  \end{tabular}", r"\end{table}",
        ]
    )  # fmt: skip


def markdown_table(table: PaperTable) -> str:
    """The same table in Markdown."""
    caption, headings, rows = table
    cells = [[markdown.cell(markdown.escape(text)) for text in row] for row in rows]
    return f"{markdown.escape(caption)}\n\n{markdown.table([markdown.escape(h) for h in headings], cells)}"


def interval_text(metric: Metric, mean: float, low: float, high: float) -> str:
    """A number with its interval, in the unit that a table shows: percent for fractions."""
    scale, decimals = display_scale(metric), choose_decimals(metric, (high - low) / 2)
    values = [f"{scale * value:.{decimals}f}" for value in (mean, low, high)]
    return f"{values[0]} [{values[1]}, {values[2]}]"


def heading_of(metric: Metric) -> str:
    return f"{metric.title} ({'%' if display_scale(metric) == 100 else metric.unit})".replace(" ()", "")


def arms_paper_table(section: SectionResult) -> PaperTable:
    """A row per arm: its finished runs, and each metric's mean over them."""
    metrics = table_metrics(section)
    rows = []
    for arm in section.arms:
        cells = []
        for metric in metrics:
            mean = finished_metric_interval(arm, metric)
            has_width = mean is not None and interval_half_width(mean) > 0
            shown = interval_text(metric, mean.mean, mean.low, mean.high) if mean else NO_VALUE
            cells.append(shown if has_width else shown.partition(" [")[0])
        rows.append([arm.name, str(len(arm.finished)), *cells])
    title = section.section.title or section.name
    return f"{title}: means over the finished runs, {INTERVAL_NOTE}", ["arm", "runs", *map(heading_of, metrics)], rows


def contrasts_paper_table(study: Study, section: SectionResult) -> PaperTable:
    """A row per contrast: the difference with its interval, the corrected p-value, the verdict."""
    rows = []
    for result in section.contrast_results:
        metric, test = Metric.parse(result.contrast.metric), result.paired_test
        difference = test and interval_text(metric, test.difference.mean, test.difference.low, test.difference.high)
        p = result.looks[-1].p if result.looks else result.p_adjusted
        rows.append(
            [
                result.contrast.label, heading_of(metric), str(len(result.seeds)),
                difference or NO_VALUE, NO_VALUE if p is None else format_p_cell(p), result.verdict,
            ]
        )  # fmt: skip
    title = section.section.title or section.name
    caption = f"{title}: differences of means, {INTERVAL_NOTE}. {describe_tests(study, [section])}"
    return caption, ["contrast", "metric", "seeds", "difference", "p", "verdict"], rows


def run_paper_table(run: Run) -> PaperTable:
    """The test of a run, a row per class; without a test its best epoch."""
    record = run.test_result
    if record is None:
        best = run.best_epoch
        accuracy = best.validation_accuracy if best else None
        shown = NO_VALUE if accuracy is None else f"{100 * accuracy:.2f}"
        row = [run.recipe.model.name, str(len(run.history)), shown]
        return "Validation accuracy of the best epoch", ["network", "epochs", "validation accuracy (%)"], [row]

    def percent(value: float | None) -> str:
        return NO_VALUE if value is None else f"{100 * value:.1f}"

    rows = [
        [name, str(score.images), percent(score.precision), percent(score.recall), percent(score.f1)]
        for name, score in record.class_scores.items()
    ]
    if mean := record.macro:
        rows.append(["mean", str(record.count), percent(mean.precision), percent(mean.recall), percent(mean.f1)])
    low, high = (100 * bound for bound in record.interval)
    caption = (
        f"Test accuracy {100 * record.accuracy:.2f} % (95 % interval {low:.2f} to {high:.2f} %), {record.count} images"
    )
    if views := record.with_views:
        low, high = (100 * bound for bound in views.interval)
        caption += (
            f"; with the logits averaged over {views.views} views of each image {100 * views.accuracy:.2f} % "
            f"({low:.2f} to {high:.2f} %)"
        )
    return caption, ["class", "images", "precision (%)", "recall (%)", "F1 (%)"], rows


def describe_part(values: Mapping[str, object]) -> str:
    """A section of a recipe in a few words: its name, and its other keys in brackets."""
    return f"{values['name']}{in_brackets({key: value for key, value in values.items() if key != 'name'})}"


def in_brackets(values: Mapping[str, object]) -> str:
    """Keys and their values behind a word: " (lr 0.1, momentum 0.9)"; nothing where there are none."""
    return f" ({', '.join(f'{key} {value}' for key, value in values.items())})" if values else ""


def methods_paragraph(
    recipe: Recipe, summaries: Sequence[RunSummary], seeds: Sequence[int], ended_early: Sequence[int], varied: str = ""
) -> str:
    """How the runs were made, from their records. `ended_early` are the epochs of those that took fewer than planned."""
    values, training = recipe.to_dict(), recipe.training
    fingerprints = {summary["data"]["train_sha256"][:12] for summary in summaries}
    has_own_validation = any("validation_sha256" in summary["data"] for summary in summaries)
    validation = (
        "the dataset's own validation images"
        if has_own_validation
        else "no validation images"
        if recipe.data.validation == 0
        else f"{100 * recipe.data.validation:g} % of the training images of each class, drawn by the seed, for validation"
    )
    versions = sorted({f"{name} {number}" for summary in summaries for name, number in summary["versions"].items()})
    hardware = sorted({str(summary["hardware"].get("processor", "")) for summary in summaries} - {""})
    codes = {
        f"{part} {digest[:12]}"
        for summary in summaries
        for part, record in code_records(summary).items()
        for digest in record["sha256"].values()
    }
    limit = f"{recipe.data.limit} training images of " if recipe.data.limit else ""
    sentences = [
        f"{pluralize(len(summaries), 'network')} {'was' if len(summaries) == 1 else 'were'} trained on {limit}"
        f"{recipe.data.name} (SHA-256 of the training images {', '.join(sorted(fingerprints)) or 'not recorded'}), with "
        f"{validation}.",
        f"The network is {describe_part(values['model'])}; the optimizer {describe_part(values['optimizer'])}; the "
        f"schedule of the learning rate {describe_part(values['schedule'])}.",
        f"Training took {'at most ' * bool(ended_early)}{pluralize(training.epochs, 'epoch')} of batches of "
        f"{training.batch_size} images with "
        f"{join_with_and(recipe.data.augment) if recipe.data.augment else 'no'} augmentation, with "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {join_with_and([str(seed) for seed in seeds])}.",
        describe_early_ends(ended_early, len(summaries)) if ended_early else "",
        varied,
        f"Own code (SHA-256): {', '.join(sorted(codes))}." if codes else "",
        f"Precision {', '.join(sorted({summary['precision'] for summary in summaries}))} on "
        f"{', '.join(sorted({summary['device'] for summary in summaries}))}"
        f"{' (' + ', '.join(hardware) + ')' if hardware else ''}; {', '.join(versions)}."
        if summaries
        else "",
    ]
    return " ".join(filter(None, sentences))


def describe_early_ends(epochs: Sequence[int], num_runs: int) -> str:
    """How many runs took fewer epochs than their recipes have, and how many.

    >>> describe_early_ends([12], 1), describe_early_ends([37, 12], 6)
    ('The run ended after 12 epochs.', '2 of 6 runs ended earlier, after 12 to 37 epochs.')
    """
    if num_runs == 1:
        return f"The run ended after {pluralize(epochs[0], 'epoch')}."
    low, high = min(epochs), max(epochs)
    counts = f"{low} to {high} epochs" if low < high else pluralize(low, "epoch")
    return f"{len(epochs)} of {num_runs} runs ended earlier, after {counts}."


def describe_arms(study: Study, section: SectionResult) -> str:
    """The arms of a section, with the keys that it sets for all of them and those that each sets, and their values."""
    of_arms = {arm.name: changed_values(study.sections[section.name], arm) for arm in section.arms}
    first, *others = of_arms.values()
    shared = {key: value for key, value in first.items() if all(key in one and one[key] == value for one in others)}
    arms = [
        name + in_brackets({key: value for key, value in values.items() if key not in shared})
        for name, values in of_arms.items()
    ]
    return f"Arms of section {section.name}{in_brackets(shared)}: {'; '.join(arms)}."


def changed_values(section: Section, arm: Arm) -> dict[str, object]:
    """The recipe keys that a section and its arm set, and their values; with a name, all keys that belong to it."""
    recipe = arm.results[0].trial.recipe.to_dict()
    changed: dict[str, object] = {}
    for key, value in {**section.overrides, **section.arm_overrides[arm.name]}.items():
        part, _, option = key.partition(".")
        changed[key] = value
        if option == "name":
            changed |= {f"{part}.{other}": of_name for other, of_name in recipe[part].items()}
    return changed


def describe_design(study: Study, section: SectionResult) -> str:
    """How a section came by its seeds and arms, where not all of them were fixed before the first run."""
    sentences = []
    if looks := study.looks(section.name):
        margins = {
            format_margin(result.contrast.parsed_metric, result.margin)
            for result in section.contrast_results
            if result.margin is not None
        }
        equivalent = f", or to lie within a margin of {join_with_and(sorted(margins))}," if margins else ""
        sentences.append(
            f"Each contrast of section {section.name} went on, looked at after {join_with_and([str(n) for n in looks])} seeds, "
            f"until a difference was shown{equivalent} or until a verdict was improbable."
        )
    written = study.sections[section.name].written_arms
    if added := [arm.name for arm in section.arms if arm.name not in written]:
        sentences.append(
            f"The grid of section {section.name} was widened by {join_with_and(added)}, because its best arm stood at an end."
        )
    return " ".join(sentences)


def paper_parts(source: Run | StudyResult) -> tuple[list[PaperTable], str]:
    """The tables of a run or study, and its methods."""
    if isinstance(source, Run):
        recipe, done = source.recipe, len(source.history)
        early = [done] if done < recipe.training.epochs else []
        return [run_paper_table(source)], methods_paragraph(recipe, [source.summary], [recipe.training.seed], early)
    tables = []
    for section in source.sections:
        tables.append(arms_paper_table(section))
        if section.contrast_results:
            tables.append(contrasts_paper_table(source.study, section))
    results = source.trial_results.values()
    arms = [describe_arms(source.study, section) for section in source.sections]
    seeds = sorted({result.trial.seed for result in results})
    designs = [describe_design(source.study, section) for section in source.sections]
    varied = " ".join(
        [
            "These are the base values; what a section or an arm changes stands in brackets.",
            *arms,
            *dict.fromkeys(filter(None, designs)),
        ]
    )
    made = [result for result in results if result.summary and result.is_complete]
    summaries = [result.summary for result in made if result.summary]
    early = [len(result.history) for result in made if len(result.history) < result.trial.recipe.training.epochs]
    return tables, methods_paragraph(source.study.base_recipe, summaries, seeds, early, varied)


def paper_paths(folder: Path) -> list[Path]:
    """The files for a paper."""
    return [folder / name for name in (TABLE_TEX, TABLE_MD, METHODS_TEX, METHODS_MD)]


def export_paper(source: Run | StudyResult, folder: Path) -> list[Path]:
    """Write the tables and the methods, each as LaTeX and as Markdown; gives their paths.

    Raises LabError if a file cannot be written, or is there and is none of these.
    """
    paths = paper_paths(folder)
    require_outputs(PAPER, paths)
    is_ours = not folder.exists() or any(path.exists() for path in paths) or not any(folder.iterdir())
    require(is_ours, f"{folder} holds other files, and no export of convolab: choose a new or empty folder")
    tables, methods = paper_parts(source)
    contents = [
        "% needs \\usepackage{booktabs}\n" + "\n\n".join(map(latex_table, tables)) + "\n",
        markdown.document(map(markdown_table, tables)),
        latex_escape(methods) + "\n",
        markdown.document([markdown.escape(methods)]),
    ]
    for path, content in zip(paths, contents, strict=True):
        write_output(path, PAPER, content)
    return paths
