"""Convolutions by minimal filtering against torch's in float64, and a training with them."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.callbacks import stop_after
from support.run_contents import run_contents
from torch import Tensor, nn

from convolab.api import train
from convolab.core.errors import LabError
from convolab.core.types import Json
from convolab.data.catalog import load
from convolab.models.registry import trust_named
from convolab.training import winograd
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.winograd import WinogradConvolutions


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def largest_error(values: Tensor, exact: Tensor) -> float:
    """The largest difference, as a fraction of the largest exact value."""
    return float((values.detach().double() - exact.detach()).abs().max() / exact.detach().abs().max())


def is_winograd(output: Tensor) -> bool:
    assert output.grad_fn is not None
    functions = [output.grad_fn, *(function for function, _ in output.grad_fn.next_functions)]
    return any("Winograd" in type(function).__name__ for function in functions)


# Sides that are multiples of a tile's and others, smaller than a tile, and not square.
SHAPES = [(2, 8, 8, 1), (5, 15, 13, 1), (3, 7, 7, "same"), (2, 10, 9, 0), (2, 3, 3, (1, 1)), (2, 1, 1, 1), (2, 5, 6, 2)]


@pytest.mark.parametrize("chunk_values", [1, 1_200_000])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format], ids=["NHWC", "NCHW"])
@pytest.mark.parametrize(("n", "height", "width", "padding"), SHAPES)
def test_values_and_gradients_are_those_of_torch_in_float64(
    n: int,
    height: int,
    width: int,
    padding: int | str | tuple[int, int],
    memory_format: torch.memory_format,
    chunk_values: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(winograd, "CHUNK_VALUES", chunk_values)
    monkeypatch.setattr(winograd, "worthwhile_fill", lambda *channels: 0)
    images = random(n, 64, height, width).contiguous(memory_format=memory_format).requires_grad_()
    weight, bias = random(65, 64, 3, 3).requires_grad_(), random(65).requires_grad_()
    exact = F.conv2d(images.double(), weight.double(), bias.double(), padding=padding)
    with WinogradConvolutions():
        output = F.conv2d(images, weight, bias, padding=padding)
    assert is_winograd(output)
    gradient = random(*output.shape)
    found = torch.autograd.grad(output, (images, weight, bias), gradient)
    expected = torch.autograd.grad(exact, (images, weight, bias), gradient.double())
    for values, others in zip((output, *found), (exact, *expected), strict=True):
        assert values.shape == others.shape
        assert largest_error(values, others) < 2e-5


@pytest.mark.parametrize(
    ("channels", "side", "is_taken"),
    [((64, 64), 7, False), ((64, 256), 7, True), ((64, 64), 8, True), ((256, 256), 5, False), ((256, 256), 6, True)],
)
def test_images_that_leave_much_of_the_tiles_empty_are_torchs(
    channels: tuple[int, int], side: int, is_taken: bool
) -> None:
    """As measured: the fewer channels, the fuller the tiles must be, of which a side of 4 pixels fills one."""
    layer = nn.Conv2d(*channels, 3, padding=1)
    with WinogradConvolutions():
        output = layer(random(2, channels[0], side, side))
    assert is_winograd(output) == is_taken


def test_the_gradient_of_the_weights_alone_is_computed_where_images_need_none() -> None:
    images, weight = random(2, 64, 8, 8), random(64, 64, 3, 3).requires_grad_()
    with WinogradConvolutions():
        F.conv2d(images, weight, padding=1).square().sum().backward()
    exact = weight.detach().double().requires_grad_()
    F.conv2d(images.double(), exact, padding=1).square().sum().backward()
    assert weight.grad is not None
    assert exact.grad is not None
    assert largest_error(weight.grad, exact.grad) < 2e-5


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(64, 64, 3, stride=2, padding=1),
        nn.Conv2d(64, 64, 3, dilation=2),
        nn.Conv2d(64, 64, 3, groups=2),
        nn.Conv2d(64, 64, 3, padding=(1, 0)),
        nn.Conv2d(64, 64, 5),
        nn.Conv2d(64, 64, 1),
        nn.Conv2d(63, 64, 3),
        nn.Conv2d(64, 63, 3),
        nn.Conv2d(64, 64, 3).double(),
        nn.Conv2d(64, 64, 3).requires_grad_(False),
    ],
    ids=repr,
)
def test_other_convolutions_are_torchs_bit_for_bit(layer: nn.Conv2d) -> None:
    images = random(2, layer.in_channels, 10, 10).to(layer.weight.dtype).requires_grad_()
    expected = layer(images)
    with WinogradConvolutions():
        output = layer(images)
    assert not is_winograd(output)
    assert torch.equal(output, expected)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"bias": torch.ones(1)}, "expected bias"),
        ({"bias": torch.ones(64, dtype=torch.float64)}, "[Dd]ouble|type"),
        ({"padding": (1, 1, 1)}, "padding"),
        ({"input": torch.ones(1, 64, 2, 2)}, "[Kk]ernel"),
    ],
)
def test_what_torch_refuses_is_refused_with_its_words(changes: dict[str, object], error: str) -> None:
    arguments = {"input": random(1, 64, 8, 8), "weight": random(64, 64, 3, 3).requires_grad_(), **changes}
    with pytest.raises(RuntimeError, match=error), WinogradConvolutions():
        F.conv2d(**arguments)


CHECKPOINTED = """
from torch import nn
from torch.utils.checkpoint import checkpoint

class Checkpointed(nn.Module):
    def __init__(self, input_shape, classes):
        super().__init__()
        self.first, self.block, self.last = nn.Conv2d(1, 64, 1), nn.Conv2d(64, 64, 3, padding=1), nn.Linear(64, classes)

    def forward(self, images):
        return self.last(checkpoint(self.block, self.first(images), use_reentrant=False).mean((2, 3)))
"""


@pytest.mark.slow
def test_a_gradient_that_fails_names_the_key_because_a_checkpoints_block_runs_again_without_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "own.py").write_text(CHECKPOINTED)
    network = f"{tmp_path / 'own.py'}:Checkpointed"
    trust_named(network)
    train(network, epochs=1, out=tmp_path / "plain")
    with pytest.raises(LabError, match=r"the gradient with training\.winograd failed in epoch 1, step 1: .*checkpoint"):
        train(network, epochs=1, overrides={"training.winograd": True}, out=tmp_path / "winograd")


def test_without_gradients_in_bf16_and_outside_of_the_block_convolutions_are_torchs() -> None:
    layer, images = nn.Conv2d(64, 64, 3), random(2, 64, 10, 10)
    with WinogradConvolutions():
        with torch.no_grad():
            assert torch.equal(layer(images), F.conv2d(images, layer.weight, layer.bias))
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(images).dtype == torch.bfloat16
        assert is_winograd(layer(images))
    assert not is_winograd(layer(images))


def wide_recipe(**training: Json) -> Recipe:
    return Recipe.from_dict(
        {
            "model": {"name": "whitened_convnet", "channels": [128, 128]},
            "data": {"name": "digits", "limit": 300},
            "training": {"epochs": 2, "batch_size": 50, "winograd": True, **training},
        }
    )


def test_a_recipe_without_them_is_the_one_that_it_was_before_there_were_any() -> None:
    assert wide_recipe(winograd=False) == wide_recipe(winograd=None)
    assert "winograd" not in wide_recipe(winograd=False).to_dict()["training"]
    assert wide_recipe().key != wide_recipe(winograd=False).key


@pytest.mark.slow
def test_a_training_uses_them_and_a_stopped_one_resumes_bit_for_bit(tmp_path: Path) -> None:
    digits = load("digits")
    whole = Run.start(wide_recipe(), digits, tmp_path / "whole")
    stopped = Run.start(wide_recipe(), digits, tmp_path / "stopped", callbacks=stop_after(7))
    assert stopped.status == "stopped"
    stopped.resume(digits)
    assert run_contents(stopped.folder) == run_contents(whole.folder)
    direct = Run.start(wide_recipe(winograd=False), digits, tmp_path / "direct")
    losses = [[epoch.train_loss for epoch in run.history] for run in (whole, direct)]
    assert losses[0] != losses[1]  # they round differently
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
