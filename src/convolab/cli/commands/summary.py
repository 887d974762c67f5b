"""`convolab account`: what a network, or some layers side by side, cost and see."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convolab.cli.terminal import table
from convolab.core.errors import LabError, nearest, need

if TYPE_CHECKING:
    from convolab.analysis.summary import Account, Layer

PICTURES = (".png", ".svg", ".html")


def account(
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
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 1,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Classes of a network by name.", show_default="10, or the library's")
    ] = None,
    convention: Annotated[
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
    need(bool(network) != bool(layers), "name one network, or give one --layer or more")
    need(out is None or out.suffix.lower() in PICTURES, f"--out {out}: end it in .png, .svg or .html")
    if convention is not None:
        from convolab.analysis.conventions_by_class import CONVENTIONS

        need(convention in CONVENTIONS, f"unknown convention '{convention}': {nearest(convention, CONVENTIONS)}")
    shape = parse_shape(input_shape) if input_shape is not None else None
    found = (
        [of_network(network, shape, batch, classes, convention)]
        if network
        else of_layers(layers, shape, batch, convention)
    )
    if csv:
        write_csv(found, csv)
    if out:
        draw(found, out)
    if as_json:
        print(json.dumps(found[0].values() if network else [account.values() for account in found], indent=2))
    elif network or len(found) == 1:
        show(found[0])
    else:
        show_side_by_side(found)
    if not as_json:
        for what, path in (("layers", csv), ("picture", out)):
            if path:
                print(f"{what}: {path}")
    if any(account.disagreements for account in found):
        raise typer.Exit(1)


def say(note: str) -> None:
    """A remark while it works."""
    print(f"convolab: {note}", file=sys.stderr)


def parse_shape(text: str) -> tuple[int, ...]:
    """`3x224x224` as numbers.

    >>> parse_shape("3x32x32"), parse_shape("100")
    ((3, 32, 32), (100,))
    """
    parts = text.lower().replace("×", "x").replace(",", "x").split("x")
    need(
        all(part.strip().isdecimal() and int(part) > 0 for part in parts),
        f"--input {text} is no shape: give positive whole numbers, channels first, such as 3x224x224",
    )
    return tuple(map(int, parts))


def of_network(
    name: str, shape: tuple[int, ...] | None, batch: int, classes: int | None, convention: str | None
) -> "Account":
    """The account of a network by name, or of a run's."""
    from dataclasses import replace

    from convolab.analysis.summary import account
    from convolab.models.resolve import named
    from convolab.models.zoo import NETWORKS

    if Path(name).is_dir() and name not in NETWORKS:
        from convolab.training.run import Run

        net = Run(name).net()
        return replace(
            account(net, shape or (net.channels, *net.size), batch=batch, convention=convention, on_note=say),
            network=name,
        )
    found = named(name, shape, classes)
    shape = shape or found.input
    need(shape, f"the network '{name}' does not say what it takes: give --input, such as 3x32x32")
    return replace(account(found.build, shape, batch=batch, convention=convention, on_note=say), network=name)


def of_layers(
    expressions: Sequence[str], shape: tuple[int, ...] | None, batch: int, convention: str | None
) -> list["Account"]:
    """The accounts of layers written as in Python, all of one input."""
    from dataclasses import replace

    from torch.nn.modules.conv import _ConvNd

    from convolab.analysis.layer_parser import parse_layer
    from convolab.analysis.summary import account

    parsed = [parse_layer(expression) for expression in expressions]
    need(shape, "a layer does not say what it takes: give --input, such as 100 or 3x32x32")
    found = []
    for expression, layer in zip(expressions, parsed, strict=True):
        # A signal of one channel may be given without it, as the vector that a linear layer takes too.
        one_channel = isinstance(layer, _ConvNd) and layer.in_channels == 1 and len(shape) == len(layer.kernel_size)
        try:
            cost = account(
                layer, (1, *shape) if one_channel else shape, batch=batch, convention=convention, on_note=say
            )
        except LabError as error:
            raise LabError(f"{expression}: {error}") from error
        found.append(replace(cost, network=expression))
    return found


# Shown on a terminal

LEAVE_OUT = [
    "closed form",
    "FLOPs",
    "forward",
    "share",
    "kind",
    "backward",
    "centre",
]  # in this order, where there is no room
HEADINGS = [
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


def show(account: "Account") -> None:
    """The table, its totals, and what is to be known of them."""
    rows = [row(layer) for layer in account.layers]
    rows.append(
        [
            "total",
            "",
            "",
            f"{account.parameters:,}",
            f"{account.macs:,}",
            f"{account.flops:,}",
            "100 %",
            size(account.forward_bytes),
            size(account.backward_bytes),
            *[""] * 4,
        ]
    )
    print_table(rows)
    print(
        f"{account.network} for {account.batch} x {'x'.join(map(str, account.input))}: {account.macs:,} MACs ({account.flops:,} FLOPs), {account.parameters:,} parameters ({account.trainable:,} trainable, {account.frozen:,} not)"
    )
    print(
        f"self-check: count and closed form agree in {account.checked - len(account.disagreements)} of {account.checked} linear and convolutional layers"
    )
    for said in account.disagreements:
        print(f"  {said}")
    if any(layer.field and any(layer.field.whole) for layer in account.layers):
        print("*: every cell sees the whole picture along this axis")
    if account.uncounted:
        print(f"not counted as MACs: {', '.join(f'{name} ({n}x)' for name, n in account.uncounted.items())}")
    for note in account.notes:
        print(f"note: {note}")
    if account.reckoning:
        print(f"by {account.reckoning.convention}'s convention: {account.reckoning.macs:,}")
        for what, more in account.reckoning.differences:
            print(f"  {more:+,}  {what}")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """The columns that the terminal is wide enough for, each whole; in a pipe all of them."""
    shown = list(HEADINGS)
    if sys.stdout.isatty():
        wide = {name: max(len(line[i]) for line in (HEADINGS, *rows)) + 3 for i, name in enumerate(HEADINGS)}
        room = shutil.get_terminal_size().columns
        for name in LEAVE_OUT:
            if sum(wide[name] for name in shown) > room:
                shown.remove(name)
    table(shown, [[line[HEADINGS.index(name)] for name in shown] for line in rows])
    if missing := [name for name in HEADINGS if name not in shown]:
        print(f"left out, as the terminal is narrow: {', '.join(missing)} (widen it, or give --csv or --json)")


def row(layer: "Layer") -> list[str]:
    again = f" (call {layer.call})" if layer.call > 1 else ""
    name = layer.name or "."
    return [
        name + again,
        layer.kind,
        "x".join(map(str, layer.output[1:])),
        f"{layer.parameters:,}" + (f" ({layer.frozen:,} frozen)" if layer.frozen else ""),
        f"{layer.macs:,}",
        f"{layer.flops:,}",
        f"{100 * layer.share:.1f} %",
        size(layer.forward_bytes),
        size(layer.backward_bytes),
        *seen(layer),
        layer.closed_form.formula if layer.closed_form else "",
    ]


def seen(layer: "Layer") -> list[str]:
    """Size, stride and centre of a layer's field, as the table has them."""
    if layer.unfollowed:
        return ["not known", "", ""]
    if layer.field is None:
        return ["", "", ""]
    field = layer.field
    sizes = [f"{n:g}" + ("*" if whole else "") for n, whole in zip(field.size, field.whole, strict=True)]
    return [("~" if field.measured else "") + together(sizes), together(field.stride), together(field.centre)]


def together(values: Sequence[Any]) -> str:
    """A value an axis as `3x5`, or once if all are alike.

    >>> together([3, 5]), together([7, 7]), together([None, None])
    ('3x5', '7', '')
    """
    said = ["" if v is None else v if isinstance(v, str) else f"{v:g}" for v in values]
    return said[0] if len(set(said)) == 1 else "x".join(v or "-" for v in said)


def size(count: int) -> str:
    """Bytes for people.

    >>> size(0), size(2000), size(1_605_632)
    ('0', '2.0 kB', '1.6 MB')
    """
    for unit, many in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= many:
            return f"{count / many:.1f} {unit}"
    return f"{count} B" if count else "0"


def show_side_by_side(accounts: Sequence["Account"]) -> None:
    """A column a layer: the same quantities for each."""

    def totals(account: "Account") -> dict[str, str]:
        last = account.layers[-1]
        return {
            "input": "x".join(map(str, account.input)),
            "output": "x".join(map(str, last.output[1:])) + (f" = {values(last)}" if len(last.output) > 2 else ""),
            "parameters": f"{account.parameters:,}",
            "MACs": f"{account.macs:,}",
            "FLOPs (2 x MACs)": f"{account.flops:,}",
            "closed form": ", ".join(layer.closed_form.formula for layer in account.layers if layer.closed_form) or "-",
            "memory forward": size(account.forward_bytes),
            "memory backward": size(account.backward_bytes),
            "field": seen(last)[0],
            "stride": seen(last)[1] or "-",
            "centre": seen(last)[2] or "-",
            **({f"{account.reckoning.convention}'s MACs": f"{account.reckoning.macs:,}"} if account.reckoning else {}),
        }

    columns = [totals(account) for account in accounts]
    table(
        ["", *(account.network for account in accounts)],
        [[name, *(column[name] for column in columns)] for name in columns[0]],
    )
    for account in accounts:
        for said in (*account.disagreements, *account.notes):
            print(f"{account.network}: {said}")
    checked, wrong = sum(a.checked for a in accounts), sum(len(a.disagreements) for a in accounts)
    print(f"self-check: count and closed form agree in {checked - wrong} of {checked} linear and convolutional layers")


def values(layer: "Layer") -> str:
    from math import prod

    return f"{prod(layer.output[1:]):,} values"


# Written to files


def write_csv(accounts: Sequence["Account"], path: Path) -> None:
    """A line a layer; lists of an axis each are joined by x, figures are exact."""
    import csv
    import io

    from convolab.core.files import write_text

    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    fields = ["size", "stride", "start", "centre", "whole"]
    plain = [
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
        ["network", *plain, *(f"field_{name}" for name in fields), "field_measured", "closed_form_macs", "closed_form"]
    )
    for account in accounts:
        for layer in account.values()["layers"]:
            field, form = layer["field"] or {}, layer["closed_form"] or {}
            line = [joined(layer[name]) for name in plain] + [joined(field.get(name)) for name in fields]
            writer.writerow(
                [account.network, *line, field.get("measured", ""), form.get("macs", ""), form.get("formula", "")]
            )
    write_text(path, buffer.getvalue())


def joined(value: Any) -> Any:
    if isinstance(value, list):
        return "x".join("" if v is None else str(v) for v in value)
    return "" if value is None else value


def draw(accounts: Sequence["Account"], path: Path) -> None:
    from convolab.plots import summary as summary_plots
    from convolab.plots import training as training_plots

    chart = summary_plots.cost_of_layers(accounts[0]) if len(accounts) == 1 else summary_plots.side_by_side(accounts)
    training_plots.save_chart(chart, path.with_suffix(""), [path.suffix.lower().removeprefix(".")])
