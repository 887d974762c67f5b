"""Locate: where in a large image an object is."""

from functools import partial
from pathlib import Path
from typing import Annotated

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
from convolab.cli.terminal import print_json, print_lines
from convolab.core.outputs import require_outputs


def locate_command(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="A sample (motorcycle_left, ...), a path, or an http(s) URL."),
    ],
    net: NetOption = DEFAULT_NET,
    target: Annotated[
        str | None, typer.Option(help="Classes to find, comma-separated.", show_default="the most probable")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Without --target: number of most probable classes to find.")] = 1,
    scale: Annotated[
        str,
        typer.Option(help="Scales to resize the image to: factors (0.5) or shorter sides (448px), comma-separated."),
    ] = "1",
    alignment: Annotated[
        str,
        typer.Option(help="How cells map to pixels: erf (effective receptive field), rf-center or resize."),
    ] = "erf",
    threshold: Annotated[float, typer.Option(help="Box threshold, as a fraction of the largest response.")] = 0.3,
    granularity: Annotated[
        str | None,
        typer.Option(
            help="cell: a response for each cell of the last map; window: for each window of the network's input size.",
            show_default="cell; window behind a flattening",
        ),
    ] = None,
    sliding_window_check: Annotated[
        bool,
        typer.Option(
            "--sliding-window-check", help="Compare the dense map with windows cropped and classified one by one. Slow."
        ),
    ] = False,
    max_pixels: MaxPixelsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output: OUT.png, .npz and .json; a folder for several images.",
            show_default="locate-NAME, or locate-NAME-NET",
        ),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Find objects in an image of any size; locate-score measures how well."""
    set_passive_omp_wait()
    prepare_torch("cpu", threads)
    from convolab.arguments import resolve_classifier
    from convolab.inspection.localization.alignment import parse_alignment
    from convolab.inspection.localization.dense import parse_granularity
    from convolab.inspection.localization.input_scale import parse_scales
    from convolab.inspection.localization.locate import locate_objects, require_threshold
    from convolab.models.class_names import split_class_names

    require_threshold(threshold)
    parse_scales(scale)
    parse_alignment(alignment)
    if granularity is not None:
        parse_granularity(granularity)
    stems = output_stems("locate", images, out, net)
    require_outputs("locate", [path for stem in stems for path in finding_paths(stem)], [*images, net])
    network = resolve_classifier(net)
    targets = split_class_names(target, network.classes) if target is not None else []
    for word in targets:
        network.find_class(word)
    inspect = partial(
        locate_objects,
        network,
        targets=targets,
        top=top,
        scales=scale,
        alignment=alignment,
        threshold=threshold,
        granularity=granularity,
        sliding_window_check=sliding_window_check,
    )
    results, output_lines = inspect_images("locating", inspect, images, stems, net, max_pixels)
    if as_json:
        print_json(results[0] if len(results) == 1 else {"images": results})
        return
    print_lines(*output_lines)
