"""Locate: where in a large picture a thing is, and how well a network's responses are placed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convolab.cli.commands.explain import MaxPixelsOption, NetOption
from convolab.cli.findings import (
    describe_output_files,
    finding_to_dict,
    image_name,
    lazy_image,
    output_stem,
    output_stems,
    save_finding,
)
from convolab.cli.options import AsJson, DataDir, Threads, prepare_torch, set_passive_omp_wait
from convolab.cli.terminal import print_json, status_spinner
from convolab.core.errors import require

if TYPE_CHECKING:
    from convolab.models.classifier import ImageClassifier

SYNTHETIC_OBJECT_SIDES = (
    8,
    16,
    24,
    32,
    48,
    64,
    96,
)  # of pasted things, in 32nds of the network's own size: a quarter of it to three times


def locate_command(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="PICTURE...", help="A sample (motorcycle_left, ...), a path, or an http(s) address."),
    ] = None,
    net: NetOption = "efficientnet_lite0",
    target: Annotated[
        str | None, typer.Option(help="Classes to find, with commas.", show_default="the likeliest")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Without --target: how many of the likeliest classes.")] = 1,
    scale: Annotated[
        str,
        typer.Option(
            help="How large the network sees the picture: factors (0.5) or shorter sides (448px), with commas."
        ),
    ] = "1",
    alignment: Annotated[str, typer.Option(help="Where a cell lies: effective, geometric or stretched.")] = "effective",
    threshold: Annotated[
        float, typer.Option(help="What belongs to a thing: at least this share of the largest response.")
    ] = 0.3,
    granularity: Annotated[
        str | None,
        typer.Option(help="What responds: cells, or windows of the network's own size.", show_default="cells"),
    ] = None,
    sliding_window_check: Annotated[
        bool, typer.Option("--check", help="Hold the dense map against windows cut out one by one. Slow.")
    ] = False,
    score_source: Annotated[
        str | None,
        typer.Option(help="Score placements: on a folder of photos with boxes.json, or 'pasted' (needs a run)."),
    ] = None,
    num_objects: Annotated[
        int, typer.Option(min=2, help="Of --score pasted: how many things of each size and ground.")
    ] = 100,
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the controls' and the pasted pictures' draws.")] = 0,
    max_pixels: MaxPixelsOption = 50_000_000,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where it goes: OUT.png, .npz and .json; a folder if there are several pictures.",
            show_default="locate-NAME",
        ),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Say where in a picture of any size a network sees a thing; or, with --score, how far that can be trusted."""
    require(bool(images) != bool(score_source), "give pictures to find things in, or --score with a folder to score on")
    set_passive_omp_wait()
    prepare_torch("cpu", threads)
    from convolab.cli.networks import load_network
    from convolab.inspection.localization.alignment import parse_alignment
    from convolab.inspection.localization.input_scale import parse_scales

    parse_scales(scale)
    parse_alignment(alignment)
    require(
        granularity in (None, "cells", "windows"), f"'{granularity}' responds to nothing: give --over cells or windows"
    )
    network = load_network(net)
    if score_source:
        locate_score_command(network, net, score_source, scale, granularity, num_objects, data_dir, seed, out, as_json)
        return
    from convolab.inspection.localization.locate import locate as look

    stems = output_stems("locate", images, out)
    targets = [word.strip() for word in target.split(",")] if target is not None else []
    for word in targets:
        network.find_class(word)
    lazy_images = [
        lazy_image(picture, max_pixels, cache=len(images) == 1) for picture in images
    ]  # all, before work starts
    results, output_lines = [], []
    with status_spinner("looking") as update_status:
        for picture, opened, stem in zip(images, lazy_images, stems, strict=True):
            options: dict[str, Any] = {
                "targets": targets,
                "top": top,
                "scales": scale,
                "placement": alignment,
                "threshold": threshold,
            }
            finding = look(
                network,
                opened(),
                **options,
                granularity=granularity,
                sliding_window_check=sliding_window_check,
                image_name=image_name(picture),
                on_progress=update_status,
            )
            save_finding(finding, stem, net)
            results.append(finding_to_dict(finding, net))
            output_lines += [str(finding), describe_output_files(stem)]
    if as_json:
        print_json(results[0] if len(results) == 1 else {"pictures": results})
        return
    print("\n".join(output_lines))


def locate_score_command(
    network: "ImageClassifier", net: str, source: str, scale: str, granularity: str | None, num_objects: int, data_dir: Path | None, seed: int, out: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Score on a folder at each scale and all of them together, or on pasted things of every size on both grounds."""
    from convolab.inspection.localization.alignment import erf_offset
    from convolab.inspection.localization.dense import make_fully_convolutional
    from convolab.inspection.localization.evaluation import describe_score, evaluate_localization
    from convolab.reports.localization import write_localization_report

    stem = output_stem("score", Path(net).name, out)
    with status_spinner("scoring") as update_status:
        pasted = source == "pasted"
        evaluations = (
            synthetic_evaluations(network, net, num_objects, data_dir, seed)
            if pasted
            else annotated_photo_evaluations(network, source, scale)
        )
        offset = erf_offset(make_fully_convolutional(network))
        scores = [
            (
                facts,
                evaluate_localization(
                    network,
                    scenes,
                    scales,
                    granularity=granularity,
                    seed=seed,
                    setting_name=name,
                    on_progress=update_status,
                ),
            )
            for name, facts, scenes, scales in evaluations
        ]
    numbers = {
        "net": net,
        "source": source,
        "seed": seed,
        "scores": [facts | found.to_dict() for facts, found in scores],
    }
    lines = [line for _, found in scores for line in describe_score(found)]
    files = write_localization_report(stem, net, source, offset, scores, numbers, lines)
    if as_json:
        print_json(numbers)
        return
    print("\n".join(lines))
    print(f"written: {', '.join(map(str, files))}")


def annotated_photo_evaluations(network: "ImageClassifier", folder: str, scale: str) -> list[tuple]:
    from convolab.inspection.localization.evaluation import annotated_samples
    from convolab.inspection.localization.input_scale import parse_scales

    scenes, scales = annotated_samples(folder, network), parse_scales(scale)
    per_scale = [(f"scale {s}", {"ground": "photos", "side": s.shorter_side}, scenes, (s,)) for s in scales]
    all_scales = (f"scales {' + '.join(map(str, scales))}", {"ground": "together", "side": None}, scenes, scales)
    return per_scale + [all_scales] * (len(scales) > 1)


def synthetic_evaluations(
    network: "ImageClassifier", net: str, num_objects: int, data_dir: Path | None, seed: int
) -> list[tuple]:
    from convolab.inspection.localization.input_scale import InputScale
    from convolab.inspection.localization.synthetic import BACKGROUNDS, synthetic_samples
    from convolab.training.run import Run

    require(
        Path(net).is_dir(),
        f"pasted things are pictures of a run's own set, and {net} is no run: give --net with a run's folder",
    )
    test_images = Run(net).load_splits(data_dir).test
    sides = [max(1, round(side * min(network.input_size) / 32)) for side in SYNTHETIC_OBJECT_SIDES]
    return [
        (f"{side} px on {ground} ground", {"ground": ground, "side": side}, synthetic_samples(network, test_images, ground, side, num_objects, seed), (InputScale(1.0),))
        for ground in BACKGROUNDS
        for side in sides
    ]  # fmt: skip
