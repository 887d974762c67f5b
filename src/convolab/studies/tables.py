"""The tables of a study, in the numbers' own units: fractions, nats, epochs and seconds, nothing rounded."""

from collections.abc import Iterable
from dataclasses import astuple, fields

import polars as pl

from convolab.core.stats import Interval, mean_interval
from convolab.studies.metrics import Metric
from convolab.studies.outcomes import Arm
from convolab.studies.results import BestOnTest, SectionResult, StudyResult, mean_curve
from convolab.training.trainer import Epoch

STATUSES = ("finished", "diverged", "failed", "stopped", "missing")


def metrics_of(result: SectionResult) -> list[Metric]:
    """The columns of a section's table of arms: what it lists, then the usual."""
    held_back = any(o.history and o.history[0].validation_loss is not None for arm in result.arms for o in arm.outcomes)
    trained = (
        "final_train_loss",
        "final_train_accuracy",
        "epochs_until_train_accuracy:1",
    )  # all there is: learnt by heart, and when?
    usual = ("final_validation_accuracy", "best_validation_accuracy") if held_back else trained
    return list(dict.fromkeys([*result.section.listed.values(), *map(Metric.parse, usual)]))


def values_of(arm: Arm, metric: Metric) -> dict[int, float]:
    """The metric of every finished run by seed; none where it is of validation pictures and the arm holds none back."""
    if metric.needs_validation and any(outcome.history[0].validation_loss is None for outcome in arm.finished):
        return {}
    return arm.values(metric)


def interval_of(arm: Arm, metric: Metric) -> Interval | None:
    """The mean over the finished runs with its 95 % t-interval; None where there is no run."""
    values = values_of(arm, metric)
    return mean_interval(list(values.values())) if values else None


def seconds_of(arm: Arm) -> float | None:
    """The mean time of training of the finished runs."""
    times = [sum(epoch.seconds for epoch in outcome.history) for outcome in arm.finished]
    return sum(times) / len(times) if times else None


def arms(result: SectionResult) -> pl.DataFrame:
    """A row an arm: what became of its runs, and each metric's mean with its 95 % t-interval."""
    rows = []
    for arm in result.arms:
        row = {"arm": arm.name, "runs": len(arm.outcomes)}
        row |= {status: sum(o.status == status for o in arm.outcomes) for status in STATUSES}
        for metric in metrics_of(result):
            of = interval_of(arm, metric)
            row |= {str(metric): of and of.mean, f"{metric} low": of and of.low, f"{metric} high": of and of.high}
        rows.append(row | {"seconds": seconds_of(arm)})
    return pl.DataFrame(rows, infer_schema_length=None)


def contrasts(result: SectionResult) -> pl.DataFrame:
    """A row a contrast: the difference (arm less against) with its 95 % t-interval, how sure it is, and the verdict."""
    rows = []
    for answer in result.answers:
        paired = answer.paired
        rows.append(
            {
                "arm": answer.contrast.arm,
                "against": answer.contrast.against,
                "metric": answer.contrast.metric,
                "seeds": " ".join(map(str, answer.seeds)),
                "difference": paired and paired.difference.mean,
                "low": paired and paired.difference.low,
                "high": paired and paired.difference.high,
                "p": paired and paired.p,
                "adjusted_p": answer.adjusted,
                "effect": paired and paired.effect,
                "smallest": paired and paired.smallest,
                "verdict": answer.verdict,
                "parts_from_epoch": answer.parts_from,
                "reason": answer.reason,
                "comment": answer.comment,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def curves(result: SectionResult) -> pl.DataFrame:
    """A row an arm, quantity and epoch: the mean over the finished runs with its 95 % t-interval."""
    rows = [
        (arm.name, quantity, epoch, *astuple(of))
        for arm in result.arms
        for quantity in result.section.curves
        for epoch, of in mean_curve(arm, quantity)
    ]
    numbers = {"mean": pl.Float64, "low": pl.Float64, "high": pl.Float64, "runs": pl.Int64}
    return pl.DataFrame(rows, {"arm": pl.String, "quantity": pl.String, "epoch": pl.Int64} | numbers, orient="row")


def runs(result: StudyResult) -> pl.DataFrame:
    """A row a trial; trials with the same recipe share their run."""
    rows = [
        {
            "section": section.name,
            "arm": arm.name,
            "seed": outcome.trial.seed,
            "recipe": outcome.trial.recipe.key,
            "status": outcome.status,
            "epochs": len(outcome.history),
            "seconds": sum(epoch.seconds for epoch in outcome.history),
            "reason": outcome.reason,
        }
        for section in result.sections
        for arm in section.arms
        for outcome in arm.outcomes
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def epochs(result: StudyResult) -> pl.DataFrame:
    """A row a run and epoch: all that was measured."""
    names = [field.name for field in fields(Epoch)]
    rows = [
        {"recipe": key} | {name: getattr(line, name) for name in names}
        for key, o in result.outcomes.items()
        for line in o.history
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def per_class(best: BestOnTest) -> pl.DataFrame:
    """A row a class: the share of its test pictures that are classified correctly."""
    return pl.DataFrame({"class": list(best.record["per_class"]), "accuracy": list(best.record["per_class"].values())})


def confusion(best: BestOnTest) -> pl.DataFrame:
    """A row a true class, a column a class it was called: numbers of test pictures."""
    classes = list(best.record["per_class"])
    return pl.DataFrame(best.record["confusion"], [f"called {name}" for name in classes], orient="row").insert_column(
        0, pl.Series("true", classes)
    )


def every_table(result: StudyResult) -> Iterable[tuple[str | None, str, pl.DataFrame]]:
    """All tables, each with its section's name, or None for the whole study's, and its own."""
    yield None, "runs", runs(result)
    yield None, "epochs", epochs(result)
    for section in result.sections:
        yield section.name, "arms", arms(section)
        yield section.name, "curves", curves(section)
        if section.answers:
            yield section.name, "contrasts", contrasts(section)
    if result.best:
        yield None, "per_class", per_class(result.best)
        yield None, "confusion", confusion(result.best)
