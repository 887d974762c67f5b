"""Explain: what a network sees in a picture, and where."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.front.commands.options import AsJson, Threads, prepare_torch
from convolab.front.lens_files import files_said, keep, name_of, numbers_of, stems_for
from convolab.front.terminal import print_json, working

if TYPE_CHECKING:
    from PIL import Image

    from convolab.lenses.finding import Finding

METHODS = "gradient, smoothgrad, integrated, cam, gradcam, occlusion, guided"
Net = Annotated[str, typer.Option(help="efficientnet_lite0, 1 or 2, timm/NAME, or a run's folder.")]
MaxPixels = Annotated[int, typer.Option(min=1, help="The largest picture that is read, in pixels.")]


def explain(
    pictures: Annotated[
        list[str], typer.Argument(metavar="PICTURE...", help="A sample (chelsea, coffee, rocket, ...), a path, or an http(s) address.")
    ],
    net: Net = "efficientnet_lite0",
    method: Annotated[str, typer.Option(help=f"Some of {METHODS}, with commas.")] = "gradient,integrated,gradcam",
    target: Annotated[
        str | None,
        typer.Option(
            help="The class to explain: its name, an unambiguous beginning, index or WordNet id.", show_default="the most probable"
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the maps: weights drawn anew, deletion and insertion. Slow.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of SmoothGrad's noise and the checks' draws.")] = 0,
    max_pixels: MaxPixels = 50_000_000,
    out: Annotated[
        Path | None,
        typer.Option(help="Where it goes: OUT.png, .npz and .json; a folder if there are several pictures.", show_default="explain-NAME"),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Say what a network sees in a picture, and draw by several methods which pixels its answer hangs on."""
    prepare_torch("cpu", threads)
    from convolab.front.lens_net import find_net
    from convolab.images.photo import open_photo
    from convolab.lenses.explain import explain as look
    from convolab.lenses.saliency import find_methods

    find_methods(method)
    stems = stems_for("explain", pictures, out)
    network = find_net(net)
    if target is not None:
        network.find_class(target)
    photos = [open_photo(picture, max_pixels) for picture in pictures]  # all, before work starts
    findings = []
    with working("explaining") as telling:
        for picture, photo, stem in zip(pictures, photos, stems, strict=True):
            found = look(network, photo, target=target, methods=method, check=check, seed=seed, name=name_of(picture), on_progress=telling)
            findings.append(found)
            keep(found, stem, net, charts_of(found))
    if as_json:
        values = [numbers_of(found, net) for found in findings]
        print_json(values[0] if len(values) == 1 else {"pictures": values, "over_pictures": summary(findings)})
        return
    for found, stem in zip(findings, stems, strict=True):
        print(found)
        print(files_said(stem))
    for line in spoken(summary(findings), len(findings)):
        print(line)


def charts_of(found: "Finding") -> "list[Image.Image]":
    """The curves of a finding's checks."""
    if not found.numbers["sanity"]:
        return []
    from convolab.front import lens_plots

    return [lens_plots.as_image(lens_plots.sanity(found.numbers["sanity"]))]


def summary(findings: list["Finding"]) -> dict[str, dict[str, dict[str, float]]]:
    """By how much each method's deletion and insertion beat random order, over the pictures."""
    if len(findings) < 2 or not any(found.numbers["sanity"] for found in findings):
        return {}
    from dataclasses import asdict

    from convolab.lenses.sanity import gains

    methods = dict.fromkeys(method for found in findings for method in found.numbers["sanity"])
    checks = {method: [found.numbers["sanity"][method] for found in findings if method in found.numbers["sanity"]] for method in methods}
    return {method: {kind: asdict(interval) for kind, interval in gains(some).items()} for method, some in checks.items()}


def spoken(over: dict[str, dict[str, dict[str, float]]], count: int) -> list[str]:
    return [
        f"over {count} pictures, {method}: {kind} beats random order by {gain['mean']:+.3f} (95 % interval {gain['low']:+.3f} to {gain['high']:+.3f})"
        for method, kinds in over.items()
        for kind, gain in kinds.items()
    ]
