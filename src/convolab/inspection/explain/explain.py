"""One network, one picture: what it sees in it, and by several maps where."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convolab.core.errors import need
from convolab.data.image_io import open_photo
from convolab.inspection.explain import sanity
from convolab.inspection.explain.methods import METHODS, Saliency, find_methods
from convolab.inspection.result import Box, Finding, Panel
from convolab.models.classifier import PixelNet, undisturbed

DEFAULT_METHODS = ("gradient", "integrated", "gradcam")
TOP = 5


def explain(
    net: PixelNet,
    photo: UInt8[Tensor, "c h w"] | Path | str,
    *,
    target: str | int | None = None,
    methods: Sequence[str] | str = DEFAULT_METHODS,
    check: bool = False,
    seed: int = 0,
    name: str | None = None,
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
    chosen = find_methods(methods if isinstance(methods, str) else ",".join(methods))
    wanted = None if target is None else net.find_class(target)
    name = name or (Path(photo).stem if not isinstance(photo, Tensor) else "the picture")
    photo = photo if isinstance(photo, Tensor) else open_photo(photo)
    pixels = net.fit(photo)
    logits = classify(net, pixels)
    need(
        logits.isfinite().all(),
        f"the network's logits for {name} are not all finite numbers: there is nothing to explain (did its training diverge?)",
    )
    wanted = int(logits.argmax()) if wanted is None else wanted
    calls = {
        method: partial(METHODS[method], **({"seed": seed} if method == "smoothgrad" else {})) for method in chosen
    }
    maps, checks = [], []
    for method, call in calls.items():
        on_progress(method)
        maps.append(call(net, pixels, wanted))
    sound = [found for found in maps if check and not found.fault]
    if sound:
        on_progress("deletion and insertion in random order")
        at_random = sanity.random_curves(net, pixels, wanted, seed=seed)  # the same for every map
    for found in sound:

        def telling(what: str, method: str = found.method) -> None:
            on_progress(f"{method}: {what}")

        call = calls[found.method]
        checks.append(
            sanity.check(net, pixels, wanted, found, call, seed=seed, at_random=at_random, on_progress=telling)
        )
    return describe(net, photo, pixels, logits, wanted, maps, name, checks)


def classify(net: PixelNet, pixels: Float[Tensor, "1 c h w"]) -> Float[Tensor, "classes"]:
    """The logits of one picture."""
    with undisturbed(net), torch.no_grad():
        return net(pixels.to(net.scale))[0]


def describe(
    net: PixelNet,
    photo: UInt8[Tensor, "channels rows columns"],
    pixels: Float[Tensor, "1 c h w"],
    logits: Float[Tensor, "classes"],
    target: int,
    maps: Sequence[Saliency],
    name: str,
    checks: Sequence[sanity.Sanity] = (),
) -> Finding:
    """A finding of maps and checks that are already made."""
    probabilities = logits.double().softmax(0)
    top = [
        (net.classes[i], float(probabilities[i]))
        for i in probabilities.topk(min(TOP, len(probabilities))).indices.tolist()
    ]
    aim = {
        "class": net.classes[target],
        "index": target,
        "probability": float(probabilities[target]),
        "logit": float(logits[target]),
    }
    words = [f"{name}: {', '.join(f'{label} {100 * share:.1f} %' for label, share in top[:3])}"]
    words.append(f"explained: the logit of {aim['class']}, {aim['logit']:.3f} ({100 * aim['probability']:.1f} %)")
    words += [line for line in map(checked, maps) if line]
    words += [line for check in checks for line in sanity.said(check)]
    numbers = {
        "picture": name,
        "target": aim,
        "top": [{"class": label, "probability": share} for label, share in top],
        "methods": {m.method: facts(m) for m in maps},
        "sanity": {check.method: check.values() for check in checks},
    }
    picture = (255 * pixels[0]).round().to(torch.uint8)
    arrays = {"pixels": pixels[0], **{m.method: m.values for m in maps}}
    arrays |= {f"{m.method}_channels": m.detail for m in maps if m.detail is not None}
    first = Panel(
        "What the network sees", picture, caption="\n".join(f"{label} {100 * share:.1f} %" for label, share in top)
    )
    raw = tuple(
        Panel(m.title, heat=m.values, signed=m.signed, unit=m.unit, caption=checked(m, short=True)) for m in maps
    )
    laid = tuple(Panel("over the picture", picture, m.values, m.signed) for m in maps)
    warnings = tuple(f"the {m.method} map is {m.fault}: it says nothing" for m in maps if m.fault)
    whole = Panel("The picture", photo, boxes=(Box(*net.shown(photo)),), caption="in the frame: what the network sees")
    return Finding("explain", tuple(words), numbers, arrays, ((first, *raw), (whole, *laid)), warnings)


def facts(m: Saliency) -> dict[str, Any]:
    """What there is to say of a map in numbers."""
    finite = m.values[m.values.isfinite()]
    extremes = {"min": float(finite.min()), "max": float(finite.max())} if len(finite) else {"min": None, "max": None}
    peak = divmod(int(m.values.nan_to_num(float("-inf")).argmax()), m.values.shape[1])
    place = {"row": peak[0], "column": peak[1]} if not m.fault else None
    return {
        "title": m.title,
        "unit": m.unit,
        "shape": list(m.values.shape),
        **extremes,
        "peak": place,
        "fault": m.fault,
        "checks": {key: known(value) for key, value in m.checks.items()},
        "settings": {key: known(value) for key, value in m.settings.items()},
    }


def known(value: Any) -> Any:
    """A value as JSON can hold it: None for a number that is not finite.

    >>> known(float("nan")), known(0.5), known("mean colour")
    (None, 0.5, 'mean colour')
    """
    return None if isinstance(value, float) and not math.isfinite(value) else value


def checked(m: Saliency, short: bool = False) -> str:
    """What was checked of a map, in words; empty if there is nothing to check."""
    if m.fault:
        return f"{m.fault}: says nothing" if short else ""
    if m.method == "integrated":
        share, difference = m.checks["completeness"], m.settings["difference"]
        if short:
            return f"completeness: misses {100 * share:.1f} %"
        return f"integrated gradients: the map's sum misses the difference of the logits ({difference:.3g} from the mean colour's) by {100 * share:.1f} %"
    if m.method == "cam":
        if short:
            return f"mean + bias = logit, to {m.checks['sum']:.0e}"
        return f"CAM: the map's mean and the bias {m.settings['bias']:+.3f} give the logit {m.settings['logit']:.3f}, to {m.checks['sum']:.0e}"
    return ""
