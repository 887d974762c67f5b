"""Whether a trained network clearly beats chance, by the numbers that its run recorded."""

from convolab.core.stats import wilson_interval
from convolab.core.text import format_percent
from convolab.training.history import EpochMetrics
from convolab.training.run_records import EvaluationRecord

MARGIN = 0.1  # of what is left above chance: where the number of images is not recorded, less is not clearly above it


def chance_caution(best: EpochMetrics | None, test: EvaluationRecord | None, num_classes: int) -> str:
    """A sentence for a network that hardly beats chance; empty for one that clearly does, and where nothing is known.

    A test decides by the interval of its accuracy, beside the share of the largest class among its images. Without one
    the accuracy of the best epoch must be above chance by half of chance or by `MARGIN` of the rest, whichever is less.

    >>> chance_caution(EpochMetrics(1, 2.3, 0.11, 2.3, 0.12), None, 10)
    'this network hardly beats chance (validation accuracy 12.00 %, chance 10.00 %): what is found of it may mean nothing'
    >>> chance_caution(EpochMetrics(1, 0.3, 0.9, 0.3, 0.9), None, 10)
    ''
    """
    if test is not None:
        largest_class = max(map(sum, test.confusion)) / max(test.count, 1)
        chance = max(1 / num_classes, largest_class)
        accuracy, source = test.accuracy, "test accuracy"
        is_clear = wilson_interval(test.correct, max(test.count, 1))[0] > chance
    elif best is not None:
        chance = 1 / num_classes
        is_validated = best.validation_accuracy is not None
        accuracy = best.train_accuracy if best.validation_accuracy is None else best.validation_accuracy
        source = "validation accuracy" if is_validated else "training accuracy"
        is_clear = accuracy > chance + min(chance / 2, MARGIN * (1 - chance))
    else:
        return ""
    if is_clear:
        return ""
    numbers = f"{source} {format_percent(accuracy)}, chance {format_percent(chance)}"
    return f"this network hardly beats chance ({numbers}): what is found of it may mean nothing"
