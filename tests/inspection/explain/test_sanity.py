"""Both sanity checks of a map together, their description and their aggregate over images."""

import copy

import pytest
import torch
from support.heatmaps import to_saliency_map
from torch import Tensor

from convolab.cli.commands.explain import print_sanity_summary
from convolab.core.errors import LabError
from convolab.inspection.explain import sanity
from convolab.inspection.explain.deletion_insertion import PerturbationCurve
from convolab.inspection.explain.methods import gradcam
from convolab.inspection.explain.randomization import RandomizationTest
from convolab.models.classifier import ImageClassifier


def test_an_invalid_map_is_not_checked(resnet: ImageClassifier, pixels: Tensor) -> None:
    with pytest.raises(LabError, match="the made map is constant: there is nothing to check"):
        sanity.run_sanity_checks(resnet, pixels, 0, to_saliency_map(torch.zeros(8, 8)), gradcam)


@pytest.mark.slow
def test_the_checks_are_reproducible_have_a_description_and_do_not_change_the_network(
    convnet: ImageClassifier, pixels: Tensor
) -> None:
    before = copy.deepcopy(convnet.state_dict())
    target = next(c for c in range(10) if not gradcam(convnet, pixels, c).invalid_reason)
    first, repeated = (
        sanity.run_sanity_checks(convnet, pixels, target, gradcam(convnet, pixels, target), gradcam, seed=3)
        for _ in range(2)
    )
    assert first == repeated
    assert all(torch.equal(before[key], value) for key, value in convnet.state_dict().items())
    lines = sanity.describe_sanity(first)
    assert len(lines) == 3
    assert "all weights randomized" in lines[0]
    assert "deletion (mean color) AUC" in lines[1]
    assert "of 5 random orders of pixels" in lines[2]


def sanity_result(
    auc: float, cascading: tuple[float | None, ...] = (0.9, 0.3), percentile: float = 0.2
) -> sanity.SanityResult:
    curve = PerturbationCurve("mean color", (1.0, 0.0), auc, (1.0, 0.0), (0.5, 0.6, 0.7), (1.0, 0.0), (0.1, 0.2, 0.65))
    return sanity.SanityResult(
        "made", RandomizationTest(("head", "stem"), cascading, cascading, 0.4, percentile), curve, curve
    )


def test_the_description_says_how_many_random_orders_and_maps_a_map_is_better_than() -> None:
    head, deletion, insertion = sanity.describe_sanity(sanity_result(0.62))
    assert (
        "with the head's weights randomized, rank correlation with the map +0.90; all weights randomized, +0.30, above"
        in head
    )
    assert (
        "above the 95th percentile of random maps with its spectrum (0.20): part of the map does not depend on" in head
    )
    assert "rank correlation with the image's edges +0.40" in head
    assert "(lower is better), better than 1 of 3 random orders of pixels (mean 0.600" in deletion
    assert "and 1 of 3 phase-randomized maps" in deletion
    assert "(higher is better), better than 2 of 3 random orders of pixels" in insertion
    assert "and 2 of 3 phase-randomized maps" in insertion
    assert (
        "within the 95th percentile of random maps with its spectrum (0.35)"
        in sanity.describe_sanity(sanity_result(0.62, percentile=0.35))[0]
    )
    assert (
        "the map became constant or not finite" in sanity.describe_sanity(sanity_result(0.62, cascading=(0.9, None)))[0]
    )


def test_checks_are_aggregated_over_several_images_and_not_over_one() -> None:
    results = [{"sanity": {"made": sanity_result(0.6, cascading).to_dict()}} for cascading in ((0.9, 0.3), (0.7, None))]
    by_method = sanity.aggregate_sanity_checks(results)
    assert set(by_method["made"]) == {"images", "auc_gain_over", "randomized_weights"}
    assert by_method["made"]["images"] == 2
    assert set(by_method["made"]["auc_gain_over"]) == {"random_order", "phase_randomized"}
    assert by_method["made"]["auc_gain_over"]["random_order"]["insertion"]["mean"] == pytest.approx(0.0)
    assert by_method["made"]["randomized_weights"]["head"]["mean"] == pytest.approx(0.8)
    assert by_method["made"]["randomized_weights"]["constant_or_nonfinite"] == 1
    assert sanity.aggregate_sanity_checks(results[:1]) == {}
    assert sanity.aggregate_sanity_checks([{"sanity": {}}, {"sanity": {}}]) == {}


def test_maps_that_became_constant_are_not_among_those_of_which_the_table_counts_the_ones_above_chance(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = [{"sanity": {"made": sanity_result(0.6, cascading).to_dict()}} for cascading in ((0.9, 0.3), (0.7, None))]
    print_sanity_summary(sanity.aggregate_sanity_checks(results))
    row = capsys.readouterr().out.splitlines()[-1].split("\t")
    assert row[:2] == ["made", "2"]
    assert "1 of 1" in row
