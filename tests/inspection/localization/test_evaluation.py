"""Localization evaluated on small networks, and on photos with boxes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_nets import classifier_of, flatten_net, randomize_batch_norms, red_and_blue_net
from torch import Tensor

from convolab.core.errors import LabError
from convolab.inspection.localization.dense import FullyConvolutional, make_fully_convolutional
from convolab.inspection.localization.evaluation import baseline_maps, evaluate_localization
from convolab.inspection.localization.input_scale import InputScale
from convolab.inspection.localization.metrics import IOU_LEVELS
from convolab.inspection.localization.response import run_at_scale
from convolab.inspection.localization.samples import (
    EvaluationSample,
    EvaluationSetting,
    ObjectAnnotation,
    annotated_samples,
)
from convolab.inspection.localization.score import BASELINES
from convolab.models.pretrained import pretrained
from convolab.models.registry import build


@pytest.fixture
def fcn() -> FullyConvolutional:
    return make_fully_convolutional(classifier_of(randomize_batch_norms(build("simple_convnet", (3, 32, 32), 10))))


def setting(count: int = 3, scales: tuple[InputScale, ...] = (InputScale(),)) -> EvaluationSetting:
    def noise(n: int) -> Tensor:
        return torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))

    annotations = (
        ObjectAnnotation("a", (0, 1), ((5, 5, 30, 30),)),
        ObjectAnnotation("b", (2,), ((40, 10, 80, 60),)),
    )
    samples = tuple(EvaluationSample(str(n), lambda n=n: noise(n), annotations) for n in range(count))
    return EvaluationSetting("noise", samples, scales)


@pytest.mark.slow
def test_a_score_has_every_map_is_reproducible_and_is_json(fcn: FullyConvolutional) -> None:
    first, repeated, other = (evaluate_localization(fcn, setting(), seed=seed) for seed in (0, 0, 1))
    assert len(first.records) == 6
    assert first.to_dict() == repeated.to_dict()
    assert first.records[0].energy_fractions["random"] != other.records[0].energy_fractions["random"]
    assert first.records[0].energy_fractions["erf"] == other.records[0].energy_fractions["erf"]
    values = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert set(values["maps"]) == {"erf", "rf-center", "resize", *BASELINES}
    assert set(values["maps"]["edges"]["box_accuracy"]) == set(map(str, IOU_LEVELS))


@pytest.mark.slow
def test_several_scales_give_another_map_than_one(fcn: FullyConvolutional) -> None:
    two_scales = evaluate_localization(fcn, setting(1, (InputScale(), InputScale(2.0))))
    one_scale = evaluate_localization(fcn, setting(1))
    assert two_scales.records[0].energy_fractions["erf"] != one_scale.records[0].energy_fractions["erf"]


def test_a_setting_without_images_gives_a_one_line_error(fcn: FullyConvolutional) -> None:
    with pytest.raises(LabError, match="no image to evaluate on"):
        evaluate_localization(fcn, setting(0))


@pytest.mark.long
def test_the_objects_in_the_photos_are_imagenet_classes_and_lite0_hits_most_of_them(photos: Path) -> None:
    net = pretrained("efficientnet_lite0")
    samples = annotated_samples(photos / "boxes", net)
    assert sum(len(sample.annotations) for sample in samples) == 65
    classes = {annotation.label: annotation.classes for sample in samples for annotation in sample.annotations}
    assert classes["cat"] == (281, 282, 283, 284, 285)
    photo_setting = EvaluationSetting("20 photos", samples[:20], (InputScale(shorter_side=320),))
    score = evaluate_localization(make_fully_convolutional(net), photo_setting, alignments=("resize",))
    assert score.pointing_game("resize")[0] > max(score.pointing_game(name)[0] for name in BASELINES) + 3


def test_single_cells_of_a_network_that_flattens_are_refused_before_an_image_is_read() -> None:
    def read() -> Tensor:
        raise AssertionError("an image was read")

    unread = EvaluationSetting("unread", (EvaluationSample("a", read, ()),))
    with pytest.raises(LabError, match="a single cell has no score: choose the granularity window"):
        evaluate_localization(make_fully_convolutional(classifier_of(flatten_net())), unread, granularity="cell")


def test_of_several_classes_of_an_object_the_one_that_the_network_finds_most_probable_is_looked_for() -> None:
    image = torch.full((3, 64, 80), 90, dtype=torch.uint8)
    for color, place in (
        ((250, 10, 10), (slice(8, 24), slice(8, 24))),
        ((10, 10, 250), (slice(40, 56), slice(48, 72))),
    ):
        image[:, *place] = torch.tensor(color, dtype=torch.uint8).view(3, 1, 1)  # more of it is blue
    for classes in ((0, 1), (1, 0)):  # red and blue
        both = ObjectAnnotation("red or blue", classes, ((48, 40, 72, 56),))
        sample = EvaluationSample("two colors", lambda: image, (both,), tolerance=1.0)
        found = evaluate_localization(
            make_fully_convolutional(red_and_blue_net()), EvaluationSetting("x", (sample,)), alignments=("rf-center",)
        )
        [record] = found.records
        assert record.pointing_hits["rf-center"]
        assert record.energy_fractions["rf-center"] > 0.8
        assert not record.pointing_hits["center"]


def test_the_map_of_the_center_falls_to_all_four_borders_alike(fcn: FullyConvolutional) -> None:
    image = torch.zeros(3, 33, 65, dtype=torch.uint8)
    center = baseline_maps(run_at_scale(fcn, image, InputScale(), "cell"), image, 0, "a", "b")["center"]
    rows, columns = np.mgrid[:33, :65]
    to_border = np.minimum(np.minimum(rows, 32 - rows) / 16, np.minimum(columns, 64 - columns) / 32)
    assert np.allclose(center.numpy(), to_border, atol=1e-6)
