"""Locate-score: how well a network's responses are aligned with objects whose boxes are known."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.findings import net_file_name, output_stem
from convolab.cli.options import DEFAULT_NET, AsJson, DataDir, NetOption, Threads, prepare_torch, set_passive_omp_wait
from convolab.cli.terminal import print_json, print_lines, print_note, status_spinner
from convolab.core.errors import require
from convolab.core.outputs import LOCALIZATION_SCORES, require_outputs

if TYPE_CHECKING:
    from convolab.inspection.localization.samples import EvaluationSetting
    from convolab.models.classifier import ImageClassifier


def locate_score_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of photos with boxes.json, or 'synthetic': the test images of a run, pasted on large ones.",
        ),
    ],
    net: NetOption = DEFAULT_NET,
    scale: Annotated[
        str,
        typer.Option(help="Of photos: factors (0.5) or shorter sides (448px) to resize them to, comma-separated."),
    ] = "1",
    granularity: Annotated[
        str | None,
        typer.Option(
            help="cell: a response for each cell of the last map; window: for each window of the network's input size.",
            show_default="cell; window behind a flattening",
        ),
    ] = None,
    num_objects: Annotated[
        int, typer.Option(min=2, max=10_000, help="Of synthetic: number of objects per size and background.")
    ] = 100,
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the baselines and the synthetic images.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Output: OUT.html, .png, .csv and .json.", show_default="locate-score-NET"),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate localization: compare responses with known boxes, for each alignment, beside baselines."""
    set_passive_omp_wait()
    prepare_torch("cpu", threads)
    from convolab.arguments import resolve_classifier
    from convolab.inspection.localization.dense import make_fully_convolutional, parse_granularity
    from convolab.inspection.localization.erf_offset import erf_offset
    from convolab.inspection.localization.evaluation import evaluate_localization
    from convolab.inspection.localization.input_scale import parse_scales
    from convolab.inspection.localization.samples import photo_settings
    from convolab.inspection.localization.score import describe_score
    from convolab.plots.localization import SCORE_COLUMNS
    from convolab.reports.localization import localization_paths, write_localization_report

    require(source != "pasted", "pasted is now called synthetic")
    scales = parse_scales(scale)
    unit = None if granularity is None else parse_granularity(granularity)
    stem = output_stem("locate-score", net_file_name(net), out, suffixes=(".html", ".png", ".csv", ".json"))
    require_outputs(
        LOCALIZATION_SCORES, localization_paths(stem), [net, Path(source) / "boxes.json"], ",".join(SCORE_COLUMNS)
    )
    network = resolve_classifier(net)
    with status_spinner("evaluating") as update_status:
        if source == "synthetic":
            settings = settings_of_run(network, net, num_objects, data_dir, seed)
        else:
            settings = photo_settings(source, network, scales)
        fcn = make_fully_convolutional(network)
        unit = fcn.choose_granularity(unit)
        offset = erf_offset(fcn)
        scores = [
            evaluate_localization(fcn, setting, granularity=unit, seed=seed, on_progress=update_status)
            for setting in settings
        ]
    metrics = {"net": net, "source": source, "seed": seed, "scores": [score.to_dict() for score in scores]}
    lines = [line for score in scores for line in describe_score(score)]
    paths = write_localization_report(stem, net, source, offset, scores, metrics, lines)
    if as_json:
        print_json(metrics)
        return
    print_lines(*lines, f"wrote {', '.join(map(str, paths))}")


def settings_of_run(
    network: "ImageClassifier", net: str, num_objects: int, data_dir: Path | None, seed: int
) -> "list[EvaluationSetting]":
    """Synthetic images that are made of a run's own test images."""
    from convolab.inspection.localization.synthetic import synthetic_settings
    from convolab.training.run import Run

    require(
        Path(net).is_dir(),
        f"synthetic images are made of a run's own test images, and {net} is not a run: give --net with a run's folder",
    )
    return synthetic_settings(network, Run(net).load_splits(data_dir, on_message=print_note).test, num_objects, seed)
