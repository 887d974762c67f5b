"""One network, one picture: what it sees in it, and by several maps where."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convolab.core.errors import require
from convolab.data.image_io import read_image
from convolab.inspection.explain import sanity
from convolab.inspection.explain.methods import METHODS, SaliencyMap, parse_methods
from convolab.inspection.result import Box, Finding, Panel
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import compute_logits, top_classes

DEFAULT_METHODS = ("gradient", "integrated", "gradcam")
TOP_CLASSES = 5


def explain(
    net: ImageClassifier,
    image: UInt8[Tensor, "c h w"] | Path | str,
    *,
    target: str | int | None = None,
    methods: Sequence[str] | str = DEFAULT_METHODS,
    check: bool = False,
    seed: int = 0,
    image_name: str | None = None,
    on_progress: Callable[[str], None] = lambda what: None,
) -> Finding:
    """Why a network gives a class its logit: a map by each method, each with what was checked of it.

    `photo` is bytes, or what `open_photo` opens. `target` is a class as `PixelNet.find_class` takes it, by default the most
    probable one. With `check` every map is checked as in `sanity`, which takes twenty maps more for each. Raises LabError for an
    unknown class or method, for a method that this network does not allow, and for logits that are not finite.

    >>> from convolab.models.pretrained import pretrained
    >>> finding = explain(pretrained("efficientnet_lite0"), "coffee", methods="gradcam")
    >>> print(finding.words[0])
    coffee: espresso 95.1 %, cup 1.5 %, consomme 0.7 %
    """
    method_names = parse_methods(methods if isinstance(methods, str) else ",".join(methods))
    target_index = None if target is None else net.find_class(target)
    image_name = image_name or (Path(image).stem if not isinstance(image, Tensor) else "the picture")
    image = image if isinstance(image, Tensor) else read_image(image)
    pixels = net.preprocess(image)
    logits = compute_logits(net, pixels)[0]
    require(
        logits.isfinite().all(),
        f"the network's logits for {image_name} are not all finite numbers: there is nothing to explain (did its training diverge?)",
    )
    target_index = int(logits.argmax()) if target_index is None else target_index
    method_calls = {
        method: partial(METHODS[method], **({"seed": seed} if method == "smoothgrad" else {}))
        for method in method_names
    }
    maps, checks = [], []
    for method, call in method_calls.items():
        on_progress(method)
        maps.append(call(net, pixels, target_index))
    valid_maps = [found for found in maps if check and not found.invalid_reason]
    if valid_maps:
        on_progress("deletion and insertion in random order")
        random_order_curves = sanity.curves_in_random_order(
            net, pixels, target_index, seed=seed
        )  # the same for every map
    for saliency_map in valid_maps:

        def report_check(step: str, method: str = saliency_map.method) -> None:
            on_progress(f"{method}: {step}")

        call = method_calls[saliency_map.method]
        checks.append(
            sanity.run_sanity_checks(
                net,
                pixels,
                target_index,
                saliency_map,
                call,
                seed=seed,
                precomputed_curves=random_order_curves,
                on_progress=report_check,
            )
        )
    return build_explain_finding(net, image, pixels, logits, target_index, maps, image_name, checks)


def build_explain_finding(
    net: ImageClassifier,
    image: UInt8[Tensor, "channels rows columns"],
    pixels: Float[Tensor, "1 c h w"],
    logits: Float[Tensor, "classes"],
    target: int,
    maps: Sequence[SaliencyMap],
    image_name: str,
    checks: Sequence[sanity.SanityResult] = (),
) -> Finding:
    """A finding of maps and checks that are already made."""
    probabilities = logits.double().softmax(0)
    top = top_classes(net.classes, probabilities, TOP_CLASSES)
    target_metrics = {
        "class": net.classes[target],
        "index": target,
        "probability": float(probabilities[target]),
        "logit": float(logits[target]),
    }
    summary = [f"{image_name}: {', '.join(map(str, top[:3]))}"]
    summary.append(
        f"explained: the logit of {target_metrics['class']}, {target_metrics['logit']:.3f} ({100 * target_metrics['probability']:.1f} %)"
    )
    summary += [line for line in map(describe_map_checks, maps) if line]
    summary += [line for check in checks for line in sanity.describe_sanity(check)]
    metrics = {
        "picture": image_name,
        "target": target_metrics,
        "top": [top_class.to_dict() for top_class in top],
        "methods": {m.method: saliency_metrics(m) for m in maps},
        "sanity": {check.method: check.to_dict() for check in checks},
    }
    network_image = (255 * pixels[0]).round().to(torch.uint8)
    arrays = {"pixels": pixels[0], **{m.method: m.values for m in maps}}
    arrays |= {f"{m.method}_channels": m.per_channel for m in maps if m.per_channel is not None}
    input_panel = Panel(
        "What the network sees",
        network_image,
        caption="\n".join(map(str, top)),
    )
    raw_panels = tuple(
        Panel(
            m.title,
            heatmap=m.values,
            signed=m.signed,
            colorbar_label=m.unit,
            caption=describe_map_checks(m, short=True),
        )
        for m in maps
    )
    overlay_panels = tuple(Panel("over the picture", network_image, m.values, m.signed) for m in maps)
    warnings = tuple(f"the {m.method} map is {m.invalid_reason}: it says nothing" for m in maps if m.invalid_reason)
    image_panel = Panel(
        "The picture", image, boxes=(Box(*net.crop_region(image)),), caption="in the frame: what the network sees"
    )
    return Finding(
        "explain",
        tuple(summary),
        metrics,
        arrays,
        ((input_panel, *raw_panels), (image_panel, *overlay_panels)),
        warnings,
    )


def saliency_metrics(saliency_map: SaliencyMap) -> dict[str, Any]:
    """What there is to say of a map in numbers."""
    finite = saliency_map.values[saliency_map.values.isfinite()]
    extremes = {"min": float(finite.min()), "max": float(finite.max())} if len(finite) else {"min": None, "max": None}
    peak = divmod(int(saliency_map.values.nan_to_num(float("-inf")).argmax()), saliency_map.values.shape[1])
    peak_position = {"row": peak[0], "column": peak[1]} if not saliency_map.invalid_reason else None
    return {
        "title": saliency_map.title,
        "unit": saliency_map.unit,
        "shape": list(saliency_map.values.shape),
        **extremes,
        "peak": peak_position,
        "fault": saliency_map.invalid_reason,
        "checks": {key: finite_or_none(value) for key, value in saliency_map.checks.items()},
        "settings": {key: finite_or_none(value) for key, value in saliency_map.settings.items()},
    }


def finite_or_none(value: Any) -> Any:
    """A value as JSON can hold it: None for a number that is not finite.

    >>> known(float("nan")), known(0.5), known("mean colour")
    (None, 0.5, 'mean colour')
    """
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe_map_checks(saliency_map: SaliencyMap, short: bool = False) -> str:
    """What was checked of a map, in words; empty if there is nothing to check."""
    if saliency_map.invalid_reason:
        return f"{saliency_map.invalid_reason}: says nothing" if short else ""
    if saliency_map.method == "integrated":
        relative_error, difference = saliency_map.checks["completeness"], saliency_map.settings["difference"]
        if short:
            return f"completeness: misses {100 * relative_error:.1f} %"
        return f"integrated gradients: the map's sum misses the difference of the logits ({difference:.3g} from the mean colour's) by {100 * relative_error:.1f} %"
    if saliency_map.method == "cam":
        if short:
            return f"mean + bias = logit, to {saliency_map.checks['sum']:.0e}"
        return f"CAM: the map's mean and the bias {saliency_map.settings['bias']:+.3f} give the logit {saliency_map.settings['logit']:.3f}, to {saliency_map.checks['sum']:.0e}"
    return ""
