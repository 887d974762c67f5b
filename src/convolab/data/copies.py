"""Images that a dataset holds twice: in training and test they make the test too easy, under two classes one is wrong."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from convolab.core.text import pluralize, truncate_list
from convolab.data.dataset import images_per_chunk

THUMBNAIL_SIZE = 8
MAX_DIFFERENCE = 1.0  # gray levels of 255, root mean square of two thumbnails that are nearly the same
MIN_CONTRAST = 5.0  # gray levels, standard deviation of a thumbnail: of plain images many look the same
BLOCK = 512  # thumbnails that are compared with others at once
MAX_GROUPS = 16  # of one image that is in many
SPLITS = ("train", "validation", "test")
MAX_PAIRS = 1_000_000  # that are looked for
MAX_NEIGHBORS = 4096  # of a block: with more of the same brightness, the rest is not compared


def exact_copies(images: UInt8[Tensor, "n c h w"]) -> Int64[Tensor, "n"]:
    """For each image the index of the first one with the same pixels: its own, unless it is a copy.

    >>> exact_copies(torch.tensor([5, 7, 5]).byte().view(3, 1, 1, 1)).tolist()
    [0, 1, 0]
    """
    first: dict[bytes, int] = {}
    rows = images.flatten(1).numpy()
    return torch.tensor(
        [
            first.setdefault(hashlib.sha1(np.ascontiguousarray(row).data, usedforsecurity=False).digest(), i)
            for i, row in enumerate(rows)
        ]
    )


def thumbnails(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n 64"]:
    """Each image in 8 x 8 levels of green, from 0 to 255: nearly its gray, in a third of the time."""
    green = images[:, images.shape[1] // 2]
    size = min(BLOCK, images_per_chunk(tuple(green.shape[1:])))
    # Into one tensor, not a list: each small result of a list would lie behind its chunk in memory, and glibc before 2.38 does not
    # fit the next chunk, which is aligned, into the gap. So 50 GB of images would take about as much memory again.
    small = torch.empty(len(green), THUMBNAIL_SIZE**2)
    for part, rows in zip(green.split(size), small.split(size), strict=True):
        rows.copy_(F.adaptive_avg_pool2d(part.float(), THUMBNAIL_SIZE).flatten(1))
    return small


def near_copies(images: UInt8[Tensor, "n c h w"], groups: Int64[Tensor, "n"]) -> Int64[Tensor, "m 2"]:
    """The pairs of images, of different groups, whose thumbnails are nearly the same, as after saving them again.

    Only thumbnails of nearly the same brightness are compared, so this takes far less than the square of their number.
    """
    small = thumbnails(images)
    candidates = (small.std(1) >= MIN_CONTRAST).nonzero().squeeze(1)
    brightness, order = small[candidates].mean(1).sort()
    candidates = candidates[order]
    small, groups = small[candidates], groups[candidates]
    ends = torch.searchsorted(brightness, brightness + MAX_DIFFERENCE, right=True)
    found: list[Int64[Tensor, "k 2"]] = []
    for start in range(0, len(candidates), BLOCK):
        stop = min(start + BLOCK, len(candidates))
        end = min(int(ends[stop - 1]), stop + MAX_NEIGHBORS)
        differences = torch.cdist(small[start:stop], small[start:end]) / THUMBNAIL_SIZE
        is_pair = (differences <= MAX_DIFFERENCE) & (groups[start:stop, None] != groups[None, start:end])
        found.append(is_pair.triu(1).nonzero() + start)
        if (
            sum(map(len, found)) > MAX_PAIRS
        ):  # thousands of one image: no more are needed to see that something is wrong
            break
    pairs = torch.cat([*found, torch.empty(0, 2, dtype=torch.int64)])
    return candidates[pairs].sort(1).values


def describe_copies(
    images: UInt8[Tensor, "n c h w"], labels: Int64[Tensor, "n"], splits: Sequence[str], names: Sequence[str]
) -> list[str]:
    """What a person should know of images that are there twice, or nearly twice.

    Args:
        images: of all splits.
        labels: the class of each.
        splits: of each image "train", "validation" or "test".
        names: of each image, for the notes.

    Returns:
        A line for each kind of copy, with the count and the first names.

    >>> pixels = torch.tensor([5, 7, 5]).byte().view(3, 1, 1, 1)
    >>> describe_copies(pixels, torch.tensor([0, 1, 0]), ["train", "train", "test"], ["a.png", "b.png", "c.png"])
    ['1 image of test is also in train (c.png = a.png): the test is easier than it looks']
    """
    numbers = torch.tensor([SPLITS.index(split) for split in splits]) * (int(labels.max()) + 1) + labels
    first = exact_copies(images)
    exact = pair_up(first, numbers)
    near = [(a, b) for a, b in near_copies(images, numbers).tolist() if first[a] != first[b]]
    notes = []
    for pairs, sign, nearly in ((exact, "=", ""), (near, "~", "nearly ")):
        for split, other in (("test", "train"), ("validation", "train"), ("test", "validation")):
            ordered = [sorted(pair, key=lambda index: SPLITS.index(splits[index])) for pair in pairs]
            across = {b: a for a, b in reversed(ordered) if (splits[a], splits[b]) == (other, split)}
            notes += note(
                across,
                names,
                sign,
                f"of {split} {{are}} {nearly}also in {other}",
                f"the {split} is easier than it looks",
            )
        twice = {b: a for a, b in reversed(pairs) if a < b and labels[a] != labels[b]}
        notes += note(twice, names, sign, f"{{are}} {nearly}the same under two classes", "one label is wrong")
    if "validation" not in splits:
        repeated = {
            index: original
            for index, original in enumerate(first.tolist())
            if index != original and splits[index] == splits[original] == "train"
        }
        notes += note(
            repeated, names, "=", "of train {are} there twice", "validation images drawn from train may be copies"
        )
    return notes


def pair_up(first: Int64[Tensor, "n"], numbers: Int64[Tensor, "n"]) -> list[tuple[int, int]]:
    """Pairs of equal images of different groups: each image with the first one of other groups."""
    members: dict[int, list[int]] = {}
    for index in (first != torch.arange(len(first))).nonzero().squeeze(1).tolist():
        members.setdefault(int(first[index]), [int(first[index])]).append(index)
    pairs = []
    for indices in members.values():
        representatives: dict[int, int] = {}
        for index in indices:
            if len(representatives) < MAX_GROUPS:
                representatives.setdefault(int(numbers[index]), index)
        pairs += [
            (representative, index)
            for index in indices
            for number, representative in representatives.items()
            if number != numbers[index]
        ]
    return pairs


def note(originals: dict[int, int], names: Sequence[str], sign: str, what: str, consequence: str) -> list[str]:
    """A line about copies, with the first of them; none if there are none."""
    if not originals:
        return []
    shown = truncate_list(
        [f"{names[index]} {sign} {names[original]}" for index, original in sorted(originals.items())], 3
    )
    what = what.format(are="is" if len(originals) == 1 else "are")
    return [f"{pluralize(len(originals), 'image')} {what} ({shown}): {consequence}"]
