"""A fully convolutional classifier: its windows and cells compared with the classifier itself."""

import pytest
import torch
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.inspection.localization.dense import GRANULARITIES, make_fully_convolutional, parse_granularity
from convolab.models.classifier import ImageClassifier
from convolab.models.pretrained import pretrained
from convolab.models.registry import build

MEAN, STD = (0.45, 0.5, 0.4), (0.25, 0.2, 0.3)


def classifier_of(network: nn.Module, side: int = 32) -> ImageClassifier:
    """A classifier with random weights, so that logits depend strongly on the image."""
    generator = torch.Generator().manual_seed(3)
    for tensor in (*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())):
        values = torch.rand(tensor.shape, generator=generator)
        tensor.data = values + 0.2 if tensor.ndim < 2 else (values - 0.5) * (12 / tensor[0].numel()) ** 0.5
    return ImageClassifier(network, mean=MEAN, std=STD, input_size=(side, side), classes=tuple("abcdefghij")).eval()


def unpadded(head: str) -> nn.Module:
    body = [nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 4, stride=2), nn.ReLU()]
    ends = {
        "average": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)],
        "flatten": [nn.Flatten(), nn.Linear(8 * 36, 10)],
    }
    return nn.Sequential(*body, *ends[head])


NETWORKS = {
    "unpadded, average": lambda: classifier_of(unpadded("average")),
    "unpadded, flatten": lambda: classifier_of(unpadded("flatten")),
    "simple_convnet": lambda: classifier_of(build("simple_convnet", (3, 32, 32), 10)),
    "simple_convnet, residual": lambda: classifier_of(build("simple_convnet", (3, 32, 32), 10, residual=True)),
    "resnet_small": lambda: classifier_of(build("resnet_small", (3, 32, 32), 10)),
}


def random_image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_on_an_image_of_the_input_size_the_only_window_has_the_logits_of_the_classifier(name: str) -> None:
    net = NETWORKS[name]()
    fcn = make_fully_convolutional(net)
    with torch.no_grad():
        windows = fcn.window_logits(fcn.forward_features(random_image(32, 32)))
        assert windows.shape == (1, 10, 1, 1)
        assert torch.allclose(windows[..., 0, 0], net(random_image(32, 32)), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["own", "larger"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_mean_response_of_an_imagenet_network_is_its_logit(number: int, side: str) -> None:
    net = pretrained(f"efficientnet_lite{number}")
    fcn = make_fully_convolutional(net)
    pixels = random_image(*net.input_size) if side == "own" else random_image(251, 330)
    with torch.no_grad():
        features, logits = fcn.forward_features(pixels), net(pixels)
        mean = fcn.cell_scores(features, range(1000)).mean((2, 3)) + fcn.head.bias
        assert torch.allclose(mean, logits, atol=2e-4)
        if side == "own":
            assert torch.allclose(fcn.window_logits(features)[..., 0, 0], logits, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if "flatten" not in name])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (100, 64), (71, 71)])
def test_the_mean_response_plus_the_bias_is_the_logit_for_every_image_size(name: str, size: tuple[int, int]) -> None:
    net = NETWORKS[name]()
    fcn = make_fully_convolutional(net)
    with torch.no_grad():
        cells = fcn.cell_scores(fcn.forward_features(random_image(*size)), [3, 7])
        assert cells.shape[1] == 2
        mean = cells.mean((2, 3)) + fcn.head.bias[[3, 7]]
        assert torch.allclose(mean, net(random_image(*size))[:, [3, 7]], atol=1e-4)


@pytest.mark.parametrize("head", ["average", "flatten"])
@pytest.mark.parametrize("size", [(32, 32), (40, 61), (64, 36)])
def test_without_padding_the_dense_map_is_that_of_the_sliding_window(head: str, size: tuple[int, int]) -> None:
    net = classifier_of(unpadded(head))
    fcn, pixels = make_fully_convolutional(net), random_image(*size)
    with torch.no_grad():
        windows = fcn.window_logits(fcn.forward_features(pixels))[0]
        assert windows.shape[1:] == ((size[0] - 32) // 4 + 1, (size[1] - 32) // 4 + 1)
        for row in range(windows.shape[1]):
            for column in range(windows.shape[2]):
                crop = pixels[:, :, 4 * row : 4 * row + 32, 4 * column : 4 * column + 32]
                assert torch.allclose(windows[:, row, column], net(crop)[0], atol=1e-4)


def test_with_padding_the_dense_map_is_not_that_of_the_sliding_window() -> None:
    net = NETWORKS["simple_convnet"]()
    fcn, pixels = make_fully_convolutional(net), random_image(64, 64)
    with torch.no_grad():
        middle = fcn.window_logits(fcn.forward_features(pixels))[0, :, 2, 2]
        assert float((middle - net(pixels[:, :, 16:48, 16:48])[0]).abs().max()) > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_windows_of_some_classes_are_those_of_all(name: str) -> None:
    fcn = make_fully_convolutional(NETWORKS[name]())
    with torch.no_grad():
        features = fcn.forward_features(random_image(48, 40))
        assert torch.allclose(fcn.window_logits(features)[:, [8, 1]], fcn.window_logits(features, [8, 1]), atol=1e-4)


@pytest.mark.slow
def test_receptive_field_centers_follow_padding_on_one_side_which_depends_on_the_size() -> None:
    fcn = make_fully_convolutional(pretrained("efficientnet_lite0"))
    assert fcn.rf_grid((448, 448), (14, 14)) == ((31.0, 32.0), (31.0, 32.0))
    assert fcn.rf_grid((450, 448), (15, 14))[0] == (1.0, 32.0)
    assert make_fully_convolutional(NETWORKS["simple_convnet"]()).rf_grid((64, 40), (8, 5)) == ((3.5, 8.0), (3.5, 8.0))


@pytest.mark.parametrize("size", [(12, 200), (200, 12), (12, 8), (8, 8)])
@pytest.mark.parametrize("name", ["simple_convnet", "simple_convnet, residual", "unpadded, average"])
def test_the_cells_of_a_map_of_one_row_or_column_lie_where_they_lie_on_a_larger_image(
    name: str, size: tuple[int, int]
) -> None:
    fcn = make_fully_convolutional(NETWORKS[name]())
    smallest = 11 if name == "unpadded, average" else 8  # the side of an image that gives one cell
    size = max(size[0], smallest), max(size[1], smallest)
    with torch.no_grad():
        cells, more_cells = (
            tuple(fcn.forward_features(random_image(*shape)).shape[2:]) for shape in (size, (200, 200))
        )
    assert fcn.rf_grid(size, cells) == fcn.rf_grid((200, 200), more_cells)


def test_the_pixels_that_a_cell_of_a_map_of_one_row_depends_on_are_around_its_place() -> None:
    fcn = make_fully_convolutional(NETWORKS["simple_convnet"]())
    (_, _), (start, stride) = fcn.rf_grid((12, 200), (1, 25))
    reached = torch.zeros(12, 200, dtype=torch.bool)
    for seed in range(4):  # a maximum depends on one of its pixels, another one for each image
        x = random_image(12, 200, seed).requires_grad_()
        (gradient,) = torch.autograd.grad(fcn.forward_features(x)[0, :, 0, 10].sum(), x)
        reached |= gradient[0].abs().amax(0) > 0
    columns = reached.any(0).nonzero().flatten()
    assert float(columns.float().mean()) == pytest.approx(start + 10 * stride, abs=2)
    assert columns.min() >= start + 10 * stride - 10.5
    assert columns.max() <= start + 10 * stride + 10.5


def test_after_a_flatten_a_single_cell_has_no_score() -> None:
    fcn = make_fully_convolutional(NETWORKS["unpadded, flatten"]())
    assert fcn.default_granularity == "window"
    with torch.no_grad(), pytest.raises(LabError, match="a single cell has no score: choose the granularity window"):
        fcn.cell_scores(fcn.forward_features(random_image(40, 40)), [0])


@pytest.mark.parametrize("name", ["unpadded, flatten", "simple_convnet"])
def test_an_image_smaller_than_a_window_is_refused(name: str) -> None:
    fcn = make_fully_convolutional(NETWORKS[name]())
    with torch.no_grad(), pytest.raises(LabError, match="give an image of at least 32 x 32 pixels"):
        fcn.window_logits(fcn.forward_features(random_image(24, 40)))


@pytest.mark.parametrize("name", NETWORKS)
def test_an_image_of_one_pixel_gives_a_one_line_error(name: str) -> None:
    fcn = make_fully_convolutional(NETWORKS[name]())
    with torch.no_grad(), pytest.raises(LabError, match=r"give (an image of )?at least 32 x 32"):
        fcn.window_logits(fcn.forward_features(random_image(1, 1)))


class OwnSizeOnly(nn.Module):
    """A network that raises an error for images of another height than 32."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.body, self.error = unpadded("average"), error

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] != 32:
            raise self.error
        return self.body(x)


NO_MEMORY = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"


@pytest.mark.parametrize(
    ("error", "size", "message"),
    [
        (
            RuntimeError("sizes differ"),
            (20, 64),
            "takes no image of 20 x 64 pixels: sizes differ.*: give at least 32 x 32$",
        ),
        (RuntimeError("sizes differ"), (64, 64), "takes no image of 64 x 64 pixels: sizes differ.*: give 32 x 32$"),
        (
            ValueError("too tall\nby 32"),
            (64, 64),
            "takes no image of 64 x 64 pixels: ValueError: too tall .*: give 32 x 32$",
        ),
        (AssertionError(), (64, 64), "takes no image of 64 x 64 pixels: AssertionError .*: give 32 x 32$"),
        (RuntimeError(NO_MEMORY), (64, 64), "^there is not enough memory: give fewer than 64 x 64 pixels$"),
        (MemoryError(), (20, 64), "^there is not enough memory: give fewer than 20 x 64 pixels$"),
    ],
)
def test_a_network_that_fails_on_an_image_of_another_size_gives_a_one_line_error_that_says_why(
    error: Exception, size: tuple[int, int], message: str
) -> None:
    fcn = make_fully_convolutional(classifier_of(OwnSizeOnly(error)))
    with torch.no_grad(), pytest.raises(LabError, match=message) as caught:
        fcn.forward_features(random_image(*size))
    assert "\n" not in str(caught.value)


def test_a_network_without_a_linear_head_is_refused() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 900, 20), nn.ReLU(), nn.Linear(20, 10)
    )
    with pytest.raises(
        LabError, match="needs a last feature map that is averaged or flattened and then classified by one linear layer"
    ):
        make_fully_convolutional(classifier_of(network))


def test_the_network_is_used_through_a_view_over_the_same_weights() -> None:
    net = NETWORKS["simple_convnet"]().train()
    fcn = make_fully_convolutional(net)
    assert fcn.net is not net
    assert net.training
    assert all(p.data_ptr() == q.data_ptr() for p, q in zip(fcn.net.parameters(), net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cells", "granularity 'cells' is now called 'cell'"),
        ("windows", "granularity 'windows' is now called 'window'"),
        ("pixel", "unknown granularity 'pixel'"),
    ],
)
def test_an_unknown_or_retired_granularity_gives_a_one_line_error(name: str, message: str) -> None:
    assert [parse_granularity(known) for known in GRANULARITIES] == list(GRANULARITIES)
    with pytest.raises(LabError, match=message):
        parse_granularity(name)
