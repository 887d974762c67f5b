"""The figures of the answer sheet, each as PNG and, where it is a chart, as SVG."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import altair as alt
from PIL import Image, ImageDraw, ImageFont

from convolab.plots.images import to_pil_image
from convolab.plots.style import BLUE, GRAY, ORANGE, apply_chart_style, chart_data, render_png, render_svg
from convolab.theory.answer_correlation import JacobianIndices
from convolab.theory.answer_layers import MacsByLength, WeightIndexMatrices
from convolab.theory.answer_priors import AccuracyChartData, ArrangementExample
from convolab.theory.equivariance import EquivarianceMeasurement
from convolab.theory.sheet import SheetFigure

LAYER_LABELS = {  # the layers on the figure of equivariance, and their labels
    "convolution 3x3, circular padding": "convolution, circular padding",
    "convolution 3x3, zero padding": "convolution, zero padding",
    "max pooling 2x2, stride 2": "max pooling, stride 2",
    "blur 3x3, then stride 2": "blur, then stride 2",
    "convolution 3x3, circular padding, stride 4": "convolution, stride 4",
    "features of simple_convnet": "features of simple_convnet",
    "the same with circular padding": "the same, circular padding",
    "fully-connected": "fully-connected",
}


@dataclass(frozen=True)
class RenderedFigure:
    """A rendered figure; `svg` is None for one made of pixels."""

    png: bytes
    svg: str | None


def render_sheet_figure(figure: SheetFigure) -> RenderedFigure:
    """Render a figure of the sheet."""
    chart = FIGURE_RENDERERS[figure.name](figure.chart_data)
    if isinstance(chart, Image.Image):
        return RenderedFigure(palette_png(chart), None)
    svg = render_svg(chart)
    with Image.open(io.BytesIO(render_png(svg, scale=3.0))) as image:
        return RenderedFigure(palette_png(image), svg)


def palette_png(image: Image.Image) -> bytes:
    """An image of few colors as PNG: a fifth of its size in true color."""
    buffer = io.BytesIO()
    image.convert("RGB").quantize(256).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def jacobians_chart(data: JacobianIndices) -> alt.TopLevelMixin:
    """Two matrices whose entries are labeled by the sample they are."""
    panels = []
    for entries, variable, other_signal in ((data.wrt_x, "x", "y"), (data.wrt_y, "y", "x")):
        n = len(entries)
        rows = [
            {"k": k, "i": i, "sample": sample, "text": f"{other_signal}[{sample}]"}
            for k, line in enumerate(entries)
            for i, sample in enumerate(line)
        ]
        base = alt.Chart(chart_data(rows)).encode(
            x=alt.X("i:O", title="column i", axis=alt.Axis(labelAngle=0, orient="top")),
            y=alt.Y("k:O", title="row k", axis=alt.Axis(titleAngle=0)),
        )
        color = alt.Color("sample:O", scale=alt.Scale(scheme="viridis"), legend=None)
        text_color = alt.condition(alt.datum.sample < n / 2, alt.value("white"), alt.value("black"))
        cells = base.mark_rect(stroke="white").encode(color=color)
        labels = base.mark_text(fontSize=12).encode(text="text:N", color=text_color)
        title = alt.TitleParams(f"∂z[k] / ∂{variable}[i]", fontSize=13)
        panels.append((cells + labels).properties(width=40 * n, height=40 * n, title=title))
    subtitle = "left: constant along anti-diagonals (Hankel); right: constant along diagonals (circulant)"
    return apply_chart_style(
        alt.hconcat(*panels, spacing=50).resolve_scale(color="independent"),
        "The Jacobians of a circular correlation",
        subtitle,
    )


def weight_matrices_chart(data: WeightIndexMatrices) -> alt.TopLevelMixin:
    """Both layers as matrices, one color per weight."""
    panels = []
    for title, entries in (
        ("fully-connected: every entry is a weight", data.fully_connected),
        ("g: a band of shared weights", data.convolution),
    ):
        # The golden ratio spreads neighboring indices over the colors, so that different weights look different.
        rows = [
            {"output": k, "input": i, "weight": weight * 0.618034 % 1}
            for k, line in enumerate(entries)
            for i, weight in enumerate(line)
            if weight >= 0
        ]
        chart = alt.Chart(chart_data(rows)).mark_rect()
        chart = chart.encode(
            x=alt.X(
                "input:O",
                title="input",
                scale=alt.Scale(domain=list(range(data.n))),
                axis=alt.Axis(labelAngle=0, orient="top"),
            ),
            y=alt.Y("output:O", title="output", scale=alt.Scale(domain=list(range(data.n * data.maps)))),
            color=alt.Color("weight:Q", scale=alt.Scale(scheme="turbo", domain=[-0.1, 1.1]), legend=None),
        )
        panels.append(
            chart.properties(
                width=18 * data.n, height=11 * data.n * data.maps, title=alt.TitleParams(title, fontSize=13)
            )
        )
    subtitle = f"rows 0 to {data.n - 1}: first feature map of g; the rest: second" if data.maps > 1 else ""
    return apply_chart_style(alt.hconcat(*panels, spacing=50), "The two layers as matrices", subtitle)


def macs_by_length_chart(data: Sequence[MacsByLength]) -> alt.TopLevelMixin:
    """MACs against the input's length, for three layers; the second one is dashed."""
    layers = [curve.layer for curve in data]
    decades = [10**power for power in range(13)]
    x_axis = alt.Axis(format=",d", values=decades, grid=False)
    x_scale = alt.Scale(type="log", nice=False)
    y_axis = alt.Axis(format="~s", values=decades)
    encodings = {
        "x": alt.X("n:Q", title="length n of the input (log scale)", scale=x_scale, axis=x_axis),
        "y": alt.Y("MACs:Q", title="MACs (log scale)", scale=alt.Scale(type="log"), axis=y_axis),
        "color": alt.Color("layer:N", legend=None, scale=alt.Scale(domain=layers, range=[ORANGE, GRAY, BLUE])),
    }
    dashes = alt.StrokeDash("layer:N", legend=None, scale=alt.Scale(domain=layers, range=[[1, 0], [6, 4], [1, 0]]))
    base = alt.Chart(chart_data(macs_rows(data))).encode(**encodings)
    lines = [
        base.transform_filter(alt.datum.layer == layers[index]).mark_line(strokeWidth=2).encode(strokeDash=dashes)
        for index in (0, 2, 1)  # the dashed one last, so that it is seen on one that it coincides with
    ]
    names = alt.Chart(chart_data(label_rows(data))).encode(**encodings)
    names = names.mark_text(align="left", dx=8, fontSize=12).encode(text="layer:N")
    chart = alt.layer(*lines, base.mark_circle(size=40, opacity=1), names)
    return apply_chart_style(
        chart.properties(width=420, height=260, padding={"right": 120}),
        "MACs by input length",
        "slope 1: linear; slope 2: quadratic",
    )


def macs_rows(data: Sequence[MacsByLength]) -> list[dict[str, object]]:
    """Every point of every curve."""
    return [
        {"layer": curve.layer, "n": n, "MACs": macs}
        for curve in data
        for n, macs in zip(curve.lengths, curve.macs, strict=True)
    ]


def label_rows(data: Sequence[MacsByLength]) -> list[dict[str, object]]:
    """The label of every curve, at its end."""
    places = spread_labels([float(curve.macs[-1]) for curve in data], lowest=float(data[0].macs[0]))
    return [
        {"layer": curve.layer, "n": curve.lengths[-1], "MACs": place} for curve, place in zip(data, places, strict=True)
    ]


def spread_labels(ends: Sequence[float], lowest: float, min_fraction: float = 0.07) -> list[float]:
    """Where the labels of curves on a logarithmic axis go: at their ends, but apart by a fraction of the axis.

    >>> spread_labels([100.0, 100.0], lowest=1.0, min_fraction=0.5)
    [100.0, 1000.0]
    """
    step = (max(ends) / lowest) ** min_fraction
    places = [0.0] * len(ends)
    previous = 0.0
    for index in sorted(range(len(ends)), key=lambda index: ends[index]):
        previous = max(ends[index], previous * step)
        places[index] = previous
    return places


def priors_accuracy_chart(data: AccuracyChartData) -> alt.TopLevelMixin:
    """Mean accuracies with their confidence intervals."""
    rows = [
        {"arrangement": name, "network": net, "mean": 100 * i.mean, "low": 100 * i.low, "high": 100 * i.high}
        for name, net, i in data.intervals
    ]
    arrangement_order = list(dict.fromkeys(name for name, _, _ in data.intervals))
    networks = list(dict.fromkeys(net for _, net, _ in data.intervals))
    color = alt.Color(
        "network:N",
        title=None,
        scale=alt.Scale(domain=networks, range=[BLUE, ORANGE]),
        legend=alt.Legend(orient="top", symbolType="circle"),
    )
    base = alt.Chart(chart_data(rows)).encode(
        y=alt.Y(
            "arrangement:N",
            sort=arrangement_order,
            title=None,
            axis=alt.Axis(labelFontSize=12, labelLimit=200, ticks=False, domain=False),
        ),
        yOffset=alt.YOffset("network:N", sort=networks),
        color=color,
    )
    x = alt.X("mean:Q", title="test accuracy (%)", scale=alt.Scale(domain=[0, 100]))
    interval_bars = base.mark_rule(strokeWidth=3).encode(x=alt.X("low:Q", title="test accuracy (%)"), x2="high:Q")
    dots = base.mark_circle(size=70, opacity=1).encode(x=x)
    value_labels = base.mark_text(align="left", dx=12, fontSize=11).encode(
        x="high:Q", text=alt.Text("mean:Q", format=".1f")
    )
    chance_line = (
        alt.Chart(chart_data([{"x": 100 * data.chance_accuracy}]))
        .mark_rule(strokeDash=[4, 3], color=GRAY)
        .encode(x="x:Q")
    )
    chart = (chance_line + interval_bars + dots + value_labels).properties(width=420, height=alt.Step(26))
    return apply_chart_style(
        chart, "Test accuracy on rearranged images", "bar: 95 % confidence interval over seeds; dashed: chance level"
    )


def equivariance_chart(data: Sequence[EquivarianceMeasurement]) -> alt.TopLevelMixin:
    """Equivariance error against the shift, one panel per layer."""
    rows = [
        {"layer": LAYER_LABELS[m.layer], "shift": m.shift, "error": 100 * m.relative_error}
        for m in data
        if m.layer in LAYER_LABELS
    ]
    bars = alt.Chart(chart_data(rows)).mark_bar(color=BLUE, size=10)
    bars = bars.encode(
        x=alt.X("shift:O", title="shift (pixels)", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("error:Q", title="error (%)", scale=alt.Scale(domain=[0, 160]), axis=alt.Axis(tickCount=4)),
    ).properties(width=150, height=90)
    header = alt.Header(title=None, labelFontSize=11, labelLimit=170)
    chart = bars.facet(
        facet=alt.Facet("layer:N", sort=list(LAYER_LABELS.values()), header=header), columns=4, spacing=18
    )
    return apply_chart_style(
        chart,
        "Equivariance error of each layer",
        "random pixels; 141 %: two unrelated outputs",
    )


def arrangements_image(data: Sequence[ArrangementExample]) -> Image.Image:
    """The same images in each arrangement, one row per arrangement."""
    count = len(data[0].images)
    size = max(data[0].images[0].shape[1:])
    cell = size * max(1, round(96 / size))  # a whole zoom factor keeps pixels square
    gap = 8
    left = 190
    font = ImageFont.load_default(22)
    canvas = Image.new("RGB", (left + count * (cell + gap), len(data) * (cell + gap) + gap), "white")
    canvas_draw = ImageDraw.Draw(canvas)
    for row, example in enumerate(data):
        top = gap + row * (cell + gap)
        canvas_draw.text((gap, top + cell // 2), example.arrangement, fill="black", font=font, anchor="lm")
        for column, image in enumerate(example.images):
            canvas.paste(
                to_pil_image(image).resize((cell, cell), Image.Resampling.NEAREST), (left + column * (cell + gap), top)
            )
    return canvas


FIGURE_RENDERERS: dict[str, Callable[..., alt.TopLevelMixin | Image.Image]] = {
    "jacobians": jacobians_chart,
    "matrices": weight_matrices_chart,
    "growth": macs_by_length_chart,
    "priors": priors_accuracy_chart,
    "equivariance": equivariance_chart,
    "arrangements": arrangements_image,
}
