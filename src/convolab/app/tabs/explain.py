"""The tab Explain: what a network predicts for an image, on which pixels that depends, and where its cells look."""

from functools import partial
from typing import Any

import convolab
from convolab.app.answers import PageCall, Tab, computed_route, json_route
from convolab.app.choices import EXPLAIN_METHODS
from convolab.app.controls import whole_number_of
from convolab.app.networks import NETWORK_ROUTES, chosen_network
from convolab.app.same_as import SameAs, command_line, option_words, python_call
from convolab.app.shown_images import IMAGE_ROUTES, chosen_image, packed_map, png_url

USUAL_IMAGE = "chelsea"


def explanation_map(call: PageCall, method: str) -> dict[str, Any]:
    """The map of one method, raw, with the prediction and the network's input."""
    finding = explain_with(call, method)
    heatmap = finding.arrays[method]
    drawn = [panel for row in finding.panels for panel in row if panel.heatmap is heatmap and panel.colorbar_label]
    return {
        "target": finding.metrics["target"],
        "top": finding.metrics["top"],
        "method": finding.metrics["methods"][method],
        "map": packed_map(heatmap),
        "signed": drawn[0].signed,
        "note": drawn[0].caption,
        "input": png_url((255 * finding.arrays["pixels"]).round().byte()),
        "warnings": finding.warnings,
    }


def map_badges(call: PageCall, method: str) -> dict[str, Any]:
    """What the checks of one map say: badges, each with its explanation and its curves."""
    finding = explain_with(call, method, check=True)
    found = finding.metrics["sanity"].get(method)
    if found is None:
        return {"badges": [], "warnings": finding.warnings}
    prefix = f"{method}: "
    sentences = [line.removeprefix(prefix) for line in finding.summary if line.startswith(prefix)][-3:]
    badges = [weights_badge(found["randomization"], sentences[0])]
    badges += [
        curve_badge(name, found[name], sentence)
        for name, sentence in zip(("deletion", "insertion"), sentences[1:], strict=True)
    ]
    return {"badges": badges, "warnings": finding.warnings}


def explain_with(call: PageCall, method: str, *, check: bool = False) -> convolab.Finding:
    image, chosen = chosen_image(call, USUAL_IMAGE), chosen_network(call, call.text("net"))
    target = call.text("target").strip() or None
    return convolab.explain(image.pixels, chosen.net, target=target, methods=method, check=check)


def weights_badge(test: dict[str, Any], sentence: str) -> dict[str, Any]:
    """Whether the map changes when the weights are random."""
    remains, limit = test["cascading"][-1], test["null_95th_percentile"]
    passes = remains is None or abs(remains) <= limit
    about = (
        "A map that explains the network must change when its weights are replaced by random numbers. The number is the "
        "rank correlation of both maps; of random maps one in 20 is above the 95th percentile by chance."
    )
    return {
        "name": "random weights",
        "verdict": "passes" if passes else "fails",
        "short": "the map changes" if passes else "part of the map stays",
        "text": sentence,
        "about": about,
        "curves": [
            {"name": "from the head down", "values": test["cascading"]},
            {"name": "each group alone", "values": test["independent"]},
        ],
        "axis": "groups of layers, the head first",
        "layers": test["layer_groups"],
    }


def curve_badge(name: str, curve: dict[str, Any], sentence: str) -> dict[str, Any]:
    """Whether deleting or inserting pixels in the map's order is better than in the controls' orders."""
    sign = -1 if name == "deletion" else 1
    counts = [
        sum(sign * curve["auc"] > sign * auc for auc in curve[f"{control}_aucs"])
        for control in ("random_order", "phase_randomized")
    ]
    draws = len(curve["random_order_aucs"])
    beaten = sum(count == draws for count in counts)
    verb = "deleted: the probability should fall early" if name == "deletion" else "inserted: it should rise early"
    return {
        "name": name,
        "verdict": ("fails", "unclear", "passes")[beaten],
        "short": f"better than {counts[0]} of {draws} random orders, {counts[1]} of {draws} random maps",
        "text": sentence,
        "about": f"Pixels in the map's order are {verb}. The controls are single pixels in random order, and random maps "
        "with this map's spectrum. Five draws of each are few: trust means over images.",
        "curves": [
            {"name": "the map", "values": curve["probabilities"]},
            {"name": "random order", "values": curve["random_order_probabilities"]},
            {"name": "random maps", "values": curve["phase_randomized_probabilities"]},
        ],
        "axis": f"steps of pixels {'deleted' if name == 'deletion' else 'inserted'}",
    }


def look_at_cell(call: PageCall) -> dict[str, Any]:
    """The receptive fields of the cell at a pixel, and what the network makes of each patch alone."""
    image, chosen = chosen_image(call, USUAL_IMAGE), chosen_network(call, call.text("net"))
    finding = convolab.receptive_field(
        image.pixels, chosen.net, pixel=read_pixel(call), layer=call.text("layer") or None
    )
    return {
        **finding.metrics,
        "energy": packed_map(finding.arrays["energy"]),
        "input": png_url((255 * finding.arrays["pixels"]).round().byte()),
        "warnings": finding.warnings,
    }


def offer_layers(call: PageCall) -> dict[str, Any]:
    """The layers whose cells can be looked at. Asked for ahead, because tracing a network the first time takes seconds."""
    image, chosen = chosen_image(call, USUAL_IMAGE), chosen_network(call, call.text("net"))
    return {"layers": convolab.receptive_field(image.pixels, chosen.net, pixel=(0, 0)).metrics["layers"]}


def read_pixel(call: PageCall) -> list[int]:
    """Row and column as they are typed. Raises LabError unless both are."""
    pixel = [whole_number_of(call, name, name.capitalize()) for name in ("row", "column")]
    if None in pixel:
        raise convolab.LabError("give a row and a column, or click the image")
    return [at for at in pixel if at is not None]


def same_as_explain(call: PageCall) -> dict[str, str]:
    """The same as a command and as Python."""
    image, chosen = chosen_image(call, USUAL_IMAGE), chosen_network(call, call.text("net"))
    methods = call.texts("method")
    target = call.text("target").strip() or None
    if target is not None:
        chosen.net.find_class(target)
    if not methods:
        raise convolab.LabError("tick at least one method")
    checked = bool(call.text("check")) or None
    options = {"net": chosen.source, "method": ",".join(methods), "target": target, "check": checked}
    keywords = {"target": target, "methods": methods, "check": checked}
    python = f"finding = {python_call('convolab.explain', image.source, chosen.source, keywords=keywords)}"
    if call.text("row") and call.text("column"):
        asked = {"pixel": read_pixel(call), "layer": call.text("layer") or None}
        python += f"\nfield = {python_call('convolab.receptive_field', image.source, chosen.source, keywords=asked)}"
    command = command_line(option_words("explain", image.source, options=options))
    return SameAs(command, f"import convolab\n\n{python}").to_dict()


TAB = Tab(
    "explain",
    "Explain",
    (
        *IMAGE_ROUTES,
        *NETWORK_ROUTES,
        *(
            computed_route(
                f"/api/explain/map/{name}", partial(explanation_map, method=name), channel=f"explain.map.{name}"
            )
            for name in EXPLAIN_METHODS
        ),
        *(
            computed_route(
                f"/api/explain/check/{name}", partial(map_badges, method=name), channel=f"explain.check.{name}"
            )
            for name in EXPLAIN_METHODS
        ),
        computed_route("/api/explain/field", look_at_cell, channel="explain.field"),
        json_route("/api/explain/layers", offer_layers),
        json_route("/api/explain/same", same_as_explain),
    ),
)
