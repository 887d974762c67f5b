"""Localization: a network that sees one color, on large images where that color is at known positions."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support.small_nets import flat_net, wrapped
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.inspection.localization.alignment import ALIGNMENT_KINDS
from convolab.inspection.localization.dense import make_fully_convolutional
from convolab.inspection.localization.detection import MAX_BOXES, MAX_CANVAS_PIXELS
from convolab.inspection.localization.input_scale import MAX_INPUT_PIXELS, InputScale, parse_scales
from convolab.inspection.localization.locate import locate
from convolab.inspection.localization.response import run_at_scale
from convolab.models.classifier import ImageClassifier
from convolab.models.pretrained import pretrained
from convolab.models.registry import build


class Red(nn.Module):
    """Class 0 is redness, class 1 blueness, in cells of 4 x 4 pixels, nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 2, 4, stride=4)
        self.linear = nn.Linear(2, 10)
        self.look.weight.data = torch.tensor([[1.0, -1, -1], [-1, -1, 1]]).view(2, 3, 1, 1).expand(2, 3, 4, 4) / 16
        self.look.bias.data = torch.zeros(2)
        self.linear.weight.data = torch.zeros(10, 2)
        self.linear.weight.data[0, 0] = self.linear.weight.data[1, 1] = 40.0
        self.linear.bias.data = torch.full((10,), -0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(self.look(x)).mean((2, 3)))


@pytest.fixture
def red() -> ImageClassifier:
    classes = ("red", "blue", *"cdefghij")
    return ImageClassifier(Red(), mean=(0.0,) * 3, std=(1.0,) * 3, input_size=(32, 32), classes=classes).eval()


def scene() -> Tensor:
    photo = torch.full((3, 120, 200), 90, dtype=torch.uint8)
    photo[:, 40:80, 100:160] = torch.tensor([250, 10, 10], dtype=torch.uint8).view(3, 1, 1)
    photo[:, 8:24, 12:36] = torch.tensor([160, 10, 10], dtype=torch.uint8).view(3, 1, 1)
    photo[:, 100:116, 160:200] = torch.tensor([10, 10, 250], dtype=torch.uint8).view(3, 1, 1)
    return photo


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALIGNMENT_KINDS)
def test_objects_are_boxed_where_they_are_and_classes_apart(red: ImageClassifier, kind: str) -> None:
    found = locate(red, scene(), targets=["red", "blue"], alignment=kind, threshold=0.5).metrics["classes"]
    boxes = {label: [detection["box"] for detection in found[label]["detections"]] for label in ("red", "blue")}
    assert len(boxes["red"]) == 2
    assert boxes["red"][0] == pytest.approx([100, 40, 160, 80], abs=3)
    assert boxes["red"][1] == pytest.approx([12, 8, 36, 24], abs=3)
    assert len(boxes["blue"]) == 1
    assert boxes["blue"][0] == pytest.approx([160, 100, 200, 116], abs=3)


def test_confidence_is_the_probability_that_the_head_gives_to_the_boxs_cells_alone(red: ImageClassifier) -> None:
    detections = locate(red, scene(), targets=["red"], alignment="rf-center", threshold=0.5).metrics["classes"]["red"][
        "detections"
    ]
    response = (250 - 10 - 10) / 255 * 40
    expected = float(torch.tensor([response - 0.5] + [-0.5] * 9).softmax(0)[0])
    assert detections[0]["confidence"] == pytest.approx(expected, rel=1e-3)
    assert detections[0]["peak"] == pytest.approx(response, rel=1e-4)
    assert all(0 < detection["confidence"] <= 1 for detection in detections)


def test_at_several_scales_boxes_are_still_in_the_original_pixels(red: ImageClassifier) -> None:
    finding = locate(red, scene(), targets=["red"], scales="0.5,1,240px", alignment="rf-center", threshold=0.5)
    assert finding.metrics["classes"]["red"]["detections"][0]["box"] == pytest.approx([100, 40, 160, 80], abs=5)
    assert finding.metrics["scales"]["240px"]["size"] == [240, 400]
    assert {"response red at 0.5", "response red at 1", "response red at 240px", "heatmap red", "image"} == set(
        finding.arrays
    )
    assert finding.arrays["heatmap red"].shape == (120, 200)
    assert finding.arrays["response red at 0.5"].shape == (15, 25)


@pytest.mark.slow
def test_an_image_larger_than_the_canvas_is_drawn_smaller_and_boxed_in_its_own_pixels(red: ImageClassifier) -> None:
    photo = scene().repeat_interleave(12, 1).repeat_interleave(12, 2)
    finding = locate(red, photo, targets=["red"], scales="120px", alignment="rf-center", threshold=0.5)
    height, width = finding.arrays["image"].shape[1:]
    assert height * width <= 1.01 * MAX_CANVAS_PIXELS
    assert finding.metrics["size"] == [1440, 2400]
    assert finding.metrics["classes"]["red"]["detections"][0]["box"] == pytest.approx([1200, 480, 1920, 960], abs=40)


def test_without_a_target_the_most_probable_classes_of_the_whole_image_are_found(red: ImageClassifier) -> None:
    assert list(locate(red, scene(), top=2).metrics["classes"]) == ["red", "blue"]


def test_the_mean_response_and_the_bias_are_the_reported_logit(red: ImageClassifier) -> None:
    found = locate(red, scene(), targets=["red"]).metrics["classes"]["red"]
    response = found["responses"]["1"]
    assert response["mean"] + response["bias"] == pytest.approx(found["logit"], abs=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (33, 50), (100, 40)])
def test_a_network_that_flattens_finds_by_windows(size: tuple[int, int]) -> None:
    net = wrapped(flat_net())
    photo = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    finding = locate(net, photo, targets=["c"], alignment="rf-center")
    assert finding.metrics["granularity"] == "window"
    response = finding.arrays["response c at 1"]
    with torch.no_grad():
        assert float(response[0, 0]) == pytest.approx(float(net(photo[None, :, :32, :32] / 255)[0, 2]), abs=1e-4)


def test_a_network_with_cells_can_respond_by_windows(red: ImageClassifier) -> None:
    finding = locate(red, scene(), targets=["red"], granularity="window", alignment="rf-center")
    assert finding.arrays["response red at 1"].shape == (23, 43)
    assert "windows of 32 x 32" in str(finding)


def test_a_response_without_information_is_named_and_has_no_box(red: ImageClassifier) -> None:
    finding = locate(red, scene(), targets=["j"])
    assert finding.warnings == ("the response for j is constant: it carries no information",)
    assert finding.metrics["classes"]["j"]["detections"] == []
    assert "not found" in str(finding)


@pytest.mark.slow
def test_numbers_are_json_and_arrays_are_raw_on_disk(red: ImageClassifier, tmp_path) -> None:
    finding = locate(red, scene(), targets=["red"], sliding_window_check=True)
    assert json.loads(json.dumps(finding.metrics, allow_nan=False)) == finding.metrics
    with np.load(finding.save_arrays(tmp_path / "maps")) as stored:
        assert np.array_equal(stored["heatmap red"], finding.arrays["heatmap red"].numpy())


def test_the_sliding_window_check_finds_no_difference_without_padding(red: ImageClassifier) -> None:
    checked = locate(red, scene(), targets=["red"], sliding_window_check=True)
    sliding = checked.metrics["sliding_window_check"]["1"]
    assert sliding["num_windows"] == 23 * 43
    assert sliding["max_abs_difference"] < 1e-4
    assert sliding["top1_agreement"] == 1
    assert "989 windows cropped and classified one by one" in str(checked)


@pytest.mark.slow
def test_the_sliding_window_check_measures_what_padding_does() -> None:
    net = wrapped(build("simple_convnet", (3, 32, 32), 10))
    photo = torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    sliding = locate(net, photo, targets=["c"], sliding_window_check=True).metrics["sliding_window_check"]["1"]
    assert sliding["num_windows"] == 5 * 7
    assert sliding["mean_abs_difference"] > 1e-4
    assert sliding["logit_std"] > 0


def test_the_network_is_left_as_it_was(red: ImageClassifier) -> None:
    red.train()
    before = {name: tensor.clone() for name, tensor in red.state_dict().items()}
    flags = [p.requires_grad for p in red.parameters()]
    locate(red, scene(), targets=["red"], sliding_window_check=True)
    assert red.training
    assert flags == [p.requires_grad for p in red.parameters()]
    assert all(torch.equal(before[name], tensor) for name, tensor in red.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in red.modules())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": ["zebra"]}, "has no class 'zebra'"),
        ({"scales": "0"}, "'0' is not a scale"),
        ({"scales": "fast"}, "'fast' is not a scale"),
        ({"scales": "0px"}, "'0px' is not a scale"),
        ({"scales": "nan"}, "'nan' is not a scale"),
        ({"scales": "inf"}, "'inf' is not a scale"),
        ({"scales": "100"}, f"more than {MAX_INPUT_PIXELS:,}: give a smaller scale"),
        ({"threshold": 0.0}, "the threshold is 0"),
        ({"alignment": "effective"}, "alignment 'effective' is now called 'erf'"),
        ({"granularity": "cells"}, "granularity 'cells' is now called 'cell'"),
        ({"top": 0}, "the top 0 classes"),
    ],
)
def test_a_wrong_argument_is_one_line(red: ImageClassifier, arguments: dict, message: str) -> None:
    with pytest.raises(LabError, match=message) as error:
        locate(red, scene(), **arguments)
    assert "\n" not in str(error.value)


def test_an_image_too_small_for_a_window_is_refused() -> None:
    with pytest.raises(LabError, match="give an image of at least 32 x 32"):
        locate(wrapped(flat_net()), torch.zeros(3, 20, 64, dtype=torch.uint8))


def test_a_network_without_a_feature_map_is_refused_with_what_it_would_need() -> None:
    with pytest.raises(LabError, match="no feature map, because it has no convolution"):
        locate(wrapped(build("shallow_net", (3, 32, 32), 10)), scene())


def test_of_a_thousand_boxes_the_strongest_fifty_are_kept_and_all_are_counted(red: ImageClassifier) -> None:
    drawn = torch.randint(0, 256, (3, 80, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    photo = drawn.repeat_interleave(8, 1).repeat_interleave(8, 2)
    found = locate(red, photo, targets=["red"], threshold=0.3, alignment="rf-center").metrics["classes"]["red"]
    assert found["num_boxes"] > MAX_BOXES
    assert len(found["detections"]) == MAX_BOXES
    peaks = [detection["peak"] for detection in found["detections"]]
    assert peaks == sorted(peaks, reverse=True)


def test_a_result_does_not_depend_on_what_was_run_before(red: ImageClassifier) -> None:
    fcn = make_fully_convolutional(red)
    one, two = (run_at_scale(fcn, scene(), scale, "cell") for scale in parse_scales("1,120px"))
    assert torch.equal(one.features, two.features)
    assert InputScale(shorter_side=120).scaled_size((120, 200)) == (120, 200)


@pytest.mark.slow
def test_broccoli_and_oranges_are_distinguished_in_one_photo(photos) -> None:
    finding = locate(
        pretrained("efficientnet_lite0"),
        photos / "boxes" / "000000000009.jpg",
        targets=["broccoli", "orange"],
        scales="448px",
        alignment="resize",
    )
    strongest = {label: found["detections"][0] for label, found in finding.metrics["classes"].items()}
    row, column = strongest["broccoli"]["row"], strongest["broccoli"]["column"]
    assert 229 <= row <= 474
    assert 250 <= column <= 566
    row, column = strongest["orange"]["row"], strongest["orange"]["column"]
    assert 0 <= row <= 144
    assert 364 <= column <= 524


@pytest.mark.slow
def test_two_threads_may_locate_with_one_network_at_the_same_time(red: ImageClassifier) -> None:
    red.train()
    images = [scene(), scene().flip(2)]
    alone = [locate(red, image, targets=["red"], alignment="rf-center") for image in images]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            together = list(pool.map(lambda image: locate(red, image, targets=["red"], alignment="rf-center"), images))
            assert [finding.metrics for finding in together] == [finding.metrics for finding in alone]
    assert red.training
    assert all(parameter.requires_grad for parameter in red.parameters())


def test_numbers_are_kept_under_the_fields_names(red: ImageClassifier) -> None:
    metrics = locate(red, scene(), targets=["red"]).metrics
    assert set(metrics) == {"image", "size", "granularity", "alignment", "threshold", "scales", "classes"}
    assert set(metrics["scales"]["1"]["erf_offset"]) == {"mean", "std", "reference", "rms_radius"}
    found = metrics["classes"]["red"]
    assert set(found) == {
        "index",
        "logit",
        "probability",
        "num_boxes",
        "detections",
        "responses",
        "invalid_reason",
    }
    assert set(found["detections"][0]) == {"box", "confidence", "peak", "row", "column"}
