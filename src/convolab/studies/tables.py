"""The tables of a study, in the numbers' own units: fractions, nats, epochs and seconds, nothing rounded."""

from collections.abc import Iterable
from dataclasses import astuple, fields

import polars as pl

from convolab.core.stats import Interval, mean_interval
from convolab.studies.metrics import Metric
from convolab.studies.outcomes import Arm
from convolab.studies.results import BestOnTest, SectionResult, StudyResult, mean_curve
from convolab.training.trainer import EpochMetrics

TRIAL_STATUSES = ("finished", "diverged", "failed", "stopped", "missing")


def table_metrics(result: SectionResult) -> list[Metric]:
    """The columns of a section's table of arms: what it lists, then the usual."""
    has_validation = any(
        o.history and o.history[0].validation_loss is not None for arm in result.arms for o in arm.results
    )
    training_only_metrics = (
        "final_train_loss",
        "final_train_accuracy",
        "epochs_until_train_accuracy:1",
    )  # all there is: learnt by heart, and when?
    default_metrics = (
        ("final_validation_accuracy", "best_validation_accuracy") if has_validation else training_only_metrics
    )
    return list(dict.fromkeys([*result.section.reported_metrics.values(), *map(Metric.parse, default_metrics)]))


def finished_metric_values(arm: Arm, metric: Metric) -> dict[int, float]:
    """The metric of every finished run by seed; none where it is of validation pictures and the arm holds none back."""
    if metric.needs_validation and any(outcome.history[0].validation_loss is None for outcome in arm.finished):
        return {}
    return arm.values(metric)


def finished_metric_interval(arm: Arm, metric: Metric) -> Interval | None:
    """The mean over the finished runs with its 95 % t-interval; None where there is no run."""
    values = finished_metric_values(arm, metric)
    return mean_interval(list(values.values())) if values else None


def mean_train_seconds(arm: Arm) -> float | None:
    """The mean time of training of the finished runs."""
    times = [sum(epoch.train_seconds for epoch in outcome.history) for outcome in arm.finished]
    return sum(times) / len(times) if times else None


def arms_table(result: SectionResult) -> pl.DataFrame:
    """A row an arm: what became of its runs, and each metric's mean with its 95 % t-interval."""
    rows = []
    for arm in result.arms:
        row = {"arm": arm.name, "runs": len(arm.results)}
        row |= {status: sum(o.status == status for o in arm.results) for status in TRIAL_STATUSES}
        for metric in table_metrics(result):
            of = finished_metric_interval(arm, metric)
            row |= {str(metric): of and of.mean, f"{metric} low": of and of.low, f"{metric} high": of and of.high}
        rows.append(row | {"seconds": mean_train_seconds(arm)})
    return pl.DataFrame(rows, infer_schema_length=None)


def contrasts_table(result: SectionResult) -> pl.DataFrame:
    """A row a contrast: the difference (arm less against) with its 95 % t-interval, how sure it is, and the verdict."""
    rows = []
    for answer in result.contrast_results:
        paired = answer.paired_test
        rows.append(
            {
                "arm": answer.contrast.arm,
                "against": answer.contrast.baseline,
                "metric": answer.contrast.metric,
                "seeds": " ".join(map(str, answer.seeds)),
                "difference": paired and paired.difference.mean,
                "low": paired and paired.difference.low,
                "high": paired and paired.difference.high,
                "p": paired and paired.p,
                "adjusted_p": answer.p_adjusted,
                "effect": paired and paired.hedges_g,
                "smallest": paired and paired.minimum_detectable_effect,
                "verdict": answer.verdict,
                "parts_from_epoch": answer.curves_separate_from_epoch,
                "reason": answer.reason,
                "comment": answer.comment,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def curves_table(result: SectionResult) -> pl.DataFrame:
    """A row an arm, quantity and epoch: the mean over the finished runs with its 95 % t-interval."""
    rows = [
        (arm.name, quantity, epoch, *astuple(of))
        for arm in result.arms
        for quantity in result.section.curves
        for epoch, of in mean_curve(arm, quantity)
    ]
    numbers = {"mean": pl.Float64, "low": pl.Float64, "high": pl.Float64, "runs": pl.Int64}
    return pl.DataFrame(rows, {"arm": pl.String, "quantity": pl.String, "epoch": pl.Int64} | numbers, orient="row")


def runs_table(result: StudyResult) -> pl.DataFrame:
    """A row a trial; trials with the same recipe share their run."""
    rows = [
        {
            "section": section.name,
            "arm": arm.name,
            "seed": outcome.trial.seed,
            "recipe": outcome.trial.recipe.key,
            "status": outcome.status,
            "epochs": len(outcome.history),
            "seconds": sum(epoch.train_seconds for epoch in outcome.history),
            "reason": outcome.reason,
        }
        for section in result.sections
        for arm in section.arms
        for outcome in arm.results
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def epochs_table(result: StudyResult) -> pl.DataFrame:
    """A row a run and epoch: all that was measured."""
    names = [field.name for field in fields(EpochMetrics)]
    rows = [
        {"recipe": key} | {name: getattr(line, name) for name in names}
        for key, o in result.trial_results.items()
        for line in o.history
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def per_class_table(best: BestOnTest) -> pl.DataFrame:
    """A row a class: the share of its test pictures that are classified correctly."""
    return pl.DataFrame(
        {"class": list(best.test_result["per_class"]), "accuracy": list(best.test_result["per_class"].values())}
    )


def confusion_table(best: BestOnTest) -> pl.DataFrame:
    """A row a true class, a column a class it was called: numbers of test pictures."""
    classes = list(best.test_result["per_class"])
    return pl.DataFrame(
        best.test_result["confusion"], [f"called {name}" for name in classes], orient="row"
    ).insert_column(0, pl.Series("true", classes))


def study_tables(result: StudyResult) -> Iterable[tuple[str | None, str, pl.DataFrame]]:
    """All tables, each with its section's name, or None for the whole study's, and its own."""
    yield None, "runs", runs_table(result)
    yield None, "epochs", epochs_table(result)
    for section in result.sections:
        yield section.name, "arms", arms_table(section)
        yield section.name, "curves", curves_table(section)
        if section.contrast_results:
            yield section.name, "contrasts", contrasts_table(section)
    if result.best_on_test:
        yield None, "per_class", per_class_table(result.best_on_test)
        yield None, "confusion", confusion_table(result.best_on_test)
