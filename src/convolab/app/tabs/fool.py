"""The tab Fool: change an image until a network predicts another class, watch it climb, and judge the saved file."""

from typing import TYPE_CHECKING, Any

import convolab
from convolab.app.answers import PageCall, Tab, computed_route, json_route
from convolab.app.controls import number_of, whole_number_of
from convolab.app.networks import chosen_network
from convolab.app.same_as import SameAs, command_line, option_words, python_call
from convolab.app.shown_images import chosen_image, png_bytes, png_url

if TYPE_CHECKING:
    from torch import Tensor

USUAL_IMAGE = "chelsea"
CHANNEL = "fool"


def read_attack(call: PageCall) -> dict[str, Any]:
    """What decides the climb, as `convolab.fool` takes it; what is empty is left out."""
    settings = {
        "budget": call.text("budget").strip() or None,
        "objective": call.text("objective").strip() or None,
        "step_size": number_of(call, "step_size", "Step size"),
        "max_steps": whole_number_of(call, "max_steps", "Most steps"),
        "confidence": number_of(call, "confidence", "Confidence"),
        "shortest": True if call.text("shortest") else None,
    }
    return {name: value for name, value in settings.items() if value is not None}


def read_target(call: PageCall) -> str:
    target = call.text("target").strip()
    if not target:
        raise convolab.LabError("name the class to reach, such as goldfish")
    if target.lower().startswith("random:"):
        raise convolab.LabError("one class at a time: give a class, or random")
    return target


def climb(call: PageCall) -> dict[str, Any]:
    """Change the image, telling at each step how far it is, and judge what came out."""
    target, settings = read_target(call), read_attack(call)
    image, chosen = chosen_image(call, USUAL_IMAGE), chosen_network(call, call.text("net"))
    # By the class's index: a comma in its name would separate two.
    index = target if target.startswith("random") else chosen.net.find_class(target)
    victims = {other.source: other.net for other in (chosen_network(call, name) for name in call.texts("victim"))}
    path: list[float] = []

    def on_step(step: int, probabilities: list[float], pixels: "Tensor") -> None:
        path.append(probabilities[0])
        call.app.progress.write(call.session, CHANNEL, (list(path), pixels[0].detach().clone()))

    call.app.progress.write(call.session, CHANNEL, None)
    try:
        finding = convolab.fool(image.pixels, index, chosen.net, victims=victims, on_step=on_step, **settings)
    finally:
        call.app.progress.write(call.session, CHANNEL, None)
    result = finding.metrics["images"][0]
    fooling = finding.arrays["fooling"][0]
    word = "".join(letter if letter.isalnum() else "-" for letter in result["target"]["class"])
    return {
        **result,
        "settings": {name: finding.metrics[name] for name in ("objective", "budget", "step_size", "max_steps")},
        "path": path,
        "clean": png_url(finding.arrays["clean"][0]),
        "fooling": png_url(fooling),
        "file": f"fool-{image.name}-{word}.png",
        "bytes": len(png_bytes(fooling)),
        "warnings": finding.warnings,
    }


def climb_progress(call: PageCall) -> dict[str, Any]:
    """The path so far, and the image as it is now, unless the browser has seen that step."""
    news = call.app.progress.read(call.session, CHANNEL)
    if not isinstance(news, tuple):
        return {"path": []}
    path, pixels = news
    seen = whole_number_of(call, "seen", "seen") or 0
    return {"path": path, "image": png_url((255 * pixels).round().byte()) if len(path) > seen else None}


def same_as_fool(call: PageCall) -> dict[str, str]:
    """The same as a command and as Python."""
    target, settings = read_target(call), read_attack(call)
    image, chosen = chosen_image(call, USUAL_IMAGE), chosen_network(call, call.text("net"))
    if not target.startswith("random"):
        index = chosen.net.find_class(target)
        target = str(index) if "," in target else target
    victims = [chosen_network(call, name).source for name in call.texts("victim")]
    options = {
        "target": target,
        "net": chosen.source,
        "victims": ",".join(victims) or None,
        **{name.replace("_", "-"): value for name, value in settings.items()},
    }
    keywords = {"victims": victims or None, **settings}
    call_text = python_call("convolab.fool", image.source, target, chosen.source, keywords=keywords)
    command = command_line(option_words("fool", image.source, options=options))
    return SameAs(command, f"import convolab\n\nfinding = {call_text}").to_dict()


TAB = Tab(
    "fool",
    "Fool",
    (
        computed_route("/api/fool/climb", climb, channel=CHANNEL),
        json_route("/api/fool/progress", climb_progress),
        json_route("/api/fool/same", same_as_fool),
    ),
)
