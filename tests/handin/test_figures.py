"""Figures of the homework's notebooks."""

import pytest
import torch

from convolab.core.errors import LabError
from convolab.handin.figures import plot_bars, plot_curves, require_histories, require_numbers, show_panels
from convolab.inspection.result import Panel


def epochs(factor: float = 1.0) -> list[dict[str, float]]:
    """Six epochs of a training."""
    return [
        {
            "epoch": epoch,
            "train_loss": factor / epoch**3,
            "validation_loss": factor / epoch,
            "train_accuracy": 0.15 * epoch,
            "validation_accuracy": 0.1 * epoch,
            "learning_rate": 0.1,
        }
        for epoch in range(1, 7)
    ]


def data_rows(chart: dict) -> list[dict]:
    """All rows of data in a chart."""
    return [row for rows in chart["datasets"].values() for row in rows]


def axis_titles(chart: dict) -> list[str]:
    """The titles of the vertical axes of a chart, panel by panel."""
    return [panel["layer"][0]["encoding"]["y"]["title"] for row in chart["vconcat"] for panel in row["hconcat"]]


@pytest.mark.slow
def test_each_quantity_has_a_panel_with_its_unit_two_in_a_row() -> None:
    chart = plot_curves({"a": epochs(), "b": epochs(2)}, title="Two").chart.to_dict()
    assert [len(row["hconcat"]) for row in chart["vconcat"]] == [2, 2]
    assert axis_titles(chart) == [
        "training loss (nats), log scale", "validation loss (nats)", "training accuracy (%)", "validation accuracy (%)",
    ]  # fmt: skip


@pytest.mark.slow
def test_accuracies_are_drawn_in_percent_and_numbers_as_names_in_the_order_given() -> None:
    chart = plot_curves({0.3: epochs(), 0.003: epochs()}, ["validation_accuracy"]).chart.to_dict()
    layer = chart["vconcat"][0]["hconcat"][0]["layer"][0]
    assert layer["encoding"]["color"]["scale"]["domain"] == ["0.3", "0.003"]
    values = [row["value"] for row in data_rows(chart) if row["training"] == "0.3"]
    assert values == pytest.approx([10, 20, 30, 40, 50, 60])


@pytest.mark.slow
def test_the_figure_is_drawn_without_a_network_and_fits_a_page_of_1400_pixels() -> None:
    svg = plot_curves({"a": epochs()}, title="A training").svg()
    width = float(svg.split('width="', 1)[1].split('"', 1)[0])
    assert 800 < width < 1100
    assert ">A training</text>" in svg


def test_unknown_curves_and_empty_trainings_are_refused_in_one_line() -> None:
    with pytest.raises(LabError, match="there is no curve 'trian_loss': did you mean 'train_loss'"):
        plot_curves({"a": epochs()}, ["trian_loss"])
    for histories in ({}, {"a": []}):
        with pytest.raises(LabError, match="there is no epoch to draw"):
            plot_curves(histories)
    with pytest.raises(LabError, match="there is nothing to draw"):
        plot_bars({}, "accuracy")
    with pytest.raises(LabError, match="there is no image to draw yet"):
        show_panels([[]])


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        (..., "there is no epoch to draw: fill in the cells above"),
        (None, "there is no epoch to draw: fill in the cells above"),
        ([], "there is no epoch to draw: fill in the cells above"),
        ({"a": ..., "b": epochs()}, "there is no epoch of 'a' to draw: fill in the cell that trains it"),
        ({"a": None}, "there is no epoch of 'a' to draw"),
        ({"a": [None]}, "there is no epoch of 'a' to draw"),
        ({"a": [{"epoch": 1}]}, "an epoch of 'a' has no number for train_accuracy, train_loss"),
        ({"a": [{**epochs()[0], "train_loss": torch.tensor(1.0)}]}, "an epoch of 'a' has no number for train_loss"),
    ],
)
def test_what_a_gap_leaves_is_refused_in_one_line(histories, message: str) -> None:
    with pytest.raises(LabError, match=message) as caught:
        require_histories(histories, ["train_accuracy", "train_loss"])
    assert "\n" not in str(caught.value)


def test_bars_and_panels_without_a_value_are_refused_in_one_line() -> None:
    with pytest.raises(LabError, match="'a' has no number to draw"):
        require_numbers({"a": ..., "b": 0.5})
    with pytest.raises(LabError, match="there is no image or map 'saliency' to draw yet: fill in the cell above"):
        show_panels([[Panel(title="saliency")]])


@pytest.mark.slow
def test_a_training_that_diverges_is_drawn() -> None:
    diverged = [*epochs(), {**epochs()[0], "epoch": 7, "train_loss": float("nan"), "validation_loss": float("inf")}]
    assert "</svg>" in plot_curves({"a": diverged}).svg()


def test_bars_stand_in_order_and_one_of_them_has_a_color() -> None:
    chart = plot_bars({"low": 0.2, "high": 0.9, "tied": 0.9}, "accuracy", highlight="tied").chart.to_dict()
    bars = chart["layer"][0]
    assert bars["encoding"]["y"]["sort"] == ["high", "tied", "low"]
    assert [row["in_color"] for row in data_rows(chart)] == [False, False, True]
    assert bars["encoding"]["x"]["scale"]["domain"] == [0, 100]


def test_panels_stand_in_rows_of_their_own_length() -> None:
    panel = Panel(title="noise", image=torch.zeros(3, 8, 8, dtype=torch.uint8))
    one, two = show_panels([[panel]]).image, show_panels([[panel, panel], [panel]]).image
    assert two.width > 1.8 * one.width
    assert two.height > 1.8 * one.height
    assert show_panels([[panel]]).alt == "noise"
