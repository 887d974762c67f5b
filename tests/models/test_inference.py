import re

import pytest
import torch
from torch import nn

from convolab.core.errors import LabError
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import (
    compute_logits,
    describe_unsteady_logits,
    eval_mode,
    freeze_for_inference,
    frozen_eval,
    inference_view,
    require_finite_weights,
    top_classes,
)


def net_with_mixed_modes() -> nn.Sequential:
    """A network with modules in different modes and one parameter without gradients."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    net[1].eval()
    net[0].bias.requires_grad_(False)
    return net


def state_of(net: nn.Module) -> tuple[list[bool], list[bool]]:
    return [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]


@pytest.mark.parametrize("context", [eval_mode, frozen_eval])
def test_the_mode_of_each_module_is_restored_even_after_an_exception(context) -> None:
    net = net_with_mixed_modes()
    before = state_of(net)
    with context(net):
        assert not any(m.training for m in net.modules())
    assert state_of(net) == before
    with pytest.raises(KeyboardInterrupt), context(net):
        raise KeyboardInterrupt
    assert state_of(net) == before


def test_eval_mode_keeps_gradients_and_frozen_eval_turns_them_off() -> None:
    net = net_with_mixed_modes()
    with eval_mode(net):
        assert net[0].weight.requires_grad
    with frozen_eval(net):
        assert not any(p.requires_grad for p in net.parameters())


def test_existing_gradients_are_kept() -> None:
    net = net_with_mixed_modes()
    net[0].weight.grad = torch.ones(2, 2)
    with frozen_eval(net):
        pass
    assert torch.equal(net[0].weight.grad, torch.ones(2, 2))


def classifier() -> ImageClassifier:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 3))
    return ImageClassifier(network, mean=(0.5,), std=(0.25,), input_size=(2, 2), classes=("a", "b", "c"))


def test_logits_are_those_of_evaluation_mode_whatever_the_batch_size() -> None:
    net = classifier().train()
    pixels = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    logits = compute_logits(net, pixels, batch_size=2)
    assert net.training
    assert not logits.requires_grad
    torch.testing.assert_close(logits, compute_logits(net, list(pixels.split(1)), batch_size=3))
    torch.testing.assert_close(logits, compute_logits(net, pixels))
    with torch.no_grad():
        torch.testing.assert_close(logits, net.eval()(pixels))


def test_a_network_frozen_for_inference_refuses_pixels_outside_0_to_1() -> None:
    net = freeze_for_inference(classifier())
    assert net.validate_inputs
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())


def test_top_classes_returns_all_classes_if_there_are_fewer() -> None:
    top = top_classes(("a", "b"), torch.tensor([0.25, 0.75]), 5)
    assert [(c.name, c.index, c.probability) for c in top] == [("b", 1, 0.75), ("a", 0, 0.25)]
    assert str(top[0]) == "b 75.0 %"
    assert top[0].to_dict() == {"class": "b", "probability": 0.75}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.running_mean", "1.running_var"])
def test_weights_that_are_not_finite_are_refused_though_the_logits_hide_them(name: str, value: float) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())
    tensors = dict((*network.named_parameters(), *network.named_buffers()))
    tensors[name].data[0] = value
    net = ImageClassifier(network, mean=(0.5,), std=(0.5,), input_size=(1, 1), classes=("a", "b"))
    for function in (freeze_for_inference, inference_view):
        with pytest.raises(LabError, match=rf"weights are damaged: {re.escape(name)} holds NaN or infinite"):
            function(net)


def test_an_infinite_mask_is_no_damage() -> None:
    network = nn.Sequential(nn.Flatten())
    network.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    require_finite_weights(network)
    network.mask[0] = float("nan")
    with pytest.raises(LabError, match="mask holds NaN"):
        require_finite_weights(network)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    class Overflows(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x.flatten(1), torch.full((len(x), 1), value)], 1)

    net = ImageClassifier(Overflows(), mean=(0.5,), std=(0.5,), input_size=(1, 1), classes=("a", "b"))
    with pytest.raises(LabError, match="logits for a cat are not all finite"):
        compute_logits(net, torch.zeros(1, 1, 1, 1), image_name="a cat")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_gives_nan_is_described_as_that_and_not_as_random(value: float) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) * value

    message = describe_unsteady_logits(Broken(), torch.rand(3, 1, 2, 2))
    assert message.startswith("the network gives logits that are NaN or infinite")
    assert "\n" not in message
