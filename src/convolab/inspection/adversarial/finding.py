"""What is found of pictures that fool: in numbers, in words, and as rows of panels."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from convolab.core.stats import mean_interval
from convolab.inspection.adversarial.pgd import AttackConfig, AttackResult
from convolab.inspection.adversarial.transfer import (
    BATCH_SIZE,
    Predictions,
    Proportion,
    TransferMatrix,
    describe_attack_comparison,
    describe_transfer,
    predict_images,
    predictions_from_logits,
)
from convolab.inspection.result import Finding, Panel
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import compute_logits, top_classes

UInt8Images = UInt8[Tensor, "n c h w"]
MAX_PANEL_ROWS, MAX_DESCRIBED, TOP_CLASSES = 3, 12, 3  # pictures drawn, pictures told of one by one, classes below each


@dataclass(frozen=True)
class AttackTargets:
    """Pictures and what each is to be taken for; a picture stands there once for each of its targets."""

    image_names: tuple[str, ...]
    clean: UInt8Images
    targets: Int64[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.image_names)


def build_fool_finding(
    net: ImageClassifier,
    attack_targets: AttackTargets,
    config: AttackConfig,
    attack_result: AttackResult,
    victim_results: TransferMatrix | None,
    settings: dict[str, Any],
) -> Finding:
    """A finding of pictures that are already made."""
    logits = {
        kind: compute_logits(net, to_network_inputs(pictures), BATCH_SIZE)
        for kind, pictures in (("before", attack_targets.clean), ("after", attack_result.images))
    }
    before, after = (predictions_from_logits(z, attack_targets.targets) for z in logits.values())
    repreprocessed = predict_images(net, attack_result.images, attack_targets.targets)
    top_classes_by_time = {
        kind: [[c.to_dict() for c in top_classes(net.classes, row.double().softmax(0), TOP_CLASSES)] for row in z]
        for kind, z in logits.items()
    }
    image_results = [
        fooling_metrics(net, attack_targets, attack_result, before, after, repreprocessed, victim_results, number)
        for number in range(len(attack_targets))
    ]
    for number, image_result in enumerate(image_results):
        image_result |= {f"top_{kind}": top_classes_by_time[kind][number] for kind in top_classes_by_time}
    fooled = Proportion.from_hits([one["fooled"] for one in image_results])
    step_size = config.step_size_for(attack_targets.clean[0].numel())
    metrics = {
        **settings,
        "objective": config.objective,
        "budget": str(config.budget),
        "step": step_size,
        "max_steps": config.max_steps,
        "confidence": config.confidence,
        "momentum": config.momentum,
        "diversity": config.diversity_probability,
        "fooled": asdict(fooled),
        "seen_anew": asdict(
            Proportion.from_hits([one["seen_anew"]["class"] == one["target"]["class"] for one in image_results])
        ),
        "l2": asdict(mean_interval([one["l2"] for one in image_results])),
        "steps": asdict(mean_interval([float(one["steps"]) for one in image_results])),
        "pictures": image_results,
        "transfer": None
        if victim_results is None
        else {"kinds": victim_results.to_dict(), "tests": victim_results.paired_tests()},
    }
    summary = [
        describe_success(image_results, fooled),
        describe_attack(config, settings["sources"], metrics),
        *map(describe_fooling_image, image_results[:MAX_DESCRIBED]),
    ]
    if len(image_results) > MAX_DESCRIBED:
        summary.append(f"and {len(image_results) - MAX_DESCRIBED} more, which the numbers hold")
    summary.append(
        f"resized and cropped anew, as any photo is, the network itself takes {Proportion(**metrics['seen_anew'])} for the target"
    )
    summary += (
        []
        if victim_results is None
        else [*describe_transfer(victim_results), *describe_attack_comparison(victim_results)]
    )
    arrays = {"clean": attack_targets.clean, "fooling": attack_result.images, "target": attack_targets.targets}
    arrays["difference"] = attack_result.images.short() - attack_targets.clean.short()  # in levels of 255
    panel_rows = tuple(
        fooling_panels(attack_targets, attack_result, image_results[number], number, victim_results)
        for number in range(min(MAX_PANEL_ROWS, len(attack_targets)))
    )
    return Finding("fool", tuple(summary), metrics, arrays, panel_rows, tuple(attack_warnings(image_results, config)))


def to_network_inputs(images: UInt8Images) -> list[Float[Tensor, "1 c h w"]]:
    """Pictures of a network's own size as it takes them."""
    return [picture[None] / 255 for picture in images]


def fooling_metrics(
    net: ImageClassifier,
    attack_targets: AttackTargets,
    attack_result: AttackResult,
    before: Predictions,
    after: Predictions,
    repreprocessed: Predictions,
    victim_results: TransferMatrix | None,
    image_index: int,
) -> dict[str, Any]:
    """All there is to say in numbers of one picture and target."""
    target = int(attack_targets.targets[image_index])
    change = attack_result.images[image_index].double() - attack_targets.clean[image_index].double()
    metrics = {
        "picture": attack_targets.image_names[image_index],
        "target": {"class": net.classes[target], "index": target},
        "fooled": after.classes[image_index] == target,
        "reached": bool(attack_result.reached[image_index]),
        "steps": int(attack_result.steps[image_index]),
        "l2": float(change.norm()) / 255,
        "linf_levels": int(change.abs().max()),
        "before": prediction_metrics(net, before, image_index),
        "after": prediction_metrics(net, after, image_index),
        "seen_anew": prediction_metrics(net, repreprocessed, image_index),
    }
    if victim_results is not None:
        predictions_by_time = {
            "before": victim_results.row("clean").predictions,
            "after": victim_results.row("fooling").predictions,
        }
        metrics["networks"] = {
            name: {
                time: prediction_metrics(net, predictions[name], image_index)
                for time, predictions in predictions_by_time.items()
            }
            for name in victim_results.networks
        }
    return metrics


def prediction_metrics(net: ImageClassifier, predictions: Predictions, image_index: int) -> dict[str, Any]:
    return {
        "class": net.classes[predictions.classes[image_index]],
        "probability": predictions.top_probabilities[image_index],
        "target_rank": predictions.target_ranks[image_index],
        "target_probability": predictions.target_probabilities[image_index],
    }


def describe_success(image_results: Sequence[Mapping[str, Any]], fooled: Proportion) -> str:
    if len(image_results) == 1:
        (one,) = image_results
        result = f"taken for {one['target']['class']}" if one["fooled"] else f"not taken for {one['target']['class']}"
        return f"{one['picture']} ({one['before']['class']}): {result}"
    if len({one["picture"] for one in image_results}) == 1:
        targets = ", ".join(one["target"]["class"] for one in image_results if one["fooled"]) or "none of its targets"
        return f"{image_results[0]['picture']} ({image_results[0]['before']['class']}): taken for {targets}"
    return f"{fooled.hits} of {fooled.count} pictures are taken for their target ({fooled.interval_text})"


def describe_attack(config: AttackConfig, surrogates: Sequence[str], metrics: Mapping[str, Any]) -> str:
    """How it was climbed and how far that went."""
    stop_text = f"until {100 * config.confidence:g} % sure" if config.confidence else "until the first success"
    method_text = ", with momentum and input diversity" * bool(config.momentum)
    surrogate_text = f", also on {', '.join(surrogates)}" if surrogates else ""
    budget_text = "" if config.budget.norm == "none" else f" within {config.budget}"
    count = metrics["l2"]["count"]
    mean, panel_text = (
        " on average" * (count > 1),
        f"; drawn: the first {MAX_PANEL_ROWS} of {count}" * (count > MAX_PANEL_ROWS),
    )
    return (
        f"ascent on the {config.objective.replace('-', ' ')}{method_text}{surrogate_text}, steps of {metrics['step']:.3g}{budget_text}, {stop_text}: "
        f"{metrics['steps']['mean']:.3g} steps, L2 {metrics['l2']['mean']:.2f}{mean}{panel_text}"
    )


def describe_fooling_image(image_result: Mapping[str, Any]) -> str:
    before, after, target = image_result["before"], image_result["after"], image_result["target"]["class"]
    predicted_text = f"{after['class']} {100 * after['probability']:.1f} %"
    return (
        f"{image_result['picture']}, {before['class']} {100 * before['probability']:.1f} %: {'fooled, ' if image_result['fooled'] else 'not fooled, '}{predicted_text} "
        f"({target} was {100 * before['target_probability']:.3g} %) after {image_result['steps']} steps, L2 {image_result['l2']:.2f}, "
        f"at most {image_result['linf_levels']} of 255 levels"
    )


def attack_warnings(image_results: Sequence[Mapping[str, Any]], config: AttackConfig) -> list[str]:
    missed = [one for one in image_results if not one["fooled"]]
    unsure = [one for one in image_results if one["fooled"] and not one["reached"]]
    warnings = []
    if missed:
        which = ", ".join(f"{one['picture']} ({one['target']['class']})" for one in missed[:5]) + ", ..." * (
            len(missed) > 5
        )
        within = "" if config.budget.norm == "none" else f" within {config.budget}"
        hint = "; --objective log-probability also pushes the others down" * (config.objective == "logit")
        warnings.append(f"not fooled in {config.max_steps} steps{within}: {which}{hint}")
    if unsure:
        which = ", ".join(f"{one['picture']} ({one['target']['class']})" for one in unsure[:5]) + ", ..." * (
            len(unsure) > 5
        )
        warnings.append(
            f"fooled, but not as sure as wanted ({100 * config.confidence:g} %, to all sources) in {config.max_steps} steps: {which}"
        )
    return warnings


def fooling_panels(
    attack_targets: AttackTargets,
    attack_result: AttackResult,
    image_result: Mapping[str, Any],
    image_index: int,
    victim_results: TransferMatrix | None,
) -> tuple[Panel, ...]:
    """A fooling picture between its original and its difference."""
    clean, fooling = attack_targets.clean[image_index], attack_result.images[image_index]
    difference, gain = magnified_difference(clean, fooling)
    size_text = f"L2 {image_result['l2']:.2f}, at most {image_result['linf_levels']} levels of 255; grey: none"
    panels = (
        Panel(f"{image_result['picture']}: original", clean, caption=top_classes_text(image_result["top_before"])),
        Panel(
            f"X_fooling: {image_result['target']['class']}"[:38],
            fooling,
            caption=top_classes_text(image_result["top_after"]),
        ),
        Panel(f"Difference, x {gain}", difference, caption=size_text),
    )
    return (
        panels
        if victim_results is None
        else (*panels, Panel("On other networks", caption=victim_predictions_text(image_result)))
    )


def top_classes_text(top: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(f"{item['class']} {100 * item['probability']:.1f} %" for item in top)


def victim_predictions_text(image_result: Mapping[str, Any]) -> str:
    """What the other networks see, before and after."""
    lines = []
    for name, predictions in image_result["networks"].items():
        lines.append(f"{name}")
        for time in ("before", "after"):
            lines.append(f"{time}: {predictions[time]['class']} {100 * predictions[time]['probability']:.1f} %")
        lines.append(
            f"{image_result['target']['class']}: rank {predictions['before']['target_rank']}, then {predictions['after']['target_rank']}"
        )
        lines.append(" ")
    return "\n".join(lines)


def magnified_difference(
    clean: UInt8[Tensor, "c h w"], fooling: UInt8[Tensor, "c h w"]
) -> tuple[UInt8[Tensor, "c h w"], int]:
    """A difference around grey, and by how much it is multiplied: as far as 99.5 % of its values keep their place."""
    change = fooling.double() - clean.double()
    largest = (
        float(change.abs().flatten().kthvalue(max(1, round(0.995 * change.numel()))).values)
        or float(change.abs().max())
        or 1.0
    )
    gain = max(1, int(127 / largest))
    return (128 + gain * change).round().clamp(0, 255).to(torch.uint8), gain
