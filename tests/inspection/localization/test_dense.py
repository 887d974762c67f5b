"""A classifier made dense: its windows and cells against the classifier itself."""

import pytest
import torch
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.inspection.localization.dense import make_fully_convolutional
from convolab.models.classifier import ImageClassifier
from convolab.models.pretrained import pretrained
from convolab.models.registry import build

MEAN, STD = (0.45, 0.5, 0.4), (0.25, 0.2, 0.3)


def wrapped(network: nn.Module, side: int = 32) -> ImageClassifier:
    """With weights such that logits depend strongly on the picture."""
    generator = torch.Generator().manual_seed(3)
    for tensor in (*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())):
        drawn = torch.rand(tensor.shape, generator=generator)
        tensor.data = drawn + 0.2 if tensor.ndim < 2 else (drawn - 0.5) * (12 / tensor[0].numel()) ** 0.5
    return ImageClassifier(network, mean=MEAN, std=STD, input_size=(side, side), classes=tuple("abcdefghij")).eval()


def unpadded(head: str) -> nn.Module:
    body = [nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 4, stride=2), nn.ReLU()]
    ends = {
        "average": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)],
        "flatten": [nn.Flatten(), nn.Linear(8 * 36, 10)],
    }
    return nn.Sequential(*body, *ends[head])


NETS = {
    "unpadded, average": lambda: wrapped(unpadded("average")),
    "unpadded, flatten": lambda: wrapped(unpadded("flatten")),
    "simple_convnet": lambda: wrapped(build("simple_convnet", (3, 32, 32), 10)),
    "simple_convnet, residual": lambda: wrapped(build("simple_convnet", (3, 32, 32), 10, residual=True)),
    "resnet_small": lambda: wrapped(build("resnet_small", (3, 32, 32), 10)),
}


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETS)
def test_on_a_picture_of_its_own_size_the_one_window_has_the_classifiers_logits(name: str) -> None:
    net = NETS[name]()
    everywhere = make_fully_convolutional(net)
    with torch.no_grad():
        windows = everywhere.window_logits(everywhere.forward_features(picture(32, 32)))
        assert windows.shape == (1, 10, 1, 1)
        assert torch.allclose(windows[..., 0, 0], net(picture(32, 32)), atol=1e-4)


@pytest.mark.parametrize("side", ["own", "larger"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_imagenet_networks_response_averages_to_its_logits(number: int, side: str) -> None:
    net = pretrained(f"efficientnet_lite{number}")
    everywhere = make_fully_convolutional(net)
    pixels = picture(*net.input_size) if side == "own" else picture(251, 330)
    with torch.no_grad():
        features, logits = everywhere.forward_features(pixels), net(pixels)
        mean = everywhere.cell_scores(features, range(1000)).mean((2, 3)) + everywhere.head.bias
        assert torch.allclose(mean, logits, atol=2e-4)
        if side == "own":
            assert torch.allclose(everywhere.window_logits(features)[..., 0, 0], logits, atol=2e-4)


@pytest.mark.parametrize("name", [name for name in NETS if "flatten" not in name])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (100, 64), (71, 71)])
def test_the_mean_response_and_the_bias_are_the_logit_on_every_size(name: str, size: tuple[int, int]) -> None:
    net = NETS[name]()
    everywhere = make_fully_convolutional(net)
    with torch.no_grad():
        cells = everywhere.cell_scores(everywhere.forward_features(picture(*size)), [3, 7])
        assert cells.shape[1] == 2
        mean = cells.mean((2, 3)) + everywhere.head.bias[[3, 7]]
        assert torch.allclose(mean, net(picture(*size))[:, [3, 7]], atol=1e-4)


@pytest.mark.parametrize("head", ["average", "flatten"])
@pytest.mark.parametrize("size", [(32, 32), (40, 61), (64, 36)])
def test_without_padding_the_dense_map_is_the_sliding_window_everywhere(head: str, size: tuple[int, int]) -> None:
    net = wrapped(unpadded(head))
    everywhere, pixels = make_fully_convolutional(net), picture(*size)
    with torch.no_grad():
        windows = everywhere.window_logits(everywhere.forward_features(pixels))[0]
        assert windows.shape[1:] == ((size[0] - 32) // 4 + 1, (size[1] - 32) // 4 + 1)
        for row in range(windows.shape[1]):
            for column in range(windows.shape[2]):
                cut = pixels[:, :, 4 * row : 4 * row + 32, 4 * column : 4 * column + 32]
                assert torch.allclose(windows[:, row, column], net(cut)[0], atol=1e-4)


def test_with_padding_it_is_not() -> None:
    net = NETS["simple_convnet"]()
    everywhere, pixels = make_fully_convolutional(net), picture(64, 64)
    with torch.no_grad():
        middle = everywhere.window_logits(everywhere.forward_features(pixels))[0, :, 2, 2]
        assert float((middle - net(pixels[:, :, 16:48, 16:48])[0]).abs().max()) > 1e-3


@pytest.mark.parametrize("name", NETS)
def test_windows_of_some_classes_are_those_of_all(name: str) -> None:
    everywhere = make_fully_convolutional(NETS[name]())
    with torch.no_grad():
        features = everywhere.forward_features(picture(48, 40))
        assert torch.allclose(
            everywhere.window_logits(features)[:, [8, 1]], everywhere.window_logits(features, [8, 1]), atol=1e-4
        )


def test_geometry_follows_padding_on_one_side_which_hangs_on_the_size() -> None:
    everywhere = make_fully_convolutional(pretrained("efficientnet_lite0"))
    assert everywhere.rf_grid((448, 448)) == ((31.0, 32.0), (31.0, 32.0))
    assert everywhere.rf_grid((450, 448))[0] == (1.0, 32.0)
    assert make_fully_convolutional(NETS["simple_convnet"]()).rf_grid((64, 40)) == ((3.5, 8.0), (3.5, 8.0))


def test_a_flattened_map_has_no_cells_of_its_own_and_says_so() -> None:
    everywhere = make_fully_convolutional(NETS["unpadded, flatten"]())
    assert everywhere.default_granularity == "windows"
    with torch.no_grad(), pytest.raises(LabError, match="a cell alone says nothing: ask for windows"):
        everywhere.cell_scores(everywhere.forward_features(picture(40, 40)), [0])


@pytest.mark.parametrize("name", ["unpadded, flatten", "simple_convnet"])
def test_a_picture_smaller_than_a_window_is_refused(name: str) -> None:
    everywhere = make_fully_convolutional(NETS[name]())
    with torch.no_grad(), pytest.raises(LabError, match="give a picture of at least 32 x 32 pixels"):
        everywhere.window_logits(everywhere.forward_features(picture(24, 40)))


@pytest.mark.parametrize("name", NETS)
def test_a_picture_of_one_pixel_is_one_line_never_a_traceback(name: str) -> None:
    everywhere = make_fully_convolutional(NETS[name]())
    with torch.no_grad(), pytest.raises(LabError, match=r"give (a picture of )?at least 32 x 32"):
        everywhere.window_logits(everywhere.forward_features(picture(1, 1)))


def test_a_network_without_a_linear_head_is_told_what_it_would_need() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 900, 20), nn.ReLU(), nn.Linear(20, 10)
    )
    with pytest.raises(
        LabError, match="needs a last feature map that is averaged or flattened and then classified by one linear layer"
    ):
        make_fully_convolutional(wrapped(network))
