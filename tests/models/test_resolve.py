"""Networks by name: from the registry, from timm and from torchvision."""

import builtins
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from convolab.core.errors import LabError
from convolab.models.registry import trust_named
from convolab.models.resolve import resolve_model


def build(name: str, *arguments: object) -> nn.Module:
    with torch.device("meta"):
        return resolve_model(name, *arguments).build()


def test_networks_of_the_registry_are_built_for_the_given_shape_and_classes() -> None:
    net = build("simple_convnet", (1, 28, 28), 7)
    assert (net.features[0].conv.in_channels, net.head.linear.out_features) == (1, 7)
    assert build("simple_convnet", (3, 32, 32)).head.linear.out_features == 10
    assert build("simple_convnet").features[0].conv.in_channels == 3
    assert resolve_model("simple_convnet").input_shape == (3, 32, 32)
    with pytest.raises(LabError, match="needs the shape of an image, such as 3x32x32"):
        build("simple_convnet", (3, 32))


def test_a_users_own_network_is_found_in_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\ndef Net(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], classes))\n"
    )
    trust_named(f"{file}:Net")
    assert build(f"{file}:Net", (1, 4, 5), 3)[1].in_features == 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("short", "side"), [("efficientnet_lite0", 224), ("efficientnet_lite1", 240), ("efficientnet_lite2", 260)]
)
def test_efficientnet_lites_are_defined_as_in_timm(short: str, side: int) -> None:
    spec = resolve_model(short)
    assert spec.input_shape == (3, side, side)
    with torch.device("meta"):
        ours, theirs = spec.build(), resolve_model(f"timm/tf_{short}").build()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.slow
def test_networks_of_libraries_accept_classes_and_channels() -> None:
    assert build("torchvision/resnet18", None, 7).fc.out_features == 7
    net = build("timm/resnet18", (1, 64, 64), 7)
    assert (net.conv1.in_channels, net.fc.out_features) == (1, 7)
    assert build("timm/resnet18.a1_in1k").fc.out_features == 1000
    assert resolve_model("torchvision/inception_v3").input_shape == (3, 299, 299)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("efficientnet_b1", 240),
        ("efficientnet_v2_m", 480),
        ("swin_v2_t", 256),
        ("quantized_inception_v3", 299),
        ("alexnet", 224),
        ("vit_h_14", 224),  # as it is built without weights, whose default ones are for 518 pixels
        ("fcn_resnet50", 224),  # whose weights are not for one size
    ],
)
def test_the_images_of_torchvisions_networks_are_as_large_as_their_default_weights_take(name: str, side: int) -> None:
    assert resolve_model(f"torchvision/{name}").input_shape == (3, side, side)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision/fcn_resnet50", "torchvision/inception_v3", "torchvision/googlenet"])
def test_nothing_is_downloaded_and_no_random_weights_are_drawn(name: str) -> None:
    state = torch.get_rng_state()
    assert all(p.is_meta for p in build(name).parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("simple_convet", "did you mean 'simple_convnet'"),
        ("efficientnet_lite9", "did you mean 'efficientnet_lite"),
        ("timm/resnet5O", "did you mean 'resnet50'"),
        ("torchvision/resnet5O", "did you mean 'resnet50'"),
        ("torchvision/zzz", "torchvision has no network 'zzz'"),
        ("keras/resnet50", "unknown network 'keras/resnet50'"),
        ("resnet50", "did you mean timm/resnet50 or torchvision/resnet50?"),
        ("alexnet", "did you mean torchvision/alexnet?"),
        ("timm/", "timm has no network ''"),
        ("nowhere.py:Net", "no file nowhere.py"),
    ],
)
def test_an_unknown_network_is_refused_with_the_nearest_known_one(name: str, message: str) -> None:
    with pytest.raises(LabError) as caught:
        build(name, (3, 32, 32))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_missing_library_is_named_in_the_error(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    original_import = builtins.__import__

    def import_without_library(name: str, *arguments: object, **options: object) -> object:
        if name.partition(".")[0] == library:
            raise ImportError(f"no {library}")
        return original_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", import_without_library)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(LabError, match=rf"pip install {library}"):
        resolve_model(f"{library}/resnet18")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm/xception", "timm/gluon_resnet18_v1b", "timm/efficientnet_b2a"])
def test_a_deprecated_name_of_timm_is_the_network_that_it_stands_for(name: str) -> None:
    spec = resolve_model(name)
    assert spec.input_shape is not None
    assert spec.input_shape[0] == 3
