"""Explain: what a network predicts for an image, and which pixels the prediction depends on."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convolab.cli.findings import finding_paths, inspect_images, output_stems
from convolab.cli.options import (
    DEFAULT_NET,
    AsJson,
    MaxPixelsOption,
    NetOption,
    Threads,
    prepare_torch,
    set_passive_omp_wait,
)
from convolab.cli.terminal import print_json, print_lines, print_note, print_table
from convolab.core.outputs import require_outputs
from convolab.core.text import NO_VALUE
from convolab.inspection.explain.method_names import DEFAULT_METHODS, METHOD_NAMES, parse_methods, parse_sample_count

if TYPE_CHECKING:
    from PIL import Image

    from convolab.inspection.result import Finding

SUMMARY_HEADINGS = (
    "map",
    "images",
    "deletion over random order",
    "deletion over phase-randomized",
    "insertion over random order",
    "insertion over phase-randomized",
    "head randomized",
    "all randomized",
    "above 95th percentile",
    "edges",
)


def explain_command(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="A sample (chelsea, coffee, rocket, ...), a path, or an http(s) URL."),
    ],
    net: NetOption = DEFAULT_NET,
    method: Annotated[str, typer.Option(help=f"Some of {', '.join(METHOD_NAMES)}, with commas.")] = ",".join(
        DEFAULT_METHODS
    ),
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
            "--check", help="Check the maps: randomized weights, deletion and insertion. Up to a minute an image."
        ),
    ] = False,
    samples: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="SmoothGrad's noisy copies and the steps of integrated gradients; auto: until the map no longer changes.",
            show_default="25 and 50",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of SmoothGrad's noise and of the checks.")] = 0,
    max_pixels: MaxPixelsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where it goes: OUT.png, .npz and .json; a folder if there are several images.",
            show_default="explain-NAME, or explain-NAME-NET",
        ),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Say what a network predicts for an image and draw, by several methods, the pixels its prediction depends on."""
    method_names = parse_methods(method, on_hint=print_note)
    count = parse_sample_count(samples, method_names)
    stems = output_stems("explain", images, out, net)
    require_outputs("explain", [path for stem in stems for path in finding_paths(stem)], [*images, net])
    set_passive_omp_wait()
    prepare_torch("cpu", threads)
    from convolab.arguments import resolve_classifier
    from convolab.inspection.explain.explain import explain_prediction
    from convolab.inspection.explain.sanity import aggregate_sanity_checks

    network = resolve_classifier(net)
    if target is not None:
        network.find_class(target)
    inspect = partial(
        explain_prediction, network, target=target, methods=method_names, check=check, samples=count, seed=seed
    )
    results, output_lines = inspect_images("explaining", inspect, images, stems, net, max_pixels, sanity_check_charts)
    over_images = aggregate_sanity_checks(results)
    if as_json:
        print_json(results[0] if len(results) == 1 else {"images": results, "over_images": over_images})
        return
    print_lines(*output_lines)
    if over_images:
        print_sanity_summary(over_images)


def sanity_check_charts(finding: "Finding") -> "list[Image.Image]":
    """The charts of a finding's checks, if there are any."""
    if not finding.metrics["sanity"]:
        return []
    from convolab.plots.explain import sanity_checks_chart
    from convolab.plots.style import chart_to_pil_image

    return [chart_to_pil_image(sanity_checks_chart(finding.metrics["sanity"]))]


def print_sanity_summary(by_method: Mapping[str, Mapping[str, Any]]) -> None:
    """The checks over several images as a table."""
    rows = []
    for method, checks in by_method.items():
        gains = checks["auc_gain_over"]
        remaining = checks["randomized_weights"]
        cells = [
            *(
                gains[control][kind]
                for kind in ("deletion", "insertion")
                for control in ("random_order", "phase_randomized")
            ),
            remaining["head"],
            remaining["all"],
        ]
        compared = checks["images"] - remaining["constant_or_nonfinite"]  # of the other maps nothing remained
        above_count = f"{remaining['above_null_95th_percentile']} of {compared}"
        edges = format_mean_interval(remaining["edge_correlation"])
        rows.append([method, str(checks["images"]), *map(format_mean_interval, cells), above_count, edges])
    print_lines(
        "over the images, with 95 % intervals: the gain in AUC over both controls, and the rank correlation of the map "
        "with that of randomized weights and with the image's edges"
    )
    print_table(SUMMARY_HEADINGS, rows)


def format_mean_interval(interval: Mapping[str, float] | None) -> str:
    """
    >>> format_mean_interval({"mean": 0.12, "low": 0.1, "high": 0.14}), format_mean_interval(None)
    ('+0.120 (+0.100 to +0.140)', '-')
    """
    if interval is None:
        return NO_VALUE
    return f"{interval['mean']:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f})"
