"""Locate: where in a large picture a thing is, and how well a network's responses are placed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convolab.cli.commands.explain import MaxPixels, Net
from convolab.cli.findings import files_said, keep, name_of, numbers_of, opener, stem_for, stems_for
from convolab.cli.options import AsJson, DataDir, Threads, patient_threads, prepare_torch
from convolab.cli.terminal import print_json, working
from convolab.core.errors import need

if TYPE_CHECKING:
    from convolab.models.classifier import PixelNet

SIDES = (
    8,
    16,
    24,
    32,
    48,
    64,
    96,
)  # of pasted things, in 32nds of the network's own size: a quarter of it to three times


def locate(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="PICTURE...", help="A sample (motorcycle_left, ...), a path, or an http(s) address."),
    ] = None,
    net: Net = "efficientnet_lite0",
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
    placement: Annotated[str, typer.Option(help="Where a cell lies: effective, geometric or stretched.")] = "effective",
    threshold: Annotated[
        float, typer.Option(help="What belongs to a thing: at least this share of the largest response.")
    ] = 0.3,
    over: Annotated[
        str | None,
        typer.Option(help="What responds: cells, or windows of the network's own size.", show_default="cells"),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Hold the dense map against windows cut out one by one. Slow.")
    ] = False,
    score: Annotated[
        str | None,
        typer.Option(help="Score placements: on a folder of photos with boxes.json, or 'pasted' (needs a run)."),
    ] = None,
    count: Annotated[
        int, typer.Option(min=2, help="Of --score pasted: how many things of each size and ground.")
    ] = 100,
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the controls' and the pasted pictures' draws.")] = 0,
    max_pixels: MaxPixels = 50_000_000,
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
    need(bool(pictures) != bool(score), "give pictures to find things in, or --score with a folder to score on")
    patient_threads()
    prepare_torch("cpu", threads)
    from convolab.cli.networks import find_net
    from convolab.inspection.localization.alignment import find_placement
    from convolab.inspection.localization.input_scale import find_scales

    find_scales(scale)
    find_placement(placement)
    need(over in (None, "cells", "windows"), f"'{over}' responds to nothing: give --over cells or windows")
    network = find_net(net)
    if score:
        run_score(network, net, score, scale, over, count, data_dir, seed, out, as_json)
        return
    from convolab.inspection.localization.locate import locate as look

    stems = stems_for("locate", pictures, out)
    targets = [word.strip() for word in target.split(",")] if target is not None else []
    for word in targets:
        network.find_class(word)
    openers = [opener(picture, max_pixels, keep=len(pictures) == 1) for picture in pictures]  # all, before work starts
    values, said = [], []
    with working("looking") as telling:
        for picture, opened, stem in zip(pictures, openers, stems, strict=True):
            options: dict[str, Any] = {
                "targets": targets,
                "top": top,
                "scales": scale,
                "placement": placement,
                "threshold": threshold,
            }
            found = look(
                network, opened(), **options, over=over, check=check, name=name_of(picture), on_progress=telling
            )
            keep(found, stem, net)
            values.append(numbers_of(found, net))
            said += [str(found), files_said(stem)]
    if as_json:
        print_json(values[0] if len(values) == 1 else {"pictures": values})
        return
    print("\n".join(said))


def run_score(
    network: "PixelNet", net: str, where: str, scale: str, over: str | None, count: int, data_dir: Path | None, seed: int, out: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Score on a folder at each scale and all of them together, or on pasted things of every size on both grounds."""
    from convolab.inspection.localization.alignment import displacement
    from convolab.inspection.localization.dense import dense
    from convolab.inspection.localization.evaluation import said, score
    from convolab.reports.localization import write_page

    stem = stem_for("score", Path(net).name, out)
    with working("scoring") as telling:
        pasted = where == "pasted"
        settings = (
            pasted_settings(network, net, count, data_dir, seed) if pasted else boxed_settings(network, where, scale)
        )
        moved = displacement(dense(network))
        scores = [
            (facts, score(network, scenes, scales, over=over, seed=seed, name=name, on_progress=telling))
            for name, facts, scenes, scales in settings
        ]
    numbers = {"net": net, "source": where, "seed": seed, "scores": [facts | found.values() for facts, found in scores]}
    words = [line for _, found in scores for line in said(found)]
    files = write_page(stem, net, where, moved, scores, numbers, words)
    if as_json:
        print_json(numbers)
        return
    print("\n".join(words))
    print(f"written: {', '.join(map(str, files))}")


def boxed_settings(network: "PixelNet", folder: str, scale: str) -> list[tuple]:
    from convolab.inspection.localization.evaluation import boxed_scenes
    from convolab.inspection.localization.input_scale import find_scales

    scenes, scales = boxed_scenes(folder, network), find_scales(scale)
    each = [(f"scale {s}", {"ground": "photos", "side": s.shorter}, scenes, (s,)) for s in scales]
    together = (f"scales {' + '.join(map(str, scales))}", {"ground": "together", "side": None}, scenes, scales)
    return each + [together] * (len(scales) > 1)


def pasted_settings(network: "PixelNet", net: str, count: int, data_dir: Path | None, seed: int) -> list[tuple]:
    from convolab.inspection.localization.input_scale import Scale
    from convolab.inspection.localization.synthetic import GROUNDS, pasted_scenes
    from convolab.training.run import Run

    need(
        Path(net).is_dir(),
        f"pasted things are pictures of a run's own set, and {net} is no run: give --net with a run's folder",
    )
    pictures = Run(net).pictures(data_dir).test
    sides = [max(1, round(side * min(network.size) / 32)) for side in SIDES]
    return [
        (f"{side} px on {ground} ground", {"ground": ground, "side": side}, pasted_scenes(network, pictures, ground, side, count, seed), (Scale(1.0),))
        for ground in GROUNDS
        for side in sides
    ]  # fmt: skip
