"""Made-up large pictures: small ones pasted at known places, to score localisation where no photo has a box."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from convolab.core.errors import need
from convolab.core.rng import generator
from convolab.data.dataset import ImageSet
from convolab.data.image_io import resized
from convolab.inspection.localization.evaluation import Scene, Target
from convolab.models.classifier import PixelNet, undisturbed

Ground = Literal["plain", "textured"]
GROUNDS: tuple[Ground, ...] = get_args(Ground)
CANVAS = 6  # sides of the network's own size along a side of the large picture
TOLERANCE = 0.03  # of that side, by which a point may lie beside the box: as 15 pixels are of a photo's 500


def pasted_scenes(
    net: PixelNet, pictures: ImageSet, ground: Ground, side: int, count: int, seed: int = 0
) -> list[Scene]:
    """`count` things on large pictures, two of different classes on each: small pictures, resized to `side` pixels, boxes around them.

    The other thing is what tells a map of a class from one of all that stands out. Only pictures that the network classifies
    right at its own size are taken: what is scored is where it sees them. Which ones, on which half of the large picture and
    where, as shares of what is left there, hangs on the seed alone, so it is the same for every ground and side.
    Raises LabError if the network does not know the pictures' classes, or is right about too few of them.
    """
    need(
        tuple(net.classes) == tuple(pictures.classes),
        f"the network's classes are not those of {pictures.name}: score it on its own set",
    )
    canvas = (CANVAS * net.size[0], CANVAS * net.size[1])
    need(1 <= side <= min(canvas) // 2, f"things of {side} pixels do not fit a half of {canvas[1]} x {canvas[0]}")
    couples = couples_of(right_ones(net, pictures, seed), pictures)[: count // 2]
    need(
        len(couples) == count // 2,
        f"the network is right about too few of the {len(pictures)} pictures of {pictures.name}: lower --count",
    )
    return [scene(net, pictures, couple, ground, side, canvas, number, seed) for number, couple in enumerate(couples)]


def right_ones(net: PixelNet, pictures: ImageSet, seed: int) -> list[int]:
    """Indices of the pictures that the network classifies right, in an order drawn by the seed."""
    order, found = torch.randperm(len(pictures), generator=generator(seed, "pasted pictures")), []
    with torch.no_grad(), undisturbed(net):
        for some in order.split(256):
            images, labels = pictures.take(some)
            found += some[net(images.to(net.scale) / 255).argmax(1) == labels].tolist()
    return found


def couples_of(indices: list[int], pictures: ImageSet) -> list[tuple[int, int]]:
    """Pictures in couples of different classes, each with the first before it that is still alone."""
    couples, alone = [], []
    for index in indices:
        other = next((i for i in alone if pictures.labels[i] != pictures.labels[index]), None)
        if other is None:
            alone.append(index)
        else:
            alone.remove(other)
            couples.append((other, index))
    return couples


def scene(
    net: PixelNet,
    pictures: ImageSet,
    couple: tuple[int, int],
    ground: Ground,
    side: int,
    canvas: tuple[int, int],
    number: int,
    seed: int,
) -> Scene:
    """A large picture with a thing on either half of it."""
    images, labels = pictures.take(torch.tensor(couple))
    drawn = torch.rand(5, generator=generator(seed, "pasted places", number)).tolist()
    axis = int(drawn[0] < 0.5)  # one above the other, or side by side
    corners = []
    for half in range(2):
        room = [canvas[k] // 2 if k == axis else canvas[k] for k in range(2)]
        place = [
            round(drawn[1 + 2 * half + k] * (room[k] - side)) + (half * room[k] if k == axis else 0) for k in range(2)
        ]
        corners.append((place[1], place[0], place[1] + side, place[0] + side))
    targets = tuple(
        Target(pictures.classes[int(label)], (int(label),), (box,)) for label, box in zip(labels, corners, strict=True)
    )

    def make() -> UInt8[Tensor, "c h w"]:
        whole = plain(net, canvas) if ground == "plain" else textured(net, canvas, generator(seed, "texture", number))
        for image, (left, top, right, bottom) in zip(images, corners, strict=True):
            whole[:, top:bottom, left:right] = resized(image, (side, side), net.channels)
        return whole

    return Scene(f"{ground} {side} px, {number}", make, targets, TOLERANCE * min(canvas))


def plain(net: PixelNet, size: tuple[int, int]) -> UInt8[Tensor, "c h w"]:
    """The network's mean colour."""
    colour = (255 * torch.tensor(net.mean)).round().clamp(0, 255).to(torch.uint8)
    return colour.view(-1, 1, 1).expand(-1, *size).clone()


def textured(net: PixelNet, size: tuple[int, int], drawn: torch.Generator) -> UInt8[Tensor, "c h w"]:
    """Noise of every size, as strong in each octave as in natural pictures' (1/f): clouds around the network's mean colour."""
    total, octave = torch.zeros(net.channels, *size), 2
    while octave <= min(size):
        coarse = torch.randn(1, net.channels, octave, octave, generator=drawn)
        total += F.interpolate(coarse, size, mode="bicubic", align_corners=False)[0]
        octave *= 2
    spread = torch.tensor(net.std).view(-1, 1, 1) * total / total.std()
    return (255 * (torch.tensor(net.mean).view(-1, 1, 1) + spread)).round().clamp(0, 255).to(torch.uint8)
