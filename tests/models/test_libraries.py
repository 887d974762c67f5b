"""Networks of timm and torchvision as a recipe names them: built for the data, their options checked."""

import pytest
import torch

from convolab.core.errors import LabError
from convolab.models.libraries import check_library_options
from convolab.models.registry import build, resolve_options
from convolab.models.weights import read_torchvision_weights

NAMES = ["timm/resnet18", "torchvision/resnet18", "timm/vit_tiny_patch16_224", "efficientnet_lite0"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 32, 48), (3, 64, 64)])
def test_a_network_of_a_library_is_built_for_the_channels_the_size_and_the_classes(name: str, shape: tuple) -> None:
    network = build(name, shape, 7).eval()
    assert network(torch.rand(2, *shape)).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_initial_weights_of_a_librarys_network_are_a_function_of_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build(name, (3, 32, 32), 7, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again, other = (build(name, (3, 32, 32), 7, seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.slow
def test_the_initial_weights_are_those_that_the_library_draws() -> None:
    weight = build("timm/resnet18", (3, 32, 32), 7).layer1[0].conv1.weight
    assert float(weight.detach().std()) == pytest.approx(
        (2 / (64 * 9)) ** 0.5, rel=0.02
    )  # He, fan out: not torch's default


@pytest.mark.slow
def test_a_first_convolution_of_torchvision_keeps_its_weights_for_grey_images() -> None:
    grey, color = (build("torchvision/resnet18", (c, 32, 32), 7).conv1 for c in (1, 3))
    assert grey.in_channels == 1
    assert torch.equal(grey.weight, color.weight[:, :1])
    with pytest.raises(LabError, match="takes images of 3 channels, and these have 4"):
        build("torchvision/resnet18", (4, 32, 32), 7)


@pytest.mark.slow
def test_options_go_to_the_librarys_class_and_only_the_given_ones_are_kept() -> None:
    assert resolve_options("timm/resnet18", {}) == {}
    assert resolve_options("timm/resnet18", {"drop_rate": 1}) == {"drop_rate": 1.0}
    assert build("timm/resnet18", (3, 32, 32), 7, drop_rate=0.25).drop_rate == 0.25
    assert resolve_options("torchvision/resnet18", {"zero_init_residual": True}) == {"zero_init_residual": True}
    network = build("torchvision/resnet18", (3, 32, 32), 7, zero_init_residual=True)
    assert network.layer1[0].bn2.weight.abs().sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm/resnet18", {"droprate": 0.1}, "no option 'droprate': did you mean 'drop_rate'"),
        ("timm/resnet18", {"drop_rate": "much"}, "model.drop_rate = 'much'"),
        ("timm/resnet18", {"num_classes": 3}, "no option 'num_classes'"),
        ("timm/resnet18", {"pretrained": True}, "no option 'pretrained'"),
        ("torchvision/resnet18", {"progress": True}, "no option 'progress'"),
        ("torchvision/resnet18", {"zero_init_residual": 3}, "model.zero_init_residual = 3"),
        ("timm/resnet81", {}, "timm has no network 'resnet81': did you mean"),
        ("torchvision/resnet81", {}, "torchvision has no network 'resnet81': did you mean"),
    ],
)
def test_an_unknown_network_or_option_of_a_library_is_refused_in_one_line(
    name: str, options: dict, message: str
) -> None:
    with pytest.raises(LabError) as caught:
        check_library_options(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_error_of_a_librarys_class_about_an_option_is_one_line() -> None:
    with pytest.raises(LabError, match="'timm/resnet18' cannot be built: AttributeError") as caught:
        build("timm/resnet18", (3, 32, 32), 7, block="basic")
    assert "\n" not in str(caught.value)


def test_what_a_download_of_torchvisions_weights_says_is_no_part_of_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision.models import SqueezeNet1_1_Weights

    def downloads(self: object, **options: object) -> dict[str, torch.Tensor]:
        print("Downloading: elsewhere")
        return {"a": torch.ones(1)}

    monkeypatch.setattr(SqueezeNet1_1_Weights, "get_state_dict", downloads)
    assert read_torchvision_weights("torchvision/squeezenet1_1").tensors.keys() == {"a"}
    assert capsys.readouterr() == ("", "Downloading: elsewhere\n")
