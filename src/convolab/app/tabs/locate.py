"""The tab Locate: where in a large image objects are; the browser draws the boxes from the responses."""

from typing import Any

import convolab
from convolab.app.answers import PageCall, Tab, computed_route, json_route
from convolab.app.controls import number_of
from convolab.app.networks import chosen_network
from convolab.app.same_as import SameAs, command_line, option_words, python_call
from convolab.app.shown_images import chosen_image, packed_map

USUAL_IMAGE = "motorcycle_left"
ALIGNMENTS = ("erf", "rf-center", "resize")
MAX_CLASSES = 6


def read_search(call: PageCall) -> dict[str, Any]:
    """What decides the responses, as `convolab.locate` takes it; what is empty is left out."""
    targets = call.texts("target")
    if len(targets) > MAX_CLASSES:
        raise convolab.LabError(f"{len(targets)} classes: choose at most {MAX_CLASSES} at a time")
    settings = {
        "targets": targets or None,
        "scales": call.text("scale").strip() or None,
        "alignment": call.text("alignment") or None,
        "threshold": number_of(call, "threshold", "Threshold"),
        "granularity": call.text("granularity") or None,
    }
    return {name: value for name, value in settings.items() if value is not None}


def find_boxes(call: PageCall) -> dict[str, Any]:
    """The responses of all classes at all scales, with where their cells lie, and the boxes."""
    image, chosen = chosen_image(call, USUAL_IMAGE), chosen_network(call, call.text("net"))
    finding = convolab.locate(image.pixels, chosen.net, **read_search(call))
    metrics, scales = finding.metrics, finding.metrics["scales"]
    return {
        "name": image.name,
        "size": metrics["size"],
        "scales": scales,
        "granularity": metrics["granularity"],
        "alignment": metrics["alignment"],
        "classes": [
            {
                "label": label,
                **{name: found[name] for name in ("index", "logit", "probability", "detections", "invalid_reason")},
                "responses": [packed_map(finding.arrays[f"response {label} at {scale}"]) for scale in scales],
            }
            for label, found in metrics["classes"].items()
        ],
        "summary": [line.replace("the image", image.name, 1) for line in finding.summary[:1]]
        + list(finding.summary[1:]),
        "warnings": finding.warnings,
    }


def judge_boxes(call: PageCall) -> dict[str, Any]:
    """The boxes at another threshold, with the probabilities in them: the browser has the responses already."""
    return {"classes": [{name: one[name] for name in ("label", "detections")} for one in find_boxes(call)["classes"]]}


def compare_placements(call: PageCall) -> dict[str, Any]:
    """Where each alignment puts the cells, and the boxes that follow; the responses are the same."""
    image, chosen = chosen_image(call, USUAL_IMAGE), chosen_network(call, call.text("net"))
    settings = read_search(call)
    placements = {}
    for alignment in ALIGNMENTS:
        finding = convolab.locate(image.pixels, chosen.net, **{**settings, "alignment": alignment})
        label, found = next(iter(finding.metrics["classes"].items()))
        placements[alignment] = {
            "label": label,
            "scales": finding.metrics["scales"],
            "detections": found["detections"],
            "about": next(line for line in finding.summary if line.startswith("aligned by")),
        }
    return placements


def same_as_locate(call: PageCall) -> dict[str, str]:
    """The same as a command and as Python."""
    image, chosen = chosen_image(call, USUAL_IMAGE), chosen_network(call, call.text("net"))
    settings = read_search(call)
    targets = [chosen.net.find_class(target) for target in settings.get("targets", ())]
    names = [chosen.net.classes[index] for index in targets]
    options = {
        "target": ",".join(str(i) if "," in name else name for i, name in zip(targets, names, strict=True)) or None,
        "net": chosen.source,
        "scale": settings.get("scales"),
        **{name: settings.get(name) for name in ("alignment", "threshold", "granularity")},
    }
    call_text = python_call("convolab.locate", image.source, chosen.source, keywords=settings)
    command = command_line(option_words("locate", image.source, options=options))
    return SameAs(command, f"import convolab\n\nfinding = {call_text}").to_dict()


TAB = Tab(
    "locate",
    "Locate",
    (
        computed_route("/api/locate/find", find_boxes, channel="locate"),
        computed_route("/api/locate/judge", judge_boxes, channel="locate.judge"),
        computed_route("/api/locate/placements", compare_placements, channel="locate.placements"),
        json_route("/api/locate/same", same_as_locate),
    ),
)
