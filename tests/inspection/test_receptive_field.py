"""Where one cell looks."""

import copy

import pytest
import torch
from torch import nn

import convolab
from convolab.core.errors import LabError
from convolab.inspection.receptive_field import _layers, cell_layers, energy_box, inspect_receptive_field
from convolab.models.classifier import ImageClassifier


@pytest.fixture
def net() -> ImageClassifier:
    """Two convolutions without padding: fields of 3 x 3, then of 5 x 5 pixels; the second starts every second one."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    return ImageClassifier(body, mean=(0.5,), std=(0.25,), input_size=(13, 13), classes=("a", "b", "c")).eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randint(0, 256, (1, 13, 13), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@pytest.mark.parametrize(("layer", "size"), [("0", 3), ("2", 5)])
def test_the_gradient_of_a_cell_lies_in_its_receptive_field(
    net: ImageClassifier, image: torch.Tensor, layer: str, size: int
) -> None:
    finding = inspect_receptive_field(net, image, (6, 8), layer=layer)
    left, top, right, bottom = finding.metrics["theoretical"]["box"]
    assert (right - left, bottom - top) == (size, size)
    assert abs((top + bottom - 1) / 2 - 6) <= 1
    assert abs((left + right - 1) / 2 - 8) <= 1
    outside = finding.arrays["energy"].clone()
    assert outside.sum() > 0, finding
    outside[top:bottom, left:right] = 0
    assert outside.sum() == 0
    box = finding.metrics["effective"]["box"]
    assert left <= box[0] < box[2] <= right
    assert top <= box[1] < box[3] <= bottom


def test_the_last_layer_with_several_cells_is_the_usual_one(net: ImageClassifier, image: torch.Tensor) -> None:
    finding = inspect_receptive_field(net, image, (0, 0))
    assert finding.metrics["layer"] == "2"
    assert finding.metrics["layers"] == ["0", "1", "2"]
    assert finding.metrics["cell"] == [0, 0]
    assert [row["kind"] for row in finding.rows()] == ["theoretical", "effective"]


def test_the_network_is_left_as_it_was(net: ImageClassifier, image: torch.Tensor) -> None:
    net.train()
    inspect_receptive_field(net, image, (3, 3))
    assert net.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_cell_that_does_not_depend_on_the_image_has_no_effective_field(
    net: ImageClassifier, image: torch.Tensor
) -> None:
    with torch.no_grad():
        net.network[0].bias.fill_(-1e6)  # every ReLU is shut
    finding = inspect_receptive_field(net, image, (3, 3), layer="1")
    assert finding.metrics["effective"] is None
    assert "gradient is 0" in finding.warnings[0]


@pytest.mark.parametrize(
    ("pixel", "layer", "reason"),
    [
        ((13, 0), None, "below 13"),
        ((0, -1), None, "below 13"),
        ((1,), None, "give a row"),
        ((0, 0), "conv9", "has no layer 'conv9'"),
    ],
)
def test_a_wrong_pixel_or_layer_is_one_line(
    net: ImageClassifier, image: torch.Tensor, pixel: tuple[int, ...], layer: str | None, reason: str
) -> None:
    with pytest.raises(LabError, match=reason) as caught:
        inspect_receptive_field(net, image, pixel, layer=layer)
    assert "\n" not in str(caught.value)


def test_a_network_without_cells_is_one_line() -> None:
    net = ImageClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), mean=(0.5,), std=(0.5,), input_size=(2, 2), classes=("a", "b")
    )
    with pytest.raises(LabError, match="no layer of this network has cells"):
        cell_layers(net)


def test_a_layer_that_is_called_twice_is_looked_at_in_its_last_call(image: torch.Tensor) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3)
            self.head = nn.Linear(81, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(self.conv(x)).flatten(1))

    net = ImageClassifier(Twice(), mean=(0.5,), std=(0.5,), input_size=(13, 13), classes=("a", "b")).eval()
    left, top, right, bottom = inspect_receptive_field(net, image, (6, 6), layer="conv").metrics["theoretical"]["box"]
    assert (right - left, bottom - top) == (5, 5)


@pytest.mark.slow
def test_another_thread_may_use_the_network_while_it_is_traced(net: ImageClassifier, image: torch.Tensor) -> None:
    import threading

    faults: list[BaseException] = []
    is_over = threading.Event()

    def use() -> None:
        try:
            while not is_over.is_set():
                convolab.explain(image, net, methods="gradient")
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    for _ in range(10):
        _layers.clear()
        inspect_receptive_field(net, image, (1, 1))
    is_over.set()
    thread.join()
    assert faults == []


def test_energy_without_a_pixel_has_no_box() -> None:
    assert energy_box(torch.zeros(3, 3)) is None


def test_the_arrays_can_be_copied_and_the_image_needs_no_gradient(net: ImageClassifier, image: torch.Tensor) -> None:
    finding = copy.deepcopy(inspect_receptive_field(net, image, (6, 8)))
    assert not any(array.requires_grad for array in finding.arrays.values())


def test_a_layer_without_a_gradient_is_one_line(image: torch.Tensor) -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                maps = self.conv(pixels)
            return self.linear(maps.mean((2, 3)))

    net = ImageClassifier(Detached(), mean=(0.5,), std=(0.25,), input_size=(13, 13), classes=("a", "b", "c"))
    with pytest.raises(LabError, match="conv keeps no gradient: choose another layer"):
        inspect_receptive_field(net, image, (6, 8))


def test_a_layer_that_returns_several_tensors_is_looked_at_by_its_first(
    net: ImageClassifier, image: torch.Tensor
) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.pool = net.network, nn.MaxPool2d(2, return_indices=True)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            maps, _ = self.pool(pixels)
            return self.body(maps)

    pooled = ImageClassifier(Pooled(), mean=(0.5,), std=(0.25,), input_size=(13, 13), classes=("a", "b", "c"))
    finding = inspect_receptive_field(pooled, image, (6, 8), layer="pool")
    assert finding.metrics["cell"] == [3, 4]
    assert finding.metrics["theoretical"]["box"] == [8, 6, 10, 8]
    energy = finding.arrays["energy"]
    assert float(energy[6:8, 8:10].sum()) == float(energy.sum()) > 0


def test_a_patch_at_the_border_is_judged_whole(image: torch.Tensor) -> None:
    net = ImageClassifier(
        nn.Sequential(nn.Conv2d(1, 1, 9, padding=4), nn.Flatten(), nn.Linear(169, 3)),
        mean=(0.5,), std=(0.25,), input_size=(13, 13), classes=("a", "b", "c"),
    )  # fmt: skip
    seen: list[torch.Tensor] = []
    net.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    image = torch.zeros_like(image)
    image[:, :, 2] = 255  # the first column of the patch, which its middle square lacks
    finding = inspect_receptive_field(net, image, (0, 6), layer="0")
    assert finding.metrics["theoretical"]["box"] == [2, 0, 11, 5]
    left, right = seen[-1][0, 0, :, 0], seen[-1][0, 0, :, -1]
    assert bool((left > right).all())


@pytest.mark.slow
def test_the_public_function_takes_names() -> None:
    finding = convolab.receptive_field("chelsea", pixel=(60, 100), layer="blocks.2.0.bn3")
    assert finding.net == "efficientnet_lite0"
    assert finding.metrics["image"] == "chelsea"
    with pytest.raises(LabError, match="no keyword"):
        convolab.receptive_field("chelsea", pixel=(0, 0), layr="x")


def test_the_effective_field_holds_the_middle_95_percent_of_the_energy_along_each_axis() -> None:
    assert energy_box(torch.ones(100, 100, dtype=torch.float64)) == (2, 2, 98, 98)
    assert energy_box(torch.ones(3, 100, dtype=torch.float64)) == (2, 0, 98, 3)
    at_two = torch.zeros(50, 50, dtype=torch.float64)
    at_two[10, 20], at_two[40, 30] = 0.02, 0.98
    assert energy_box(at_two) == (30, 40, 31, 41)  # 2.5 % are left out on each side


def test_the_energy_is_the_squared_gradient_of_half_the_squared_length_of_the_cells_values() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.25, 0.2, 0.3]).view(3, 1, 1)
    net = ImageClassifier(
        body, mean=mean.flatten().tolist(), std=std.flatten().tolist(), input_size=(9, 9), classes=("a", "b")
    )
    image = torch.randint(0, 256, (3, 9, 9), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    finding = inspect_receptive_field(net, image, (4, 6), layer="0")
    left, top, right, bottom = finding.metrics["theoretical"]["box"]
    patch = (image[:, top:bottom, left:right] / 255 - mean) / std
    weights, bias = body[0].weight.detach(), body[0].bias.detach()
    values = (weights * patch).sum((1, 2, 3)) + bias
    gradient = (values.view(4, 1, 1, 1) * weights).sum(0) / std
    energy = finding.arrays["energy"]
    assert torch.allclose(energy[top:bottom, left:right].float(), gradient.square().sum(0), rtol=1e-3)
    assert float(energy[top:bottom, left:right].sum()) == pytest.approx(float(energy.sum()))
