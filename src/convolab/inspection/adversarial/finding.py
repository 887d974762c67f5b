"""The finding of fooling images: in numbers, in words, and as rows of panels."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NotRequired, TypedDict

import torch
from jaxtyping import Int64
from torch import Tensor

from convolab.core.stats import Interval, mean_interval
from convolab.core.types import Json
from convolab.inspection.adversarial.budget import l2_distances
from convolab.inspection.adversarial.pgd import AttackConfig, AttackResult, to_pixels
from convolab.inspection.adversarial.transfer import (
    Predictions,
    Proportion,
    TransferMatrix,
    describe_attack_comparison,
    describe_transfer,
    predict_images,
    predictions_from_logits,
)
from convolab.inspection.result import Finding, Panel
from convolab.inspection.types import ClassIndices, Logits, UInt8Image, UInt8Images
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import ClassProbability, compute_logits, top_classes

MAX_PANEL_ROWS = 3  # images that are drawn
MAX_DESCRIBED = 12  # images that are described one by one
MAX_NAMED = 5  # images that a warning names
MAX_TITLE_LENGTH = 38
TOP_CLASSES = 3  # below each drawn image

ClassReference = TypedDict("ClassReference", {"class": str, "index": int})
PredictionMetrics = TypedDict(
    "PredictionMetrics", {"class": str, "probability": float, "target_rank": int, "target_probability": float}
)


class ImageMetrics(TypedDict):
    """All numbers of one image and target."""

    image: str
    target: ClassReference
    fooled: bool  # whether the bytes are classified as the target
    reached: bool  # whether with the requested confidence, and on all surrogates too
    steps: int  # each takes one gradient
    forward_passes: NotRequired[int]  # besides, in a search for the shortest perturbation
    l2: float
    linf_levels: int  # of 255
    before: PredictionMetrics
    after: PredictionMetrics
    after_preprocessing: PredictionMetrics  # when the saved image is resized and cropped as any image is
    networks: NotRequired[dict[str, dict[str, PredictionMetrics]]]  # by victim, before and after
    top_before: NotRequired[list[dict[str, str | float]]]
    top_after: NotRequired[list[dict[str, str | float]]]


@dataclass(frozen=True)
class FoolSettings:
    """What decides the result besides networks, images and targets."""

    attack: AttackConfig
    seed: int = 0
    for_transfer: bool = False
    surrogates: tuple[str, ...] = ()
    shortest: bool = False

    def to_dict(self, num_values: int) -> dict[str, Json]:
        """For JSON; the step size is that for images of `num_values` values."""
        return {
            "seed": self.seed,
            "for_transfer": self.for_transfer,
            "shortest": self.shortest,
            "surrogates": list(self.surrogates),
            "objective": self.attack.objective,
            "budget": str(self.attack.budget),
            "step_size": self.attack.step_size_for(num_values),
            "max_steps": self.attack.max_steps,
            "confidence": self.attack.confidence,
            "momentum": self.attack.momentum,
            "diversity_probability": self.attack.diversity_probability,
        }


@dataclass(frozen=True)
class AttackTargets:
    """Images and the class that each is to be classified as; an image is here once for each of its targets."""

    image_names: tuple[str, ...]
    clean: UInt8Images
    targets: ClassIndices

    def __len__(self) -> int:
        return len(self.image_names)


def build_fool_finding(
    net: ImageClassifier,
    attack_targets: AttackTargets,
    settings: FoolSettings,
    attack_result: AttackResult,
    victim_results: TransferMatrix | None,
    cautions: Sequence[str] = (),
) -> Finding:
    """The finding of fooling images that were computed."""
    targets = attack_targets.targets
    # By the network as it is, and one by one: what is claimed of an image holds for it alone.
    logits_before = compute_logits(net, to_pixels(net, attack_targets.clean), 1)
    logits_after = compute_logits(net, to_pixels(net, attack_result.images), 1)
    before, after = (predictions_from_logits(logits, targets) for logits in (logits_before, logits_after))
    after_preprocessing = predict_images(net, attack_result.images, targets)
    top_before, top_after = (top_classes_of_each(net, logits) for logits in (logits_before, logits_after))
    results = [
        fooling_metrics(net, attack_targets, attack_result, before, after, after_preprocessing, victim_results, index)
        for index in range(len(attack_targets))
    ]
    for result, top_classes_before, top_classes_after in zip(results, top_before, top_after, strict=True):
        result["top_before"] = [top_class.to_dict() for top_class in top_classes_before]
        result["top_after"] = [top_class.to_dict() for top_class in top_classes_after]
    fooled = Proportion.from_hits([result["fooled"] for result in results])
    still_fooled = Proportion.from_hits(
        [result["after_preprocessing"]["class"] == result["target"]["class"] for result in results]
    )
    l2 = mean_interval([result["l2"] for result in results])
    steps = mean_interval([float(result["steps"]) for result in results])
    metrics = {
        **settings.to_dict(attack_targets.clean[0].numel()),
        "fooled": asdict(fooled),
        "after_preprocessing": asdict(still_fooled),
        "l2": asdict(l2),
        "steps": asdict(steps),
        "images": results,
        "transfer": None
        if victim_results is None
        else {"conditions": victim_results.to_dict(), "tests": victim_results.paired_tests()},
    }
    summary = [
        describe_success(results, fooled),
        describe_attack(settings, attack_targets.clean[0].numel(), l2, steps, attack_result.forward_passes),
        *map(describe_fooling_image, results[:MAX_DESCRIBED]),
    ]
    if len(results) > MAX_DESCRIBED:
        summary.append(f"and {len(results) - MAX_DESCRIBED} more, which are in the numbers")
    if fooled.hits:
        summary.append(describe_preprocessed(still_fooled))
    if victim_results is not None:
        summary += [*describe_transfer(victim_results), *describe_attack_comparison(victim_results)]
    arrays = {
        "clean": attack_targets.clean,
        "fooling": attack_result.images,
        "target": targets,
        "difference": attack_result.images.short() - attack_targets.clean.short(),  # in levels of 255
    }
    panels = tuple(
        fooling_panels(
            attack_targets.clean[i],
            attack_result.images[i],
            results[i],
            top_before[i],
            top_after[i],
            attack_result.paths[i],
            is_drawn_above=attack_targets.image_names[i] in attack_targets.image_names[:i],
        )
        for i in range(min(MAX_PANEL_ROWS, len(attack_targets)))
    )
    return Finding(
        tool="fool",
        summary=tuple(summary),
        metrics=metrics,
        arrays=arrays,
        panels=panels,
        warnings=(*cautions, *attack_warnings(results, settings.attack, settings.surrogates)),
    )


def top_classes_of_each(net: ImageClassifier, logits: Logits) -> list[list[ClassProbability]]:
    return [top_classes(net.classes, row.double().softmax(0), TOP_CLASSES) for row in logits]


def fooling_metrics(
    net: ImageClassifier,
    attack_targets: AttackTargets,
    attack_result: AttackResult,
    before: Predictions,
    after: Predictions,
    after_preprocessing: Predictions,
    victim_results: TransferMatrix | None,
    index: int,
) -> ImageMetrics:
    """All numbers of one image and target."""
    target = int(attack_targets.targets[index])
    fooling, clean = attack_result.images[index], attack_targets.clean[index]
    metrics: ImageMetrics = {
        "image": attack_targets.image_names[index],
        "target": {"class": net.classes[target], "index": target},
        "fooled": after.classes[index] == target,
        "reached": bool(attack_result.reached[index]),
        "steps": int(attack_result.steps[index]),
        "l2": float(l2_distances(fooling[None], clean[None])),
        "linf_levels": int((fooling.short() - clean.short()).abs().max()),
        "before": prediction_metrics(net, before, index),
        "after": prediction_metrics(net, after, index),
        "after_preprocessing": prediction_metrics(net, after_preprocessing, index),
    }
    if attack_result.forward_passes is not None:
        metrics["forward_passes"] = int(attack_result.forward_passes[index])
    if victim_results is not None:
        clean_row, fooling_row = victim_results.row("clean"), victim_results.row("fooling")
        metrics["networks"] = {
            name: {
                "before": prediction_metrics(net, clean_row.predictions[name], index),
                "after": prediction_metrics(net, fooling_row.predictions[name], index),
            }
            for name in victim_results.networks
        }
    return metrics


def prediction_metrics(net: ImageClassifier, predictions: Predictions, index: int) -> PredictionMetrics:
    """The prediction for one image, as JSON holds it."""
    return {
        "class": net.classes[predictions.classes[index]],
        "probability": predictions.top_probabilities[index],
        "target_rank": predictions.target_ranks[index],
        "target_probability": predictions.target_probabilities[index],
    }


def describe_success(results: Sequence[ImageMetrics], fooled: Proportion) -> str:
    first = results[0]
    if len(results) == 1:
        outcome = "classified as" if first["fooled"] else "not classified as"
        return f"{first['image']} ({first['before']['class']}): {outcome} {first['target']['class']}"
    if len({result["image"] for result in results}) == 1:
        targets = ", ".join(result["target"]["class"] for result in results if result["fooled"])
        return f"{first['image']} ({first['before']['class']}): classified as {targets or 'none of its targets'}"
    return f"{fooled.hits} of {fooled.count} images are classified as their target ({fooled.interval_text})"


def describe_preprocessed(fooled: Proportion) -> str:
    """How many fooling images are classified as the target where the network resizes and crops them as any image."""
    prefix = "resized and cropped as the network does with any image"
    if fooled.count == 1:
        return f"{prefix}, it is {'still' if fooled.hits else 'no longer'} classified as the target"
    return f"{prefix}, {fooled.hits} of {fooled.count} are still classified as the target ({fooled.interval_text})"


def describe_attack(
    settings: FoolSettings, num_values: int, l2: Interval, steps: Interval, forward_passes: Int64[Tensor, "n"] | None
) -> str:
    """The attack and how far it went, in words."""
    attack = settings.attack
    extras = ", with momentum and input diversity" if attack.momentum else ""
    surrogates = f", also on {', '.join(settings.surrogates)}" if settings.surrogates else ""
    budget = "" if attack.budget.norm == "none" else f" within {attack.budget}"
    stop = f"until its probability is {100 * attack.confidence:g} %" if attack.confidence else "until the first success"
    average = " on average" if l2.count > 1 else ""
    drawn = f"; drawn: the first {MAX_PANEL_ROWS} of {l2.count}" if l2.count > MAX_PANEL_ROWS else ""
    if forward_passes is not None:
        return (
            f"Shortest perturbation in 8 bits, by the target's {attack.objective}: {steps.mean:.3g} gradients and "
            f"{float(forward_passes.double().mean()):.3g} forward passes, L2 {l2.mean:.2f}{average}{drawn}"
        )
    return (
        f"PGD on the target's {attack.objective}{extras}{surrogates}, "
        f"step size {attack.step_size_for(num_values):.3g}{budget}, {stop}: "
        f"{steps.mean:.3g} steps, L2 {l2.mean:.2f}{average}{drawn}"
    )


def describe_fooling_image(result: ImageMetrics) -> str:
    before, after = result["before"], result["after"]
    return (
        f"{result['image']}, {before['class']} {100 * before['probability']:.1f} %: "
        f"{'fooled' if result['fooled'] else 'not fooled'}, {after['class']} {100 * after['probability']:.1f} % "
        f"({result['target']['class']} was {100 * before['target_probability']:.3g} %) after {result['steps']} steps, "
        f"{perturbation_text(result)}"
    )


def perturbation_text(result: ImageMetrics) -> str:
    return f"L2 {result['l2']:.2f}, at most {result['linf_levels']} of 255 levels"


def attack_warnings(results: Sequence[ImageMetrics], config: AttackConfig, surrogates: Sequence[str] = ()) -> list[str]:
    missed = [result for result in results if not result["fooled"]]
    unsure = [result for result in results if result["fooled"] and not result["reached"]]
    warnings = []
    if missed:
        budget = "" if config.budget.norm == "none" else f" within {config.budget}"
        hint = (
            "; the objective log-probability also pushes the other classes down" if config.objective == "logit" else ""
        )
        warnings.append(f"not fooled in {config.max_steps} steps{budget}: {image_list(missed)}{hint}")
    if unsure:
        of_all = f" on the network and {', '.join(surrogates)}" if surrogates else ""
        lacking = f"below the requested confidence ({100 * config.confidence:g} %{of_all})"
        if not config.confidence:
            lacking = f"not by all of {', '.join(surrogates)}"
        warnings.append(f"fooled, but {lacking} in {config.max_steps} steps: {image_list(unsure)}")
    return warnings


def image_list(results: Sequence[ImageMetrics]) -> str:
    named = ", ".join(f"{result['image']} ({result['target']['class']})" for result in results[:MAX_NAMED])
    return named + (", ..." if len(results) > MAX_NAMED else "")


def fooling_panels(
    clean: UInt8Image,
    fooling: UInt8Image,
    result: ImageMetrics,
    top_before: Sequence[ClassProbability],
    top_after: Sequence[ClassProbability],
    path: Sequence[float],
    is_drawn_above: bool = False,
) -> tuple[Panel, ...]:
    """The clean image, the fooling image, their difference, the target's probability over the steps with the
    predictions of the other networks below it.

    The place of the clean image stays empty where `is_drawn_above` says that a row above shows it.
    """
    difference, gain = magnified_difference(clean, fooling)
    fooling_title = f"X_fooling: {result['target']['class']}"[:MAX_TITLE_LENGTH]
    original = Panel(title=f"{result['image']}: original", image=clean, caption="\n".join(map(str, top_before)))
    panels = (
        Panel(title="") if is_drawn_above else original,
        Panel(title=fooling_title, image=fooling, caption="\n".join(map(str, top_after))),
        Panel(title=f"Difference, x {gain}", image=difference, caption=f"{perturbation_text(result)}; gray: none"),
    )
    others = f"on other networks:\n{victim_predictions_text(result)}" if "networks" in result else ""
    curve = Panel(
        title=f"Probability of {result['target']['class']}"[:MAX_TITLE_LENGTH],
        curve=tuple(100 * probability for probability in path),
        caption=f"before each step and after the last, before it is rounded to 8 bits\n{others}",
    )
    return (*panels, curve)


def victim_predictions_text(result: ImageMetrics) -> str:
    """What the other networks predict, before and after."""
    lines = []
    for name, predictions in result.get("networks", {}).items():
        lines.append(name)
        for time in ("before", "after"):
            lines.append(f"{time}: {predictions[time]['class']} {100 * predictions[time]['probability']:.1f} %")
        ranks = f"rank {predictions['before']['target_rank']}, then {predictions['after']['target_rank']}"
        lines += [f"{result['target']['class']}: {ranks}", " "]
    return "\n".join(lines)


def magnified_difference(clean: UInt8Image, fooling: UInt8Image) -> tuple[UInt8Image, int]:
    """A difference around gray, and its gain: the largest that clips at most 0.5 % of the values."""
    difference = fooling.double() - clean.double()
    magnitudes = difference.abs().flatten()
    largest = (
        float(magnitudes.kthvalue(max(1, round(0.995 * len(magnitudes)))).values) or float(magnitudes.max()) or 1.0
    )
    gain = max(1, int(127 / largest))
    return (128 + gain * difference).round().clamp(0, 255).to(torch.uint8), gain
