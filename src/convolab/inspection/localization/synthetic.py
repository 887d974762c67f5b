"""Made-up large pictures: small ones pasted at known places, to score localisation where no photo has a box."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.data.dataset import ImageDataset
from convolab.data.image_io import resize_image
from convolab.inspection.localization.evaluation import EvaluationSample, ObjectAnnotation
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import compute_logits

Background = Literal["plain", "textured"]
BACKGROUNDS: tuple[Background, ...] = get_args(Background)
CANVAS_SCALE = 6  # sides of the network's own size along a side of the large picture
POINTING_TOLERANCE_FRACTION = (
    0.03  # of that side, by which a point may lie beside the box: as 15 pixels are of a photo's 500
)


def synthetic_samples(
    net: ImageClassifier,
    dataset: ImageDataset,
    background: Background,
    object_size: int,
    num_objects: int,
    seed: int = 0,
) -> list[EvaluationSample]:
    """`count` things on large pictures, two of different classes on each: small pictures, resized to `side` pixels, boxes around them.

    The other thing is what tells a map of a class from one of all that stands out. Only pictures that the network classifies
    right at its own size are taken: what is scored is where it sees them. Which ones, on which half of the large picture and
    where, as shares of what is left there, hangs on the seed alone, so it is the same for every ground and side.
    Raises LabError if the network does not know the pictures' classes, or is right about too few of them.
    """
    require(
        tuple(net.classes) == tuple(dataset.classes),
        f"the network's classes are not those of {dataset.name}: score it on its own set",
    )
    canvas = (CANVAS_SCALE * net.input_size[0], CANVAS_SCALE * net.input_size[1])
    require(
        1 <= object_size <= min(canvas) // 2,
        f"things of {object_size} pixels do not fit a half of {canvas[1]} x {canvas[0]}",
    )
    pairs = pairs_of_different_classes(correctly_classified(net, dataset, seed), dataset)[: num_objects // 2]
    require(
        len(pairs) == num_objects // 2,
        f"the network is right about too few of the {len(dataset)} pictures of {dataset.name}: lower --count",
    )
    return [
        synthetic_sample(net, dataset, couple, background, object_size, canvas, number, seed)
        for number, couple in enumerate(pairs)
    ]


def correctly_classified(net: ImageClassifier, dataset: ImageDataset, seed: int) -> list[int]:
    """Indices of the pictures that the network classifies right, in an order drawn by the seed."""
    order, correct = torch.randperm(len(dataset), generator=make_generator(seed, "pasted pictures")), []
    for batch in order.split(256):
        images, labels = dataset.gather(batch)
        correct += batch[compute_logits(net, images.to(net.scale) / 255).argmax(1) == labels].tolist()
    return correct


def pairs_of_different_classes(indices: list[int], dataset: ImageDataset) -> list[tuple[int, int]]:
    """Pictures in couples of different classes, each with the first before it that is still alone."""
    pairs, unpaired = [], []
    for index in indices:
        other = next((i for i in unpaired if dataset.labels[i] != dataset.labels[index]), None)
        if other is None:
            unpaired.append(index)
        else:
            unpaired.remove(other)
            pairs.append((other, index))
    return pairs


def synthetic_sample(
    net: ImageClassifier,
    dataset: ImageDataset,
    pair: tuple[int, int],
    background: Background,
    object_size: int,
    canvas: tuple[int, int],
    sample_index: int,
    seed: int,
) -> EvaluationSample:
    """A large picture with a thing on either half of it."""
    images, labels = dataset.gather(torch.tensor(pair))
    uniform = torch.rand(5, generator=make_generator(seed, "pasted places", sample_index)).tolist()
    axis = int(uniform[0] < 0.5)  # one above the other, or side by side
    boxes = []
    for half in range(2):
        free_space = [canvas[k] // 2 if k == axis else canvas[k] for k in range(2)]
        position = [
            round(uniform[1 + 2 * half + k] * (free_space[k] - object_size))
            + (half * free_space[k] if k == axis else 0)
            for k in range(2)
        ]
        boxes.append((position[1], position[0], position[1] + object_size, position[0] + object_size))
    targets = tuple(
        ObjectAnnotation(dataset.classes[int(label)], (int(label),), (box,))
        for label, box in zip(labels, boxes, strict=True)
    )

    def render() -> UInt8[Tensor, "c h w"]:
        canvas_image = (
            plain_background(net, canvas)
            if background == "plain"
            else textured_background(net, canvas, make_generator(seed, "texture", sample_index))
        )
        for image, (left, top, right, bottom) in zip(images, boxes, strict=True):
            canvas_image[:, top:bottom, left:right] = resize_image(image, (object_size, object_size), net.channels)
        return canvas_image

    return EvaluationSample(
        f"{background} {object_size} px, {sample_index}", render, targets, POINTING_TOLERANCE_FRACTION * min(canvas)
    )


def plain_background(net: ImageClassifier, size: tuple[int, int]) -> UInt8[Tensor, "c h w"]:
    """The network's mean colour."""
    color = (255 * torch.tensor(net.mean)).round().clamp(0, 255).to(torch.uint8)
    return color.view(-1, 1, 1).expand(-1, *size).clone()


def textured_background(net: ImageClassifier, size: tuple[int, int], rng: torch.Generator) -> UInt8[Tensor, "c h w"]:
    """Noise of every size, as strong in each octave as in natural pictures' (1/f): clouds around the network's mean colour."""
    total, octave = torch.zeros(net.channels, *size), 2
    while octave <= min(size):
        coarse = torch.randn(1, net.channels, octave, octave, generator=rng)
        total += F.interpolate(coarse, size, mode="bicubic", align_corners=False)[0]
        octave *= 2
    contrast = torch.tensor(net.std).view(-1, 1, 1) * total / total.std()
    return (255 * (torch.tensor(net.mean).view(-1, 1, 1) + contrast)).round().clamp(0, 255).to(torch.uint8)
