"""Fool a network: change images until it predicts chosen classes, and see whether other networks are fooled too."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from numbers import Integral
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.core.types import MessageCallback
from convolab.data.image_io import MAX_IMAGE_PIXELS, decode_image, read_image
from convolab.data.png import png_bytes
from convolab.inspection.adversarial.budget import PerturbationBudget, l2_distances
from convolab.inspection.adversarial.finding import AttackTargets, FoolSettings, build_fool_finding
from convolab.inspection.adversarial.pgd import (
    DEFAULT_STEPS,
    AttackConfig,
    AttackResult,
    StepCallback,
    run_pgd,
    to_pixels,
)
from convolab.inspection.adversarial.shortest import DEFAULT_GRADIENTS, run_shortest
from convolab.inspection.adversarial.transfer import norm_matched_noise, transfer_matrix
from convolab.inspection.result import Finding
from convolab.inspection.types import UInt8Image, UInt8Images
from convolab.models.class_names import split_class_names
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import compute_logits, inference_view

ImageInput = UInt8Image | Path | str
NOISE_INPUT = "noise"
TRANSFER_MOMENTUM = 1.0
TRANSFER_DIVERSITY = 0.7
TRANSFER_CONFIDENCE = 0.95


def fool_classifier(
    net: ImageClassifier,
    images: ImageInput | Sequence[ImageInput],
    target: str | int | Sequence[str | int],
    *,
    objective: str | None = None,
    budget: str = "none",
    step_size: float | None = None,
    max_steps: int | None = None,
    confidence: float | None = None,
    victims: Mapping[str, ImageClassifier] | None = None,
    for_transfer: bool = False,
    surrogates: Mapping[str, ImageClassifier] | None = None,
    shortest: bool = False,
    seed: int = 0,
    image_names: Sequence[str] | None = None,
    on_progress: MessageCallback = lambda message: None,
    on_step: StepCallback | None = None,
) -> Finding:
    """Change images by gradient ascent until the network classifies each as each target; see if it transfers.

    The networks stay as they are. Several threads may fool one network at the same time: each call puts its hooks on a
    view of its own (`models.inference.inference_view`).

    Args:
        net: the network to fool.
        images: one image or several: uint8 [C, H, W], what `read_image` takes, or `noise`.
        target: a class as `ImageClassifier.find_class` takes it; several in a list or with commas; `random:3` draws
            three for each image.
        objective: what to maximize, one of `pgd.OBJECTIVES`; by default the log-probability, for transfer the logit.
        budget: how far an image may move: `linf=8/255`, `l2=1.5` or `none`.
        step_size: the L2 norm of a step, in pixels of [0, 1]; see `AttackConfig.step_size_for` for the default.
        max_steps: the largest number of steps, each with one gradient; by default 200, with `shortest` 40.
        confidence: go on until the target has this probability, in [0, 1); by default the first success is enough.
        victims: other networks of the same classes, by name, on which transfer is measured.
        for_transfer: attack with momentum and input diversity, on all `surrogates` too, until the target's probability
            is 0.95 on all of them (or `confidence`); plain PGD is measured for comparison.
        surrogates: networks that are attacked together with `net`, by name; only with `for_transfer`.
        shortest: use all steps for a perturbation that is short in L2 as saved in 8 bits (`shortest.run_shortest`); not
            with `for_transfer`, `budget` or `confidence`.
        seed: of noise, random targets, input diversity and the control.
        image_names: what the summary calls the images.
        on_progress: called with a line of text before each part of the work.
        on_step: called while the images climb: with the step's number, counted from 0, and for the images that are not
            done yet the target's probability and the pixels [n, C, H, W] in [0, 1].

    Returns:
        A `Finding` whose arrays are `clean` and `fooling`, uint8 [N, C, H, W] of the network's input size, their
        `difference` in levels of 255, and `target` [N].

    Raises LabError for an unknown class, objective or budget, a number out of its range, an image that cannot be read
    or is already classified as its target, networks of other classes, and logits that are not finite.

    >>> from convolab.models.pretrained import pretrained
    >>> finding = fool_classifier(pretrained("efficientnet_lite0"), "chelsea", "goldfish")
    >>> finding.metrics["fooled"]["fraction"], finding.metrics["images"][0]["before"]["class"]
    (1.0, 'tiger cat')
    """
    surrogates, victims = dict(surrogates or {}), dict(victims or {})
    config = make_attack_config(objective, budget, step_size, max_steps, confidence, for_transfer, shortest)
    settings = FoolSettings(config, seed, for_transfer, tuple(surrogates), shortest)
    require_same_classes(net, victims, surrogates, for_transfer)
    target_choice = parse_targets(net, target)
    net = inference_view(net)
    surrogates = {name: inference_view(surrogate) for name, surrogate in surrogates.items()}
    victims = {name: inference_view(victim) for name, victim in victims.items()}
    inputs = [images] if isinstance(images, Tensor | Path | str) else list(images)
    require(inputs, "no image is given: give one or more")
    names = numbered_names(image_names or [default_image_name(image, i) for i, image in enumerate(inputs)])
    clean = torch.stack([network_sized_image(net, image, seed, i) for i, image in enumerate(inputs)])
    logits = compute_logits(net, to_pixels(net, clean), 1)
    attack_targets = make_attack_targets(net, names, clean, target_choice, logits.argmax(1).tolist(), seed)
    nets = (net, *surrogates.values())
    images, labels = attack_targets.clean, attack_targets.targets
    if shortest:
        attack_result = run_shortest(net, images, labels, config, on_progress=on_progress, on_step=on_step)
    else:
        attack_result = run_pgd(nets, images, labels, config, seed=seed, on_progress=on_progress, on_step=on_step)
    attack_result = replace(attack_result, images=torch.stack([png_round_trip(p) for p in attack_result.images]))
    victim_results = None
    if victims:
        conditions = transfer_conditions(net, attack_targets, attack_result, settings, on_progress)
        victim_results = transfer_matrix(victims, conditions, attack_targets.targets, on_progress)
    others = {**surrogates, **victims}
    cautions = [net.caution, *(f"{name}: {other.caution}" for name, other in others.items() if other.caution)]
    return build_fool_finding(
        net, attack_targets, settings, attack_result, victim_results, [caution for caution in cautions if caution]
    )


def make_attack_config(
    objective: str | None,
    budget: str,
    step_size: float | None,
    max_steps: int | None,
    confidence: float | None,
    for_transfer: bool,
    shortest: bool = False,
) -> AttackConfig:
    """The attack, from `fool`'s arguments. Raises LabError for an unknown objective or budget, or an invalid number.

    For transfer the objective is the logit, which keeps growing when the surrogates are sure (Zhao et al. 2021,
    arXiv:2012.11207).
    """
    require(
        not shortest or not (for_transfer or confidence or budget.strip().casefold() != "none"),
        "the shortest perturbation is looked for without a budget, a confidence or transfer: leave these out, or shortest",
    )
    default_steps = DEFAULT_GRADIENTS if shortest else DEFAULT_STEPS
    default_objective = "logit" if for_transfer else "log-probability"
    default_confidence = TRANSFER_CONFIDENCE if for_transfer else 0.0
    return AttackConfig(
        objective=default_objective if objective is None else objective,
        budget=PerturbationBudget.parse(budget),
        step_size=step_size,
        max_steps=default_steps if max_steps is None else max_steps,
        confidence=default_confidence if confidence is None else confidence,
        momentum=TRANSFER_MOMENTUM if for_transfer else 0.0,
        diversity_probability=TRANSFER_DIVERSITY if for_transfer else 0.0,
    )


def require_same_classes(
    net: ImageClassifier,
    victims: Mapping[str, ImageClassifier],
    surrogates: Mapping[str, ImageClassifier],
    for_transfer: bool,
) -> None:
    """Refuse networks of other classes or channels, and those that would be a surrogate and a victim at once."""
    require(
        for_transfer or not surrogates,
        "surrogates are only used in an attack for transfer",
    )
    for name, other in (*victims.items(), *surrogates.items()):
        require(
            other.classes == net.classes,
            f"{name} has different classes ({abbreviate_classes(other)}) from the attacked network "
            f"({abbreviate_classes(net)}): choose networks of the same classes",
        )
    for name, other in surrogates.items():
        require(
            other.channels == net.channels,
            f"{name} takes {other.channels} channels, not {net.channels}: choose another surrogate",
        )
    used_twice = [name for name in victims if name in surrogates]
    require(
        not used_twice,
        f"{', '.join(used_twice)} is both a surrogate and a victim; transfer to a surrogate does not count: "
        "name it once",
    )
    named = [("the network to be fooled", net), *surrogates.items(), *victims.items()]
    for (first, one), (second, other) in combinations(named, 2):
        require(
            not have_same_weights(one, other),
            f"{second} is {first} under another name: transfer to the same network does not count; leave it out",
        )


def have_same_weights(one: ImageClassifier, other: ImageClassifier) -> bool:
    """Whether two networks are one: the same object, or equal tensors in the same order."""
    tensors, others = (list(net.network.state_dict().values()) for net in (one, other))
    if one is other or not tensors:
        return one is other
    return len(tensors) == len(others) and all(
        a.shape == b.shape and torch.equal(a.cpu(), b.cpu()) for a, b in zip(tensors, others, strict=True)
    )


def abbreviate_classes(net: ImageClassifier) -> str:
    return f"{len(net.classes)}: {', '.join(net.classes[:3])}{', ...' if len(net.classes) > 3 else ''}"


def parse_targets(net: ImageClassifier, target: str | int | Sequence[str | int]) -> tuple[int, ...] | int:
    """The targets' indices, or how many to draw for each image. Raises LabError for an unknown class."""
    if isinstance(target, str):
        words: list[str | int] = [*split_class_names(target, net.classes)]
    else:
        words = [int(target)] if isinstance(target, int | Integral) else list(target)
    words = [word for word in words if word != ""]
    require(words, "no target is named: give a class, several with commas, or random")
    random_match = re.fullmatch(r"random(?::(\d+))?", str(words[0]).strip().casefold())
    if random_match is None:
        return tuple(dict.fromkeys(net.find_class(word) for word in words))
    digits = random_match[1] or "1"
    count = int(digits) if len(digits) < 10 else 0  # Python reads 4,300 digits at most
    require(len(words) == 1, "random is among other targets: give random alone, or classes")
    require(
        1 <= count < len(net.classes),
        f"{digits[:20]} random targets: this network has {len(net.classes)} classes, so give 1 to {len(net.classes) - 1}",
    )
    return count


def make_attack_targets(
    net: ImageClassifier,
    names: Sequence[str],
    clean: UInt8Images,
    target_choice: tuple[int, ...] | int,
    predicted: Sequence[int],
    seed: int,
) -> AttackTargets:
    """An image for each of its targets. Raises LabError for a target that an image is classified as already."""
    pairs: list[tuple[int, int]] = []  # an image's index and a target
    for image_index, (name, predicted_class) in enumerate(zip(names, predicted, strict=True)):
        image_targets = (
            random_targets(len(net.classes), target_choice, predicted_class, seed, image_index)
            if isinstance(target_choice, int)
            else target_choice
        )
        require(
            predicted_class not in image_targets,
            f"{name} is already classified as {net.classes[predicted_class]}: choose another target",
        )
        pairs += [(image_index, target) for target in image_targets]
    image_indices = [image_index for image_index, _ in pairs]
    targets = torch.tensor([target for _, target in pairs])
    return AttackTargets(tuple(names[index] for index in image_indices), clean[image_indices], targets)


def random_targets(num_classes: int, count: int, predicted_class: int, seed: int, image_index: int) -> tuple[int, ...]:
    """Classes drawn for the image of an index, never the one it is classified as.

    >>> 2 in random_targets(4, 3, 2, 0, 0)
    False
    """
    order = torch.randperm(num_classes, generator=make_generator(seed, "fool target", image_index)).tolist()
    return tuple([label for label in order if label != predicted_class][:count])


def numbered_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of which each is one image's: those that several have are numbered.

    >>> numbered_names(["noise", "cat", "noise"])
    ('noise 1', 'cat', 'noise 2')
    """
    return tuple(
        f"{name} {names[: index + 1].count(name)}" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    )


def default_image_name(image: ImageInput, image_index: int) -> str:
    return f"image {image_index + 1}" if isinstance(image, Tensor) else Path(image).stem


def network_sized_image(
    net: ImageClassifier, image: ImageInput, seed: int, image_index: int
) -> UInt8[Tensor, "channels rows columns"]:
    """An image as the network's input, in 8 bits; `noise` is uniform and of the network's input size."""
    if isinstance(image, str) and image == NOISE_INPUT:
        size = (net.channels, *net.input_size)
        return torch.randint(0, 256, size, generator=make_generator(seed, "fool noise", image_index)).to(torch.uint8)
    decoded = image if isinstance(image, Tensor) else read_image(image, MAX_IMAGE_PIXELS)
    return (255 * net.preprocess(decoded)[0]).round().to(torch.uint8)


def png_round_trip(image: UInt8Image) -> UInt8Image:
    """An image, written as PNG and read again: what is claimed of it holds for the file."""
    read = decode_image(io.BytesIO(png_bytes(image)), "the fooling image", MAX_IMAGE_PIXELS)
    return read[: len(image)]  # a gray image's channels are equal


def transfer_conditions(
    net: ImageClassifier,
    attack_targets: AttackTargets,
    attack_result: AttackResult,
    settings: FoolSettings,
    on_progress: MessageCallback,
) -> dict[str, tuple[str, UInt8Images]]:
    """The images that the victims classify, by condition, each with its title."""
    clean, targets = attack_targets.clean, attack_targets.targets
    l2 = l2_distances(attack_result.images, clean)
    fooling_title = "attack for transfer (momentum, input diversity)" if settings.for_transfer else "fooling images"
    conditions = {
        "clean": ("the clean images", clean),
        "noise": ("noise of the same L2", norm_matched_noise(clean, l2, settings.seed)),
        "fooling": (fooling_title, attack_result.images),
    }
    if settings.for_transfer:
        plain = replace(settings.attack, momentum=0.0, diversity_probability=0.0, confidence=0.0)
        on_progress("plain PGD, for comparison")
        first_success = run_pgd(net, clean, targets, plain, seed=settings.seed, on_progress=on_progress)
        on_progress("plain PGD, to the same L2")
        same_l2 = run_pgd(net, clean, targets, plain, target_distance=l2, seed=settings.seed, on_progress=on_progress)
        conditions["plain_same_l2"] = ("plain PGD, continued to the same L2", same_l2.images)
        conditions["plain_first_success"] = ("plain PGD, until first success", first_success.images)
    return conditions
