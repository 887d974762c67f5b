"""Transfer: proportions with intervals, controls, paired tests, and each network's own preprocessing."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.proportion import proportion_confint
from support.small_nets import filled, same, state, wrapped
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.data.image_io import read_image
from convolab.inspection.adversarial.budget import l2_distances
from convolab.inspection.adversarial.finding import AttackTargets, magnified_difference
from convolab.inspection.adversarial.fool import fool, make_attack_targets, png_round_trip, random_targets
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


def little(seed: int, side: int = 32, channels: int = 3) -> ImageClassifier:
    """A small network whose predictions depend on the image; each seed another."""
    layers = filled(
        nn.Sequential(
            nn.Conv2d(channels, 8, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * ((side - 5) // 3 + 1) ** 2, 10)
        )
    )
    drawn = torch.Generator().manual_seed(seed)
    layers[3].weight.data += torch.randn(layers[3].weight.shape, generator=drawn) / 10
    net = wrapped(layers, side)
    if channels == 1:
        net = ImageClassifier(layers, mean=(0.5,), std=(0.25,), input_size=(side, side), classes=net.classes).eval()
    return net


def lookup(
    clean: list[int], noise: list[int], fooling: list[int], targets: list[int], **more: list[int]
) -> TransferMatrix:
    """A matrix with one network, `them`, of made-up classes."""

    def row(kind: str, classes: list[int]) -> TransferRow:
        blank = (0.5,) * len(classes)
        return TransferRow(
            kind,
            kind,
            0.0 if kind == "clean" else 1.0,
            {"them": Predictions(tuple(classes), blank, (1,) * len(classes), blank)},
        )

    rows = [
        row(kind, classes) for kind, classes in {"clean": clean, "noise": noise, "fooling": fooling, **more}.items()
    ]
    return TransferMatrix(tuple(rows), tuple(targets))


def test_success_is_counted_against_the_target_and_against_the_clean_image() -> None:
    found = lookup([1, 1, 2, 2], [1, 1, 2, 3], [7, 1, 3, 7], [7, 7, 7, 7])
    assert found.targeted_success("fooling", "them") == [True, False, False, True]
    assert found.untargeted_success("fooling", "them") == [True, False, True, True]
    assert found.untargeted_success("noise", "them") == [False, False, False, True]
    assert not any(found.untargeted_success("clean", "them"))
    cell = found.to_dict()["fooling"]["networks"]["them"]
    assert (cell["targeted"]["hits"], cell["untargeted"]["hits"]) == (2, 3)
    low, high = proportion_confint(2, 4, method="wilson")
    assert (cell["targeted"]["low"], cell["targeted"]["high"]) == pytest.approx((low, high))
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 1), (3, 3), (0, 9), (12, 2)])
def test_mcnemar_is_the_exact_test(first: int, second: int) -> None:
    ours = mcnemar_result(
        [True] * first + [False] * second + [True, False], [False] * first + [True] * second + [True, False]
    )
    assert (ours.first_only, ours.second_only) == (first, second)
    theirs = their_mcnemar([[1, first], [second, 1]], exact=True).pvalue if first + second else 1.0
    assert ours.p_value == pytest.approx(float(theirs))
    assert ours.p_value == pytest.approx(min(1.0, 2 * binom.cdf(min(first, second), first + second, 0.5)))


def test_the_description_claims_no_transfer_and_no_difference_where_there_is_none() -> None:
    lines = describe_transfer(lookup([1] * 10, [1] * 9 + [2], [1] * 8 + [2, 3], [7] * 10))
    assert (
        "them: classifies 0 of 10 (0 %, 95 % interval 0 to 28 %) as the target: no targeted transfer; "
        "before the attack, 0" in lines
    )
    assert any("no significant difference (exact McNemar p = 1, the intervals overlap)" in line for line in lines)


def test_the_description_says_more_where_there_is_a_difference() -> None:
    lines = describe_transfer(lookup([1] * 12, [1] * 12, [7] * 12, [7] * 12))
    assert not any("no targeted transfer" in line for line in lines)
    assert any("more, 12 vs 0 of the discordant images (exact McNemar p < 0.001)" in line for line in lines)
    against = describe_attack_comparison(
        lookup([1] * 12, [1] * 12, [7] * 12, [7] * 12, plain_same_l2=[7] * 3 + [1] * 9, plain_first_success=[1] * 12)
    )
    assert any("them, target: 12 vs 3 of 12: more, 9 vs 0" in line for line in against)
    assert describe_attack_comparison(lookup([1], [1], [1], [7])) == []


def test_each_network_preprocesses_the_image_in_its_own_way() -> None:
    net, images = little(1, side=24), torch.stack([read_image("chelsea")[:, :64, i : i + 64] for i in (0, 100)])
    net.crop_fraction = 0.8
    found = predict_images(net, images, torch.tensor([3, 4]))
    with torch.no_grad():
        logits = torch.cat([net(net.preprocess(image)) for image in images])
    assert found.target_probabilities == pytest.approx(
        predictions_from_logits(logits, torch.tensor([3, 4])).target_probabilities, abs=1e-6
    )
    assert found.classes == tuple(logits.argmax(1).tolist())
    assert found.target_ranks[0] == logits[0].argsort(descending=True).tolist().index(3) + 1


def test_noise_has_the_wanted_l2_whatever_the_rounding_and_depends_on_the_seed() -> None:
    clean = torch.stack([read_image("coffee")[:, :64, :64], torch.full((3, 64, 64), 255, dtype=torch.uint8)])
    wanted = torch.tensor([0.3, 4.0], dtype=torch.float64)
    made = norm_matched_noise(clean, wanted, 0)
    assert l2_distances(made, clean).tolist() == pytest.approx(wanted.tolist(), rel=0.02)
    assert torch.equal(made, norm_matched_noise(clean, wanted, 0))
    assert not torch.equal(made, norm_matched_noise(clean, wanted, 1))


@pytest.mark.slow
def test_the_whole_finding_is_numbers_and_its_success_is_the_bytes() -> None:
    net = little(0)
    finding = fool(
        net, ["chelsea", "coffee"], "random:3", victims={"other": little(1), "small": little(2, side=24)}, seed=4
    )
    assert json.loads(json.dumps(finding.metrics, allow_nan=False)) == finding.metrics
    images = finding.metrics["images"]
    assert len(images) == 6
    assert [one["image"] for one in images] == ["chelsea"] * 3 + ["coffee"] * 3
    with torch.no_grad():
        shares = net(finding.arrays["fooling"] / 255).double().softmax(1)
        before = net(finding.arrays["clean"] / 255).argmax(1)
    for number, one in enumerate(images):
        target = one["target"]["index"]
        assert target != int(before[number])
        assert one["fooled"] == (int(shares[number].argmax()) == target)
        assert one["after"]["target_probability"] == pytest.approx(float(shares[number, target]), abs=1e-6)
        change = finding.arrays["difference"][number].double()
        assert one["l2"] == pytest.approx(float(change.norm()) / 255)
        assert one["linf_levels"] == int(change.abs().max())
        assert set(one["networks"]) == {"other", "small"}
    assert all(one["fooled"] for one in images)
    conditions = finding.metrics["transfer"]["conditions"]
    assert list(conditions) == ["clean", "noise", "fooling"]
    assert conditions["noise"]["l2"] == pytest.approx(conditions["fooling"]["l2"], rel=0.02)
    assert conditions["clean"]["l2"] == 0
    assert len(finding.panels) == 3
    assert "drawn: the first 3 of 6" in finding.summary[1]


@pytest.mark.slow
def test_the_attack_for_transfer_is_compared_with_plain_pgd_to_the_same_l2() -> None:
    finding = fool(
        little(0),
        "chelsea",
        "3,4",
        victims={"other": little(1)},
        surrogates={"second": little(2, 24)},
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
    against = {(test["first"], test["second"]) for test in finding.metrics["transfer"]["tests"]}
    assert against == {("fooling", "noise"), ("fooling", "plain_same_l2"), ("fooling", "plain_first_success")}


def test_noise_depends_on_the_seed_and_has_the_networks_size() -> None:
    once, again, other = (fool(little(0), "noise", "random", seed=seed).arrays["clean"] for seed in (0, 0, 1))
    assert once.shape == (1, 3, 32, 32)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert 100 < float(once.float().mean()) < 155


def test_a_budget_too_small_is_reported_and_nothing_is_claimed() -> None:
    finding = fool(little(0), "chelsea", "random", budget="linf=1/255", max_steps=2, step_size=1e-4)
    assert not finding.metrics["images"][0]["fooled"]
    assert "not classified as" in finding.summary[0]
    assert "not fooled in 2 steps within linf=1/255: chelsea" in str(finding)


def test_a_confidence_that_is_not_reached_is_reported() -> None:
    finding = fool(little(0), "chelsea", "random", confidence=0.999999, max_steps=12)
    assert finding.metrics["images"][0]["fooled"]
    assert (
        "warning: fooled, but below the requested confidence (99.9999 % on all surrogates) in 12 steps: chelsea"
        in str(finding)
    )


def test_targets_are_drawn_for_each_image_and_never_the_predicted_class() -> None:
    drawn = [random_targets(10, 3, 4, 0, number) for number in range(200)]
    assert all(len(set(some)) == 3 and 4 not in some for some in drawn)
    assert {label for some in drawn for label in some} == set(range(10)) - {4}
    assert len(set(drawn)) > 50


def test_gray_networks_are_fooled_too_and_the_file_gives_their_bytes_back() -> None:
    net = little(0, channels=1)
    finding = fool(net, "coffee", "random")
    image = finding.arrays["fooling"][0]
    assert image.shape == (1, 32, 32)
    assert torch.equal(png_round_trip(image), image)
    assert torch.equal((255 * net.preprocess(png_round_trip(image))[0]).round().to(torch.uint8), image)


def test_the_difference_is_drawn_around_gray_with_the_gain_it_states() -> None:
    clean = torch.full((3, 10, 10), 100, dtype=torch.uint8)
    changed = clean.clone()
    changed[:, :5], changed[:, 5:8] = 105, 98
    shown, gain = magnified_difference(clean, changed)
    assert gain == 25
    assert (shown[:, 0, 0].tolist(), shown[:, 6, 0].tolist(), shown[:, 9, 0].tolist()) == (
        [253] * 3,
        [78] * 3,
        [128] * 3,
    )
    assert magnified_difference(clean, clean)[0].unique().tolist() == [128]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"target": "nobody"}, "has no class 'nobody'"),
        ({"target": ""}, "no target is named"),
        ({"target": "random,a"}, "random is among other targets"),
        ({"target": "random:0"}, "0 random targets"),
        ({"target": "random:10"}, "10 random targets"),
        ({"target": "a,11"}, "there is no class 11"),
        ({"surrogates": {"x": little(1)}}, "only used in an attack for transfer"),
        (
            {"for_transfer": True, "surrogates": {"x": little(1)}, "victims": {"x": little(1)}},
            "x is both a surrogate and a victim",
        ),
        ({"budget": "l5=1"}, "unknown budget 'l5=1'"),
    ],
)
def test_what_cannot_be_is_refused(how: dict, said: str) -> None:
    with pytest.raises(LabError, match=said) as refused:
        fool(little(0), "chelsea", **({"target": "random"} | how))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", ["victims", "surrogates"])
def test_networks_of_other_classes_are_refused(part: str) -> None:
    other = little(1)
    other.classes = tuple("klmnopqrst")
    with pytest.raises(LabError, match=r"stranger has different classes \(10: k, l, m, ...\)"):
        fool(little(0), "chelsea", "random", for_transfer=True, **{part: {"stranger": other}})


def test_a_target_that_an_image_is_classified_as_already_is_refused() -> None:
    clean = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(LabError, match="second is already classified as c: choose another target"):
        make_attack_targets(little(0), ("first", "second"), clean, (2,), [1, 2], 0)
    aims = make_attack_targets(little(0), ("first", "second"), clean, (5, 6), [1, 2], 0)
    assert isinstance(aims, AttackTargets)
    assert (aims.image_names, aims.targets.tolist()) == (("first", "first", "second", "second"), [5, 6, 5, 6])


def test_a_network_that_diverged_is_refused() -> None:
    net = little(0)
    net.network[3].weight.data[:] = math.nan
    with pytest.raises(LabError, match="not finite"):
        fool(net, "chelsea", "a")


def test_the_matrix_is_made_of_the_images_it_was_given() -> None:
    clean = torch.stack([read_image("coffee")[:, :32, :32]] * 2)
    kinds: dict[str, tuple[str, Tensor]] = {
        "clean": ("clean", clean),
        "noise": ("noise", clean),
        "fooling": ("black", torch.zeros_like(clean)),
    }
    found = transfer_matrix({"one": little(0), "two": little(1)}, kinds, torch.tensor([1, 2]))
    assert found.networks == ("one", "two")
    assert found.row("noise").predictions == found.row("clean").predictions
    assert found.row("fooling").mean_l2 == pytest.approx(float(clean.double().flatten(1).norm(dim=1).mean()) / 255)
    assert Proportion.from_hits(found.untargeted_success("noise", "one")).hits == 0


@pytest.mark.slow
def test_two_threads_may_fool_one_network_at_the_same_time() -> None:
    net, victim = little(0), little(1)
    before = state(net), state(victim)

    def fooling(target: int) -> Tensor:
        return fool(net, "chelsea", target, victims={"other": victim}).arrays["fooling"]

    targets = [label for label in range(10) if net.classes[label] != predicted_class(net)]
    alone = [fooling(target) for target in targets]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(fooling, targets))
    assert same(alone, together)
    assert same(before, (state(net), state(victim)))


def predicted_class(net: ImageClassifier) -> str:
    return fool(net, "chelsea", "random").metrics["images"][0]["before"]["class"]
