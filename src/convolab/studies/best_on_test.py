"""The best run of a study on the test set: which run it is, how much choosing it inflates its accuracy, and the sentences on it."""

from collections.abc import Sequence
from dataclasses import replace

from convolab.core.errors import require
from convolab.core.stats import selection_bias
from convolab.core.text import pluralize
from convolab.studies.formatting import describe_step
from convolab.studies.metrics import Metric
from convolab.studies.results import BestOnTest, TrialResult
from convolab.training.run_records import EvaluationRecord

SELECTION_METRIC = Metric("best", "validation_accuracy")  # chooses the run to test


def select_best(trial_results: Sequence[TrialResult]) -> TrialResult | None:
    """The finished run of the best validation accuracy, the first of equals; None where no run has one."""
    return max(eligible_results(trial_results), key=lambda r: SELECTION_METRIC.compute(r.history), default=None)


def eligible_results(trial_results: Sequence[TrialResult]) -> list[TrialResult]:
    """The finished runs that have a validation accuracy, each once however many trials share it."""
    runs: dict[str, TrialResult] = {}
    for result in trial_results:
        if result.status == "finished" and result.history[0].validation_accuracy is not None:
            runs.setdefault(result.trial.recipe.key, result)
    return list(runs.values())


def make_best_on_test(
    trial_result: TrialResult,
    trial_results: Sequence[TrialResult],
    num_validation_images: int,
    test_result: EvaluationRecord,
) -> BestOnTest:
    """What the test of one finished run says, which `select_best` chose by its validation accuracy.

    Args:
        trial_result: the tested run's
        trial_results: those that it was chosen from
        num_validation_images: images that its validation accuracy was measured on
        test_result: what its `Run.test` gave

    Raises LabError if no result has a validation accuracy.
    """
    accuracies = [SELECTION_METRIC.compute(r.history) for r in eligible_results(trial_results)]
    require(accuracies, "no finished run has a validation accuracy, so there is no best run to evaluate")
    best = BestOnTest(
        trial_result=trial_result,
        num_candidates=len(accuracies),
        validation_accuracy=SELECTION_METRIC.compute(trial_result.history),
        num_validation_images=num_validation_images,
        selection_bias=selection_bias(accuracies, num_validation_images),
        test_result=test_result,
        comment="",
    )
    return replace(best, comment=describe_best_on_test(best))


def describe_best_on_test(best: BestOnTest) -> str:
    """What the test says of the chosen run, and whether its test accuracy agrees with its validation accuracy.

    They agree if their difference, after the expected selection bias, is within what chance explains.
    """
    trial, test, several = best.trial_result.trial, best.test_result, best.num_candidates > 1
    low, high = test.interval
    chosen = f"the best of {best.num_candidates:,} runs" if several else "the only run"
    bias = (
        f"; selecting the best of {best.num_candidates:,} is expected to inflate it by up to "
        f"{100 * best.selection_bias:.2f} percentage points"
    )
    gap = best.validation_accuracy - test.correct / test.count  # positive: the validation accuracy is higher
    if gap - best.selection_bias > best.chance_margin:
        judgment = (
            "more than selection bias and chance explain: selecting the best epoch inflates it too, "
            "or the test images are harder"
        )
    elif gap < -best.chance_margin:
        judgment = "more than chance explains: the test images seem to be easier"
    else:
        judgment = f"within what {'selection bias and chance explain' if several else 'chance explains'}"
    return (
        f"'{trial.arm}' of section '{trial.section}' with seed {trial.seed}, {chosen} in validation, classifies "
        f"{100 * test.correct / test.count:.2f} % of {test.count:,} test images correctly "
        f"(95 % interval {100 * low:.2f} to {100 * high:.2f} %). "
        f"Its validation accuracy is {100 * best.validation_accuracy:.2f} % on "
        f"{pluralize(best.num_validation_images, 'image')}{bias if several else ''}. "
        f"The test accuracy is {describe_step(-100 * gap, 2, 'percentage points')}, {judgment} "
        f"(±{100 * best.chance_margin:.2f} by chance alone)."
    )
