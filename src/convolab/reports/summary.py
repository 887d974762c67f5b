"""A network's summary as a person reads it: the table of its layers, what stands below it, and CSV."""

import csv
import io
from collections.abc import Sequence
from math import prod

from convolab.analysis.other_counters import OtherCount
from convolab.analysis.summary import LayerSummary, ModelSummary
from convolab.core.text import NO_VALUE, format_bytes

LAYER_HEADINGS = (
    *("layer", "kind", "output", "parameters", "MACs", "FLOPs", "% of MACs", "activations", "saved for backward"),
    *("receptive field", "stride", "center", "closed form"),
)
# The columns that go first, in this order, where a terminal is too narrow for all.
COLUMN_DROP_ORDER = ("closed form", "FLOPs", "activations", "% of MACs", "kind", "saved for backward", "center")
CSV_LAYER_FIELDS = (
    *("name", "kind", "call_index", "output_shape", "num_trainable", "num_frozen", "num_parameters"),
    *("macs", "flops", "macs_fraction", "activation_bytes", "saved_for_backward_bytes"),
)
CSV_RF_FIELDS = ("size", "stride", "start", "center", "is_global", "measured")
CSV_HEADINGS = (
    *("network", *CSV_LAYER_FIELDS), *(f"rf_{name}" for name in CSV_RF_FIELDS), *("closed_form_macs", "closed_form")
)  # fmt: skip


def layer_table(summary: ModelSummary) -> list[list[str]]:
    """A row per layer under `LAYER_HEADINGS`, and the totals in the last one."""
    total = [
        *("total", "", ""),
        *(f"{summary.num_parameters:,}", f"{summary.macs:,}", f"{summary.flops:,}", "100 %"),
        *(format_bytes(summary.activation_bytes), format_bytes(summary.saved_for_backward_bytes)),
        *("", "", "", ""),
    ]
    return [*map(layer_row, summary.layers), total]


def layer_row(layer: LayerSummary) -> list[str]:
    frozen = f" ({layer.num_frozen:,} frozen)" if layer.num_frozen else ""
    return [
        (layer.name or ".") + (f" (call {layer.call_index})" if layer.call_index > 1 else ""),
        layer.kind,
        "x".join(map(str, layer.output_shape[1:])),
        f"{layer.num_parameters:,}{frozen}",
        f"{layer.macs:,}",
        f"{layer.flops:,}",
        f"{100 * layer.macs_fraction:.1f} %",
        format_bytes(layer.activation_bytes),
        format_bytes(layer.saved_for_backward_bytes),
        *receptive_field_cells(layer),
        layer.closed_form.formula if layer.closed_form else "",
    ]


def receptive_field_cells(layer: LayerSummary) -> list[str]:
    """Size, stride and center of a layer's receptive field, as the table shows them."""
    if layer.rf_unknown_reason:
        return ["unknown", "", ""]
    if layer.receptive_field is None:
        return ["", "", ""]
    field = layer.receptive_field
    sizes = [f"{n:g}" + ("*" if is_global else "") for n, is_global in zip(field.size, field.is_global, strict=True)]
    return [("~" if field.measured else "") + join_axes(sizes), join_axes(field.stride), join_axes(field.center)]


def join_axes(values: Sequence[str | int | float | None]) -> str:
    """One value per axis as `3x5`, or once if all are equal.

    >>> join_axes([3, 5]), join_axes([7, 7]), join_axes([None, None])
    ('3x5', '7', '')
    """
    texts = ["" if v is None else v if isinstance(v, str) else f"{v:g}" for v in values]
    return texts[0] if len(set(texts)) == 1 else "x".join(v or NO_VALUE for v in texts)


def summary_foot(summary: ModelSummary) -> list[str]:
    """The lines below the table: totals, self-check, legend, notes, other counters."""
    shape = "x".join(map(str, summary.input_shape))
    trained = f"{summary.num_trainable:,} trainable, {summary.num_frozen:,} not"
    lines = [
        f"{summary.network} for {summary.batch_size} x {shape}: {summary.macs:,} MACs ({summary.flops:,} FLOPs), "
        f"{summary.num_parameters:,} parameters ({trained})",
        self_check_line([summary]),
        *(f"  {mismatch}" for mismatch in summary.mismatches),
    ]
    lines += global_field_footnote([summary])
    if summary.ignored_ops:
        lines.append(f"no MACs by definition: {', '.join(f'{op} ({n}x)' for op, n in summary.ignored_ops.items())}")
    lines += [f"note: {note}" for note in summary.notes]
    for count in summary.other_counts:
        lines += other_count_lines(count)
    return lines


def other_count_lines(count: OtherCount) -> list[str]:
    """One counter's figure and what differs from ours, or why there is none."""
    if count.macs is None:
        return [f"{count.tool}: {count.problem}"]
    head = f"{count.tool} {count.version}: {count.macs:,} MACs ({count.convention})"
    return [head, *(f"  {macs:+,}  {kind}" for kind, macs in count.differences)]


def self_check_line(summaries: Sequence[ModelSummary]) -> str:
    num_checked = sum(summary.num_checked for summary in summaries)
    num_equal = num_checked - sum(len(summary.mismatches) for summary in summaries)
    return f"self-check: count and closed form agree in {num_equal} of {num_checked} linear and convolutional layers"


def comparison_table(summaries: Sequence[ModelSummary]) -> list[list[str]]:
    """A column per network or layer: a heading row, then a row per quantity."""
    columns = [comparison_column(summary) for summary in summaries]
    headings = ["", *(summary.network for summary in summaries)]
    quantities = dict.fromkeys(name for column in columns for name in column)
    return [headings, *([name, *(column.get(name, NO_VALUE) for column in columns)] for name in quantities)]


def comparison_column(summary: ModelSummary) -> dict[str, str]:
    formulas = [layer.closed_form.formula for layer in summary.layers if layer.closed_form]
    output, size, stride, center = "", "", "", ""
    last = next((layer for layer in reversed(summary.layers) if layer.call_index), None)
    if last:  # there is none in what passes its input on, as Identity does
        num_values = f" = {prod(last.output_shape[1:]):,} values" if len(last.output_shape) > 2 else ""
        output = "x".join(map(str, last.output_shape[1:])) + num_values
        size, stride, center = receptive_field_cells(last)
    return {
        "input": "x".join(map(str, summary.input_shape)),
        "output": output or NO_VALUE,
        "parameters": f"{summary.num_parameters:,}",
        "MACs": f"{summary.macs:,}",
        "FLOPs (2 x MACs)": f"{summary.flops:,}",
        "closed form": ", ".join(formulas) or NO_VALUE,
        "activations": format_bytes(summary.activation_bytes),
        "saved for backward": format_bytes(summary.saved_for_backward_bytes),
        "receptive field": size or NO_VALUE,
        "stride": stride or NO_VALUE,
        "center": center or NO_VALUE,
        **{
            f"MACs by {count.tool}": count.problem if count.macs is None else f"{count.macs:,}"
            for count in summary.other_counts
        },
    }


def comparison_foot(summaries: Sequence[ModelSummary]) -> list[str]:
    """The lines below a comparison."""
    lines = [f"{summary.network}: {line}" for summary in summaries for line in (*summary.mismatches, *summary.notes)]
    return [*lines, *global_field_footnote(summaries), self_check_line(summaries)]


def global_field_footnote(summaries: Sequence[ModelSummary]) -> list[str]:
    """What the asterisk of a receptive field means, where a table has one."""
    fields = [layer.receptive_field for summary in summaries for layer in summary.layers]
    is_marked = any(field and any(field.is_global) for field in fields)
    return ["*: global, every cell depends on the whole image along this axis"] if is_marked else []


def layers_csv(summaries: Sequence[ModelSummary]) -> str:
    """A line per layer, as CSV: values of several axes are joined by x, and figures are exact."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEADINGS)
    for summary in summaries:
        for layer in summary.layers:
            field = layer.receptive_field
            form = layer.closed_form
            writer.writerow(
                [
                    summary.network,
                    *(csv_cell(getattr(layer, name)) for name in CSV_LAYER_FIELDS),
                    *(csv_cell(getattr(field, name) if field else None) for name in CSV_RF_FIELDS),
                    *((form.macs, form.formula) if form else ("", "")),
                ]
            )
    return buffer.getvalue()


def csv_cell(value: object) -> object:
    """A cell of the CSV: a tuple joined by x, nothing for None.

    >>> csv_cell((3, 5)), csv_cell((2, None)), csv_cell(None), csv_cell(0.25)
    ('3x5', '2x', '', 0.25)
    """
    if isinstance(value, tuple):
        return "x".join("" if v is None else str(v) for v in value)
    return "" if value is None else value
