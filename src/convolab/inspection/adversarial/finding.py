"""What is found of pictures that fool: in numbers, in words, and as rows of panels."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from convolab.core.stats import mean_interval
from convolab.inspection.adversarial.pgd import Ascent, Climb
from convolab.inspection.adversarial.transfer import Matrix, Share, Views, compared, judged, respond, said, views
from convolab.inspection.result import Finding, Panel
from convolab.models.classifier import PixelNet

Bytes = UInt8[Tensor, "n c h w"]
SHOWN, TOLD, TOP = 3, 12, 3  # pictures drawn, pictures told of one by one, classes below each


@dataclass(frozen=True)
class Aims:
    """Pictures and what each is to be taken for; a picture stands there once for each of its targets."""

    names: tuple[str, ...]
    clean: Bytes
    targets: Int64[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.names)


def describe(
    net: PixelNet, aims: Aims, climb: Climb, went: Ascent, found: Matrix | None, settings: dict[str, Any]
) -> Finding:
    """A finding of pictures that are already made."""
    logits = {
        kind: respond(net, in_floats(pictures)) for kind, pictures in (("before", aims.clean), ("after", went.pictures))
    }
    before, after = (judged(z, aims.targets) for z in logits.values())
    anew = views(net, went.pictures, aims.targets)
    tops = {kind: [top_of(net, row) for row in z] for kind, z in logits.items()}
    pictures = [one_of(net, aims, went, before, after, anew, found, number) for number in range(len(aims))]
    for number, one in enumerate(pictures):
        one |= {f"top_{kind}": tops[kind][number] for kind in tops}
    fooled = Share.of([one["fooled"] for one in pictures])
    length = climb.step_for(aims.clean[0].numel())
    numbers = {
        **settings,
        "objective": climb.objective,
        "budget": str(climb.budget),
        "step": length,
        "max_steps": climb.max_steps,
        "confidence": climb.confidence,
        "momentum": climb.momentum,
        "diversity": climb.diversity,
        "fooled": asdict(fooled),
        "seen_anew": asdict(Share.of([one["seen_anew"]["class"] == one["target"]["class"] for one in pictures])),
        "l2": asdict(mean_interval([one["l2"] for one in pictures])),
        "steps": asdict(mean_interval([float(one["steps"]) for one in pictures])),
        "pictures": pictures,
        "transfer": None if found is None else {"kinds": found.values(), "tests": found.tests()},
    }
    words = [headline(pictures, fooled), how(climb, settings["sources"], numbers), *map(told, pictures[:TOLD])]
    if len(pictures) > TOLD:
        words.append(f"and {len(pictures) - TOLD} more, which the numbers hold")
    words.append(
        f"resized and cropped anew, as any photo is, the network itself takes {Share(**numbers['seen_anew'])} for the target"
    )
    words += [] if found is None else [*said(found), *compared(found)]
    arrays = {"clean": aims.clean, "fooling": went.pictures, "target": aims.targets}
    arrays["difference"] = went.pictures.short() - aims.clean.short()  # in levels of 255
    rows = tuple(row_of(aims, went, pictures[number], number, found) for number in range(min(SHOWN, len(aims))))
    return Finding("fool", tuple(words), numbers, arrays, rows, tuple(warnings_of(pictures, climb)))


def in_floats(pictures: Bytes) -> list[Float[Tensor, "1 c h w"]]:
    """Pictures of a network's own size as it takes them."""
    return [picture[None] / 255 for picture in pictures]


def top_of(net: PixelNet, logits: Float[Tensor, "classes"]) -> list[dict[str, Any]]:
    shares = logits.double().softmax(0).topk(min(TOP, len(logits)))
    return [
        {"class": net.classes[i], "probability": p}
        for i, p in zip(shares.indices.tolist(), shares.values.tolist(), strict=True)
    ]


def one_of(
    net: PixelNet, aims: Aims, went: Ascent, before: Views, after: Views, anew: Views, found: Matrix | None, number: int
) -> dict[str, Any]:
    """All there is to say in numbers of one picture and target."""
    target = int(aims.targets[number])
    change = went.pictures[number].double() - aims.clean[number].double()
    one = {
        "picture": aims.names[number],
        "target": {"class": net.classes[target], "index": target},
        "fooled": after.classes[number] == target,
        "reached": bool(went.reached[number]),
        "steps": int(went.steps[number]),
        "l2": float(change.norm()) / 255,
        "linf_levels": int(change.abs().max()),
        "before": seen_by(net, before, number),
        "after": seen_by(net, after, number),
        "seen_anew": seen_by(net, anew, number),
    }
    if found is not None:
        kinds = {"before": found.row("clean").views, "after": found.row("fooling").views}
        one["networks"] = {
            name: {when: seen_by(net, kind[name], number) for when, kind in kinds.items()} for name in found.networks
        }
    return one


def seen_by(net: PixelNet, seen: Views, number: int) -> dict[str, Any]:
    return {
        "class": net.classes[seen.classes[number]],
        "probability": seen.confidences[number],
        "target_rank": seen.ranks[number],
        "target_probability": seen.probabilities[number],
    }


def headline(pictures: Sequence[Mapping[str, Any]], fooled: Share) -> str:
    if len(pictures) == 1:
        (one,) = pictures
        result = f"taken for {one['target']['class']}" if one["fooled"] else f"not taken for {one['target']['class']}"
        return f"{one['picture']} ({one['before']['class']}): {result}"
    if len({one["picture"] for one in pictures}) == 1:
        targets = ", ".join(one["target"]["class"] for one in pictures if one["fooled"]) or "none of its targets"
        return f"{pictures[0]['picture']} ({pictures[0]['before']['class']}): taken for {targets}"
    return f"{fooled.hits} of {fooled.count} pictures are taken for their target ({fooled.interval})"


def how(climb: Climb, sources: Sequence[str], numbers: Mapping[str, Any]) -> str:
    """How it was climbed and how far that went."""
    goal = f"until {100 * climb.confidence:g} % sure" if climb.confidence else "until the first success"
    ways = ", with momentum and input diversity" * bool(climb.momentum)
    also = f", also on {', '.join(sources)}" if sources else ""
    limit = "" if climb.budget.norm == "none" else f" within {climb.budget}"
    count = numbers["l2"]["count"]
    mean, drawn = " on average" * (count > 1), f"; drawn: the first {SHOWN} of {count}" * (count > SHOWN)
    return (
        f"ascent on the {climb.objective.replace('-', ' ')}{ways}{also}, steps of {numbers['step']:.3g}{limit}, {goal}: "
        f"{numbers['steps']['mean']:.3g} steps, L2 {numbers['l2']['mean']:.2f}{mean}{drawn}"
    )


def told(one: Mapping[str, Any]) -> str:
    before, after, target = one["before"], one["after"], one["target"]["class"]
    now = f"{after['class']} {100 * after['probability']:.1f} %"
    return (
        f"{one['picture']}, {before['class']} {100 * before['probability']:.1f} %: {'fooled, ' if one['fooled'] else 'not fooled, '}{now} "
        f"({target} was {100 * before['target_probability']:.3g} %) after {one['steps']} steps, L2 {one['l2']:.2f}, "
        f"at most {one['linf_levels']} of 255 levels"
    )


def warnings_of(pictures: Sequence[Mapping[str, Any]], climb: Climb) -> list[str]:
    missed = [one for one in pictures if not one["fooled"]]
    unsure = [one for one in pictures if one["fooled"] and not one["reached"]]
    warnings = []
    if missed:
        which = ", ".join(f"{one['picture']} ({one['target']['class']})" for one in missed[:5]) + ", ..." * (
            len(missed) > 5
        )
        within = "" if climb.budget.norm == "none" else f" within {climb.budget}"
        hint = "; --objective log-probability also pushes the others down" * (climb.objective == "logit")
        warnings.append(f"not fooled in {climb.max_steps} steps{within}: {which}{hint}")
    if unsure:
        which = ", ".join(f"{one['picture']} ({one['target']['class']})" for one in unsure[:5]) + ", ..." * (
            len(unsure) > 5
        )
        warnings.append(
            f"fooled, but not as sure as wanted ({100 * climb.confidence:g} %, to all sources) in {climb.max_steps} steps: {which}"
        )
    return warnings


def row_of(aims: Aims, went: Ascent, one: Mapping[str, Any], number: int, found: Matrix | None) -> tuple[Panel, ...]:
    """A fooling picture between its original and its difference."""
    clean, picture = aims.clean[number], went.pictures[number]
    shown, gain = magnified(clean, picture)
    where = f"L2 {one['l2']:.2f}, at most {one['linf_levels']} levels of 255; grey: none"
    panels = (
        Panel(f"{one['picture']}: original", clean, caption=listed(one["top_before"])),
        Panel(f"X_fooling: {one['target']['class']}"[:38], picture, caption=listed(one["top_after"])),
        Panel(f"Difference, x {gain}", shown, caption=where),
    )
    return panels if found is None else (*panels, Panel("On other networks", caption=elsewhere(one)))


def listed(top: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(f"{item['class']} {100 * item['probability']:.1f} %" for item in top)


def elsewhere(one: Mapping[str, Any]) -> str:
    """What the other networks see, before and after."""
    lines = []
    for name, seen in one["networks"].items():
        lines.append(f"{name}")
        for when in ("before", "after"):
            lines.append(f"{when}: {seen[when]['class']} {100 * seen[when]['probability']:.1f} %")
        lines.append(
            f"{one['target']['class']}: rank {seen['before']['target_rank']}, then {seen['after']['target_rank']}"
        )
        lines.append(" ")
    return "\n".join(lines)


def magnified(clean: UInt8[Tensor, "c h w"], picture: UInt8[Tensor, "c h w"]) -> tuple[UInt8[Tensor, "c h w"], int]:
    """A difference around grey, and by how much it is multiplied: as far as 99.5 % of its values keep their place."""
    change = picture.double() - clean.double()
    largest = (
        float(change.abs().flatten().kthvalue(max(1, round(0.995 * change.numel()))).values)
        or float(change.abs().max())
        or 1.0
    )
    gain = max(1, int(127 / largest))
    return (128 + gain * change).round().clamp(0, 255).to(torch.uint8), gain
