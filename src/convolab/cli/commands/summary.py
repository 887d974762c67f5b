"""`convolab summary`: cost and receptive field of a network's layers, or of some layers side by side."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.options import AsJson, recipe_changes
from convolab.cli.terminal import print_fitting_table, print_json, print_lines, print_note, print_table
from convolab.core.errors import LabError, require
from convolab.core.outputs import NETWORK_SUMMARY, require_outputs, write_output
from convolab.core.types import Json

if TYPE_CHECKING:
    from torch import nn

    from convolab.analysis.summary import ModelSummary

CHART_SUFFIXES = (".png", ".svg", ".html")
Shape = tuple[int, ...]


def summary_command(
    network: Annotated[
        str | None,
        typer.Argument(
            help="simple_convnet, shallow_net, resnet_small, whitened_convnet, efficientnet_lite0, timm/NAME, "
            "torchvision/NAME, your own as file.py:Name, or a run's folder.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help='A layer instead of a network, e.g. "Linear(100, 1000, bias=False)". Several are put side by side.',
        ),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input", help="Shape of the input, e.g. 3x224x224.", show_default="3x32x32; a library's or a run's own"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size.")] = 1,
    classes: Annotated[
        int | None,
        typer.Option(min=1, help="Number of classes of a network by name.", show_default="10, or the library's"),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of a network by name, e.g. model.channels=[16,32]. Repeatable."),
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(help="Run other counters too, with commas between: fvcore, torchinfo, thop, ptflops."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the layers as CSV.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a chart of the cost of each layer: .png, .svg or .html.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Summarize a network layer by layer: MACs, parameters, memory, receptive field. No weights are needed."""
    require(bool(network) != bool(layers), "name one network, or give one --layer or more")
    require(network or not options, "--set is for a network by name: write the options of a --layer into it")
    require(out is None or out.suffix.lower() in CHART_SUFFIXES, f"--out {out}: end it in .png, .svg or .html")
    paths = [path for path in (csv, out) if path is not None]
    if paths:
        from convolab.reports.summary import CSV_HEADINGS

        require_outputs(NETWORK_SUMMARY, paths, [network] if network else [], ",".join(CSV_HEADINGS))
    counters = [name.strip() for name in beside.split(",")] if beside is not None else []
    if counters:
        from convolab.analysis.other_counters import require_counters

        require_counters(counters)
    from convolab.api import summary
    from convolab.arguments import parse_input_shape

    shape = parse_input_shape(input_shape) if input_shape is not None else None
    if network:
        summaries = [
            summary(
                network,
                shape,
                batch_size=batch_size,
                classes=classes,
                model=model_options(options or []),
                beside=counters,
                on_message=print_note,
            )
        ]
    else:
        summaries = summarize_layer_expressions(layers or [], shape, batch_size, counters)
    if csv:
        from convolab.reports.summary import layers_csv

        write_output(csv, NETWORK_SUMMARY, layers_csv(summaries))
    if out:
        write_cost_chart(summaries, out)
    if as_json:
        print_json(summaries[0].to_dict() if network else [summary.to_dict() for summary in summaries])
    else:
        print_summaries(summaries)
        if network and (known := network_options(network)):
            print_lines(f"options of the network, with their defaults: {known}")
        for what, path in (("layers", csv), ("chart", out)):
            if path:
                print_lines(f"{what}: {path}")
    if any(summary.mismatches for summary in summaries):
        raise typer.Exit(1)


def model_options(texts: Sequence[str]) -> dict[str, Json]:
    """The options of a network, as `--set` gives them. Raises LabError for a key of another section of a recipe.

    >>> model_options(["model.channels=[16, 32]"])
    {'channels': [16, 32]}
    """
    values = recipe_changes({}, texts)
    for key in values:
        require(
            key.startswith("model."), f"--set {key}: a summary takes options of the network, such as model.channels"
        )
    return {key.removeprefix("model."): value for key, value in values.items()}


def network_options(name: str) -> str:
    """The options of one of convolab's networks or of a person's own, with their defaults, as `--set model.` takes them.

    >>> network_options("shallow_net"), network_options("timm/resnet18")
    ('hidden=128', '')
    """
    from convolab.app.choices import option_control
    from convolab.arguments import is_run_folder
    from convolab.models.own_code import is_own_code
    from convolab.models.registry import NETWORKS, factory_signature
    from convolab.models.resolve import NAME_ALIASES

    if name in NAME_ALIASES or is_run_folder(name) or not (name in NETWORKS or is_own_code(name)):
        return ""
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    options = [p for p in list(factory_signature(name).parameters.values())[2:] if p.kind not in variable]
    return ", ".join(f"{control['name']}={control['default']}" for control in map(option_control, options))


def summarize_layer_expressions(
    expressions: Sequence[str], shape: Shape | None, batch_size: int, counters: Sequence[str]
) -> list["ModelSummary"]:
    """The summaries of layers written as in Python, all for the same input."""
    from convolab.analysis.layer_parser import parse_layer
    from convolab.analysis.summary import summarize_network

    parsed = [parse_layer(expression) for expression in expressions]
    if shape is None:
        raise LabError("the input shape of a layer is not known: give --input, such as 100 or 3x32x32")
    summaries = []
    for expression, layer in zip(expressions, parsed, strict=True):
        try:
            layer_shape = add_channel(layer, shape)
            builder = layer if not counters else lambda text=expression: parse_layer(text).to_empty(device="cpu")
            result = summarize_network(
                builder, layer_shape, batch_size=batch_size, beside=counters, on_message=print_note
            )
            summaries.append(replace(result, network=expression))
        except LabError as error:
            raise LabError(f"{expression}: {error}") from error
    return summaries


def add_channel(layer: "nn.Module", shape: Shape) -> Shape:
    """The input shape of a layer: a convolution of one channel takes a signal without it, as a linear layer does."""
    from convolab.analysis.formulas import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS

    if not isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS)):
        return shape
    return (1, *shape) if layer.in_channels == 1 and len(shape) == len(layer.kernel_size) else shape


def print_summaries(summaries: Sequence["ModelSummary"]) -> None:
    """The table of one network's layers, or several layers side by side, and the lines below it."""
    from convolab.reports.summary import (
        COLUMN_DROP_ORDER,
        LAYER_HEADINGS,
        comparison_foot,
        comparison_table,
        layer_table,
        summary_foot,
    )

    if len(summaries) == 1:
        print_fitting_table(LAYER_HEADINGS, layer_table(summaries[0]), COLUMN_DROP_ORDER, "give --csv or --json")
        lines = summary_foot(summaries[0])
    else:
        headings, *rows = comparison_table(summaries)
        print_table(headings, rows)
        lines = comparison_foot(summaries)
    print_lines(*lines)


def write_cost_chart(summaries: Sequence["ModelSummary"], path: Path) -> None:
    from convolab.plots.style import save_chart
    from convolab.plots.summary import layer_comparison_chart, layer_costs_chart

    chart = layer_costs_chart(summaries[0]) if len(summaries) == 1 else layer_comparison_chart(summaries)
    save_chart(chart, path.with_suffix(""), [path.suffix.removeprefix(".")], NETWORK_SUMMARY)
