"""Scores: of maps that are known to be right or wrong."""

import json
from dataclasses import replace

import pytest
import torch
from scipy.stats import binomtest, ttest_rel
from statsmodels.stats.multitest import multipletests
from support.small_nets import filled, trained, wrapped
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.data.dataset import ImageDataset
from convolab.inspection.localization.evaluation import (
    BASELINES,
    BOX_THRESHOLDS,
    IOU_LEVELS,
    POINTING_TOLERANCE,
    EvaluationSample,
    LocalizationScore,
    ObjectAnnotation,
    ScoreRecord,
    annotated_samples,
    best_threshold,
    describe_score,
    energy_pointing_game,
    evaluate_localization,
    ious_by_threshold,
    pointing_game_hit,
)
from convolab.inspection.localization.input_scale import InputScale
from convolab.inspection.localization.synthetic import (
    BACKGROUNDS,
    CANVAS_SCALE,
    correctly_classified,
    synthetic_samples,
)
from convolab.models.classifier import ImageClassifier
from convolab.models.pretrained import pretrained
from convolab.models.registry import build

ONE = InputScale(1.0)


def spot(row: int, column: int) -> Tensor:
    heat = torch.zeros(100, 100)
    heat[row, column] = 1.0
    return heat


@pytest.mark.parametrize(
    ("row", "column", "hit"),
    [
        (30, 30, True),
        (20, 40, True),
        (50, 64, True),
        (50, 65, False),
        (60, 60, True),
        (62, 62, False),
        (15, 35, True),
        (4, 35, False),
    ],
)
def test_a_point_counts_in_the_box_or_within_15_pixels_of_it(row: int, column: int, hit: bool) -> None:
    assert pointing_game_hit(spot(row, column), [(20, 20, 50, 51)]) is hit
    assert POINTING_TOLERANCE == 15


def test_a_small_picture_has_a_small_tolerance() -> None:
    assert pointing_game_hit(spot(50, 53), [(20, 20, 50, 51)], 5.0)
    assert not pointing_game_hit(spot(50, 56), [(20, 20, 50, 51)], 5.0)


@pytest.mark.parametrize("heat", [torch.zeros(9, 9), torch.full((9, 9), 5.0), torch.full((9, 9), float("nan"))])
def test_a_map_that_says_nothing_misses_though_its_first_pixel_lies_in_the_box(heat: Tensor) -> None:
    assert not pointing_game_hit(heat, [(0, 0, 9, 9)])
    assert energy_pointing_game(heat, [(0, 0, 9, 9)]) == 0
    assert set(ious_by_threshold(heat, [(0, 0, 9, 9)])) == {0}


def test_energy_is_the_share_of_positive_values_inside_and_overlapping_boxes_count_once() -> None:
    heat = torch.full((10, 10), -1.0)
    heat[:, :4] = 2.0
    assert energy_pointing_game(heat, [(0, 0, 2, 10)]) == pytest.approx(0.5)
    assert energy_pointing_game(heat, [(0, 0, 2, 10), (1, 0, 2, 10)]) == pytest.approx(0.5)
    assert energy_pointing_game(heat, [(0, 0, 9, 10)]) == pytest.approx(1)


def test_overlap_is_of_the_strongest_region_with_the_best_of_the_boxes_at_every_threshold() -> None:
    heat = torch.zeros(40, 40)
    heat[0:10, 0:10], heat[0:20, 20:40] = 1.0, 0.55
    found = dict(zip(BOX_THRESHOLDS, ious_by_threshold(heat, [(0, 0, 10, 10), (20, 0, 40, 20)]), strict=True))
    assert found[0.6] == 1
    assert ious_by_threshold(heat, [(20, 0, 40, 20)])[BOX_THRESHOLDS.index(0.3)] == 0


def item(scene: str, hits: dict[str, bool], fits: tuple[float, ...] = (0.5,) * 9, label: str = "x") -> ScoreRecord:
    names = (*hits, *(c for c in BASELINES if c not in hits))
    return ScoreRecord(
        scene, label, {n: hits.get(n, False) for n in names}, dict.fromkeys(names, 0.3), dict.fromkeys(names, fits)
    )


def test_thresholds_are_chosen_on_the_other_half() -> None:
    low, high = (1.0,) + (0.0,) * 8, (0.0,) * 8 + (0.4,)
    items = tuple(item(str(n), {"effective": True}, low if n % 2 == 0 else high) for n in range(6))
    found = LocalizationScore("x", ("effective", *BASELINES), items)
    assert found.fold_thresholds("effective") == (0.9, 0.1)
    assert found.cross_fitted_ious("effective") == [0.0] * 6
    assert best_threshold(items[:1], "effective") == 0.1
    assert best_threshold((), "effective") == 0.5


def test_things_of_one_picture_are_in_one_half() -> None:
    items = tuple(item(name, {"effective": True}) for name in "aabbccdd")
    first, second = LocalizationScore("x", ("effective", *BASELINES), items).folds
    assert {i.sample for i in first} == {"a", "c"}
    assert {i.sample for i in second} == {"b", "d"}


def test_every_kind_counts_alike_in_the_mean_over_classes() -> None:
    items = (
        *(item(str(n), {"effective": True}, label="many") for n in range(9)),
        item("z", {"effective": False}, label="one"),
    )
    found = LocalizationScore("x", ("effective", *BASELINES), items)
    assert found.pointing_game("effective")[0] == 9
    assert found.pointing_game_macro_mean("effective").mean == 0.5
    assert found.pointing_game("effective")[1] == pytest.approx(tuple(binomtest(9, 10).proportion_ci(method="wilson")))


def test_a_difference_that_is_there_is_seen_and_one_that_is_not_is_not_claimed() -> None:
    items = tuple(item(str(n), {"effective": n < 36, "stretched": n < 35, "geometric": n < 10}) for n in range(40))
    found = LocalizationScore("x", ("effective", "geometric", "stretched", *BASELINES), items)
    by_pair = {(c.first, c.second): c for c in found.comparisons if c.metric == "pointing"}
    assert by_pair["effective", "geometric"].p_value < 0.001
    assert by_pair["effective", "geometric"].better == "effective"
    assert by_pair["effective", "stretched"].p_value == 1
    assert by_pair["effective", "stretched"].discordant_counts == (1, 0)
    words = " ".join(describe_score(found))
    assert "effective over geometric" in words
    assert "none between effective and stretched" in words


def test_p_values_are_corrected_for_their_number() -> None:
    items = tuple(item(str(n), {"effective": n < 7, "stretched": False, "geometric": True}) for n in range(7))
    found = LocalizationScore("x", ("effective", "geometric", "stretched", *BASELINES), items)
    raw = 2 * 0.5**7  # four of the six comparisons
    assert {round(c.p_value, 9) for c in found.comparisons if c.metric == "pointing"} == {
        round(min(1, k), 9) for k in (1.0, 6 * raw)
    }


def test_energy_and_overlap_are_compared_in_pairs_and_by_holm() -> None:
    drawn = torch.rand(30, generator=torch.Generator().manual_seed(0)).tolist()
    items = []
    for number, noise in enumerate(drawn):
        one = item(str(number), {"effective": True, "stretched": True})
        energy = one.energy_fractions | {
            "effective": 0.5 + 0.1 * noise,
            "stretched": 0.45 + 0.1 * noise + 0.01 * (number % 3),
        }
        items.append(replace(one, energy_fractions=energy))
    found = LocalizationScore("x", ("effective", "stretched", *BASELINES), tuple(items))
    compared = [c for c in found.comparisons if c.metric == "energy"]
    values = {name: [i.energy_fractions[name] for i in items] for name in ("effective", "stretched", "centre")}
    raw = [ttest_rel(values[c.first], values[c.second]).pvalue for c in compared]
    assert [c.p_value for c in compared] == pytest.approx(multipletests(raw, method="holm")[1].tolist(), rel=1e-6)
    assert compared[0].better == "effective"
    assert compared[0].difference == pytest.approx(0.04, abs=1e-6)
    assert [c.p_value for c in found.comparisons if c.metric == "overlap"] == [1.0] * 3


def disc_net() -> ImageClassifier:
    return wrapped(trained(build("simple_convnet", (3, 32, 32), 10)))


def scenes(count: int = 3) -> list[EvaluationSample]:
    def photo(n: int) -> Tensor:
        return torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))

    return [
        EvaluationSample(
            str(n),
            lambda n=n: photo(n),
            (ObjectAnnotation("a", (0, 1), ((5, 5, 30, 30),)), ObjectAnnotation("b", (2,), ((40, 10, 80, 60),))),
        )
        for n in range(count)
    ]


def test_a_score_has_every_map_and_is_the_same_again_and_json() -> None:
    found, again, other = (evaluate_localization(disc_net(), scenes(), [ONE], seed=seed) for seed in (0, 0, 1))
    assert len(found.records) == 6
    assert found.to_dict() == again.to_dict()
    assert found.records[0].energy_fractions["random"] != other.records[0].energy_fractions["random"]
    assert found.records[0].energy_fractions["effective"] == other.records[0].energy_fractions["effective"]
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(values["maps"]) == {"effective", "geometric", "stretched", *BASELINES}
    assert set(values["maps"]["edges"]["boxes"]) == set(map(str, IOU_LEVELS))


def test_scales_together_are_their_mean_where_they_lie() -> None:
    both = evaluate_localization(disc_net(), scenes(1), [ONE, InputScale(2.0)])
    assert both.setting == "scale 1 + 2"
    assert (
        both.records[0].energy_fractions["effective"]
        != evaluate_localization(disc_net(), scenes(1), [ONE]).records[0].energy_fractions["effective"]
    )


def test_nothing_to_score_on_is_one_line() -> None:
    with pytest.raises(LabError, match="no picture to score on"):
        evaluate_localization(disc_net(), [], [ONE])


def colour_net() -> ImageClassifier:
    """A network that tells colours apart."""
    layers = (
        nn.Conv2d(3, 24, 1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10, bias=False),
    )
    return wrapped(filled(nn.Sequential(*layers)))


def colours(count: int = 60) -> ImageDataset:
    """Pictures of one colour each, about which `colour_net` is right in two of three."""
    drawn = torch.Generator().manual_seed(2)
    ground = torch.randint(0, 200, (count, 3, 1, 1), generator=drawn)
    images = (ground + torch.randint(0, 56, (count, 3, 32, 32), generator=drawn)).to(torch.uint8)
    with torch.no_grad():
        labels = colour_net()(images / 255).argmax(1)
    labels[::3] = (labels[::3] + 1) % 10
    return ImageDataset(images, labels, tuple("abcdefghij"), "colours")


def test_pasted_things_are_those_the_network_knows_at_the_places_that_are_told() -> None:
    net, pictures = colour_net(), colours()
    right = correctly_classified(net, pictures, 0)
    assert len(right) == 40
    made = synthetic_samples(net, pictures, "plain", 16, 10)
    for scene in made:
        photo, ground = scene.open_image(), (255 * torch.tensor(net.mean)).round().to(torch.uint8).view(3, 1, 1)
        assert photo.shape == (3, CANVAS_SCALE * 32, CANVAS_SCALE * 32)
        outside = torch.ones(photo.shape[1:], dtype=torch.bool)
        for target in scene.annotations:
            left, top, right_, bottom = target.boxes[0]
            assert (right_ - left, bottom - top) == (16, 16)
            outside[top:bottom, left:right_] = False
        assert int((~outside).sum()) == 2 * 16 * 16
        assert bool(((photo == ground).all(0) == outside)[outside].all())
        assert scene.annotations[0].label != scene.annotations[1].label
        assert scene.tolerance == pytest.approx(0.03 * CANVAS_SCALE * 32)


def test_the_same_things_lie_at_the_same_places_whatever_the_ground_and_their_size() -> None:
    net, pictures = colour_net(), colours()
    small, large = (
        [s.annotations for s in synthetic_samples(net, pictures, ground, side, 8)]
        for ground, side in zip(BACKGROUNDS, (16, 16), strict=True)
    )
    assert small == large
    other = synthetic_samples(net, pictures, "plain", 16, 8, seed=1)
    assert [s.annotations for s in other] != small
    textured = synthetic_samples(net, pictures, "textured", 96, 8)[0]
    assert torch.equal(textured.open_image(), textured.open_image())
    assert all(0 <= x <= CANVAS_SCALE * 32 for t in textured.annotations for x in t.boxes[0])


def test_a_texture_has_the_networks_colours_and_varies() -> None:
    net = colour_net()
    photo = synthetic_samples(net, colours(), "textured", 8, 2)[0].open_image().float() / 255
    assert torch.allclose(photo.mean((1, 2)), torch.tensor(net.mean), atol=0.15)
    assert float(photo.std()) > 0.05


@pytest.mark.parametrize(
    ("side", "count", "said"),
    [
        (200, 10, "do not fit a half"),
        (0, 10, "do not fit"),
        (16, 1000, "right about too few"),
        (97, 4, "do not fit a half"),
    ],
)
def test_pasted_things_that_cannot_be_are_refused(side: int, count: int, said: str) -> None:
    with pytest.raises(LabError, match=said):
        synthetic_samples(colour_net(), colours(), "plain", side, count)


def test_another_sets_things_are_refused() -> None:
    pictures = colours()
    with pytest.raises(LabError, match="score it on its own set"):
        synthetic_samples(
            colour_net(), ImageDataset(pictures.images, pictures.labels, tuple("ABCDEFGHIJ"), "others"), "plain", 16, 4
        )


def test_the_photos_things_are_imagenets_classes_and_lite0_points_at_most_of_them(photos) -> None:
    net = pretrained("efficientnet_lite0")
    all_scenes = annotated_samples(str(photos / "boxes"), net)
    assert sum(len(s.annotations) for s in all_scenes) == 65
    assert {t.label: t.classes for s in all_scenes for t in s.annotations}["cat"] == (281, 282, 283, 284, 285)
    found = evaluate_localization(net, all_scenes[:20], [InputScale(shorter_side=320)], alignments=("stretched",))
    assert found.pointing_game("stretched")[0] > max(found.pointing_game(c)[0] for c in BASELINES) + 3
