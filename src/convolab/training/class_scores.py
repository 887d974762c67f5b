"""Precision, recall and F1 of each class, from a confusion matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ClassScore:
    """How well one class is distinguished from the others, each in [0, 1]; None where nothing can be counted."""

    images: int  # whose true class it is
    precision: float | None  # of the images that were called so, the fraction that are; None: none was
    recall: float | None  # of its images, the fraction that were found: the accuracy of the class; None: it has none
    f1: float | None  # the harmonic mean of both; None: it has no images

    def to_dict(self) -> dict[str, int | float | None]:
        return asdict(self)


@dataclass(frozen=True)
class MacroScore:
    """The mean over the classes that have images; a class that was never predicted has a precision of 0 in it."""

    precision: float
    recall: float
    f1: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def class_scores(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, ClassScore]:
    """The scores of each class by its name. `confusion[true][predicted]` holds numbers of images.

    >>> scores = class_scores([[3, 1], [1, 1]], ("cat", "dog"))
    >>> scores["cat"].precision, scores["dog"].recall, scores["dog"].f1
    (0.75, 0.5, 0.5)
    """
    scores = {}
    for index, name in enumerate(classes):
        hits, images = confusion[index][index], sum(confusion[index])
        predicted = sum(row[index] for row in confusion)
        scores[name] = ClassScore(
            images=images,
            precision=hits / predicted if predicted else None,
            recall=hits / images if images else None,
            f1=2 * hits / (images + predicted) if images else None,
        )
    return scores


def macro_score(scores: Mapping[str, ClassScore]) -> MacroScore | None:
    """The mean over the classes that have images; None where no class has any."""
    counted = [score for score in scores.values() if score.images]
    if not counted:
        return None
    return MacroScore(
        *(
            sum(getattr(score, name) or 0.0 for score in counted) / len(counted)
            for name in ("precision", "recall", "f1")
        )
    )
