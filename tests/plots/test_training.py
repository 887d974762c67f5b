"""The charts of a run."""

import numpy as np
import pytest
from PIL import Image

from convolab.plots.style import render_svg, save_chart
from convolab.plots.training import confusion_matrix_chart, training_curves_chart
from convolab.training.history import EpochMetrics


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


@pytest.mark.slow
def test_axes_have_units_and_losses_of_a_wide_range_a_log_scale(tmp_path) -> None:
    narrow, wide = (training_curves_chart(history(losses), "t").to_dict() for losses in ([2.0, 1.0], [2.0, 0.01]))
    assert "loss (nats)" in str(narrow)
    assert "accuracy (%)" in str(narrow)
    assert "loss (nats, log scale)" in str(wide)


@pytest.mark.slow
def test_a_loss_of_exactly_0_is_drawn_on_a_linear_scale() -> None:
    chart = training_curves_chart(history([2.0, 1e-6, 0.0]), "t")
    assert "loss (nats)" in str(chart.to_dict())
    assert "NaN" not in render_svg(chart)


@pytest.mark.slow
@pytest.mark.parametrize("metrics", ["running", "eval_pass"])
def test_the_subtitle_says_how_the_training_metrics_were_computed(metrics) -> None:
    chart = training_curves_chart(history([2.0, 1.0], metrics=metrics), "t").to_dict()
    assert ("running mean" in chart["title"]["subtitle"]) == (metrics == "running")
    assert "with augmentation" not in chart["title"]["subtitle"]  # a history does not know


@pytest.mark.slow
def test_a_ring_marks_the_first_epoch_of_the_best_validation_accuracy() -> None:
    chart = training_curves_chart(history([1.0] * 10), "t").to_dict()
    assert "best validation accuracy, 40.00 % in epoch 5" in chart["title"]["subtitle"]
    ring = chart["hconcat"][1]["layer"][-1]
    assert chart["datasets"][ring["data"]["name"]] == [{"epoch": 5, "accuracy": 40.0}]


@pytest.mark.slow
def test_a_run_without_validation_and_a_run_of_one_epoch_are_plotted(tmp_path) -> None:
    for number, epochs in enumerate((history([1.0]), history([1.0, 0.5], validation=False))):
        save_chart(training_curves_chart(epochs, "t"), tmp_path / f"c{number}", ["svg"])
        assert (tmp_path / f"c{number}.svg").read_text().count("<path") > 3


@pytest.mark.slow
def test_the_confusion_matrix_shows_every_count_and_colors_by_row(tmp_path) -> None:
    chart = confusion_matrix_chart([[7, 3], [0, 40]], ["cat", "dog"], "t").to_dict()
    rows = next(iter(chart["datasets"].values()))
    assert {(r["true"], r["predicted"]): (r["count"], r["percent_of_row"]) for r in rows} == {
        ("cat", "cat"): (7, 70.0),
        ("cat", "dog"): (3, 30.0),
        ("dog", "cat"): (0, 0.0),
        ("dog", "dog"): (40, 100.0),
    }


@pytest.mark.slow
def test_a_hundred_classes_fit_on_a_confusion_matrix(tmp_path) -> None:
    (path,) = save_chart(
        confusion_matrix_chart(np.eye(100, dtype=int).tolist(), [f"class {i}" for i in range(100)], "t"),
        tmp_path / "c",
        ["png"],
    )
    with Image.open(path) as image:
        assert max(image.size) < 2000
