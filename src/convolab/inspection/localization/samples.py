"""What localization is evaluated on: images, the objects in them, and the settings in which they are scored."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from jaxtyping import UInt8
from torch import Tensor

from convolab.data.annotations import BoundingBox, read_annotations
from convolab.data.image_io import read_image
from convolab.inspection.localization.input_scale import InputScale
from convolab.inspection.localization.metrics import POINTING_TOLERANCE
from convolab.models.class_names import imagenet_class_names
from convolab.models.classifier import ImageClassifier

# What is behind the objects: `photos` keep their own background, at several scales at once in `all_scales`; synthetic
# images have a `plain` or a `textured` one.
Background: TypeAlias = Literal["photos", "all_scales", "plain", "textured"]


@dataclass(frozen=True)
class ObjectAnnotation:
    """All objects of a category in an image: the network's classes that it comprises, and where they are."""

    label: str
    classes: tuple[int, ...]
    boxes: tuple[BoundingBox, ...]


@dataclass(frozen=True)
class EvaluationSample:
    """An image and the objects in it."""

    name: str
    open_image: Callable[[], UInt8[Tensor, "c h w"]]  # reads or renders it
    annotations: tuple[ObjectAnnotation, ...]
    tolerance: float = POINTING_TOLERANCE  # of the pointing game, in pixels


@dataclass(frozen=True)
class EvaluationSetting:
    """Images that are scored together, all at the same scales."""

    name: str
    samples: tuple[EvaluationSample, ...]
    scales: tuple[InputScale, ...] = (InputScale(),)  # responses at several are averaged
    background: Background = "photos"
    object_size: int | None = None  # side of the synthetic objects, in pixels
    shorter_side: int | None = None  # of the photos as the network sees them, in pixels; None: not the same for all

    @property
    def tolerance(self) -> float:
        """The pointing game's tolerance, in pixels."""
        return self.samples[0].tolerance if self.samples else POINTING_TOLERANCE


def annotated_samples(folder: Path | str, net: ImageClassifier) -> tuple[EvaluationSample, ...]:
    """The photos of a folder with boxes.json, see `read_annotations`.

    Raises LabError for a category that is not a class of the network and comprises none that it knows.
    """
    photos, category_classes = read_annotations(folder)
    is_imagenet = tuple(net.classes) == imagenet_class_names()[0]

    def class_indices(category: str) -> tuple[int, ...]:
        if is_imagenet and category in category_classes:
            return category_classes[category]
        return (net.find_class(category),)

    return tuple(
        EvaluationSample(
            photo.path.name,
            partial(read_image, photo.path),
            tuple(ObjectAnnotation(label, class_indices(label), boxes) for label, boxes in photo.objects.items()),
        )
        for photo in photos
    )


def photo_settings(folder: Path | str, net: ImageClassifier, scales: tuple[InputScale, ...]) -> list[EvaluationSetting]:
    """The photos of a folder with boxes.json, at each scale and, if there are several, at all of them together."""
    samples = annotated_samples(folder, net)
    settings = [
        EvaluationSetting(f"scale {scale}", samples, (scale,), shorter_side=scale.shorter_side) for scale in scales
    ]
    if len(scales) > 1:
        name = f"scales {' + '.join(map(str, scales))}"
        settings.append(EvaluationSetting(name, samples, scales, background="all_scales"))
    return settings
