"""The summary, the metrics and the arrays of an explanation."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support.small_nets import FailsAtPass, capture_state, classifier_of, is_equal, randomize_batch_norms
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.inspection.explain.explain import explain_prediction
from convolab.inspection.explain.methods import METHODS
from convolab.models.classifier import ImageClassifier
from convolab.models.pretrained import pretrained
from convolab.models.registry import build

ALL_METHODS = tuple(m for m in METHODS if m != "guided")


@pytest.fixture
def photo(pixels: Tensor) -> Tensor:
    return (255 * pixels[0]).to(torch.uint8)


@pytest.mark.slow
def test_a_cat_is_explained_with_every_method_and_its_checks() -> None:
    finding = explain_prediction(
        pretrained("efficientnet_lite0"), "chelsea", target="Egyptian cat", methods="cam,gradient"
    )
    assert finding.metrics["target"]["index"] == 285
    assert 0 < finding.metrics["target"]["probability"] < 1
    assert finding.metrics["methods"]["cam"]["checks"]["sum_error"] < 1e-4
    assert finding.arrays["cam"].shape == (7, 7)
    assert finding.arrays["gradient"].shape == (224, 224)
    assert finding.summary[0].startswith("chelsea: ")
    assert "CAM: the map's mean and the bias" in str(finding)


def test_without_a_target_the_most_probable_class_is_explained(convnet: ImageClassifier, photo: Tensor) -> None:
    finding = explain_prediction(convnet, photo, methods="gradient")
    with torch.no_grad():
        assert finding.metrics["target"]["index"] == int(convnet(convnet.preprocess(photo)).argmax())
    assert finding.metrics["top"][0]["class"] == finding.metrics["target"]["class"]


@pytest.mark.slow
def test_metrics_are_json_and_arrays_are_saved_unchanged(convnet: ImageClassifier, photo: Tensor, tmp_path) -> None:
    finding = explain_prediction(convnet, photo, methods=ALL_METHODS, target="c")
    assert json.loads(json.dumps(finding.metrics, allow_nan=False)) == finding.metrics
    with np.load(finding.save_arrays(tmp_path / "maps.npz")) as stored:
        assert {"pixels", *ALL_METHODS} <= set(stored)
        assert np.array_equal(stored["integrated_gradients"], finding.arrays["integrated_gradients"].numpy())
        assert stored["integrated_gradients"].min() < 0


@pytest.mark.slow
def test_at_most_four_panels_are_in_a_row_and_coarse_maps_are_called_raw_and_smooth(convnet, photo: Tensor) -> None:
    finding = explain_prediction(convnet, photo, methods=ALL_METHODS, target="c")
    assert [len(row) for row in finding.panels] == [4, 4, 3, 3]
    panels = {panel.title: panel for row in finding.panels for panel in row}
    rows, columns = finding.arrays["cam"].shape
    assert panels["CAM"].caption.startswith(f"raw: {columns} x {rows} cells")
    assert panels["CAM, overlaid"].caption == "smooth: interpolated between the cells"
    assert panels["Gradient"].caption == panels["Gradient, overlaid"].caption == ""


@pytest.mark.slow
def test_the_same_seed_gives_the_same_maps(convnet: ImageClassifier, photo: Tensor) -> None:
    first, repeated, other = (
        explain_prediction(convnet, photo, methods="smoothgrad", target="a", seed=s).arrays["smoothgrad"]
        for s in (0, 0, 1)
    )
    assert torch.equal(first, repeated)
    assert not torch.equal(first, other)


@pytest.mark.slow
def test_a_map_without_information_gives_a_warning_and_is_not_checked(photo: Tensor) -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return (self.conv(x) * 0).mean((2, 3)) @ torch.ones(4, 10)

    finding = explain_prediction(classifier_of(Constant()), photo, methods="gradient,occlusion", check=True)
    assert finding.warnings == (
        "the gradient map is constant: it carries no information",
        "the occlusion map is constant: it carries no information",
    )
    assert finding.metrics["sanity"] == {}
    assert finding.metrics["methods"]["gradient"]["invalid_reason"] == "constant"


class InfiniteGradient(nn.Module):
    """Finite logits with an infinite gradient: that of a square root at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x).relu() * 0).sqrt().mean((2, 3)) + torch.arange(10.0)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad"])
def test_a_map_that_is_not_finite_is_refused(photo: Tensor, method: str) -> None:
    with pytest.raises(LabError, match=f"the {method} map of cat is not finite"):
        explain_prediction(classifier_of(InfiniteGradient()), photo, methods=method, check=True, image_name="cat")


def test_a_network_with_nonfinite_logits_is_refused(photo: Tensor) -> None:
    class Diverged(InfiniteGradient):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * float("nan")

    with pytest.raises(LabError, match="logits for cat are not all finite numbers"):
        explain_prediction(classifier_of(Diverged()), photo, image_name="cat")


@pytest.mark.slow
def test_a_check_does_not_change_the_network_even_if_a_forward_pass_fails(photo: Tensor) -> None:
    failing_network = FailsAtPass(build("simple_convnet", (3, 32, 32), 10))
    net = classifier_of(failing_network).train()
    for at in (1, 2, 3, 5, 9, 14):  # a pass of the view or of a randomized copy of it
        failing_network.fail_at = at
        before = capture_state(net)
        with pytest.raises(RuntimeError, match="the pass broke"):
            explain_prediction(net, photo, methods="gradient,gradcam", check=True)
        assert is_equal(before, capture_state(net))


@pytest.mark.slow
def test_a_check_adds_its_metrics_and_its_description(convnet: ImageClassifier, photo: Tensor) -> None:
    steps = []
    finding = explain_prediction(convnet, photo, methods="gradcam", target="a", check=True, on_progress=steps.append)
    assert set(finding.metrics["sanity"]["gradcam"]) == {"method", "randomization", "deletion", "insertion"}
    assert sum("gradcam:" in line for line in finding.summary) == 3
    assert any("randomizing the weights" in step for step in steps)
    assert json.dumps(finding.metrics, allow_nan=False)


@pytest.mark.slow
def test_samples_until_the_map_no_longer_changes_are_stated_and_taken_by_the_checks_too(
    convnet: ImageClassifier, photo: Tensor
) -> None:
    finding = explain_prediction(
        convnet, photo, methods="integrated_gradients,smoothgrad,gradient", target="a", samples="auto"
    )
    found = {name: values["settings"] for name, values in finding.metrics["methods"].items()}
    assert "samples" not in found["gradient"]
    for name, key in (("integrated_gradients", "steps"), ("smoothgrad", "samples")):
        (line,) = [line for line in finding.summary if f"{found[name][key]:,} {key}" in line]
        assert "rank correlation" in line
    checked = explain_prediction(convnet, photo, methods="smoothgrad", target="a", samples=2, check=True)
    assert checked.metrics["methods"]["smoothgrad"]["settings"]["samples"] == 2
    assert "2 samples" in " ".join(checked.summary)
    assert ": more of them would still change the map" in " ".join(checked.summary)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "zebra"}, "has no class 'zebra'"),
        ({"methods": "grad"}, "unknown method 'grad'"),
        ({"samples": 0}, "0 samples of integrated_gradients: give a whole number from 1 to 2,000, or auto"),
        ({"samples": "many"}, "many samples of integrated_gradients: give a whole number"),
        ({"samples": "2.5"}, "2.5 samples of integrated_gradients: give a whole number"),
        ({"samples": 3000, "methods": "smoothgrad,integrated_gradients"}, "from 1 to 2,000, or auto"),
        ({"samples": 10, "methods": "gradient"}, "smoothgrad and integrated_gradients take samples: none of them is"),
    ],
)
def test_unknown_names_are_refused_before_any_work(
    convnet: ImageClassifier, photo: Tensor, arguments: dict, message: str
) -> None:
    with pytest.raises(LabError, match=message):
        explain_prediction(convnet, photo, **arguments)


def test_the_old_name_of_integrated_gradients_is_accepted_with_a_hint(convnet: ImageClassifier, photo: Tensor) -> None:
    with pytest.warns(FutureWarning, match="the method integrated is now called integrated_gradients"):
        finding = explain_prediction(convnet, photo, methods="integrated")
    assert list(finding.metrics["methods"]) == ["integrated_gradients"]


@pytest.mark.long
def test_two_threads_can_explain_one_network_at_the_same_time(photo: Tensor) -> None:
    net = classifier_of(randomize_batch_norms(build("resnet_small", (3, 32, 32), 10)))
    before = capture_state(net)
    images = [photo, photo.flip(2), 255 - photo, photo.flip(1)]

    def maps(image: Tensor) -> dict[str, Tensor]:
        return dict(
            explain_prediction(net, image, methods="smoothgrad,integrated_gradients,cam,gradcam", target="c").arrays
        )

    sequential = [maps(image) for image in images]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(maps, images))
    assert is_equal(sequential, together)
    assert is_equal(before, capture_state(net))


def test_a_network_that_cannot_be_copied_is_explained_too(photo: Tensor) -> None:
    net = classifier_of(randomize_batch_norms(build("simple_convnet", (3, 32, 32), 10)))
    expected = explain_prediction(net, photo, methods="gradcam").arrays["gradcam"]
    net.lock = threading.Lock()
    before = capture_state(net)
    assert torch.equal(explain_prediction(net, photo, methods="gradcam").arrays["gradcam"], expected)
    assert is_equal(before, capture_state(net))
