"""The tables of a study, in the numbers' own units: fractions, nats, epochs and seconds, nothing rounded."""

from collections.abc import Iterator
from dataclasses import fields

from convolab.core.stats import Interval, mean_interval
from convolab.studies.metrics import Metric
from convolab.studies.results import (
    TRIAL_STATUSES,
    Arm,
    BestOnTest,
    ContrastResult,
    SectionResult,
    StudyResult,
    mean_curve,
    train_seconds,
)
from convolab.training.history import EpochMetrics

TableRow = dict[str, str | int | float | None]
TableRows = list[TableRow]  # all rows have the same columns

DEFAULT_METRICS = ("final_validation_accuracy", "best_validation_accuracy")
TRAINING_METRICS = ("final_train_loss", "final_train_accuracy", "epochs_to_train_accuracy:1")  # without validation


def study_tables(result: StudyResult) -> Iterator[tuple[str | None, str, TableRows]]:
    """All tables that have a row, each with its section's name, or None for the whole study's, and its own."""
    yield None, "runs", runs_table(result)
    for section in result.sections:
        yield section.name, "arms", arms_table(section)
        if curves := curves_table(section):
            yield section.name, "curves", curves
        if section.contrast_results:
            yield section.name, "contrasts", contrasts_table(section)
    if epochs := epochs_table(result):
        yield None, "epochs", epochs
    if result.best_on_test:
        yield None, "per_class", per_class_table(result.best_on_test)
        yield None, "confusion", confusion_table(result.best_on_test)


def table_metrics(result: SectionResult) -> list[Metric]:
    """The columns of a section's table of arms: the metrics that the section lists, then the usual ones."""
    histories = [r.history for arm in result.arms for r in arm.results if r.history]
    has_validation = any(history[0].validation_loss is not None for history in histories)
    defaults = map(Metric.parse, DEFAULT_METRICS if has_validation else TRAINING_METRICS)
    return list(dict.fromkeys([*result.section.reported_metrics.values(), *defaults]))


def finished_metric_values(arm: Arm, metric: Metric) -> dict[int, float]:
    """The metric of every finished run by seed; empty where it needs validation images and the arm has none."""
    if not all(metric.is_measured(result.history) for result in arm.finished):
        return {}
    return arm.values(metric)


def finished_metric_interval(arm: Arm, metric: Metric) -> Interval | None:
    """The mean over the finished runs with its 95 % t-interval; None where there is no run."""
    values = finished_metric_values(arm, metric)
    return metric.possible(mean_interval(list(values.values()))) if values else None


def mean_train_seconds(arm: Arm) -> float | None:
    """The mean training time of the finished runs; None where there is no run."""
    seconds = train_seconds(arm.finished)
    return seconds / len(arm.finished) if seconds is not None and arm.finished else None


def arms_table(result: SectionResult) -> TableRows:
    """A row per arm: what became of its runs, and each metric's mean with its 95 % t-interval."""
    rows: TableRows = []
    for arm in result.arms:
        row: TableRow = {"arm": arm.name, "runs": len(arm.results)}
        row |= {status: sum(r.status == status for r in arm.results) for status in TRIAL_STATUSES}
        for metric in table_metrics(result):
            mean = finished_metric_interval(arm, metric)
            row[str(metric)] = mean and mean.mean
            row[f"{metric} low"] = mean and mean.low
            row[f"{metric} high"] = mean and mean.high
        row["mean_train_seconds"] = mean_train_seconds(arm)
        rows.append(row)
    return rows


def contrasts_table(result: SectionResult) -> TableRows:
    """A row per contrast: the difference (arm minus baseline), its 95 % interval, how sure it is, and the verdict."""
    return [contrast_values(r) for r in result.contrast_results]


def contrast_values(r: ContrastResult) -> TableRow:
    """The row of one contrast."""
    test = r.paired_test
    return {
        "arm": r.contrast.arm,
        "baseline": r.contrast.baseline,
        "minus_arm": r.contrast.interaction and r.contrast.interaction[0],  # of an interaction: this pair's difference
        "minus_baseline": r.contrast.interaction and r.contrast.interaction[1],  # is subtracted from that of the first
        "metric": r.contrast.metric,
        "seeds": " ".join(map(str, r.seeds)),
        "difference": test and test.difference.mean,
        "low": test and test.difference.low,
        "high": test and test.difference.high,
        "p": test and test.p,
        "p_needed": r.looks[-1].level if r.looks else None,  # at the last look; with fixed seeds p_adjusted is compared
        "p_adjusted": r.p_adjusted,
        "margin": r.margin,
        "p_equivalent": r.p_equivalent,
        "hedges_g": test and test.hedges_g,
        "minimum_detectable_effect": test and test.minimum_detectable_effect,
        "verdict": r.verdict,
        "seeds_needed": r.seeds_needed,
        "curves_separate_from_epoch": r.curves_separate_from_epoch,
        "reason": r.reason,
        "comment": r.comment,
    }


def curves_table(result: SectionResult) -> TableRows:
    """A row per arm, quantity and epoch: the mean over the finished runs with its 95 % t-interval."""
    rows: TableRows = []
    for arm in result.arms:
        for quantity in result.section.curves:
            for epoch, mean in mean_curve(arm, quantity):
                row: TableRow = {"arm": arm.name, "quantity": quantity, "epoch": epoch}
                rows.append({**row, "mean": mean.mean, "low": mean.low, "high": mean.high, "runs": mean.count})
    return rows


def runs_table(result: StudyResult) -> TableRows:
    """A row per trial; trials with the same recipe share their run."""
    return [
        {
            "section": section.name,
            "arm": arm.name,
            "seed": r.trial.seed,
            "recipe_key": r.trial.recipe.key,
            "status": r.status,
            "epochs": len(r.history),
            "train_seconds": train_seconds([r]),
            "reason": r.reason,
        }
        for section in result.sections
        for arm in section.arms
        for r in arm.results
    ]


def epochs_table(result: StudyResult) -> TableRows:
    """A row per run and epoch: all that was measured."""
    names = [field.name for field in fields(EpochMetrics)]
    return [
        {"recipe_key": key, **{name: getattr(epoch, name) for name in names}}
        for key, trial_result in result.trial_results.items()
        for epoch in trial_result.history
    ]


def per_class_table(best: BestOnTest) -> TableRows:
    """A row per class: the fraction of its test images that are classified correctly."""
    return [{"class": name, "accuracy": accuracy} for name, accuracy in best.test_result.per_class.items()]


def confusion_table(best: BestOnTest) -> TableRows:
    """A row per true class, a column per predicted class: numbers of test images."""
    classes = list(best.test_result.per_class)
    rows: TableRows = []
    for name, counts in zip(classes, best.test_result.confusion, strict=True):
        predicted = {f"predicted {other}": count for other, count in zip(classes, counts, strict=True)}
        rows.append({"true": name, **predicted})
    return rows
