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
from convolab.data.dataset import ImageSet
from convolab.inspection.localization.evaluation import (
    CONTROLS,
    OVERLAPS,
    THRESHOLDS,
    TOLERANCE,
    Item,
    Scene,
    Score,
    Target,
    boxed_scenes,
    chosen,
    energy_inside,
    overlaps,
    points_at,
    said,
    score,
)
from convolab.inspection.localization.input_scale import Scale
from convolab.inspection.localization.synthetic import CANVAS, GROUNDS, pasted_scenes, right_ones
from convolab.models.classifier import PixelNet
from convolab.models.pretrained import pretrained
from convolab.models.zoo import build

ONE = Scale(1.0)


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
    assert points_at(spot(row, column), [(20, 20, 50, 51)]) is hit
    assert TOLERANCE == 15


def test_a_small_picture_has_a_small_tolerance() -> None:
    assert points_at(spot(50, 53), [(20, 20, 50, 51)], 5.0)
    assert not points_at(spot(50, 56), [(20, 20, 50, 51)], 5.0)


@pytest.mark.parametrize("heat", [torch.zeros(9, 9), torch.full((9, 9), 5.0), torch.full((9, 9), float("nan"))])
def test_a_map_that_says_nothing_misses_though_its_first_pixel_lies_in_the_box(heat: Tensor) -> None:
    assert not points_at(heat, [(0, 0, 9, 9)])
    assert energy_inside(heat, [(0, 0, 9, 9)]) == 0
    assert set(overlaps(heat, [(0, 0, 9, 9)])) == {0}


def test_energy_is_the_share_of_positive_values_inside_and_overlapping_boxes_count_once() -> None:
    heat = torch.full((10, 10), -1.0)
    heat[:, :4] = 2.0
    assert energy_inside(heat, [(0, 0, 2, 10)]) == pytest.approx(0.5)
    assert energy_inside(heat, [(0, 0, 2, 10), (1, 0, 2, 10)]) == pytest.approx(0.5)
    assert energy_inside(heat, [(0, 0, 9, 10)]) == pytest.approx(1)


def test_overlap_is_of_the_strongest_region_with_the_best_of_the_boxes_at_every_threshold() -> None:
    heat = torch.zeros(40, 40)
    heat[0:10, 0:10], heat[0:20, 20:40] = 1.0, 0.55
    found = dict(zip(THRESHOLDS, overlaps(heat, [(0, 0, 10, 10), (20, 0, 40, 20)]), strict=True))
    assert found[0.6] == 1
    assert overlaps(heat, [(20, 0, 40, 20)])[THRESHOLDS.index(0.3)] == 0


def item(scene: str, hits: dict[str, bool], fits: tuple[float, ...] = (0.5,) * 9, label: str = "x") -> Item:
    names = (*hits, *(c for c in CONTROLS if c not in hits))
    return Item(
        scene, label, {n: hits.get(n, False) for n in names}, dict.fromkeys(names, 0.3), dict.fromkeys(names, fits)
    )


def test_thresholds_are_chosen_on_the_other_half() -> None:
    low, high = (1.0,) + (0.0,) * 8, (0.0,) * 8 + (0.4,)
    items = tuple(item(str(n), {"effective": True}, low if n % 2 == 0 else high) for n in range(6))
    found = Score("x", ("effective", *CONTROLS), items)
    assert found.thresholds("effective") == (0.9, 0.1)
    assert found.held_out("effective") == [0.0] * 6
    assert chosen(items[:1], "effective") == 0.1
    assert chosen((), "effective") == 0.5


def test_things_of_one_picture_are_in_one_half() -> None:
    items = tuple(item(name, {"effective": True}) for name in "aabbccdd")
    first, second = Score("x", ("effective", *CONTROLS), items).halves
    assert {i.scene for i in first} == {"a", "c"}
    assert {i.scene for i in second} == {"b", "d"}


def test_every_kind_counts_alike_in_the_mean_over_classes() -> None:
    items = (
        *(item(str(n), {"effective": True}, label="many") for n in range(9)),
        item("z", {"effective": False}, label="one"),
    )
    found = Score("x", ("effective", *CONTROLS), items)
    assert found.pointing("effective")[0] == 9
    assert found.mean_over_classes("effective").mean == 0.5
    assert found.pointing("effective")[1] == pytest.approx(tuple(binomtest(9, 10).proportion_ci(method="wilson")))


def test_a_difference_that_is_there_is_seen_and_one_that_is_not_is_not_claimed() -> None:
    items = tuple(item(str(n), {"effective": n < 36, "stretched": n < 35, "geometric": n < 10}) for n in range(40))
    found = Score("x", ("effective", "geometric", "stretched", *CONTROLS), items)
    by_pair = {(c.first, c.second): c for c in found.comparisons if c.measure == "pointing"}
    assert by_pair["effective", "geometric"].p < 0.001
    assert by_pair["effective", "geometric"].better == "effective"
    assert by_pair["effective", "stretched"].p == 1
    assert by_pair["effective", "stretched"].alone == (1, 0)
    words = " ".join(said(found))
    assert "effective over geometric" in words
    assert "none between effective and stretched" in words


def test_p_values_are_corrected_for_their_number() -> None:
    items = tuple(item(str(n), {"effective": n < 7, "stretched": False, "geometric": True}) for n in range(7))
    found = Score("x", ("effective", "geometric", "stretched", *CONTROLS), items)
    raw = 2 * 0.5**7  # four of the six comparisons
    assert {round(c.p, 9) for c in found.comparisons if c.measure == "pointing"} == {
        round(min(1, k), 9) for k in (1.0, 6 * raw)
    }


def test_energy_and_overlap_are_compared_in_pairs_and_by_holm() -> None:
    drawn = torch.rand(30, generator=torch.Generator().manual_seed(0)).tolist()
    items = []
    for number, noise in enumerate(drawn):
        one = item(str(number), {"effective": True, "stretched": True})
        energy = one.energy | {"effective": 0.5 + 0.1 * noise, "stretched": 0.45 + 0.1 * noise + 0.01 * (number % 3)}
        items.append(replace(one, energy=energy))
    found = Score("x", ("effective", "stretched", *CONTROLS), tuple(items))
    compared = [c for c in found.comparisons if c.measure == "energy"]
    values = {name: [i.energy[name] for i in items] for name in ("effective", "stretched", "centre")}
    raw = [ttest_rel(values[c.first], values[c.second]).pvalue for c in compared]
    assert [c.p for c in compared] == pytest.approx(multipletests(raw, method="holm")[1].tolist(), rel=1e-6)
    assert compared[0].better == "effective"
    assert compared[0].difference == pytest.approx(0.04, abs=1e-6)
    assert [c.p for c in found.comparisons if c.measure == "overlap"] == [1.0] * 3


def disc_net() -> PixelNet:
    return wrapped(trained(build("simple_convnet", (3, 32, 32), 10)))


def scenes(count: int = 3) -> list[Scene]:
    def photo(n: int) -> Tensor:
        return torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))

    return [
        Scene(
            str(n),
            lambda n=n: photo(n),
            (Target("a", (0, 1), ((5, 5, 30, 30),)), Target("b", (2,), ((40, 10, 80, 60),))),
        )
        for n in range(count)
    ]


def test_a_score_has_every_map_and_is_the_same_again_and_json() -> None:
    found, again, other = (score(disc_net(), scenes(), [ONE], seed=seed) for seed in (0, 0, 1))
    assert len(found.items) == 6
    assert found.values() == again.values()
    assert found.items[0].energy["random"] != other.items[0].energy["random"]
    assert found.items[0].energy["effective"] == other.items[0].energy["effective"]
    values = json.loads(json.dumps(found.values(), allow_nan=False))
    assert set(values["maps"]) == {"effective", "geometric", "stretched", *CONTROLS}
    assert set(values["maps"]["edges"]["boxes"]) == set(map(str, OVERLAPS))


def test_scales_together_are_their_mean_where_they_lie() -> None:
    both = score(disc_net(), scenes(1), [ONE, Scale(2.0)])
    assert both.setting == "scale 1 + 2"
    assert both.items[0].energy["effective"] != score(disc_net(), scenes(1), [ONE]).items[0].energy["effective"]


def test_nothing_to_score_on_is_one_line() -> None:
    with pytest.raises(LabError, match="no picture to score on"):
        score(disc_net(), [], [ONE])


def colour_net() -> PixelNet:
    """A network that tells colours apart."""
    layers = (
        nn.Conv2d(3, 24, 1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10, bias=False),
    )
    return wrapped(filled(nn.Sequential(*layers)))


def colours(count: int = 60) -> ImageSet:
    """Pictures of one colour each, about which `colour_net` is right in two of three."""
    drawn = torch.Generator().manual_seed(2)
    ground = torch.randint(0, 200, (count, 3, 1, 1), generator=drawn)
    images = (ground + torch.randint(0, 56, (count, 3, 32, 32), generator=drawn)).to(torch.uint8)
    with torch.no_grad():
        labels = colour_net()(images / 255).argmax(1)
    labels[::3] = (labels[::3] + 1) % 10
    return ImageSet(images, labels, tuple("abcdefghij"), "colours")


def test_pasted_things_are_those_the_network_knows_at_the_places_that_are_told() -> None:
    net, pictures = colour_net(), colours()
    right = right_ones(net, pictures, 0)
    assert len(right) == 40
    made = pasted_scenes(net, pictures, "plain", 16, 10)
    for scene in made:
        photo, ground = scene.photo(), (255 * torch.tensor(net.mean)).round().to(torch.uint8).view(3, 1, 1)
        assert photo.shape == (3, CANVAS * 32, CANVAS * 32)
        outside = torch.ones(photo.shape[1:], dtype=torch.bool)
        for target in scene.targets:
            left, top, right_, bottom = target.boxes[0]
            assert (right_ - left, bottom - top) == (16, 16)
            outside[top:bottom, left:right_] = False
        assert int((~outside).sum()) == 2 * 16 * 16
        assert bool(((photo == ground).all(0) == outside)[outside].all())
        assert scene.targets[0].label != scene.targets[1].label
        assert scene.tolerance == pytest.approx(0.03 * CANVAS * 32)


def test_the_same_things_lie_at_the_same_places_whatever_the_ground_and_their_size() -> None:
    net, pictures = colour_net(), colours()
    small, large = (
        [s.targets for s in pasted_scenes(net, pictures, ground, side, 8)]
        for ground, side in zip(GROUNDS, (16, 16), strict=True)
    )
    assert small == large
    other = pasted_scenes(net, pictures, "plain", 16, 8, seed=1)
    assert [s.targets for s in other] != small
    textured = pasted_scenes(net, pictures, "textured", 96, 8)[0]
    assert torch.equal(textured.photo(), textured.photo())
    assert all(0 <= x <= CANVAS * 32 for t in textured.targets for x in t.boxes[0])


def test_a_texture_has_the_networks_colours_and_varies() -> None:
    net = colour_net()
    photo = pasted_scenes(net, colours(), "textured", 8, 2)[0].photo().float() / 255
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
        pasted_scenes(colour_net(), colours(), "plain", side, count)


def test_another_sets_things_are_refused() -> None:
    pictures = colours()
    with pytest.raises(LabError, match="score it on its own set"):
        pasted_scenes(
            colour_net(), ImageSet(pictures.images, pictures.labels, tuple("ABCDEFGHIJ"), "others"), "plain", 16, 4
        )


def test_the_photos_things_are_imagenets_classes_and_lite0_points_at_most_of_them(photos) -> None:
    net = pretrained("efficientnet_lite0")
    all_scenes = boxed_scenes(str(photos / "boxes"), net)
    assert sum(len(s.targets) for s in all_scenes) == 65
    assert {t.label: t.classes for s in all_scenes for t in s.targets}["cat"] == (281, 282, 283, 284, 285)
    found = score(net, all_scenes[:20], [Scale(shorter=320)], kinds=("stretched",))
    assert found.pointing("stretched")[0] > max(found.pointing(c)[0] for c in CONTROLS) + 3
