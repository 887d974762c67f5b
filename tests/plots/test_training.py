"""Charts and sheets: what is on them, and that they open without a network."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from convolab.data.dataset import ImageDataset
from convolab.plots import training as training_plots
from convolab.training.trainer import EpochMetrics


def history(losses, validation=True, metrics="running"):
    return [
        EpochMetrics(
            i + 1,
            loss,
            0.5,
            loss if validation else None,
            0.1 * (i % 5) if validation else None,
            0.1,
            1.0,
            10.0,
            metrics,
        )
        for i, loss in enumerate(losses)
    ]


def test_a_chart_opens_without_the_network_and_comes_in_three_formats(tmp_path) -> None:
    paths = training_plots.save_chart(
        training_plots.training_curves_chart(history([2.0, 1.0]), "two epochs"), tmp_path / "curves"
    )
    html, svg, png = (path.read_bytes() for path in paths)
    assert not re.search(rb"<script[^>]+src=", html)
    assert b"vegaEmbed" in html
    assert svg.lstrip().startswith(b"<svg")
    assert b"two epochs" in svg
    assert png.startswith(b"\x89PNG")


def test_axes_say_their_units_and_a_wide_loss_is_drawn_on_a_log_scale(tmp_path) -> None:
    narrow, wide = (
        training_plots.training_curves_chart(history(losses), "t").to_dict() for losses in ([2.0, 1.0], [2.0, 0.01])
    )
    assert "loss (nats)" in str(narrow)
    assert "accuracy (%)" in str(narrow)
    assert "loss (nats, log scale)" in str(wide)


@pytest.mark.parametrize("metrics", ["running", "exact"])
def test_the_curves_say_of_which_weights_the_training_figures_are(metrics) -> None:
    said = training_plots.training_curves_chart(history([2.0, 1.0], metrics=metrics), "t").to_dict()["title"][
        "subtitle"
    ]
    assert ("as augmented" in said) == (metrics == "running")


def test_a_run_without_validation_and_one_of_a_single_epoch_are_drawn(tmp_path) -> None:
    for number, given in enumerate((history([1.0]), history([1.0, 0.5], validation=False))):
        training_plots.save_chart(training_plots.training_curves_chart(given, "t"), tmp_path / f"c{number}", ["svg"])
        assert (tmp_path / f"c{number}.svg").read_text().count("<path") > 3


def test_the_confusion_matrix_shows_every_count_and_shades_by_row(tmp_path) -> None:
    chart = training_plots.confusion_matrix_chart([[7, 3], [0, 40]], ["cat", "dog"], "t").to_dict()
    rows = next(iter(chart["datasets"].values()))
    assert {(r["true"], r["called"]): (r["count"], r["share"]) for r in rows} == {
        ("cat", "cat"): (7, 70.0),
        ("cat", "dog"): (3, 30.0),
        ("dog", "cat"): (0, 0.0),
        ("dog", "dog"): (40, 100.0),
    }


def test_a_hundred_classes_fit_on_a_confusion_matrix(tmp_path) -> None:
    (path,) = training_plots.save_chart(
        training_plots.confusion_matrix_chart(np.eye(100, dtype=int).tolist(), [f"class {i}" for i in range(100)], "t"),
        tmp_path / "c",
        ["png"],
    )
    with Image.open(path) as image:
        assert max(image.size) < 2000


def test_the_sheet_shows_the_first_pictures_of_each_class_in_rows() -> None:
    shades = torch.tensor([10, 200, 60, 250], dtype=torch.uint8)
    pictures = ImageDataset(
        shades.view(4, 1, 1, 1).expand(4, 3, 8, 8).contiguous(), torch.tensor([0, 1, 0, 1]), ("a", "b"), "four"
    )
    sheet = np.asarray(training_plots.contact_sheet(pictures, per_class=2, zoom=1).convert("L"))
    assert [(sheet == shade).sum() >= 64 for shade in shades.tolist()] == [True] * 4
    first = {shade: np.argwhere(sheet == shade) for shade in (10, 60, 200, 250)}
    assert np.median(first[10][:, 0]) < np.median(first[200][:, 0])  # class a is above class b
    assert np.median(first[10][:, 1]) < np.median(first[60][:, 1])  # in the set's order
