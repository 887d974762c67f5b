"""The entries of a recipe's `data.augment`: read into transforms, and applied to a batch."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor, nn

from convolab.core.errors import LabError, describe_exception, require
from convolab.core.rng import isolated_rng, make_generator
from convolab.models.inference import eval_mode
from convolab.models.own_code import OwnCode
from convolab.training.other_transform import (
    OtherTransform,
    as_transform,
    build_other_transform,
    is_other_entry,
    suggest_transform,
)
from convolab.training.transforms import (
    RENAMED_TRANSFORMS,
    TRANSFORMS,
    AlternatingFlip,
    AnyPixels,
    BatchOrigin,
    MixingTransform,
    Progressive,
    Targets,
    TimedTransform,
    Transform,
    to_float01,
)

AnyTransform = Transform | OtherTransform


def parse_transform(entry: str, code: OwnCode | None = None) -> AnyTransform:
    """The transform of an entry: `name` or `name:strength` of ours, or as in `fill_entry`; `progressive` takes several strengths.

    `code` is the copy to use of the code of a person's own. Raises LabError for an unknown name or a strength out of its
    range.

    >>> parse_transform("crop:4"), parse_transform("flip")
    (RandomCrop(padding=4), RandomHorizontalFlip(probability=0.5))
    >>> parse_transform("progressive:0.5:0.75")
    Progressive(start=0.5, later=(0.75,))
    """
    name, colon, strength = entry.partition(":")
    require(name not in RENAMED_TRANSFORMS, f"augmentation '{name}' is now called '{RENAMED_TRANSFORMS.get(name)}'")
    if is_other_entry(entry):
        return build_other_transform(entry, code)
    known = name.partition("(")[0]
    require(known == name or known not in TRANSFORMS, f"augmentation '{entry}': write {known}:STRENGTH, or {known}")
    require(name in TRANSFORMS, f"unknown augmentation '{name}': {suggest_transform(name)}")
    transform_class = TRANSFORMS[name]
    if not colon:
        return transform_class()
    if transform_class.valid_range is None:
        raise LabError(f"augmentation '{entry}': {name} has no strength, write {name}")
    if transform_class is Progressive:
        start, *later = (
            read_strength(entry, fraction, transform_class.valid_range) for fraction in strength.split(":")
        )
        require(
            [start, *later] == sorted({start, *later}),
            f"augmentation '{entry}': each fraction must be larger than the one before it",
        )
        return Progressive(start, tuple(later))
    value = read_strength(entry, strength, transform_class.valid_range)
    return cast("Callable[[float], Transform]", transform_class)(value)


def read_strength(entry: str, strength: str, valid_range: tuple[float, float]) -> float:
    """The number, whole where the range is."""
    low, high = valid_range
    try:
        value = type(low)(strength)
    except ValueError as error:
        raise LabError(
            f"augmentation '{entry}': '{strength}' is not {'a whole number' if type(low) is int else 'a number'}"
        ) from error
    require(low <= value <= high, f"augmentation '{entry}': the strength must be from {low} to {high}")
    return value


def as_any_transform(value: object) -> AnyTransform:
    """A transform from an entry, from itself, or from a function of pixels. Raises LabError for anything else."""
    if isinstance(value, str):
        return parse_transform(value)
    if isinstance(value, Transform | OtherTransform):
        return value
    name = getattr(value, "__name__", type(value).__name__)
    require(callable(value), f"'{name}' is not a transform: give its entry, such as 'crop:4', or a function of pixels")
    return as_transform(cast("Callable[[Tensor], Tensor]", value), name, value)


def apply_transforms(
    pixels: AnyPixels,
    labels: Int64[Tensor, "n"],
    transforms: Sequence[AnyTransform],
    num_classes: int,
    generator: Generator,
    origin: BatchOrigin | None = None,
) -> tuple[Float[Tensor, "n c h2 w2"], Targets]:
    """Apply transforms in order to a batch of uint8 images; by default all of a set, in its first epoch.

    Returns the pixels in [0, 1], and the labels, or a probability for each class if a transform mixes images.
    """
    targets = labels
    origin = origin or BatchOrigin(torch.arange(len(pixels)), len(pixels), epoch=0, progress=0.0, seed=0)
    for transform in transforms:
        if not transform.supports_uint8:
            pixels = to_float01(pixels)
        if isinstance(transform, MixingTransform):
            label_probabilities = targets if targets.is_floating_point() else F.one_hot(targets, num_classes).float()
            pixels, targets = transform(pixels, label_probabilities, generator)
        elif isinstance(transform, TimedTransform):
            pixels = transform(pixels, origin)
        else:
            pixels = transform(pixels, generator)
    return to_float01(pixels), targets


def mixes_labels(transforms: Sequence[AnyTransform]) -> bool:
    """Whether a transform makes a probability for each class of the labels."""
    return any(isinstance(transform, MixingTransform) for transform in transforms)


def check_transforms(
    transforms: Sequence[AnyTransform], images: UInt8[Tensor, "n c h w"], labels: Int64[Tensor, "n"], num_classes: int
) -> None:
    """Raise LabError for a transform of somebody else's that gives no pixels in [0, 1] for a first batch: it is tried."""
    require_once(transforms, "transforms")
    if not any(isinstance(transform, OtherTransform) for transform in transforms):
        return
    pixels: AnyPixels = images
    for transform in transforms:
        pixels, _ = apply_transforms(pixels, labels, [transform], num_classes, make_generator(0, "check"))


def require_once(transforms: Sequence[AnyTransform], place: str) -> None:
    """Raise LabError, which begins with their place, if one of the transforms that go with the epochs is there twice."""
    for name, kind in (("alternating_flip", AlternatingFlip), ("progressive", Progressive)):
        count = sum(isinstance(transform, kind) for transform in transforms)
        require(count < 2, f"{place} has {name} {count} times: once is what it is for")


def check_first_size(network: nn.Module, transforms: Sequence[AnyTransform], shape: tuple[int, int, int]) -> None:
    """Raise LabError unless a network takes the smaller images that a training begins with, if it does."""
    channels, height, width = shape
    for transform in transforms:
        if not isinstance(transform, Progressive):
            continue
        fractions = ":".join(f"{fraction:g}" for fraction in (transform.start, *transform.later))
        entry = f"augmentation 'progressive:{fractions}'"
        size = transform.size(height, width, 0.0)
        require(size != (height, width), f"{entry}: that is all of {height}x{width} pixels: give a smaller fraction")
        pixels = torch.zeros(2, channels, *size, device=next((p.device for p in network.parameters()), None))
        try:
            with eval_mode(network), torch.no_grad(), isolated_rng(pixels.device):
                network(pixels)
        except (Exception, SystemExit) as error:  # whatever a person's own network does
            raise LabError(
                f"{entry}: the network takes no images of {size[0]}x{size[1]} pixels, which it begins with: give a larger "
                f"fraction, or another network ({describe_exception(error)})"
            ) from error


def depends_on_the_past(transform: OtherTransform, images: UInt8[Tensor, "n c h w"]) -> bool:
    """Whether somebody else's transform gives pixels that its input and the seed do not decide: it is tried."""
    fresh = build_other_transform(transform.entry, transform.code)
    transform(images, make_generator(0, "earlier batch"))
    first, *others = (one(images, make_generator(0, "this batch")) for one in (transform, fresh, transform))
    return not all(torch.equal(first, other) for other in others)
