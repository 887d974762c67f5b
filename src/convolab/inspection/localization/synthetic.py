"""Synthetic images: small images pasted at known positions on large ones, where no photo has boxes."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.data.annotations import BoundingBox
from convolab.data.dataset import ImageDataset
from convolab.data.image_io import resize_image
from convolab.inspection.localization.samples import (
    Background,
    EvaluationSample,
    EvaluationSetting,
    ObjectAnnotation,
)
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import compute_logits

BACKGROUNDS: tuple[Background, ...] = ("plain", "textured")  # they enter the names of samples, and so a seed
CANVAS_SCALE = 6  # a large image's side, in sides of the network's own input size
OBJECT_SIDES = (8, 16, 24, 32, 48, 64, 96)  # in 32nds of the network's own input size: a quarter of it to three times
POINTING_TOLERANCE_FRACTION = 0.03  # of a large image's side: as 15 pixels are of a photo's 500

IndexPair: TypeAlias = tuple[int, int]  # two images of a dataset


def synthetic_settings(
    net: ImageClassifier, dataset: ImageDataset, num_objects: int, seed: int = 0
) -> list[EvaluationSetting]:
    """Large images with two objects each, small images of different classes: one setting per size and background.

    The other object distinguishes a map of one class from a map of everything that stands out. Only images that the
    network classifies correctly at its own size are used, because what is scored is where it sees them. Which images,
    in which half of the large image and where, as fractions of the free space, depends on the seed alone, so it is the
    same for every background and size.

    Args:
        net: the network.
        dataset: images of its own classes.
        num_objects: the number of objects in each setting, two in an image.
        seed: of the choice and the positions.

    Raises LabError if the network has other classes or classifies too few images correctly.
    """
    pairs = choose_pairs(net, dataset, num_objects, seed)
    sizes = [max(1, round(side * min(net.input_size) / 32)) for side in OBJECT_SIDES]
    return [
        EvaluationSetting(
            f"{size} px on {background} background",
            render_samples(net, dataset, pairs, background, size, seed),
            background=background,
            object_size=size,
        )
        for background in BACKGROUNDS
        for size in sizes
    ]


def choose_pairs(net: ImageClassifier, dataset: ImageDataset, num_objects: int, seed: int) -> list[IndexPair]:
    """Pairs of correctly classified images of different classes."""
    require(
        tuple(net.classes) == tuple(dataset.classes),
        f"the network's classes are not those of {dataset.name}: score it on its own dataset",
    )
    pairs = pairs_of_different_classes(correctly_classified(net, dataset, seed), dataset)[: num_objects // 2]
    require(
        len(pairs) == num_objects // 2,
        f"the network classifies too few of the {len(dataset)} images of {dataset.name} correctly: use fewer objects",
    )
    return pairs


def correctly_classified(net: ImageClassifier, dataset: ImageDataset, seed: int) -> list[int]:
    """Indices of the images that the network classifies correctly, in a random order."""
    order = torch.randperm(len(dataset), generator=make_generator(seed, "pasted pictures"))
    correct: list[int] = []
    for batch in order.split(256):
        images, labels = dataset.gather(batch)
        correct += batch[compute_logits(net, images.to(net.scale) / 255).argmax(1) == labels].tolist()
    return correct


def pairs_of_different_classes(indices: list[int], dataset: ImageDataset) -> list[IndexPair]:
    """Pair each image with the first one before it that has another class and no partner."""
    pairs: list[IndexPair] = []
    unpaired: list[int] = []
    for index in indices:
        other = next((i for i in unpaired if dataset.labels[i] != dataset.labels[index]), None)
        if other is None:
            unpaired.append(index)
        else:
            unpaired.remove(other)
            pairs.append((other, index))
    return pairs


def render_samples(
    net: ImageClassifier,
    dataset: ImageDataset,
    pairs: list[IndexPair],
    background: Background,
    object_size: int,
    seed: int,
) -> tuple[EvaluationSample, ...]:
    """A large image for each pair, rendered when it is opened; `object_size` is its objects' side in pixels.

    Raises LabError if the objects do not fit.
    """
    height, width = CANVAS_SCALE * net.input_size[0], CANVAS_SCALE * net.input_size[1]
    require(
        1 <= object_size <= min(height, width) // 2,
        f"objects of {object_size} pixels do not fit into half of {width} x {height}",
    )
    samples = []
    for number, pair in enumerate(pairs):
        images, labels = dataset.gather(torch.tensor(pair))
        boxes = object_boxes((height, width), object_size, number, seed)
        annotations = tuple(
            ObjectAnnotation(dataset.classes[int(label)], (int(label),), (box,))
            for label, box in zip(labels, boxes, strict=True)
        )
        name = f"{background} {object_size} px, {number}"
        render = SyntheticImage(net, images, boxes, background, (height, width), number, seed)
        samples.append(EvaluationSample(name, render, annotations, POINTING_TOLERANCE_FRACTION * min(height, width)))
    return tuple(samples)


def object_boxes(canvas: tuple[int, int], object_size: int, number: int, seed: int) -> tuple[BoundingBox, BoundingBox]:
    """Random positions of two objects, one in each half of an image: one above the other, or side by side."""
    uniform = torch.rand(5, generator=make_generator(seed, "pasted places", number)).tolist()
    axis = int(uniform[0] < 0.5)  # along which the image is halved

    def place(half: int) -> BoundingBox:
        free_space = [canvas[k] // 2 if k == axis else canvas[k] for k in range(2)]
        top, left = (
            round(uniform[1 + 2 * half + k] * (free_space[k] - object_size))
            + (half * free_space[k] if k == axis else 0)
            for k in range(2)
        )
        return left, top, left + object_size, top + object_size

    return place(0), place(1)


@dataclass(frozen=True)
class SyntheticImage:
    """A large image with two small ones pasted on it; calling it renders it."""

    net: ImageClassifier
    images: UInt8[Tensor, "2 c h w"]
    boxes: tuple[BoundingBox, BoundingBox]
    background: Background
    size: tuple[int, int]
    number: int  # of the sample: the texture's stream
    seed: int

    def __call__(self) -> UInt8[Tensor, "c h w"]:
        if self.background == "plain":
            canvas = plain_background(self.net, self.size)
        else:
            canvas = textured_background(self.net, self.size, make_generator(self.seed, "texture", self.number))
        for image, (left, top, right, bottom) in zip(self.images, self.boxes, strict=True):
            size = int(bottom - top), int(right - left)
            canvas[:, int(top) : int(bottom), int(left) : int(right)] = resize_image(image, size, self.net.channels)
        return canvas


def plain_background(net: ImageClassifier, size: tuple[int, int]) -> UInt8[Tensor, "c h w"]:
    """The network's mean color."""
    color = (255 * torch.tensor(net.mean)).round().clamp(0, 255).to(torch.uint8)
    return color.view(-1, 1, 1).expand(-1, *size).clone()


def textured_background(net: ImageClassifier, size: tuple[int, int], rng: torch.Generator) -> UInt8[Tensor, "c h w"]:
    """Noise of every scale around the network's mean color, as strong in each octave as in natural images (1/f)."""
    total = torch.zeros(net.channels, *size)
    octave = 2
    while octave <= min(size):
        coarse = torch.randn(1, net.channels, octave, octave, generator=rng)
        total += F.interpolate(coarse, size, mode="bicubic", align_corners=False)[0]
        octave *= 2
    contrast = torch.tensor(net.std).view(-1, 1, 1) * total / total.std()
    return (255 * (torch.tensor(net.mean).view(-1, 1, 1) + contrast)).round().clamp(0, 255).to(torch.uint8)
