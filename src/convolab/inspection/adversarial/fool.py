"""Fool a network with pictures: what it took, what it is taken for now, and whether other networks are fooled too."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from convolab.core.errors import need
from convolab.core.rng import generator
from convolab.data.image_io import MAX_PIXELS, decode, open_photo
from convolab.inspection.adversarial.finding import Aims, describe, in_floats
from convolab.inspection.adversarial.pgd import MAX_STEPS, Ascent, Budget, Climb, ascend
from convolab.inspection.adversarial.transfer import lengths, matrix, noisy, respond
from convolab.inspection.result import Finding
from convolab.models.classifier import PixelNet

Bytes = UInt8[Tensor, "n c h w"]
Photo = UInt8[Tensor, "c h w"] | Path | str
MOMENTUM, DIVERSITY, CONFIDENCE = 1.0, 0.7, 0.95  # of a climb for transfer
NOISE = "noise"


def fool(
    net: PixelNet,
    pictures: Photo | Sequence[Photo],
    target: str | int | Sequence[str | int],
    *,
    objective: str | None = None,
    budget: str = "none",
    step: float | None = None,
    max_steps: int = MAX_STEPS,
    confidence: float | None = None,
    transfer: Mapping[str, PixelNet] | None = None,
    for_transfer: bool = False,
    sources: Mapping[str, PixelNet] | None = None,
    seed: int = 0,
    names: Sequence[str] | None = None,
    on_progress: Callable[[str], None] = lambda what: None,
) -> Finding:
    """Change pictures by gradient ascent until the network takes each for each target, and see whether other networks do too.

    A picture is bytes, what `open_photo` opens, or `noise`. A target is a class as `PixelNet.find_class` takes it; several with
    commas or in a list; `random:3` draws three for each picture. `objective` is one of `ascent.OBJECTIVES`, by default the
    log-probability, for transfer the logit. `transfer` are other networks by name, of the same classes.
    `for_transfer` climbs with momentum and input diversity, on all `sources` besides this network, until all are `confidence`
    sure (0.95 unless given; else the first success is enough), and measures plain ascent beside it.
    Raises LabError for what cannot be understood, a target that a picture is taken for already, and networks of other classes.

    >>> from convolab.models.pretrained import pretrained
    >>> finding = fool(pretrained("efficientnet_lite0"), "chelsea", "goldfish")
    >>> finding.numbers["fooled"]["share"], finding.numbers["pictures"][0]["before"]["class"]
    (1.0, 'tiger cat')
    """
    sources, transfer = dict(sources or {}), dict(transfer or {})
    climb = climb_for(objective, budget, step, max_steps, confidence, for_transfer)
    check_networks(net, transfer, sources, for_transfer)
    chosen = find_targets(net, target)
    given = [pictures] if isinstance(pictures, Tensor | Path | str) else list(pictures)
    names = tuple(names or (name_of(picture, i) for i, picture in enumerate(given)))
    clean = torch.stack([fitted(net, picture, seed, i) for i, picture in enumerate(given)])
    logits = respond(net, in_floats(clean))
    need(
        logits.isfinite().all(),
        "the network's logits are not finite: its weights are damaged, or its training went astray",
    )
    aims = aims_for(net, names, clean, chosen, logits.argmax(1).tolist(), seed)
    went = ascend((net, *sources.values()), aims.clean, aims.targets, climb, seed=seed, on_progress=on_progress)
    went = replace(went, pictures=torch.stack([saved_and_read(p) for p in went.pictures]))
    found = None
    if transfer:
        kinds = kinds_of(net, aims, went, climb, for_transfer, seed, on_progress)
        found = matrix(transfer, kinds, aims.targets, on_progress)
    settings = {"seed": seed, "for_transfer": for_transfer, "sources": list(sources)}
    return describe(net, aims, climb, went, found, settings)


def climb_for(
    objective: str | None, budget: str, step: float | None, max_steps: int, confidence: float | None, for_transfer: bool
) -> Climb:
    """How to climb, from what a person says. Raises LabError for what cannot be.

    For transfer it is the logit, which goes on pulling when the sources are sure (Zhao et al. 2021, arXiv:2012.11207).
    """
    wanted = (CONFIDENCE if for_transfer else 0.0) if confidence is None else confidence
    climb = Climb(
        objective or ("logit" if for_transfer else "log-probability"), Budget.parse(budget), step, max_steps, wanted
    )
    return replace(climb, momentum=MOMENTUM, diversity=DIVERSITY) if for_transfer else climb


def check_networks(
    net: PixelNet, transfer: Mapping[str, PixelNet], sources: Mapping[str, PixelNet], for_transfer: bool
) -> None:
    """Refuse networks that do not know this one's classes, and those that would be a source and a test at once."""
    need(for_transfer or not sources, "more sources are for climbing for transfer: add --for-transfer")
    for name, other in (*transfer.items(), *sources.items()):
        need(
            other.classes == net.classes,
            f"{name} has other classes ({named(other)}) than the network to fool ({named(net)}): choose networks of the same classes",
        )
    for name, other in sources.items():
        need(
            other.channels == net.channels,
            f"{name} sees {other.channels} channels, not {net.channels}: choose another source",
        )
    both = [name for name in transfer if name in sources]
    need(not both, f"{', '.join(both)} would be a source, on which a transfer does not count: name it once")


def named(net: PixelNet) -> str:
    return f"{len(net.classes)}: {', '.join(net.classes[:3])}{', ...' * (len(net.classes) > 3)}"


def find_targets(net: PixelNet, target: str | int | Sequence[str | int]) -> tuple[int, ...] | int:
    """The targets' indices, or how many are to be drawn for each picture. Raises LabError for an unknown class."""
    words = target.split(",") if isinstance(target, str) else [target] if isinstance(target, int) else target
    words = [w.strip() if isinstance(w, str) else w for w in words]
    words = [w for w in words if w != ""]
    need(words, "no target is named: give a class, several with commas, or random")
    drawn = re.fullmatch(r"random(?::(\d+))?", str(words[0]).casefold())
    if drawn is None:
        return tuple(dict.fromkeys(net.find_class(word) for word in words))
    count = int(drawn[1] or 1)
    need(len(words) == 1, "random is among other targets: give random alone, or classes")
    need(
        1 <= count < len(net.classes),
        f"{count} random targets: this network has {len(net.classes)} classes, so give 1 to {len(net.classes) - 1}",
    )
    return count


def aims_for(
    net: PixelNet, names: Sequence[str], clean: Bytes, chosen: tuple[int, ...] | int, present: Sequence[int], seed: int
) -> Aims:
    """A picture for each of its targets. Raises LabError for a target that a picture is taken for already."""
    pairs = []
    for number, (name, now) in enumerate(zip(names, present, strict=True)):
        aims = drawn_targets(len(net.classes), chosen, now, seed, number) if isinstance(chosen, int) else chosen
        need(now not in aims, f"{name} is taken for {net.classes[now]} already: choose another target")
        pairs += [(number, aim) for aim in aims]
    rows, targets = (torch.tensor(values) for values in zip(*pairs, strict=True))
    return Aims(tuple(names[row] for row in rows.tolist()), clean[rows], targets)


def drawn_targets(classes: int, count: int, present: int, seed: int, number: int) -> tuple[int, ...]:
    """Classes drawn for the picture of a number, never the one it is taken for.

    >>> 2 in drawn_targets(4, 3, 2, 0, 0)
    False
    """
    order = torch.randperm(classes, generator=generator(seed, "fool target", number)).tolist()
    return tuple([label for label in order if label != present][:count])


def name_of(picture: Photo, number: int) -> str:
    return f"picture {number + 1}" if isinstance(picture, Tensor) else Path(picture).stem


def fitted(net: PixelNet, picture: Photo, seed: int, number: int) -> UInt8[Tensor, "channels rows columns"]:
    """A picture as the network sees it, in bytes; `noise` is uniform and of the network's size."""
    if isinstance(picture, str) and picture == NOISE:
        size = (net.channels, *net.size)
        return torch.randint(0, 256, size, generator=generator(seed, "fool noise", number)).to(torch.uint8)
    photo = picture if isinstance(picture, Tensor) else open_photo(picture, MAX_PIXELS)
    return (255 * net.fit(photo)[0]).round().to(torch.uint8)


def saved_and_read(picture: UInt8[Tensor, "c h w"]) -> UInt8[Tensor, "c h w"]:
    """A picture as its PNG gives it back: what is claimed of it is claimed of the file."""
    file = io.BytesIO()
    Image.fromarray(picture.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()).save(file, "PNG", compress_level=1)
    file.seek(0)
    return decode(file, "the fooling picture", MAX_PIXELS)[: len(picture)]  # grey ones have three equal channels there


def kinds_of(
    net: PixelNet,
    aims: Aims,
    went: Ascent,
    climb: Climb,
    for_transfer: bool,
    seed: int,
    on_progress: Callable[[str], None],
) -> dict[str, tuple[str, Bytes]]:
    """The kinds of pictures that the other networks are to see, each with its title."""
    far = lengths(went.pictures, aims.clean)
    kinds = {
        "clean": ("the clean pictures", aims.clean),
        "noise": ("noise of the same L2", noisy(aims.clean, far, seed)),
        "fooling": ("climbing for transfer" if for_transfer else "fooling pictures", went.pictures),
    }
    if for_transfer:
        plain = replace(climb, momentum=0.0, diversity=0.0, confidence=0.0)
        on_progress("plain ascent, to compare with")
        first = ascend(net, aims.clean, aims.targets, plain, seed=seed, on_progress=on_progress)
        on_progress("plain ascent as far")
        as_far = ascend(net, aims.clean, aims.targets, plain, reach=far, seed=seed, on_progress=on_progress)
        kinds["plain_as_far"] = ("plain ascent gone on to the same L2", as_far.pictures)
        kinds["plain"] = ("plain ascent to its first success", first.pictures)
    return kinds
