import subprocess
import sys

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from convolab.core.errors import LabError
from convolab.training import optim
from convolab.training.optim import SGD, Adam, AdamW, Muon, Optimizer, orthogonalize, without_weight_decay


def test_nesterov_without_momentum_is_refused_with_the_key_to_set() -> None:
    with pytest.raises(LabError, match=r"nesterov needs a momentum above 0: set optimizer\.momentum"):
        SGD(momentum=0.0, nesterov=True).build([nn.Parameter(torch.zeros(1))])


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.0), Adam(), AdamW(), Muon(), Muon(normalize_filters=True)])
def test_an_optimizer_restored_from_its_state_continues_with_the_same_bits(optimizer: Optimizer) -> None:
    def take_steps(optimizer_state, weights, first, last):
        for step in range(first, last):
            for weight in weights:
                weight.grad = torch.sin(weight.detach() + step)
            optimizer_state.step()

    expected, weights = (
        [nn.Parameter(torch.arange(3.0)), nn.Parameter(torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last))]
        for _ in range(2)
    )
    take_steps(optimizer.build(expected), expected, 0, 6)
    first_half = optimizer.build(weights)
    take_steps(first_half, weights, 0, 3)
    second_half = optimizer.build(weights)
    second_half.load_state_dict(
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in first_half.state_dict().items()}
    )
    take_steps(second_half, weights, 3, 6)
    assert all(torch.equal(a, b) for a, b in zip(expected, weights, strict=True))


def test_a_state_of_another_optimizer_or_other_parameters_is_refused() -> None:
    state = SGD().build([nn.Parameter(torch.zeros(3))]).state_dict()
    for other in (
        Adam().build([nn.Parameter(torch.zeros(3))]),
        SGD().build([nn.Parameter(torch.zeros(4))]),
        SGD(momentum=0.0).build([nn.Parameter(torch.zeros(3))]),
        Muon().build([nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1, 1, 1, 1))]),
    ):
        with pytest.raises(ValueError, match="the optimizer state is not that of"):
            other.load_state_dict(state)


def test_a_parameter_without_a_gradient_and_a_frozen_one_do_not_change() -> None:
    used, unused, frozen = (nn.Parameter(torch.ones(2), requires_grad=grad) for grad in (True, True, False))
    optimizer_state = Adam().build([used, unused, frozen])
    used.sum().backward()
    optimizer_state.step()
    assert not torch.equal(used, torch.ones(2))
    assert torch.equal(unused, torch.ones(2))
    assert torch.equal(frozen, torch.ones(2))


@pytest.mark.parametrize(
    "optimizer",
    [SGD(), SGD(nesterov=True), SGD(momentum=0.0), Adam(), Adam(weight_decay=0.1), AdamW()],
    ids=lambda o: f"{o.name} {o.weight_decay:g} {getattr(o, 'momentum', '')}",
)
def test_a_torch_without_the_private_fused_functions_gives_the_same_bits_by_torch_optim(
    optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_a_little() -> dict[str, torch.Tensor]:
        weights = [nn.Parameter(torch.arange(3.0)), nn.Parameter(torch.ones(2, 3, 4, 4))]
        weights[1].data = weights[1].data.to(memory_format=torch.channels_last)
        state = optimizer.build(weights)
        for step in range(8):
            if step == 4:  # a resumed training
                saved = {name: tensor.clone() for name, tensor in state.state_dict().items()}
                state = optimizer.build(weights)
                state.load_state_dict(saved)
            for weight in weights:
                weight.grad = torch.sin(weight.detach() + step)
            if step == 2:
                weights[0].grad = None
            state.step(lr=0.01 * (1 + step % 3))
        return {**state.state_dict(), **{f"weight {i}": weight.detach() for i, weight in enumerate(weights)}}

    fused = train_a_little()
    monkeypatch.setattr(optim, "fused_function", lambda name: None)
    by_torch_optim = train_a_little()
    assert fused.keys() == by_torch_optim.keys()
    for name in fused:
        assert torch.equal(fused[name], by_torch_optim[name]), name


def test_this_torch_has_the_private_fused_functions() -> None:
    for optimizer in (SGD(), Adam(), AdamW()):
        assert optim.fused_function(optimizer.fused_name) is not None
    assert optim.fused_function("_fused_nothing_") is None


@pytest.mark.slow
def test_training_does_not_import_the_compiler() -> None:
    code = """
import sys, convolab
net, train = convolab.build("simple_convnet", (1, 8, 8), 10), convolab.load("digits").train
convolab.fit(net, train, training=convolab.Training(epochs=1))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "values",
    [
        {"name": "sgd", "lr": 0},
        {"name": "sgd", "lr": float("inf")},
        {"name": "sgd", "momentum": 1.0},
        {"name": "sgd", "momentum": -0.1},
        {"name": "sgd", "weight_decay": -1e-4},
        {"name": "sgd", "betas": (0.9, 0.99)},
        {"name": "adam", "betas": (0.9, 1.0)},
        {"name": "adam", "betas": (0.9,)},
        {"name": "adamw", "lr": -0.1},
        {"name": "adamax"},
    ],
)
def test_invalid_values_of_an_optimizer_are_refused(values: dict) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Optimizer).validate_python(values)


# ---- muon


@pytest.mark.parametrize("shape", [(16, 27), (27, 16), (16, 16)])
def test_an_orthogonalized_matrix_keeps_its_singular_vectors_and_evens_its_singular_values(
    shape: tuple[int, int],
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = left.T @ orthogonalize(matrix, 5) @ right.T  # diagonal, if the singular vectors are kept
    singular_values = found.diagonal()
    torch.testing.assert_close(found, singular_values.diag(), rtol=0, atol=1e-10)
    small = values < 0.01 * matrix.norm()
    assert singular_values[~small].min() > 0.6
    assert singular_values.max() < 1.25
    assert torch.equal(orthogonalize(torch.zeros(3, 4), 5), torch.zeros(3, 4))


def test_muon_steps_all_but_filters_as_sgd_does_and_scales_both_by_the_schedule() -> None:
    def parameters() -> list[nn.Parameter]:
        return [nn.Parameter(torch.arange(4.0)), nn.Parameter(torch.ones(2, 4))]

    filters = nn.Parameter(torch.ones(2, 3, 3, 3))
    expected, given = parameters(), parameters()
    muon = Muon(lr=0.1, others_lr=0.5).build([*given, filters])
    sgd = SGD(lr=0.5, nesterov=True).build(expected)
    for lr in (0.1, 0.05, 0.01):
        for weight in (*expected, *given, filters):
            weight.grad = torch.cos(weight.detach())
        muon.step(lr)
        sgd.step(5 * lr)
    assert all(torch.equal(a, b) for a, b in zip(expected, given, strict=True))


def test_muon_takes_a_lower_rate_for_the_filters_and_for_the_others_that_are_given_one() -> None:
    def changes(*factors: float) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        weights = [nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((2, 3, 3, 3), (4,))]
        before = [weight.detach().clone() for weight in weights]
        muon = Muon(lr=0.1, weight_decay=0.5, others_lr=0.2).build(weights, dict(zip(weights, factors, strict=True)))
        for weight in weights:
            weight.grad = torch.cos(weight.detach())
        muon.step()
        return [weight.detach() - old for weight, old in zip(weights, before, strict=True)]

    filters, others = changes(1.0, 1.0)
    for factors in ((0.1, 1.0), (1.0, 0.1), (0.1, 0.1)):
        for change, full, factor in zip(changes(*factors), (filters, others), factors, strict=True):
            torch.testing.assert_close(change, factor * full, rtol=1e-3, atol=1e-6)


def test_muon_takes_scales_and_embeddings_of_three_dimensions_for_no_filters() -> None:
    scale, filters = nn.Parameter(torch.full((8, 1, 1), 1e-6)), nn.Parameter(torch.ones(2, 3, 3, 3))
    scale.grad, filters.grad = torch.zeros_like(scale), torch.ones_like(filters)
    state = Muon(normalize_filters=True, others_weight_decay=0).build([scale, filters])
    state.step()
    assert torch.equal(scale.detach(), torch.full((8, 1, 1), 1e-6))  # the norm of a filter would be 1
    assert [name for name in state.state_dict() if name.startswith("filters")] == ["filters.0.momentum"]


def test_muon_can_keep_the_filters_at_a_norm() -> None:
    weight = nn.Parameter(5 * torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0)))
    weight.grad = torch.zeros_like(weight)
    Muon(normalize_filters=True).build([weight]).step()
    assert float(weight.detach().square().sum((1, 2, 3)).mean()) == pytest.approx(1.0)


def test_muon_without_a_convolution_is_refused() -> None:
    with pytest.raises(LabError, match="muon is for 2D convolutions, and none is trained here"):
        Muon().build(nn.Linear(3, 4).parameters())


def test_no_weight_decay_is_left_where_it_is_switched_off() -> None:
    changed = without_weight_decay(Muon(weight_decay=0.1))
    assert isinstance(changed, Muon)
    assert (changed.weight_decay, changed.others_weight_decay) == (0.0, 0.0)
