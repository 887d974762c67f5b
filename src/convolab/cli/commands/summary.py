"""`convolab account`: what a network, or some layers side by side, cost and see."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convolab.cli.terminal import print_table
from convolab.core.errors import LabError, require, suggest

if TYPE_CHECKING:
    from convolab.analysis.summary import LayerSummary, ModelSummary

CHART_SUFFIXES = (".png", ".svg", ".html")


def summary_command(
    network: Annotated[
        str | None,
        typer.Argument(
            help="A network's name, your own as file.py:Name, timm/NAME, torchvision/NAME, efficientnet_lite0, or a run's folder.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help='A layer in place of a network, e.g. "Linear(100, 1000, bias=False)". Several are put side by side.',
        ),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input", help="The input's shape, e.g. 3x224x224.", show_default="what the network was made for"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 1,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Classes of a network by name.", show_default="10, or the library's")
    ] = None,
    compare_with: Annotated[
        str | None, typer.Option(help="Give the total of another tool too: fvcore, torchinfo, thop, ptflops or timm.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the layers as CSV.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a picture of the cost of each layer: .png, .svg or .html.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")
    ] = False,
) -> None:
    """Say what every layer of a network costs and sees: MACs, parameters, memory, receptive field. No weights are needed."""
    require(bool(network) != bool(layers), "name one network, or give one --layer or more")
    require(out is None or out.suffix.lower() in CHART_SUFFIXES, f"--out {out}: end it in .png, .svg or .html")
    if compare_with is not None:
        from convolab.analysis.conventions_by_class import CONVENTIONS

        require(
            compare_with in CONVENTIONS, f"unknown convention '{compare_with}': {suggest(compare_with, CONVENTIONS)}"
        )
    shape = parse_input_shape(input_shape) if input_shape is not None else None
    summaries = (
        [summarize_network(network, shape, batch_size, classes, compare_with)]
        if network
        else summarize_layer_expressions(layers, shape, batch_size, compare_with)
    )
    if csv:
        write_layers_csv(summaries, csv)
    if out:
        write_cost_chart(summaries, out)
    if as_json:
        print(json.dumps(summaries[0].to_dict() if network else [account.to_dict() for account in summaries], indent=2))
    elif network or len(summaries) == 1:
        print_summary(summaries[0])
    else:
        print_layer_comparison(summaries)
    if not as_json:
        for what, path in (("layers", csv), ("picture", out)):
            if path:
                print(f"{what}: {path}")
    if any(account.mismatches for account in summaries):
        raise typer.Exit(1)


def print_summary_note(note: str) -> None:
    """A remark while it works."""
    print(f"convolab: {note}", file=sys.stderr)


def parse_input_shape(text: str) -> tuple[int, ...]:
    """`3x224x224` as numbers.

    >>> parse_shape("3x32x32"), parse_shape("100")
    ((3, 32, 32), (100,))
    """
    parts = text.lower().replace("×", "x").replace(",", "x").split("x")
    require(
        all(part.strip().isdecimal() and int(part) > 0 for part in parts),
        f"--input {text} is no shape: give positive whole numbers, channels first, such as 3x224x224",
    )
    return tuple(map(int, parts))


def summarize_network(
    name: str, shape: tuple[int, ...] | None, batch: int, classes: int | None, convention: str | None
) -> "ModelSummary":
    """The account of a network by name, or of a run's."""
    from dataclasses import replace

    from convolab.analysis.summary import summary
    from convolab.models.resolve import resolve_model
    from convolab.models.registry import NETWORKS

    if Path(name).is_dir() and name not in NETWORKS:
        from convolab.training.run import Run

        net = Run(name).net()
        return replace(
            summary(
                net,
                shape or (net.channels, *net.input_size),
                batch_size=batch,
                counter=convention,
                on_message=print_summary_note,
            ),
            network=name,
        )
    resolved = resolve_model(name, shape, classes)
    shape = shape or resolved.input_shape
    require(shape, f"the network '{name}' does not say what it takes: give --input, such as 3x32x32")
    return replace(
        summary(resolved.build, shape, batch_size=batch, counter=convention, on_message=print_summary_note),
        network=name,
    )


def summarize_layer_expressions(
    expressions: Sequence[str], shape: tuple[int, ...] | None, batch: int, convention: str | None
) -> list["ModelSummary"]:
    """The accounts of layers written as in Python, all of one input."""
    from dataclasses import replace

    from torch.nn.modules.conv import _ConvNd

    from convolab.analysis.layer_parser import parse_layer
    from convolab.analysis.summary import summary

    parsed = [parse_layer(expression) for expression in expressions]
    require(shape, "a layer does not say what it takes: give --input, such as 100 or 3x32x32")
    summaries = []
    for expression, layer in zip(expressions, parsed, strict=True):
        # A signal of one channel may be given without it, as the vector that a linear layer takes too.
        one_channel = isinstance(layer, _ConvNd) and layer.in_channels == 1 and len(shape) == len(layer.kernel_size)
        try:
            layer_summary = summary(
                layer,
                (1, *shape) if one_channel else shape,
                batch_size=batch,
                counter=convention,
                on_message=print_summary_note,
            )
        except LabError as error:
            raise LabError(f"{expression}: {error}") from error
        summaries.append(replace(layer_summary, network=expression))
    return summaries


# Shown on a terminal

COLUMN_DROP_ORDER = [
    "closed form",
    "FLOPs",
    "forward",
    "share",
    "kind",
    "backward",
    "centre",
]  # in this order, where there is no room
COLUMN_HEADINGS = [
    "layer",
    "kind",
    "output",
    "parameters",
    "MACs",
    "FLOPs",
    "share",
    "forward",
    "backward",
    "field",
    "stride",
    "centre",
    "closed form",
]


def print_summary(model_summary: "ModelSummary") -> None:
    """The table, its totals, and what is to be known of them."""
    rows = [layer_table_row(layer) for layer in model_summary.layers]
    rows.append(
        [
            "total",
            "",
            "",
            f"{model_summary.num_parameters:,}",
            f"{model_summary.macs:,}",
            f"{model_summary.flops:,}",
            "100 %",
            format_bytes(model_summary.activation_bytes),
            format_bytes(model_summary.saved_for_backward_bytes),
            *[""] * 4,
        ]
    )
    print_layer_table(rows)
    print(
        f"{model_summary.network} for {model_summary.batch_size} x {'x'.join(map(str, model_summary.input_shape))}: {model_summary.macs:,} MACs ({model_summary.flops:,} FLOPs), {model_summary.num_parameters:,} parameters ({model_summary.num_trainable:,} trainable, {model_summary.num_frozen:,} not)"
    )
    print(
        f"self-check: count and closed form agree in {model_summary.num_checked - len(model_summary.mismatches)} of {model_summary.num_checked} linear and convolutional layers"
    )
    for mismatch in model_summary.mismatches:
        print(f"  {mismatch}")
    if any(layer.receptive_field and any(layer.receptive_field.is_global) for layer in model_summary.layers):
        print("*: every cell sees the whole picture along this axis")
    if model_summary.ignored_ops:
        print(f"not counted as MACs: {', '.join(f'{name} ({n}x)' for name, n in model_summary.ignored_ops.items())}")
    for note in model_summary.notes:
        print(f"note: {note}")
    if model_summary.other_count:
        print(f"by {model_summary.other_count.convention}'s convention: {model_summary.other_count.macs:,}")
        for what, more in model_summary.other_count.differences:
            print(f"  {more:+,}  {what}")


def print_layer_table(rows: Sequence[Sequence[str]]) -> None:
    """The columns that the terminal is wide enough for, each whole; in a pipe all of them."""
    columns = list(COLUMN_HEADINGS)
    if sys.stdout.isatty():
        widths = {
            name: max(len(line[i]) for line in (COLUMN_HEADINGS, *rows)) + 3 for i, name in enumerate(COLUMN_HEADINGS)
        }
        terminal_width = shutil.get_terminal_size().columns
        for name in COLUMN_DROP_ORDER:
            if sum(widths[name] for name in columns) > terminal_width:
                columns.remove(name)
    print_table(columns, [[line[COLUMN_HEADINGS.index(name)] for name in columns] for line in rows])
    if missing := [name for name in COLUMN_HEADINGS if name not in columns]:
        print(f"left out, as the terminal is narrow: {', '.join(missing)} (widen it, or give --csv or --json)")


def layer_table_row(layer: "LayerSummary") -> list[str]:
    call_suffix = f" (call {layer.call_index})" if layer.call_index > 1 else ""
    name = layer.name or "."
    return [
        name + call_suffix,
        layer.kind,
        "x".join(map(str, layer.output_shape[1:])),
        f"{layer.num_parameters:,}" + (f" ({layer.num_frozen:,} frozen)" if layer.num_frozen else ""),
        f"{layer.macs:,}",
        f"{layer.flops:,}",
        f"{100 * layer.macs_fraction:.1f} %",
        format_bytes(layer.activation_bytes),
        format_bytes(layer.saved_for_backward_bytes),
        *receptive_field_cells(layer),
        layer.closed_form.formula if layer.closed_form else "",
    ]


def receptive_field_cells(layer: "LayerSummary") -> list[str]:
    """Size, stride and centre of a layer's field, as the table has them."""
    if layer.rf_unknown_reason:
        return ["not known", "", ""]
    if layer.receptive_field is None:
        return ["", "", ""]
    field = layer.receptive_field
    sizes = [f"{n:g}" + ("*" if is_global else "") for n, is_global in zip(field.size, field.is_global, strict=True)]
    return [("~" if field.measured else "") + join_axes(sizes), join_axes(field.stride), join_axes(field.center)]


def join_axes(values: Sequence[Any]) -> str:
    """A value an axis as `3x5`, or once if all are alike.

    >>> together([3, 5]), together([7, 7]), together([None, None])
    ('3x5', '7', '')
    """
    texts = ["" if v is None else v if isinstance(v, str) else f"{v:g}" for v in values]
    return texts[0] if len(set(texts)) == 1 else "x".join(v or "-" for v in texts)


def format_bytes(count: int) -> str:
    """Bytes for people.

    >>> size(0), size(2000), size(1_605_632)
    ('0', '2.0 kB', '1.6 MB')
    """
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= divisor:
            return f"{count / divisor:.1f} {unit}"
    return f"{count} B" if count else "0"


def print_layer_comparison(summaries: Sequence["ModelSummary"]) -> None:
    """A column a layer: the same quantities for each."""

    def comparison_column(account: "ModelSummary") -> dict[str, str]:
        last = account.layers[-1]
        return {
            "input": "x".join(map(str, account.input_shape)),
            "output": "x".join(map(str, last.output_shape[1:]))
            + (f" = {format_output_size(last)}" if len(last.output_shape) > 2 else ""),
            "parameters": f"{account.num_parameters:,}",
            "MACs": f"{account.macs:,}",
            "FLOPs (2 x MACs)": f"{account.flops:,}",
            "closed form": ", ".join(layer.closed_form.formula for layer in account.layers if layer.closed_form) or "-",
            "memory forward": format_bytes(account.activation_bytes),
            "memory backward": format_bytes(account.saved_for_backward_bytes),
            "field": receptive_field_cells(last)[0],
            "stride": receptive_field_cells(last)[1] or "-",
            "centre": receptive_field_cells(last)[2] or "-",
            **(
                {f"{account.other_count.convention}'s MACs": f"{account.other_count.macs:,}"}
                if account.other_count
                else {}
            ),
        }

    columns = [comparison_column(account) for account in summaries]
    print_table(
        ["", *(account.network for account in summaries)],
        [[name, *(column[name] for column in columns)] for name in columns[0]],
    )
    for account in summaries:
        for said in (*account.mismatches, *account.notes):
            print(f"{account.network}: {said}")
    checked, mismatches = sum(a.num_checked for a in summaries), sum(len(a.mismatches) for a in summaries)
    print(
        f"self-check: count and closed form agree in {checked - mismatches} of {checked} linear and convolutional layers"
    )


def format_output_size(layer: "LayerSummary") -> str:
    from math import prod

    return f"{prod(layer.output_shape[1:]):,} values"


# Written to files


def write_layers_csv(summaries: Sequence["ModelSummary"], path: Path) -> None:
    """A line a layer; lists of an axis each are joined by x, figures are exact."""
    import csv
    import io

    from convolab.core.files import write_text

    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    fields = ["size", "stride", "start", "centre", "whole"]
    scalar_fields = [
        "name",
        "kind",
        "call",
        "output",
        "trainable",
        "frozen",
        "parameters",
        "macs",
        "flops",
        "share",
        "forward_bytes",
        "backward_bytes",
    ]
    writer.writerow(
        [
            "network",
            *scalar_fields,
            *(f"field_{name}" for name in fields),
            "field_measured",
            "closed_form_macs",
            "closed_form",
        ]
    )
    for account in summaries:
        for layer in account.to_dict()["layers"]:
            field, form = layer["field"] or {}, layer["closed_form"] or {}
            line = [csv_cell(layer[name]) for name in scalar_fields] + [csv_cell(field.get(name)) for name in fields]
            writer.writerow(
                [account.network, *line, field.get("measured", ""), form.get("macs", ""), form.get("formula", "")]
            )
    write_text(path, buffer.getvalue())


def csv_cell(value: Any) -> Any:
    if isinstance(value, list):
        return "x".join("" if v is None else str(v) for v in value)
    return "" if value is None else value


def write_cost_chart(summaries: Sequence["ModelSummary"], path: Path) -> None:
    from convolab.plots import summary as summary_plots
    from convolab.plots.style import save_chart

    chart = (
        summary_plots.layer_costs_chart(summaries[0])
        if len(summaries) == 1
        else summary_plots.layer_comparison_chart(summaries)
    )
    save_chart(chart, path.with_suffix(""), [path.suffix.lower().removeprefix(".")])
