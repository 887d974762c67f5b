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

from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.data.image_io import MAX_IMAGE_PIXELS, decode_image, read_image
from convolab.inspection.adversarial.finding import AttackTargets, build_fool_finding, to_network_inputs
from convolab.inspection.adversarial.pgd import MAX_STEPS, AttackConfig, AttackResult, PerturbationBudget, run_pgd
from convolab.inspection.adversarial.transfer import BATCH_SIZE, l2_distances, norm_matched_noise, transfer_matrix
from convolab.inspection.result import Finding
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import compute_logits

UInt8Images = UInt8[Tensor, "n c h w"]
ImageInput = UInt8[Tensor, "c h w"] | Path | str
TRANSFER_MOMENTUM, TRANSFER_DIVERSITY, TRANSFER_CONFIDENCE = 1.0, 0.7, 0.95  # of a climb for transfer
NOISE_INPUT = "noise"


def fool(
    net: ImageClassifier,
    images: ImageInput | Sequence[ImageInput],
    target: str | int | Sequence[str | int],
    *,
    objective: str | None = None,
    budget: str = "none",
    step_size: float | None = None,
    max_steps: int = MAX_STEPS,
    confidence: float | None = None,
    victims: Mapping[str, ImageClassifier] | None = None,
    for_transfer: bool = False,
    surrogates: Mapping[str, ImageClassifier] | None = None,
    seed: int = 0,
    image_names: Sequence[str] | None = None,
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
    surrogates, victims = dict(surrogates or {}), dict(victims or {})
    config = make_attack_config(objective, budget, step_size, max_steps, confidence, for_transfer)
    require_same_classes(net, victims, surrogates, for_transfer)
    target_choice = parse_targets(net, target)
    image_inputs = [images] if isinstance(images, Tensor | Path | str) else list(images)
    image_names = tuple(image_names or (default_image_name(picture, i) for i, picture in enumerate(image_inputs)))
    clean = torch.stack([network_sized_image(net, picture, seed, i) for i, picture in enumerate(image_inputs)])
    logits = compute_logits(net, to_network_inputs(clean), BATCH_SIZE)
    require(
        logits.isfinite().all(),
        "the network's logits are not finite: its weights are damaged, or its training went astray",
    )
    attack_targets = make_attack_targets(net, image_names, clean, target_choice, logits.argmax(1).tolist(), seed)
    attack_result = run_pgd(
        (net, *surrogates.values()),
        attack_targets.clean,
        attack_targets.targets,
        config,
        seed=seed,
        on_progress=on_progress,
    )
    attack_result = replace(attack_result, images=torch.stack([png_round_trip(p) for p in attack_result.images]))
    victim_results = None
    if victims:
        conditions = control_images(net, attack_targets, attack_result, config, for_transfer, seed, on_progress)
        victim_results = transfer_matrix(victims, conditions, attack_targets.targets, on_progress)
    settings = {"seed": seed, "for_transfer": for_transfer, "sources": list(surrogates)}
    return build_fool_finding(net, attack_targets, config, attack_result, victim_results, settings)


def make_attack_config(
    objective: str | None,
    budget: str,
    step_size: float | None,
    max_steps: int,
    confidence: float | None,
    for_transfer: bool,
) -> AttackConfig:
    """How to climb, from what a person says. Raises LabError for what cannot be.

    For transfer it is the logit, which goes on pulling when the sources are sure (Zhao et al. 2021, arXiv:2012.11207).
    """
    min_confidence = (TRANSFER_CONFIDENCE if for_transfer else 0.0) if confidence is None else confidence
    config = AttackConfig(
        objective or ("logit" if for_transfer else "log-probability"),
        PerturbationBudget.parse(budget),
        step_size,
        max_steps,
        min_confidence,
    )
    return (
        replace(config, momentum=TRANSFER_MOMENTUM, diversity_probability=TRANSFER_DIVERSITY)
        if for_transfer
        else config
    )


def require_same_classes(
    net: ImageClassifier,
    victims: Mapping[str, ImageClassifier],
    surrogates: Mapping[str, ImageClassifier],
    for_transfer: bool,
) -> None:
    """Refuse networks that do not know this one's classes, and those that would be a source and a test at once."""
    require(for_transfer or not surrogates, "more sources are for climbing for transfer: add --for-transfer")
    for name, other in (*victims.items(), *surrogates.items()):
        require(
            other.classes == net.classes,
            f"{name} has other classes ({abbreviate_classes(other)}) than the network to fool ({abbreviate_classes(net)}): choose networks of the same classes",
        )
    for name, other in surrogates.items():
        require(
            other.channels == net.channels,
            f"{name} sees {other.channels} channels, not {net.channels}: choose another source",
        )
    used_twice = [name for name in victims if name in surrogates]
    require(
        not used_twice, f"{', '.join(used_twice)} would be a source, on which a transfer does not count: name it once"
    )


def abbreviate_classes(net: ImageClassifier) -> str:
    return f"{len(net.classes)}: {', '.join(net.classes[:3])}{', ...' * (len(net.classes) > 3)}"


def parse_targets(net: ImageClassifier, target: str | int | Sequence[str | int]) -> tuple[int, ...] | int:
    """The targets' indices, or how many are to be drawn for each picture. Raises LabError for an unknown class."""
    target_words = target.split(",") if isinstance(target, str) else [target] if isinstance(target, int) else target
    target_words = [w.strip() if isinstance(w, str) else w for w in target_words]
    target_words = [w for w in target_words if w != ""]
    require(target_words, "no target is named: give a class, several with commas, or random")
    random_match = re.fullmatch(r"random(?::(\d+))?", str(target_words[0]).casefold())
    if random_match is None:
        return tuple(dict.fromkeys(net.find_class(word) for word in target_words))
    count = int(random_match[1] or 1)
    require(len(target_words) == 1, "random is among other targets: give random alone, or classes")
    require(
        1 <= count < len(net.classes),
        f"{count} random targets: this network has {len(net.classes)} classes, so give 1 to {len(net.classes) - 1}",
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
    """A picture for each of its targets. Raises LabError for a target that a picture is taken for already."""
    pairs = []
    for image_index, (name, predicted_class) in enumerate(zip(names, predicted, strict=True)):
        image_targets = (
            random_targets(len(net.classes), target_choice, predicted_class, seed, image_index)
            if isinstance(target_choice, int)
            else target_choice
        )
        require(
            predicted_class not in image_targets,
            f"{name} is taken for {net.classes[predicted_class]} already: choose another target",
        )
        pairs += [(image_index, target) for target in image_targets]
    image_indices, targets = (torch.tensor(values) for values in zip(*pairs, strict=True))
    return AttackTargets(tuple(names[row] for row in image_indices.tolist()), clean[image_indices], targets)


def random_targets(num_classes: int, count: int, predicted_class: int, seed: int, image_index: int) -> tuple[int, ...]:
    """Classes drawn for the picture of a number, never the one it is taken for.

    >>> 2 in drawn_targets(4, 3, 2, 0, 0)
    False
    """
    order = torch.randperm(num_classes, generator=make_generator(seed, "fool target", image_index)).tolist()
    return tuple([label for label in order if label != predicted_class][:count])


def default_image_name(image: ImageInput, image_index: int) -> str:
    return f"picture {image_index + 1}" if isinstance(image, Tensor) else Path(image).stem


def network_sized_image(
    net: ImageClassifier, image: ImageInput, seed: int, image_index: int
) -> UInt8[Tensor, "channels rows columns"]:
    """A picture as the network sees it, in bytes; `noise` is uniform and of the network's size."""
    if isinstance(image, str) and image == NOISE_INPUT:
        size = (net.channels, *net.input_size)
        return torch.randint(0, 256, size, generator=make_generator(seed, "fool noise", image_index)).to(torch.uint8)
    decoded = image if isinstance(image, Tensor) else read_image(image, MAX_IMAGE_PIXELS)
    return (255 * net.preprocess(decoded)[0]).round().to(torch.uint8)


def png_round_trip(image: UInt8[Tensor, "c h w"]) -> UInt8[Tensor, "c h w"]:
    """A picture as its PNG gives it back: what is claimed of it is claimed of the file."""
    file = io.BytesIO()
    Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()).save(file, "PNG", compress_level=1)
    file.seek(0)
    return decode_image(file, "the fooling picture", MAX_IMAGE_PIXELS)[
        : len(image)
    ]  # grey ones have three equal channels there


def control_images(
    net: ImageClassifier,
    attack_targets: AttackTargets,
    attack_result: AttackResult,
    config: AttackConfig,
    for_transfer: bool,
    seed: int,
    on_progress: Callable[[str], None],
) -> dict[str, tuple[str, UInt8Images]]:
    """The kinds of pictures that the other networks are to see, each with its title."""
    l2_distance = l2_distances(attack_result.images, attack_targets.clean)
    conditions = {
        "clean": ("the clean pictures", attack_targets.clean),
        "noise": ("noise of the same L2", norm_matched_noise(attack_targets.clean, l2_distance, seed)),
        "fooling": ("climbing for transfer" if for_transfer else "fooling pictures", attack_result.images),
    }
    if for_transfer:
        plain_config = replace(config, momentum=0.0, diversity_probability=0.0, confidence=0.0)
        on_progress("plain ascent, to compare with")
        first_success = run_pgd(
            net, attack_targets.clean, attack_targets.targets, plain_config, seed=seed, on_progress=on_progress
        )
        on_progress("plain ascent as far")
        same_l2 = run_pgd(
            net,
            attack_targets.clean,
            attack_targets.targets,
            plain_config,
            target_distance=l2_distance,
            seed=seed,
            on_progress=on_progress,
        )
        conditions["plain_as_far"] = ("plain ascent gone on to the same L2", same_l2.images)
        conditions["plain"] = ("plain ascent to its first success", first_success.images)
    return conditions
