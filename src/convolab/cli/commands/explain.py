"""Explain: what a network sees in a picture, and where."""

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convolab.cli.findings import files_said, keep, name_of, numbers_of, opener, stems_for
from convolab.cli.options import AsJson, Threads, patient_threads, prepare_torch
from convolab.cli.terminal import print_json, table, working

if TYPE_CHECKING:
    from PIL import Image

    from convolab.inspection.result import Finding

METHODS = "gradient, smoothgrad, integrated, cam, gradcam, occlusion, guided"
Net = Annotated[str, typer.Option(help="efficientnet_lite0, 1 or 2, timm/NAME, or a run's folder.")]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="The largest picture that is read, in pixels; each takes up to 13 bytes of memory.")
]


def explain(
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURE...", help="A sample (chelsea, coffee, rocket, ...), a path, or an http(s) address."
        ),
    ],
    net: Net = "efficientnet_lite0",
    method: Annotated[str, typer.Option(help=f"Some of {METHODS}, with commas.")] = "gradient,integrated,gradcam",
    target: Annotated[
        str | None,
        typer.Option(
            help="The class to explain: its name, an unambiguous beginning, index or WordNet id.",
            show_default="the most probable",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Check the maps: weights drawn anew, deletion and insertion. Up to a minute a picture."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of SmoothGrad's noise and the checks' draws.")] = 0,
    max_pixels: MaxPixels = 50_000_000,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where it goes: OUT.png, .npz and .json; a folder if there are several pictures.",
            show_default="explain-NAME",
        ),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Say what a network sees in a picture, and draw by several methods which pixels its answer hangs on."""
    patient_threads()
    prepare_torch("cpu", threads)
    from convolab.cli.networks import find_net
    from convolab.inspection.explain.explain import explain as look
    from convolab.inspection.explain.methods import find_methods

    find_methods(method)
    stems = stems_for("explain", pictures, out)
    network = find_net(net)
    if target is not None:
        network.find_class(target)
    openers = [opener(picture, max_pixels, keep=len(pictures) == 1) for picture in pictures]  # all, before work starts
    values, said = [], []
    with working("explaining") as telling:
        for picture, opened, stem in zip(pictures, openers, stems, strict=True):
            name = name_of(picture)
            found = look(
                network, opened(), target=target, methods=method, check=check, seed=seed, name=name, on_progress=telling
            )
            keep(found, stem, net, charts_of(found))
            values.append(numbers_of(found, net))  # no more is kept of it: there may be thousands of pictures
            said += [str(found), files_said(stem)]
    if as_json:
        print_json(values[0] if len(values) == 1 else {"pictures": values, "over_pictures": summary(values)})
        return
    print("\n".join(said))
    show_summary(summary(values))


def charts_of(found: "Finding") -> "list[Image.Image]":
    """The curves of a finding's checks."""
    if not found.numbers["sanity"]:
        return []
    from convolab.plots import explain as explain_plots

    return [explain_plots.as_image(explain_plots.sanity(found.numbers["sanity"]))]


def summary(pictures: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What each method's checks say over the pictures: gains over both controls, and what outlives the weights."""
    if len(pictures) < 2 or not any(picture["sanity"] for picture in pictures):
        return {}
    from convolab.inspection.explain.sanity import gains, outlived

    found = {}
    for method in dict.fromkeys(method for picture in pictures for method in picture["sanity"]):
        checks = [picture["sanity"][method] for picture in pictures if method in picture["sanity"]]
        over = {
            control: {kind: asdict(gain) for kind, gain in gains(checks, control).items()}
            for control in ("random", "smooth")
        }
        left = {key: asdict(value) if is_dataclass(value) else value for key, value in outlived(checks).items()}
        found[method] = {"pictures": len(checks), "gain_over": over, "weights_drawn_anew": left}
    return found


def show_summary(over: dict[str, dict[str, Any]]) -> None:
    """The checks over the pictures as a table."""
    if not over:
        return
    rows = []
    for method, found in over.items():
        gained = [
            with_interval(found["gain_over"][control][kind])
            for kind in ("deletion", "insertion")
            for control in ("random", "smooth")
        ]
        left = found["weights_drawn_anew"]
        above = f"{left['above_chance']} of {found['pictures']}"
        rows.append(
            [
                method,
                str(found["pictures"]),
                *gained,
                *(with_interval(left[key]) for key in ("head", "all")),
                above,
                with_interval(left["edges"]),
            ]
        )
    print(
        "over the pictures, with 95 % intervals: by how much the areas beat random orders, and what outlives weights drawn anew"
    )
    headings = ("deletion over pixels", "deletion over smooth", "insertion over pixels", "insertion over smooth")
    table(("map", "pictures", *headings, "head anew", "all anew", "above chance", "like edges"), rows)


def with_interval(found: dict[str, float] | None) -> str:
    """
    >>> with_interval({"mean": 0.12, "low": 0.1, "high": 0.14}), with_interval(None)
    ('+0.120 (+0.100 to +0.140)', '-')
    """
    return "-" if found is None else f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
