"""Transfer of attacks: proportions with intervals, control images, paired tests, each network's own preprocessing."""

import copy
import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.stats import binom, normaltest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint
from support.shape_checks import without_shape_checks
from support.small_nets import capture_state, classifier_of, is_equal, randomize_parameters
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.data.image_io import read_image
from convolab.inspection.adversarial.budget import l2_distances
from convolab.inspection.adversarial.finding import AttackTargets, magnified_difference
from convolab.inspection.adversarial.fool import fool_classifier, make_attack_targets, png_round_trip, random_targets
from convolab.inspection.adversarial.transfer import (
    Predictions,
    Proportion,
    TransferMatrix,
    TransferRow,
    describe_attack_comparison,
    describe_transfer,
    mcnemar_result,
    norm_matched_noise,
    predict_images,
    predictions_from_logits,
    transfer_matrix,
)
from convolab.models.classifier import ImageClassifier


def small_net(seed: int, side: int = 32, channels: int = 3) -> ImageClassifier:
    """A small network whose predictions depend on the image; another one for each seed."""
    layers = randomize_parameters(
        nn.Sequential(
            nn.Conv2d(channels, 8, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * ((side - 5) // 3 + 1) ** 2, 10)
        )
    )
    generator = torch.Generator().manual_seed(seed)
    layers[3].weight.data += torch.randn(layers[3].weight.shape, generator=generator) / 10
    net = classifier_of(layers, side)
    if channels == 1:
        net = ImageClassifier(layers, mean=(0.5,), std=(0.25,), input_size=(side, side), classes=net.classes).eval()
    return net


def matrix_of_predictions(
    clean: list[int], noise: list[int], fooling: list[int], targets: list[int], **more_conditions: list[int]
) -> TransferMatrix:
    """A matrix of one network, `them`, with the given predictions."""

    def row(kind: str, classes: list[int]) -> TransferRow:
        probabilities = (0.5,) * len(classes)
        return TransferRow(
            kind,
            kind,
            0.0 if kind == "clean" else 1.0,
            {"them": Predictions(tuple(classes), probabilities, (1,) * len(classes), probabilities)},
        )

    rows = [
        row(kind, classes)
        for kind, classes in {"clean": clean, "noise": noise, "fooling": fooling, **more_conditions}.items()
    ]
    return TransferMatrix(tuple(rows), tuple(targets))


def test_targeted_and_untargeted_success_are_counted() -> None:
    matrix = matrix_of_predictions([1, 1, 2, 2], [1, 1, 2, 3], [7, 1, 3, 7], [7, 7, 7, 7])
    assert matrix.targeted_success("fooling", "them") == [True, False, False, True]
    assert matrix.untargeted_success("fooling", "them") == [True, False, True, True]
    assert matrix.untargeted_success("noise", "them") == [False, False, False, True]
    assert not any(matrix.untargeted_success("clean", "them"))
    cell = matrix.to_dict()["fooling"]["networks"]["them"]
    assert (cell["targeted"]["hits"], cell["untargeted"]["hits"]) == (2, 3)
    low, high = proportion_confint(2, 4, method="wilson")
    assert (cell["targeted"]["low"], cell["targeted"]["high"]) == pytest.approx((low, high))
    assert json.loads(json.dumps(matrix.to_dict(), allow_nan=False)) == matrix.to_dict()


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 1), (3, 3), (0, 9), (12, 2)])
def test_mcnemars_test_is_the_exact_one(first: int, second: int) -> None:
    result = mcnemar_result(
        [True] * first + [False] * second + [True, False], [False] * first + [True] * second + [True, False]
    )
    assert (result.first_only, result.second_only) == (first, second)
    expected = statsmodels_mcnemar([[1, first], [second, 1]], exact=True).pvalue if first + second else 1.0
    assert result.p_value == pytest.approx(float(expected))
    assert result.p_value == pytest.approx(min(1.0, 2 * binom.cdf(min(first, second), first + second, 0.5)))


def test_the_description_claims_neither_transfer_nor_a_difference_if_there_is_none() -> None:
    lines = describe_transfer(matrix_of_predictions([1] * 10, [1] * 9 + [2], [1] * 8 + [2, 3], [7] * 10))
    assert (
        "them: classifies 0 of 10 (0 %, 95 % interval 0 to 28 %) as the target: no targeted transfer; "
        "before the attack, 0" in lines
    )
    assert any("no significant difference (exact McNemar p = 1, the intervals overlap)" in line for line in lines)


def test_the_description_reports_a_significant_difference() -> None:
    lines = describe_transfer(matrix_of_predictions([1] * 12, [1] * 12, [7] * 12, [7] * 12))
    assert not any("no targeted transfer" in line for line in lines)
    assert any("more, 12 vs 0 of the discordant images (exact McNemar p < 0.001)" in line for line in lines)
    lines_of_comparison = describe_attack_comparison(
        matrix_of_predictions(
            [1] * 12, [1] * 12, [7] * 12, [7] * 12, plain_same_l2=[7] * 3 + [1] * 9, plain_first_success=[1] * 12
        )
    )
    assert any("them, target: 12 vs 3 of 12: more, 9 vs 0" in line for line in lines_of_comparison)
    assert describe_attack_comparison(matrix_of_predictions([1], [1], [1], [7])) == []


def test_each_network_uses_its_own_preprocessing() -> None:
    net, images = small_net(1, side=24), torch.stack([read_image("chelsea")[:, :64, i : i + 64] for i in (0, 100)])
    net.crop_fraction = 0.8
    predictions = predict_images(net, images, torch.tensor([3, 4]))
    with torch.no_grad():
        logits = torch.cat([net(net.preprocess(image)) for image in images])
    assert predictions.target_probabilities == pytest.approx(
        predictions_from_logits(logits, torch.tensor([3, 4])).target_probabilities, abs=1e-6
    )
    assert predictions.classes == tuple(logits.argmax(1).tolist())
    assert predictions.target_ranks[0] == logits[0].argsort(descending=True).tolist().index(3) + 1


def test_saved_images_are_judged_again_as_the_network_prepares_any_image() -> None:
    net = small_net(0)
    net.crop_fraction = 0.5  # so that of a saved image the middle alone is seen
    finding = fool_classifier(net, ["chelsea", "coffee"], "random:2", seed=1)
    fooling, targets = finding.arrays["fooling"], finding.arrays["target"]
    with torch.no_grad():
        as_saved = net(fooling / 255).double().softmax(1)
        prepared = torch.cat([net(net.preprocess(image)) for image in fooling]).double().softmax(1)
    for number, (result, target) in enumerate(zip(finding.metrics["images"], targets.tolist(), strict=True)):
        for found, probabilities in ((result["after"], as_saved), (result["after_preprocessing"], prepared)):
            assert found["class"] == net.classes[int(probabilities[number].argmax())]
            assert found["target_probability"] == pytest.approx(float(probabilities[number, target]), abs=1e-6)
    assert float((prepared - as_saved).abs().amax(1).min()) > 0.01
    hits = int((prepared.argmax(1) == targets).sum())
    assert (finding.metrics["after_preprocessing"]["hits"], finding.metrics["fooled"]["hits"]) == (hits, 4)
    assert f"resized and cropped as the network does with any image, {hits} of 4 are still classified" in str(finding)


def test_noise_has_the_given_l2_after_rounding_and_depends_on_the_seed() -> None:
    clean = torch.stack([read_image("coffee")[:, :64, :64], torch.full((3, 64, 64), 255, dtype=torch.uint8)])
    distances = torch.tensor([0.3, 4.0], dtype=torch.float64)
    noise = norm_matched_noise(clean, distances, 0)
    assert l2_distances(noise, clean).tolist() == pytest.approx(distances.tolist(), rel=0.02)
    assert torch.equal(noise, norm_matched_noise(clean, distances, 0))
    assert not torch.equal(noise, norm_matched_noise(clean, distances, 1))


def test_the_noise_is_normal_with_mean_zero_and_another_for_each_image() -> None:
    clean = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    distance = 10 * clean[0].numel() ** 0.5 / 255  # a standard deviation of 10 levels
    noise = norm_matched_noise(clean, torch.full((2,), distance, dtype=torch.float64), 0)
    first, second = (noise.double() - 128).flatten(1).numpy()
    for values in (first, second):
        assert abs(values.mean()) < 0.4  # more than four times its standard error
        assert values.std() == pytest.approx(10, rel=0.02)
        assert normaltest(values).pvalue > 0.001
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.04


@pytest.mark.slow
def test_the_metrics_of_a_finding_are_json_and_success_is_that_of_the_saved_bytes() -> None:
    net = small_net(0)
    finding = fool_classifier(
        net, ["chelsea", "coffee"], "random:3", victims={"other": small_net(1), "small": small_net(2, side=24)}, seed=4
    )
    assert json.loads(json.dumps(finding.metrics, allow_nan=False)) == finding.metrics
    images = finding.metrics["images"]
    assert len(images) == 6
    assert [image_result["image"] for image_result in images] == ["chelsea"] * 3 + ["coffee"] * 3
    with torch.no_grad():
        probabilities = net(finding.arrays["fooling"] / 255).double().softmax(1)
        before = net(finding.arrays["clean"] / 255).argmax(1)
    for number, image_result in enumerate(images):
        target = image_result["target"]["index"]
        assert target != int(before[number])
        assert image_result["fooled"] == (int(probabilities[number].argmax()) == target)
        assert image_result["after"]["target_probability"] == pytest.approx(
            float(probabilities[number, target]), abs=1e-6
        )
        change = finding.arrays["difference"][number].double()
        assert image_result["l2"] == pytest.approx(float(change.norm()) / 255)
        assert image_result["linf_levels"] == int(change.abs().max())
        assert set(image_result["networks"]) == {"other", "small"}
    assert all(image_result["fooled"] for image_result in images)
    conditions = finding.metrics["transfer"]["conditions"]
    assert list(conditions) == ["clean", "noise", "fooling"]
    assert conditions["noise"]["l2"] == pytest.approx(conditions["fooling"]["l2"], rel=0.02)
    assert conditions["clean"]["l2"] == 0
    assert len(finding.panels) == 3
    assert [row[0].image is not None for row in finding.panels] == [True, False, False]  # an original is drawn once
    for row, image_result in zip(finding.panels, images, strict=False):
        curve = row[3].curve
        assert len(curve) == image_result["steps"] + 1
        assert curve[0] == pytest.approx(100 * image_result["before"]["target_probability"], abs=1e-3)
        assert curve[-1] == pytest.approx(100 * image_result["after"]["target_probability"], abs=2)  # not yet rounded
    assert "drawn: the first 3 of 6" in finding.summary[1]


@pytest.mark.slow
def test_the_attack_for_transfer_is_compared_with_plain_pgd_to_the_same_l2() -> None:
    finding = fool_classifier(
        small_net(0),
        "chelsea",
        "3,4",
        victims={"other": small_net(1)},
        surrogates={"second": small_net(2, 24)},
        for_transfer=True,
    )
    conditions = finding.metrics["transfer"]["conditions"]
    assert list(conditions) == ["clean", "noise", "fooling", "plain_same_l2", "plain_first_success"]
    assert conditions["plain_same_l2"]["l2"] == pytest.approx(conditions["fooling"]["l2"], rel=0.03)
    assert conditions["plain_first_success"]["l2"] < conditions["fooling"]["l2"]
    assert finding.metrics["confidence"] == 0.95
    assert (finding.metrics["momentum"], finding.metrics["diversity_probability"], finding.metrics["surrogates"]) == (
        1.0,
        0.7,
        ["second"],
    )
    comparisons = {(test["first"], test["second"]) for test in finding.metrics["transfer"]["tests"]}
    assert comparisons == {("fooling", "noise"), ("fooling", "plain_same_l2"), ("fooling", "plain_first_success")}


def test_a_noise_image_depends_on_the_seed_and_has_the_input_size_of_the_network() -> None:
    first, repeated, other = (
        fool_classifier(small_net(0), "noise", "random", seed=seed).arrays["clean"] for seed in (0, 0, 1)
    )
    assert first.shape == (1, 3, 32, 32)
    assert torch.equal(first, repeated)
    assert not torch.equal(first, other)
    assert 100 < float(first.float().mean()) < 155


def test_images_of_one_name_are_numbered() -> None:
    finding = fool_classifier(small_net(0), ["noise", "noise"], "random:1", max_steps=1)
    assert [row["image"] for row in finding.metrics["images"]] == ["noise 1", "noise 2"]
    assert "2 images are classified as their target" in finding.summary[0]


@without_shape_checks
def test_no_image_is_one_line_and_a_target_may_be_numpys_number() -> None:
    with pytest.raises(LabError, match="no image is given"):
        fool_classifier(small_net(0), [], "random")
    finding = fool_classifier(small_net(0), "noise", np.int64(0), max_steps=1)  # pyright: ignore[reportArgumentType]
    assert finding.metrics["images"][0]["target"]["index"] == 0


def test_a_budget_that_is_too_small_is_reported_as_a_failure() -> None:
    finding = fool_classifier(small_net(0), "chelsea", "random", budget="linf=1/255", max_steps=2, step_size=1e-4)
    assert not finding.metrics["images"][0]["fooled"]
    assert "not classified as" in finding.summary[0]
    assert "not fooled in 2 steps within linf=1/255: chelsea" in str(finding)


def test_a_confidence_that_is_not_reached_is_reported() -> None:
    finding = fool_classifier(small_net(0), "chelsea", "random", confidence=0.999999, max_steps=12)
    assert finding.metrics["images"][0]["fooled"]
    assert "warning: fooled, but below the requested confidence (99.9999 %) in 12 steps: chelsea" in str(finding)


def test_targets_are_drawn_for_each_image_and_never_the_predicted_class() -> None:
    drawn_targets = [random_targets(10, 3, 4, 0, number) for number in range(200)]
    assert all(len(set(targets)) == 3 and 4 not in targets for targets in drawn_targets)
    assert {label for targets in drawn_targets for label in targets} == set(range(10)) - {4}
    assert len(set(drawn_targets)) > 50


def test_networks_for_gray_images_are_fooled_too_and_the_file_has_the_same_bytes() -> None:
    net = small_net(0, channels=1)
    finding = fool_classifier(net, "coffee", "random")
    image = finding.arrays["fooling"][0]
    assert image.shape == (1, 32, 32)
    assert torch.equal(png_round_trip(image), image)
    assert torch.equal((255 * net.preprocess(png_round_trip(image))[0]).round().to(torch.uint8), image)


def test_the_difference_image_is_gray_plus_the_difference_times_the_stated_gain() -> None:
    clean = torch.full((3, 10, 10), 100, dtype=torch.uint8)
    changed = clean.clone()
    changed[:, :5], changed[:, 5:8] = 105, 98
    image, gain = magnified_difference(clean, changed)
    assert gain == 25
    assert (image[:, 0, 0].tolist(), image[:, 6, 0].tolist(), image[:, 9, 0].tolist()) == (
        [253] * 3,
        [78] * 3,
        [128] * 3,
    )
    assert magnified_difference(clean, clean)[0].unique().tolist() == [128]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "nobody"}, "has no class 'nobody'"),
        ({"target": ""}, "no target is named"),
        ({"target": "random,a"}, "random is among other targets"),
        ({"target": "random:0"}, "0 random targets"),
        ({"target": "random:10"}, "10 random targets"),
        ({"target": f"random:{'9' * 5000}"}, f"{'9' * 20} random targets"),
        ({"target": "a,11"}, "there is no class 11"),
        ({"surrogates": {"x": small_net(1)}}, "only used in an attack for transfer"),
        (
            {"for_transfer": True, "surrogates": {"x": small_net(1)}, "victims": {"x": small_net(1)}},
            "x is both a surrogate and a victim",
        ),
        ({"budget": "l5=1"}, "unknown budget 'l5=1'"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(LabError, match=message) as caught:
        fool_classifier(small_net(0), "chelsea", **({"target": "random"} | arguments))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argument", ["victims", "surrogates"])
def test_networks_of_other_classes_are_refused(argument: str) -> None:
    other = small_net(1)
    other.classes = tuple("klmnopqrst")
    with pytest.raises(LabError, match=r"stranger has different classes \(10: k, l, m, ...\)"):
        fool_classifier(small_net(0), "chelsea", "random", for_transfer=True, **{argument: {"stranger": other}})


def test_a_target_that_is_already_the_predicted_class_is_refused() -> None:
    clean = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(LabError, match="second is already classified as c: choose another target"):
        make_attack_targets(small_net(0), ("first", "second"), clean, (2,), [1, 2], 0)
    attack_targets = make_attack_targets(small_net(0), ("first", "second"), clean, (5, 6), [1, 2], 0)
    assert isinstance(attack_targets, AttackTargets)
    assert (attack_targets.image_names, attack_targets.targets.tolist()) == (
        ("first", "first", "second", "second"),
        [5, 6, 5, 6],
    )


def test_a_network_that_diverged_is_refused() -> None:
    net = small_net(0)
    net.network[3].weight.data[:] = math.nan
    with pytest.raises(LabError, match=r"weights are damaged: 3\.weight holds NaN"):
        fool_classifier(net, "chelsea", "a")


def test_the_transfer_matrix_is_computed_from_the_given_images() -> None:
    clean = torch.stack([read_image("coffee")[:, :32, :32]] * 2)
    conditions: dict[str, tuple[str, Tensor]] = {
        "clean": ("clean", clean),
        "noise": ("noise", clean),
        "fooling": ("black", torch.zeros_like(clean)),
    }
    matrix = transfer_matrix({"one": small_net(0), "two": small_net(1)}, conditions, torch.tensor([1, 2]))
    assert matrix.networks == ("one", "two")
    assert matrix.row("noise").predictions == matrix.row("clean").predictions
    assert matrix.row("fooling").mean_l2 == pytest.approx(float(clean.double().flatten(1).norm(dim=1).mean()) / 255)
    assert Proportion.from_hits(matrix.untargeted_success("noise", "one")).hits == 0


@pytest.mark.slow
def test_two_threads_can_fool_one_network_at_the_same_time() -> None:
    net, victim = small_net(0), small_net(1)
    before = capture_state(net), capture_state(victim)

    def fooling_image(target: int) -> Tensor:
        return fool_classifier(net, "chelsea", target, victims={"other": victim}).arrays["fooling"]

    targets = [label for label in range(10) if net.classes[label] != predicted_class(net)]
    sequential = [fooling_image(target) for target in targets]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(fooling_image, targets))
    assert is_equal(sequential, together)
    assert is_equal(before, (capture_state(net), capture_state(victim)))


def predicted_class(net: ImageClassifier) -> str:
    return fool_classifier(net, "chelsea", "random").metrics["images"][0]["before"]["class"]


def test_a_victim_that_is_the_fooled_network_under_another_name_is_refused() -> None:
    net = small_net(0)
    for victims in ({"copy": copy.deepcopy(net)}, {"itself": net}):
        with pytest.raises(LabError, match="is the network to be fooled under another name"):
            fool_classifier(net, "chelsea", "b", victims=victims)
    other = small_net(1)
    with pytest.raises(LabError, match="two is one under another name"):
        fool_classifier(net, "chelsea", "b", victims={"one": other, "two": copy.deepcopy(other)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step_size": 1e308}, "above 0 and at most 1000"),
        ({"step_size": 1001.0}, "above 0 and at most 1000"),
        ({"objective": ""}, "unknown objective ''"),
        ({"budget": "l2=1e400000000"}, "is out of range: give a number from 1/255 to 1000"),
        ({"budget": "linf=8"}, "from 1/255, one level of a pixel, to 1; did you mean linf=8/255?"),
        ({"budget": "l2=nan"}, "is out of range"),
        ({"max_steps": 10**400}, "give 1 to 1,000,000"),
    ],
)
def test_numbers_out_of_range_are_refused_before_work(arguments: dict, message: str) -> None:
    with pytest.raises(LabError, match=message):
        fool_classifier(small_net(0), "chelsea", "b", **arguments)


def test_a_network_whose_logits_overflow_on_the_way_gives_no_fooling_image() -> None:
    net = small_net(0)

    class OverflowsElsewhere(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network, self.passes = network, 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.passes += 1
            return self.network(x) * (float("inf") if self.passes > 4 else 1.0)

    net.network = OverflowsElsewhere(net.network)
    with pytest.raises(LabError, match="are not all finite numbers"):
        fool_classifier(net, "chelsea", "b", confidence=0.999)
