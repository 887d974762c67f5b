"""Explain: what a network sees in a picture, and where."""

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convolab.cli.findings import (
    describe_output_files,
    finding_to_dict,
    image_name,
    lazy_image,
    output_stems,
    save_finding,
)
from convolab.cli.options import AsJson, Threads, prepare_torch, set_passive_omp_wait
from convolab.cli.terminal import print_json, print_table, status_spinner

if TYPE_CHECKING:
    from PIL import Image

    from convolab.inspection.result import Finding

METHOD_NAMES = "gradient, smoothgrad, integrated, cam, gradcam, occlusion, guided"
NetOption = Annotated[str, typer.Option(help="efficientnet_lite0, 1 or 2, timm/NAME, or a run's folder.")]
MaxPixelsOption = Annotated[
    int, typer.Option(min=1, help="The largest picture that is read, in pixels; each takes up to 13 bytes of memory.")
]


def explain_command(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURE...", help="A sample (chelsea, coffee, rocket, ...), a path, or an http(s) address."
        ),
    ],
    net: NetOption = "efficientnet_lite0",
    method: Annotated[str, typer.Option(help=f"Some of {METHOD_NAMES}, with commas.")] = "gradient,integrated,gradcam",
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
    max_pixels: MaxPixelsOption = 50_000_000,
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
    set_passive_omp_wait()
    prepare_torch("cpu", threads)
    from convolab.cli.networks import load_network
    from convolab.inspection.explain.explain import explain as look
    from convolab.inspection.explain.methods import parse_methods

    parse_methods(method)
    stems = output_stems("explain", images, out)
    network = load_network(net)
    if target is not None:
        network.find_class(target)
    lazy_images = [
        lazy_image(picture, max_pixels, cache=len(images) == 1) for picture in images
    ]  # all, before work starts
    results, output_lines = [], []
    with status_spinner("explaining") as update_status:
        for picture, opened, stem in zip(images, lazy_images, stems, strict=True):
            name = image_name(picture)
            finding = look(
                network,
                opened(),
                target=target,
                methods=method,
                check=check,
                seed=seed,
                image_name=name,
                on_progress=update_status,
            )
            save_finding(finding, stem, net, sanity_check_charts(finding))
            results.append(finding_to_dict(finding, net))  # no more is kept of it: there may be thousands of pictures
            output_lines += [str(finding), describe_output_files(stem)]
    if as_json:
        print_json(
            results[0]
            if len(results) == 1
            else {"pictures": results, "over_pictures": aggregate_sanity_checks(results)}
        )
        return
    print("\n".join(output_lines))
    print_sanity_summary(aggregate_sanity_checks(results))


def sanity_check_charts(finding: "Finding") -> "list[Image.Image]":
    """The curves of a finding's checks."""
    if not finding.metrics["sanity"]:
        return []
    from convolab.plots import explain as explain_plots

    return [explain_plots.chart_to_pil_image(explain_plots.sanity_checks_chart(finding.metrics["sanity"]))]


def aggregate_sanity_checks(results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What each method's checks say over the pictures: gains over both controls, and what outlives the weights."""
    if len(results) < 2 or not any(picture["sanity"] for picture in results):
        return {}
    from convolab.inspection.explain.sanity import auc_gains, remaining_similarity

    found = {}
    for method in dict.fromkeys(method for picture in results for method in picture["sanity"]):
        checks = [picture["sanity"][method] for picture in results if method in picture["sanity"]]
        gain_over = {
            control: {kind: asdict(gain) for kind, gain in auc_gains(checks, control).items()}
            for control in ("random", "smooth")
        }
        remaining = {
            key: asdict(value) if is_dataclass(value) else value for key, value in remaining_similarity(checks).items()
        }
        found[method] = {"pictures": len(checks), "gain_over": gain_over, "weights_drawn_anew": remaining}
    return found


def print_sanity_summary(by_method: dict[str, dict[str, Any]]) -> None:
    """The checks over the pictures as a table."""
    if not by_method:
        return
    rows = []
    for method, found in by_method.items():
        gains_with_intervals = [
            format_mean_interval(found["gain_over"][control][kind])
            for kind in ("deletion", "insertion")
            for control in ("random", "smooth")
        ]
        remaining = found["weights_drawn_anew"]
        above_null = f"{remaining['above_chance']} of {found['pictures']}"
        rows.append(
            [
                method,
                str(found["pictures"]),
                *gains_with_intervals,
                *(format_mean_interval(remaining[key]) for key in ("head", "all")),
                above_null,
                format_mean_interval(remaining["edges"]),
            ]
        )
    print(
        "over the pictures, with 95 % intervals: by how much the areas beat random orders, and what outlives weights drawn anew"
    )
    headings = ("deletion over pixels", "deletion over smooth", "insertion over pixels", "insertion over smooth")
    print_table(("map", "pictures", *headings, "head anew", "all anew", "above chance", "like edges"), rows)


def format_mean_interval(found: dict[str, float] | None) -> str:
    """
    >>> with_interval({"mean": 0.12, "low": 0.1, "high": 0.14}), with_interval(None)
    ('+0.120 (+0.100 to +0.140)', '-')
    """
    return "-" if found is None else f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
