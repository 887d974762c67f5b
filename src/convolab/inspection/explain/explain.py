"""One network, one image: the prediction, and the pixels it depends on, by several methods."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convolab.core.errors import require
from convolab.core.types import Json, MessageCallback
from convolab.data.image_io import read_image
from convolab.inspection.explain.deletion_insertion import curves_in_random_order
from convolab.inspection.explain.method_names import DEFAULT_METHODS, SampleCount, parse_methods, parse_sample_count
from convolab.inspection.explain.methods import METHODS, STABLE_CORRELATION, SaliencyMap, SaliencyMethod
from convolab.inspection.explain.sanity import SanityResult, describe_sanity, run_sanity_checks
from convolab.inspection.result import Box, Finding, Panel
from convolab.inspection.types import SinglePixels, UInt8Image
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import compute_logits, inference_view, top_classes

TOP_CLASSES = 5  # in the metrics and below the network's input
MAX_DESCRIBED = 3  # of them in the summary
MAX_COLUMNS = 4  # panels in a row
SAMPLED = {"smoothgrad": "samples", "integrated_gradients": "steps"}  # the methods that are means, and what they count


def explain_prediction(
    net: ImageClassifier,
    image: UInt8Image | Path | str,
    *,
    target: str | int | None = None,
    methods: Sequence[str] | str = DEFAULT_METHODS,
    check: bool = False,
    samples: str | int | None = None,
    seed: int = 0,
    image_name: str | None = None,
    on_progress: MessageCallback = lambda message: None,
) -> Finding:
    """Explain a class's logit: a map by each method, and what was checked of each map.

    The network stays as it is. Several threads may explain one network at the same time: each call puts its hooks on a
    view of its own (`models.inference.inference_view`).

    Args:
        net: the network.
        image: uint8 [C, H, W], or a sample's name, a path or an http(s) URL as `read_image` takes it.
        target: a class as `ImageClassifier.find_class` takes it; by default the most probable one.
        methods: names of methods, in a list or with commas between them: see `METHOD_NAMES`.
        check: check every map as `sanity` does. It takes about twenty more maps for each.
        samples: the noisy copies of SmoothGrad and the steps of integrated gradients, or "auto": as many as it takes
            until the map no longer changes. By default 25 and 50.
        seed: of SmoothGrad's noise and of the checks.
        image_name: what the summary calls the image.
        on_progress: called with a line of text before each step.

    Returns:
        A `Finding` whose arrays are `pixels` [C, H, W] in [0, 1] and, for each method, its raw map [h, w] and where
        there is one `METHOD_channels` [C, H, W].

    Raises LabError for an unknown class or method, for a method that this network does not allow, for an image that
    cannot be read, and for weights, logits or maps that are not finite.

    >>> from convolab.models.pretrained import pretrained
    >>> finding = explain_prediction(pretrained("efficientnet_lite0"), "coffee", methods="gradcam")
    >>> print(finding.summary[0])
    coffee: espresso 95.1 %, cup 1.5 %, consomme 0.7 %
    """
    method_names = parse_methods(methods)
    target_index = None if target is None else net.find_class(target)
    image_name = image_name or (Path(image).stem if not isinstance(image, Tensor) else "the image")
    image = image if isinstance(image, Tensor) else read_image(image)
    net = inference_view(net)
    pixels = net.preprocess(image)
    logits = compute_logits(net, pixels, image_name=image_name)[0]
    target_index = int(logits.argmax()) if target_index is None else target_index
    count = parse_sample_count(samples, method_names)
    calls = {name: method_with_settings(name, seed, count) for name in method_names}
    maps = []
    for name, method in calls.items():
        on_progress(name)
        saliency_map = method(net, pixels, target_index)
        require(
            saliency_map.values.isfinite().all(),
            f"the {name} map of {image_name} is not finite: this network's gradients or logits overflow near it; "
            "leave the method out",
        )
        maps.append(saliency_map)
        if name in SAMPLED:  # the checks make maps of as many
            calls[name] = method_with_settings(name, seed, int(saliency_map.settings[SAMPLED[name]]))
    checks = check_maps(net, pixels, target_index, maps, calls, seed, on_progress) if check else []
    return build_explain_finding(net, image, pixels, logits, target_index, maps, image_name, checks)


def method_with_settings(name: str, seed: int, samples: SampleCount | None) -> SaliencyMethod:
    """A method with the seed and the number of samples, if it has any."""
    count = {SAMPLED[name]: samples} if name in SAMPLED and samples is not None else {}
    return partial(METHODS[name], **({"seed": seed} if name == "smoothgrad" else {}), **count)


def check_maps(
    net: ImageClassifier,
    pixels: SinglePixels,
    target: int,
    maps: Sequence[SaliencyMap],
    calls: dict[str, SaliencyMethod],
    seed: int,
    on_progress: MessageCallback,
) -> list[SanityResult]:
    """The sanity checks of every map that carries information."""
    valid_maps = [saliency_map for saliency_map in maps if not saliency_map.invalid_reason]
    if not valid_maps:
        return []
    on_progress("deletion and insertion in random order")
    random_order_curves = curves_in_random_order(net, pixels, target, seed=seed)  # the same for every map
    return [
        run_sanity_checks(
            net,
            pixels,
            target,
            saliency_map,
            calls[saliency_map.method],
            seed=seed,
            random_order_curves=random_order_curves,
            on_progress=lambda step, method=saliency_map.method: on_progress(f"{method}: {step}"),
        )
        for saliency_map in valid_maps
    ]


def build_explain_finding(
    net: ImageClassifier,
    image: UInt8[Tensor, "channels rows columns"],
    pixels: SinglePixels,
    logits: Float[Tensor, "classes"],
    target: int,
    maps: Sequence[SaliencyMap],
    image_name: str,
    checks: Sequence[SanityResult] = (),
) -> Finding:
    """The finding of maps and checks that were computed."""
    probabilities = logits.double().softmax(0)
    top = top_classes(net.classes, probabilities, TOP_CLASSES)
    label, logit, probability = net.classes[target], float(logits[target]), float(probabilities[target])
    summary = [
        f"{image_name}: {', '.join(map(str, top[:MAX_DESCRIBED]))}",
        f"explained logit: {label}, {logit:.3f} ({100 * probability:.1f} %)",
        *filter(None, map(describe_map_checks, maps)),
        *(line for check in checks for line in describe_sanity(check)),
    ]
    metrics = {
        "image": image_name,
        "target": {"class": label, "index": target, "probability": probability, "logit": logit},
        "top": [top_class.to_dict() for top_class in top],
        "methods": {saliency_map.method: saliency_metrics(saliency_map) for saliency_map in maps},
        "sanity": {check.method: check.to_dict() for check in checks},
    }
    arrays = {"pixels": pixels[0], **{saliency_map.method: saliency_map.values for saliency_map in maps}}
    arrays |= {f"{m.method}_channels": m.per_channel for m in maps if m.per_channel is not None}
    return Finding(
        tool="explain",
        summary=tuple(summary),
        metrics=metrics,
        arrays=arrays,
        panels=explain_panels(net, image, pixels, maps, "\n".join(map(str, top))),
        warnings=(
            *filter(None, [net.caution]),
            *(
                f"the {saliency_map.method} map is {saliency_map.invalid_reason}: it carries no information"
                for saliency_map in maps
                if saliency_map.invalid_reason
            ),
        ),
    )


def explain_panels(
    net: ImageClassifier,
    image: UInt8[Tensor, "channels rows columns"],
    pixels: SinglePixels,
    maps: Sequence[SaliencyMap],
    top_text: str,
) -> tuple[tuple[Panel, ...], ...]:
    """The network's input and the raw maps; below them the whole image and the maps over the input.

    There are at most MAX_COLUMNS panels in a row: further maps follow in rows of their own.
    """
    network_image = (255 * pixels[0]).round().to(torch.uint8)
    frame = Box(*net.crop_region(image))
    raw = [Panel(title="Network input", image=network_image, caption=top_text)]
    raw += [raw_map_panel(saliency_map, network_image) for saliency_map in maps]
    overlaid = [Panel(title="The image", image=image, boxes=(frame,), caption="frame: the network's input")]
    overlaid += [overlaid_map_panel(saliency_map, network_image) for saliency_map in maps]
    return tuple(
        tuple(panels[first : first + MAX_COLUMNS])
        for first in range(0, len(raw), MAX_COLUMNS)
        for panels in (raw, overlaid)
    )


def raw_map_panel(saliency_map: SaliencyMap, network_image: UInt8[Tensor, "channels rows columns"]) -> Panel:
    """A map as it is: each of its cells has one color."""
    rows, columns = saliency_map.values.shape
    cells = "" if (rows, columns) == network_image.shape[1:] else f"raw: {columns} x {rows} cells"
    return Panel(
        title=saliency_map.title,
        heatmap=saliency_map.values,
        signed=saliency_map.signed,
        colorbar_label=saliency_map.unit,
        caption="\n".join(filter(None, (cells, describe_map_checks(saliency_map, short=True)))),
    )


def overlaid_map_panel(saliency_map: SaliencyMap, network_image: UInt8[Tensor, "channels rows columns"]) -> Panel:
    """A map over the network's input, between its cells interpolated."""
    is_coarse = saliency_map.values.shape != network_image.shape[1:]
    return Panel(
        title=f"{saliency_map.title.partition(',')[0]}, overlaid",
        image=network_image,
        heatmap=saliency_map.values,
        signed=saliency_map.signed,
        caption="smooth: interpolated between the cells" if is_coarse else "",
    )


def saliency_metrics(saliency_map: SaliencyMap) -> dict[str, Json]:
    """A map in numbers; what is not finite is None, because JSON cannot hold it."""
    values = saliency_map.values
    finite = values[values.isfinite()]
    row, column = divmod(int(values.nan_to_num(float("-inf")).argmax()), values.shape[1])
    return {
        "title": saliency_map.title,
        "unit": saliency_map.unit,
        "shape": list(values.shape),
        "min": float(finite.min()) if len(finite) else None,
        "max": float(finite.max()) if len(finite) else None,
        "peak": None if saliency_map.invalid_reason else {"row": row, "column": column},
        "invalid_reason": saliency_map.invalid_reason,
        "checks": {key: finite_or_none(value) for key, value in saliency_map.checks.items()},
        "settings": {key: finite_or_none(value) for key, value in saliency_map.settings.items()},
    }


def finite_or_none(value: str | int | float) -> str | int | float | None:
    """A value as JSON can hold it: None for a number that is not finite.

    >>> finite_or_none(float("nan")), finite_or_none(0.5), finite_or_none("mean color")
    (None, 0.5, 'mean color')
    """
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe_step_correlation(settings: Mapping[str, str | int | float]) -> str:
    """How much the map changed with the last doubling of steps, where they were doubled until it no longer did."""
    if "step_correlation" not in settings:
        return ""
    correlation = float(settings["step_correlation"])
    return (
        f"; its rank correlation with the map of half the steps is {correlation:.3f}{describe_stability(correlation)}"
    )


def describe_stability(correlation: float) -> str:
    """Whether a map whose two estimates are alike in this way would still change."""
    return "" if correlation > STABLE_CORRELATION else ": more of them would still change the map"


def describe_map_checks(saliency_map: SaliencyMap, short: bool = False) -> str:
    """What was checked of a map, in words; empty if there is nothing to check. `short` is for a caption."""
    checks, settings = saliency_map.checks, saliency_map.settings
    if saliency_map.invalid_reason:
        return f"{saliency_map.invalid_reason}: carries no information" if short else ""
    if saliency_map.method == "integrated_gradients":
        error_text = f"{100 * checks['completeness_error']:.1f} %"
        if short:
            return f"completeness error {error_text}"
        return (
            "integrated gradients: the map should add up to the logit's difference to an image of the mean color, "
            f"{settings['logit_difference']:.3g}; with {settings['steps']} steps it misses that by {error_text}"
            + describe_step_correlation(settings)
        )
    if saliency_map.method == "smoothgrad" and "half_correlation" in settings:
        correlation = float(settings["half_correlation"])
        if short:
            return f"halves of the samples: rank correlation {correlation:.2f}"
        return (
            f"SmoothGrad: the maps of one half of the {settings['samples']:,} samples and of the other have a rank "
            f"correlation of {correlation:.2f}{describe_stability(correlation)}"
        )
    if saliency_map.method == "cam":
        error_text = f"{checks['sum_error']:.0e}"
        if short:
            return f"mean + bias = logit, to {error_text}"
        return (
            f"CAM: the map's mean and the bias {settings['bias']:+.3f} give the logit {settings['logit']:.3f}, "
            f"to {error_text}"
        )
    return ""
