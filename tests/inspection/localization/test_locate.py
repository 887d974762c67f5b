"""Localization: a network for two colors, on large images with these colors at known positions."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support.small_nets import classifier_of, flatten_net, red_and_blue_net
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.inspection.explain.explain import explain_prediction
from convolab.inspection.localization.alignment import ALIGNMENT_KINDS
from convolab.inspection.localization.dense import make_fully_convolutional
from convolab.inspection.localization.detection import MAX_BOXES, MAX_CANVAS_PIXELS, detect_class, make_canvas
from convolab.inspection.localization.input_scale import MAX_INPUT_PIXELS, InputScale, parse_scales
from convolab.inspection.localization.locate import locate_objects
from convolab.inspection.localization.response import run_at_scale
from convolab.models.classifier import ImageClassifier
from convolab.models.pretrained import pretrained
from convolab.models.registry import build


@pytest.fixture
def red_blue_net() -> ImageClassifier:
    return red_and_blue_net()


def red_blue_image() -> Tensor:
    photo = torch.full((3, 120, 200), 90, dtype=torch.uint8)
    photo[:, 40:80, 100:160] = torch.tensor([250, 10, 10], dtype=torch.uint8).view(3, 1, 1)
    photo[:, 8:24, 12:36] = torch.tensor([160, 10, 10], dtype=torch.uint8).view(3, 1, 1)
    photo[:, 100:116, 160:200] = torch.tensor([10, 10, 250], dtype=torch.uint8).view(3, 1, 1)
    return photo


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALIGNMENT_KINDS)
def test_objects_have_boxes_at_their_positions_for_each_class(red_blue_net: ImageClassifier, kind: str) -> None:
    results = locate_objects(
        red_blue_net, red_blue_image(), targets=["red", "blue"], alignment=kind, threshold=0.5
    ).metrics["classes"]
    boxes = {label: [detection["box"] for detection in results[label]["detections"]] for label in ("red", "blue")}
    assert len(boxes["red"]) == 2
    assert boxes["red"][0] == pytest.approx([100, 40, 160, 80], abs=3)
    assert boxes["red"][1] == pytest.approx([12, 8, 36, 24], abs=3)
    assert len(boxes["blue"]) == 1
    assert boxes["blue"][0] == pytest.approx([160, 100, 200, 116], abs=3)


def test_the_confidence_of_a_box_is_the_probability_computed_from_its_cells_only(red_blue_net: ImageClassifier) -> None:
    detections = locate_objects(
        red_blue_net, red_blue_image(), targets=["red"], alignment="rf-center", threshold=0.5
    ).metrics["classes"]["red"]["detections"]
    response = (250 - 10 - 10) / 255 * 40
    expected = float(torch.tensor([response - 0.5] + [-0.5] * 9).softmax(0)[0])
    assert detections[0]["confidence"] == pytest.approx(expected, rel=1e-3)
    assert detections[0]["peak"] == pytest.approx(response, rel=1e-4)
    assert all(0 < detection["confidence"] <= 1 for detection in detections)


@pytest.fixture
def unsure_net() -> ImageClassifier:
    """The same with other biases and smaller weights, so that no probability is near 1."""
    net = red_and_blue_net()
    net.network.linear.weight.data *= 0.05
    net.network.linear.bias.data = torch.linspace(-1, 1, 10)
    return net


def test_the_confidence_of_a_box_is_of_the_mean_of_its_cells_and_the_biases(unsure_net: ImageClassifier) -> None:
    result = run_at_scale(make_fully_convolutional(unsure_net), red_blue_image(), InputScale(), "cell")
    for box, red_part in (((100, 40, 160, 80), 1.0), ((80, 40, 120, 80), 0.5)):
        logits = torch.linspace(-1, 1, 10)
        logits[0] += red_part * 2 * (250 - 10 - 10) / 255
        confidence = result.box_confidence(0, "rf-center", box, (120, 200))
        assert confidence == pytest.approx(float(logits.softmax(0)[0]), rel=1e-4)


def test_the_confidence_of_a_box_in_windows_is_that_of_the_surest_window_centered_in_it(
    unsure_net: ImageClassifier,
) -> None:
    photo, (left, top, right, bottom) = red_blue_image(), (90, 30, 170, 90)
    windows = [
        photo[:, row : row + 32, column : column + 32]
        for row in range(0, 120 - 31, 4)
        for column in range(0, 200 - 31, 4)
        if top <= row + 15.5 <= bottom - 1 and left <= column + 15.5 <= right - 1
    ]
    with torch.no_grad():
        probabilities = unsure_net(torch.stack(windows) / 255).softmax(1)[:, 0]
    assert float(probabilities.max() - probabilities.mean()) > 0.01
    result = run_at_scale(make_fully_convolutional(unsure_net), photo, InputScale(), "window")
    confidence = result.box_confidence(0, "rf-center", (left, top, right, bottom), (120, 200))
    assert confidence == pytest.approx(float(probabilities.max()), rel=1e-4)


def test_the_confidence_of_a_box_is_that_of_the_surest_scale(unsure_net: ImageClassifier) -> None:
    fcn, photo = make_fully_convolutional(unsure_net), red_blue_image()
    results = [run_at_scale(fcn, photo, scale, "cell") for scale in parse_scales("0.25,1")]
    for ordered in (results, results[::-1]):
        found = detect_class(ordered, make_canvas(photo), 0, "rf-center", 0.5)
        assert found.detections
        for detection in found.detections:
            each = [result.box_confidence(0, "rf-center", detection.box, (120, 200)) for result in results]
            assert abs(each[0] - each[1]) > 1e-3
            assert detection.confidence == max(each)


def test_boxes_are_in_the_original_pixels_at_all_scales(red_blue_net: ImageClassifier) -> None:
    finding = locate_objects(
        red_blue_net, red_blue_image(), targets=["red"], scales="0.5,1,240px", alignment="rf-center", threshold=0.5
    )
    assert finding.metrics["classes"]["red"]["detections"][0]["box"] == pytest.approx([100, 40, 160, 80], abs=5)
    assert finding.metrics["scales"]["240px"]["size"] == [240, 400]
    assert {"response red at 0.5", "response red at 1", "response red at 240px", "heatmap red", "image"} == set(
        finding.arrays
    )
    assert finding.arrays["heatmap red"].shape == (120, 200)
    assert finding.arrays["response red at 0.5"].shape == (15, 25)


@pytest.mark.slow
def test_an_image_larger_than_the_canvas_is_shrunk_but_its_boxes_are_in_its_own_pixels(
    red_blue_net: ImageClassifier,
) -> None:
    photo = red_blue_image().repeat_interleave(12, 1).repeat_interleave(12, 2)
    finding = locate_objects(red_blue_net, photo, targets=["red"], scales="120px", alignment="rf-center", threshold=0.5)
    height, width = finding.arrays["image"].shape[1:]
    assert height * width <= 1.01 * MAX_CANVAS_PIXELS
    assert finding.metrics["size"] == [1440, 2400]
    assert finding.metrics["classes"]["red"]["detections"][0]["box"] == pytest.approx([1200, 480, 1920, 960], abs=40)


@pytest.mark.slow
def test_the_figure_says_what_percentages_are_and_how_large_cells_are_in_both_scales(
    red_blue_net: ImageClassifier,
) -> None:
    (row,) = locate_objects(red_blue_net, red_blue_image(), targets=["red"], scales="0.5").panels
    found, response, raw = row
    assert found.boxes[0].label.endswith("% on this box alone")
    assert "percentage: the probability of red when the head averages only the cells in the box" in found.caption
    assert "smooth: interpolated between the cells" in response.caption
    assert raw.caption == "raw: 25 x 15 cells, each 4 x 4 px of what the network saw (100 x 60), 8 x 8 px of the image"


@pytest.mark.slow
def test_without_a_target_the_most_probable_classes_of_the_image_are_located(red_blue_net: ImageClassifier) -> None:
    assert list(locate_objects(red_blue_net, red_blue_image(), top=2).metrics["classes"]) == ["red", "blue"]


def test_the_mean_response_plus_the_bias_is_the_reported_logit(red_blue_net: ImageClassifier) -> None:
    result = locate_objects(red_blue_net, red_blue_image(), targets=["red"]).metrics["classes"]["red"]
    response = result["responses"]["1"]
    assert response["mean"] + response["bias"] == pytest.approx(result["logit"], abs=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (33, 50), (100, 40)])
def test_a_network_that_flattens_is_evaluated_in_windows(size: tuple[int, int]) -> None:
    net = classifier_of(flatten_net())
    photo = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    finding = locate_objects(net, photo, targets=["c"], alignment="rf-center")
    assert finding.metrics["granularity"] == "window"
    response = finding.arrays["response c at 1"]
    with torch.no_grad():
        assert float(response[0, 0]) == pytest.approx(float(net(photo[None, :, :32, :32] / 255)[0, 2]), abs=1e-4)


def test_a_network_with_cells_can_be_evaluated_in_windows_too(red_blue_net: ImageClassifier) -> None:
    finding = locate_objects(
        red_blue_net, red_blue_image(), targets=["red"], granularity="window", alignment="rf-center"
    )
    assert finding.arrays["response red at 1"].shape == (23, 43)
    assert "windows of 32 x 32" in str(finding)


def test_a_response_without_information_gives_a_warning_and_no_box(red_blue_net: ImageClassifier) -> None:
    finding = locate_objects(red_blue_net, red_blue_image(), targets=["j"])
    assert finding.warnings == ("the response for j is constant: it carries no information",)
    assert finding.metrics["classes"]["j"]["detections"] == []
    assert "not found: its response is constant, which says nothing of where" in str(finding)


@pytest.mark.slow
def test_metrics_are_json_and_arrays_are_saved_unchanged(red_blue_net: ImageClassifier, tmp_path) -> None:
    finding = locate_objects(red_blue_net, red_blue_image(), targets=["red"], sliding_window_check=True)
    assert json.loads(json.dumps(finding.metrics, allow_nan=False)) == finding.metrics
    with np.load(finding.save_arrays(tmp_path / "maps")) as stored:
        assert np.array_equal(stored["heatmap red"], finding.arrays["heatmap red"].numpy())


@pytest.mark.slow
def test_the_sliding_window_check_finds_no_difference_without_padding(red_blue_net: ImageClassifier) -> None:
    finding = locate_objects(red_blue_net, red_blue_image(), targets=["red"], sliding_window_check=True)
    check = finding.metrics["sliding_window_check"]["1"]
    assert check["num_windows"] == 23 * 43
    assert check["max_abs_difference"] < 1e-4
    assert check["top1_agreement"] == 1
    assert "989 windows cropped and classified one by one" in str(finding)


@pytest.mark.slow
def test_the_sliding_window_check_measures_what_padding_does() -> None:
    net = classifier_of(build("simple_convnet", (3, 32, 32), 10))
    photo = torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    check = locate_objects(net, photo, targets=["c"], sliding_window_check=True).metrics["sliding_window_check"]["1"]
    fcn, pixels = make_fully_convolutional(net), photo[None] / 255
    corners = [(top, left) for top in range(0, 33, 8) for left in range(0, 49, 8)]
    with torch.no_grad():
        cropped = torch.cat([net(pixels[..., top : top + 32, left : left + 32]) for top, left in corners])
        dense = fcn.window_logits(fcn.forward_features(pixels))[0].flatten(1).T  # [windows, classes]
    difference = (dense - cropped).abs()
    assert check["num_windows"] == len(corners) == 5 * 7
    assert check["mean_abs_difference"] == pytest.approx(float(difference.mean()), rel=1e-3)
    assert check["max_abs_difference"] == pytest.approx(float(difference.max()), rel=1e-3)
    assert check["logit_std"] == pytest.approx(float(cropped.std()), rel=1e-3)
    assert check["top1_agreement"] == pytest.approx(float((dense.argmax(1) == cropped.argmax(1)).double().mean()))
    assert float(difference.mean()) > 1e-4


@pytest.mark.slow
def test_the_network_is_not_changed(red_blue_net: ImageClassifier) -> None:
    red_blue_net.train()
    before = {name: tensor.clone() for name, tensor in red_blue_net.state_dict().items()}
    flags = [p.requires_grad for p in red_blue_net.parameters()]
    locate_objects(red_blue_net, red_blue_image(), targets=["red"], sliding_window_check=True)
    assert red_blue_net.training
    assert flags == [p.requires_grad for p in red_blue_net.parameters()]
    assert all(torch.equal(before[name], tensor) for name, tensor in red_blue_net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in red_blue_net.modules())


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
def test_a_wrong_argument_gives_a_one_line_error(red_blue_net: ImageClassifier, arguments: dict, message: str) -> None:
    with pytest.raises(LabError, match=message) as error:
        locate_objects(red_blue_net, red_blue_image(), **arguments)
    assert "\n" not in str(error.value)


def test_single_cells_of_a_network_that_flattens_are_refused_before_the_image_is_seen() -> None:
    lines: list[str] = []
    with pytest.raises(LabError, match="a single cell has no score: choose the granularity window"):
        locate_objects(classifier_of(flatten_net()), "no_such_image.png", granularity="cell", on_progress=lines.append)
    assert lines == []


def test_an_image_too_small_for_a_window_is_refused() -> None:
    with pytest.raises(LabError, match="give an image of at least 32 x 32"):
        locate_objects(classifier_of(flatten_net()), torch.zeros(3, 20, 64, dtype=torch.uint8))


def test_a_network_without_a_feature_map_is_refused_with_the_reason() -> None:
    with pytest.raises(LabError, match="no feature map, because it has no convolution"):
        locate_objects(classifier_of(build("shallow_net", (3, 32, 32), 10)), red_blue_image())


@pytest.mark.slow
def test_at_most_fifty_boxes_are_kept_the_strongest_ones_but_all_are_counted(red_blue_net: ImageClassifier) -> None:
    pixels = torch.randint(0, 256, (3, 80, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    photo = pixels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    result = locate_objects(red_blue_net, photo, targets=["red"], threshold=0.3, alignment="rf-center").metrics[
        "classes"
    ]["red"]
    assert result["num_boxes"] > MAX_BOXES
    assert len(result["detections"]) == MAX_BOXES
    peaks = [detection["peak"] for detection in result["detections"]]
    assert peaks == sorted(peaks, reverse=True)


def test_a_result_does_not_depend_on_earlier_calls(red_blue_net: ImageClassifier) -> None:
    fcn = make_fully_convolutional(red_blue_net)
    one, two = (run_at_scale(fcn, red_blue_image(), scale, "cell") for scale in parse_scales("1,120px"))
    assert torch.equal(one.features, two.features)
    assert InputScale(shorter_side=120).scaled_size((120, 200)) == (120, 200)


@pytest.mark.slow
def test_broccoli_and_oranges_are_distinguished_in_one_photo(photos) -> None:
    finding = locate_objects(
        pretrained("efficientnet_lite0"),
        photos / "boxes" / "000000000009.jpg",
        targets=["broccoli", "orange"],
        scales="448px",
        alignment="resize",
    )
    strongest = {label: result["detections"][0] for label, result in finding.metrics["classes"].items()}
    row, column = strongest["broccoli"]["row"], strongest["broccoli"]["column"]
    assert 229 <= row <= 474
    assert 250 <= column <= 566
    row, column = strongest["orange"]["row"], strongest["orange"]["column"]
    assert 0 <= row <= 144
    assert 364 <= column <= 524


@pytest.mark.slow
def test_two_threads_can_locate_with_one_network_at_the_same_time(red_blue_net: ImageClassifier) -> None:
    red_blue_net.train()
    images = [red_blue_image(), red_blue_image().flip(2)]
    sequential = [locate_objects(red_blue_net, image, targets=["red"], alignment="rf-center") for image in images]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            together = list(
                pool.map(
                    lambda image: locate_objects(red_blue_net, image, targets=["red"], alignment="rf-center"), images
                )
            )
            assert [finding.metrics for finding in together] == [finding.metrics for finding in sequential]
    assert red_blue_net.training
    assert all(parameter.requires_grad for parameter in red_blue_net.parameters())


def test_the_keys_of_the_metrics(red_blue_net: ImageClassifier) -> None:
    metrics = locate_objects(red_blue_net, red_blue_image(), targets=["red"]).metrics
    assert set(metrics) == {"image", "size", "granularity", "alignment", "threshold", "scales", "classes"}
    assert set(metrics["scales"]["1"]["erf_offset"]) == {"mean", "std", "reference", "rms_radius"}
    result = metrics["classes"]["red"]
    assert set(result) == {
        "index",
        "logit",
        "probability",
        "num_boxes",
        "detections",
        "responses",
        "invalid_reason",
    }
    assert set(result["detections"][0]) == {"box", "confidence", "peak", "row", "column"}


@pytest.mark.parametrize(
    "scale", ["1e308", "9" * 400, "9" * 400 + "px", "1001", "6001px", "1e-308", "0.001", "-1", "px"]
)
def test_a_scale_out_of_range_is_refused_before_work(convnet: ImageClassifier, scale: str) -> None:
    with pytest.raises(LabError, match=r"is not a scale|give a larger scale") as caught:
        locate_objects(convnet, torch.zeros(3, 40, 40, dtype=torch.uint8), scales=scale)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("size", [(1, 500), (60000, 1), (1, 1), (7, 40)])
def test_an_image_too_thin_to_show_anything_is_refused(convnet: ImageClassifier, size: tuple[int, int]) -> None:
    with pytest.raises(LabError, match="of at least 8 pixels a side"):
        locate_objects(convnet, torch.zeros(3, *size, dtype=torch.uint8))


@pytest.mark.slow
def test_a_box_that_covers_nearly_the_image_and_a_network_at_chance_are_warned_of(convnet: ImageClassifier) -> None:
    convnet.caution = "this network hardly beats chance"
    image = torch.randint(0, 256, (3, 48, 48), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = (locate_objects(convnet, image, targets=[c], alignment="resize", threshold=1e-6) for c in range(10))
    warnings = [finding.warnings for finding in found]
    assert all(lines[0] == "this network hardly beats chance" for lines in warnings)
    assert any("% of the image: it hardly says where the object is" in lines[-1] for lines in warnings)


def test_a_head_that_is_linear_on_noise_and_not_on_the_image_is_refused() -> None:
    class Clipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.head(self.conv(x).relu().mean((2, 3)))
            if float(x.detach().mean()) < -1:  # dark images
                z[:, 0] = 5.0
            return z

    net = classifier_of(Clipped())
    dark = torch.zeros(3, 32, 32, dtype=torch.uint8)
    dark[:, 8:16, 8:16] = 60
    with pytest.raises(LabError, match="on this image this network computes something else"):
        locate_objects(net, dark, alignment="resize")
    with pytest.raises(LabError, match="on this image this network computes something else"):
        explain_prediction(net, dark, methods="cam")
