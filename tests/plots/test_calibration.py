"""The reliability diagram."""

import pytest
import torch

from convolab.plots.calibration import calibration_line, reliability_chart
from convolab.training.calibration import measure_calibration


@pytest.mark.slow
def test_the_diagram_has_a_point_with_its_interval_for_every_bin_that_holds_images() -> None:
    calibration = measure_calibration(torch.linspace(0.3, 1, 50).double(), torch.arange(50) % 3 > 0)
    spec = reliability_chart(calibration, "title").to_dict()
    diagram, counts = spec["hconcat"]
    rows = spec["datasets"][counts["data"]["name"]]
    assert [row["images"] for row in rows] == [part.count for part in calibration.bins]
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in rows)
    assert len(diagram["layer"]) == 3


@pytest.mark.slow
def test_the_line_says_whether_chance_explains_the_error() -> None:
    sure = torch.full((200,), 0.9).double()
    assert ", more than the" in calibration_line(measure_calibration(sure, torch.arange(200) < 100))
    assert ", no more than the" in calibration_line(measure_calibration(sure, torch.arange(200) < 180))
