"""What the tab Compare sends of a comparison."""

import pytest
from support.synthetic_study import synthetic_study

from convolab.app.comparison import section_values
from convolab.app.run_rows import MAX_POINTS, thin_curve


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 1999, 2000, 100_000])
def test_a_curve_has_a_thousand_points_at_most_and_ends_at_its_last(count: int) -> None:
    epochs = range(1, count + 1)
    shown = thin_curve(epochs)
    assert len(shown) <= MAX_POINTS
    assert shown[-1:] == list(epochs[-1:])
    assert count > MAX_POINTS or shown == list(epochs)


@pytest.mark.slow
def test_the_curves_of_a_comparison_are_as_thin_as_those_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convolab.app.run_rows.MAX_POINTS", 4)
    section = section_values(synthetic_study().sections[0])
    (curve, _) = section["curves"]["train_loss"]
    assert [epoch for epoch, _ in curve] == [3, 6, 9, 12]
