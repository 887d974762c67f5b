"""Charts of one run: learning curves, the confusion matrix, and overfitting one batch."""

from collections.abc import Mapping, Sequence

import altair as alt

from convolab.plots.style import BLUE, ORANGE, apply_chart_style, chart_data, needs_log_scale
from convolab.studies.tables import TableRows
from convolab.training.history import EpochMetrics, best_epoch_of
from convolab.training.recipe import Recipe

# Which weights and images the training metrics are of, by the recipe's metrics.train. The images of a running mean are
# those that the network is trained on: with augmentation, if there is one.
TRAIN_METRICS_CAPTIONS = {
    "running": "training: running mean over the epoch",
    "eval_pass": "training: after the epoch, without augmentation",
}
CONFUSION_CAPTION = "rows: true classes; shade: percentage of the row; text: number of images"
MAX_LABELED_CLASSES = 20  # of a confusion matrix whose cells show their counts


def curves_title(recipe: Recipe) -> str:
    """What is trained on what, and how.

    >>> curves_title(Recipe.from_dict({"model": {"name": "simple_convnet"}}))
    'simple_convnet on digits: sgd at 0.01, batches of 128'
    """
    optimizer = f"{recipe.optimizer.name} at {recipe.optimizer.lr:g}"
    return f"{recipe.model.name} on {recipe.data.name}: {optimizer}, batches of {recipe.training.batch_size}"


def training_curves_chart(history: Sequence[EpochMetrics], title: str) -> alt.TopLevelMixin:
    """Loss and accuracy against epochs, training and validation; a ring marks the best validation accuracy.

    `history` has one epoch or more. The loss has a log scale where it spans more than a factor of 20.
    """
    rows = []
    for epoch in history:
        for split in ("train", "validation"):
            loss = getattr(epoch, f"{split}_loss")
            accuracy = getattr(epoch, f"{split}_accuracy")
            if accuracy is not None and loss is not None:
                rows.append({"epoch": epoch.epoch, "split": split, "loss": loss, "accuracy": 100 * accuracy})
    splits = list(dict.fromkeys(row["split"] for row in rows))
    color = alt.Color(
        "split:N",
        title=None,
        scale=alt.Scale(domain=splits, range=[BLUE, ORANGE][: len(splits)]),
        legend=alt.Legend(orient="top", symbolType="stroke", symbolSize=400, symbolStrokeWidth=2),
    )
    dash = alt.StrokeDash("split:N", title=None, scale=alt.Scale(domain=splits, range=[[1, 0], [6, 3]][: len(splits)]))
    ticks = sorted({round(1 + i * (len(history) - 1) / 9) for i in range(10)})
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(values=ticks, format="d", grid=False))
    base = alt.Chart(chart_data(rows)).encode(x=x, color=color)
    log_loss = needs_log_scale(row["loss"] for row in rows)

    def panel(quantity: str, unit: str, scale: alt.Scale, number_format: str) -> alt.LayerChart:
        y = alt.Y(f"{quantity}:Q", title=f"{quantity} ({unit})", scale=scale)
        tooltip = ["split:N", "epoch:Q", alt.Tooltip(f"{quantity}:Q", format=number_format)]
        line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash)
        points = base.mark_circle(size=25 if len(history) <= 40 else 8, opacity=1).encode(y=y, tooltip=tooltip)
        return alt.LayerChart(layer=[line, points])

    loss_scale = alt.Scale(type="log") if log_loss else alt.Scale(zero=False)
    loss_panel = panel("loss", "nats, log scale" if log_loss else "nats", loss_scale, ".4f")
    accuracy_panel = panel("accuracy", "%", alt.Scale(zero=False), ".2f")
    caption = TRAIN_METRICS_CAPTIONS[history[-1].train_metrics]
    best = best_epoch_of(history)
    if best is not None and best.validation_accuracy is not None:
        percent = 100 * best.validation_accuracy
        ring = alt.Chart(chart_data([{"epoch": best.epoch, "accuracy": percent}]))
        accuracy_panel += ring.mark_point(size=140, color=ORANGE, strokeWidth=2).encode(x=x, y="accuracy:Q")
        caption += f"; ring: best validation accuracy, {percent:.2f} % in epoch {best.epoch}"
    panels = [panel.properties(width=330, height=240) for panel in (loss_panel, accuracy_panel)]
    return apply_chart_style(alt.hconcat(*panels, spacing=40), title, caption)


def confusion_matrix_chart(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> alt.TopLevelMixin:
    """A confusion matrix: one row per true class, shaded by the percentage of the row; counts are shown where they fit.

    `matrix[true][predicted]` holds numbers of images.
    """
    side = confusion_matrix_side(len(classes))
    chart = confusion_matrix_layers(chart_data(confusion_matrix_cells(matrix, classes)), classes)
    return apply_chart_style(chart.properties(width=side, height=side), title, CONFUSION_CAPTION)


def confusion_matrix_cells(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> TableRows:
    """One row per cell: true and predicted class, the number of images and the percentage of the true class."""
    cells: TableRows = []
    for true, counts in zip(classes, matrix, strict=True):
        total = sum(counts)
        for predicted, count in zip(classes, counts, strict=True):
            percent = 100 * count / total if total else 0.0
            cells.append({"true": true, "predicted": predicted, "count": count, "percent_of_row": percent})
    return cells


def confusion_matrix_side(num_classes: int) -> int:
    """Pixels of the side of a confusion matrix."""
    return num_classes * (40 if num_classes <= MAX_LABELED_CLASSES else max(6, 600 // num_classes))


def confusion_matrix_layers(data: alt.InlineData | alt.NamedData, classes: Sequence[str]) -> alt.LayerChart:
    """The matrix without titles: shaded cells, and their counts where they fit. `data` are `confusion_matrix_cells`."""
    show_counts = len(classes) <= MAX_LABELED_CLASSES
    order = list(classes)
    no_labels = alt.Axis(labels=False, ticks=False)
    label_angle = 0 if max(map(len, classes)) <= 3 else -40
    columns = alt.Axis(labelAngle=label_angle, labelLimit=120) if show_counts else no_labels
    base = alt.Chart(data).encode(
        x=alt.X("predicted:N", sort=order, title="predicted class", axis=columns),
        y=alt.Y("true:N", sort=order, title="true class", axis=alt.Axis(labelLimit=120) if show_counts else no_labels),
    )
    # Opacity, not a blend from white: the background shows through, whatever its color.
    shade = alt.Opacity(
        "percent_of_row:Q",
        title="% of the row",
        scale=alt.Scale(domain=[0, 100], range=[0, 1]),
        legend=alt.Legend(orient="top", values=[25, 50, 75, 100]),
    )
    percent = alt.Tooltip("percent_of_row:Q", format=".1f", title="% of the row")
    cells = base.mark_rect(stroke="#eeeeee", fill=BLUE).encode(
        opacity=shade, tooltip=["true:N", "predicted:N", "count:Q", percent]
    )
    if not show_counts:
        return alt.LayerChart(layer=[cells])
    text_color = alt.condition(alt.datum.percent_of_row > 50, alt.value("white"), alt.value("black"))
    text = alt.condition(alt.datum.count > 0, "count:Q", alt.value(""))
    return alt.LayerChart(layer=[cells, base.mark_text(fontSize=11).encode(text=text, color=text_color)])


def overfit_one_batch_chart(accuracies: Sequence[float], title: str) -> alt.TopLevelMixin:
    """Accuracy on one batch against steps. `accuracies` are fractions, the first of them before any step."""
    rows = [{"step": step, "accuracy": 100 * accuracy} for step, accuracy in enumerate(accuracies)]
    line = (
        alt.Chart(chart_data(rows))
        .mark_line(color=BLUE)
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False)),
            y=alt.Y("accuracy:Q", title="accuracy on the batch (%)", scale=alt.Scale(domain=[0, 100])),
        )
    )
    return apply_chart_style(
        line.properties(width=480, height=240), title, "measured in training mode, before each step"
    )


def trials_chart(
    points: Sequence[Mapping[str, object]],
    title: str = "validation accuracy so far",
    subtitle: str = "a line for each trial",
) -> alt.TopLevelMixin:
    """The accuracy of several trainings; `points` have a trial, an epoch and an accuracy in %."""
    base = alt.Chart(chart_data(points)).encode(
        x=alt.X("epoch:Q", axis=alt.Axis(format="d", tickMinStep=1, grid=False)),
        y=alt.Y("accuracy:Q", title="accuracy (%)", scale=alt.Scale(zero=False)),
        color=alt.Color("trial:N", title=None, legend=alt.Legend(symbolLimit=12, labelLimit=260)),
    )
    chart = alt.LayerChart(layer=[base.mark_line(), base.mark_circle(size=20)]).properties(width=480, height=240)
    return apply_chart_style(chart, title, subtitle)
