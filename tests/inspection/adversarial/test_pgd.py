"""PGD: its steps are the formula's, budgets hold for bytes, images are independent, networks stay as they were."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_nets import Breaks, filled, same, state, trained, wrapped
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.data.image_io import read_image
from convolab.inspection.adversarial.budget import PerturbationBudget, l2_norms
from convolab.inspection.adversarial.ensemble import differentiable_preprocess, input_diversity
from convolab.inspection.adversarial.pgd import (
    OBJECTIVES,
    AttackConfig,
    AttackResult,
    run_pgd,
    to_pixels,
)
from convolab.models.classifier import ImageClassifier
from convolab.models.pretrained import pretrained
from convolab.models.registry import build

BUDGETS = ["none", "l2=0.4", "l2=2", "linf=2/255", "linf=0.05"]


@pytest.fixture
def start(pixels: Tensor) -> Tensor:
    """Three images of a kind."""
    return (255 * torch.cat([pixels, pixels.flip(3), 1 - pixels])).round().to(torch.uint8)


@pytest.fixture
def net() -> ImageClassifier:
    """A network whose predictions depend on the image, with a batch norm to fold."""
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(400, 10)
    )
    norm = trained(nn.BatchNorm2d(8))
    return wrapped(nn.Sequential(filled(layers[0]), norm, nn.ReLU(), *filled(layers[1:])))


def others(net: ImageClassifier, start: Tensor, by: int = 3) -> Tensor:
    """Classes that the images are not classified as."""
    with torch.no_grad():
        return (net(start / 255).argmax(1) + by) % len(net.classes)


def fooled(net: ImageClassifier, found: AttackResult, targets: Tensor) -> Tensor:
    with torch.no_grad():
        return net(found.images / 255).argmax(1) == targets


def linear(weights: Tensor) -> ImageClassifier:
    """Logits that are a linear function of the pixels: two classes."""
    layer = nn.Linear(weights.shape[1], 2, bias=False)
    layer.weight.data = weights
    net = ImageClassifier(
        nn.Sequential(nn.Flatten(), layer), mean=(0.0,) * 3, std=(1.0,) * 3, input_size=(8, 8), classes=("a", "b")
    )
    return net.eval().double()


def test_on_a_linear_network_steps_and_length_are_the_closed_form() -> None:
    """The gradient of the logit is its row w of weights, so x moves straight along w / ||w||."""
    drawn = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 192, generator=drawn, dtype=torch.float64)
    start = torch.randint(110, 140, (1, 3, 8, 8), generator=drawn).to(torch.uint8)
    net, step = linear(weights), 0.04
    first, second = (weights @ (start.double() / 255).flatten()).tolist()
    target = int(first > second)
    way = weights[target] / weights[target].norm()
    gain = step * float((weights[target] - weights[1 - target]) @ way)
    needed = math.floor(abs(first - second) / gain) + 1
    assert needed >= 3
    found = run_pgd(net, start, torch.tensor([target]), AttackConfig("logit", step_size=step))
    expected = start.double().flatten() + 255 * needed * step * way
    # Within the rounding of the bytes, which may ask for one step more.
    assert found.steps.tolist() == [needed]
    assert torch.equal(found.images.flatten(), expected.round().to(torch.uint8))
    length = float(l2_norms(found.images.double() - start.double())) / 255
    assert length == pytest.approx(needed * step, abs=math.sqrt(192 / 12) / 255)
    assert bool(fooled(net, found, torch.tensor([target])))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objectives_gradients_are_those_of_finite_differences(name: str) -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 4, 2])
    assert torch.autograd.gradcheck(lambda z: OBJECTIVES[name](z, targets), logits)


def test_what_the_objectives_are() -> None:
    logits, targets = torch.tensor([[1.0, 3.0, 2.0]]).double(), torch.tensor([1])
    assert float(OBJECTIVES["logit"](logits, targets)) == 3
    assert float(OBJECTIVES["margin"](logits, targets)) == 1
    assert float(OBJECTIVES["log-probability"](logits, targets)) == pytest.approx(
        3 - math.log(math.e + math.e**2 + math.e**3)
    )


@pytest.mark.slow
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bytes_are_within_the_budget_exactly_and_success_is_theirs(
    net: ImageClassifier, start: Tensor, budget: str, objective: str
) -> None:
    targets, bound = others(net, start), PerturbationBudget.parse(budget)
    found = run_pgd(net, start, targets, AttackConfig(objective, bound, confidence=0.6, max_steps=60))
    change = found.images.long() - start.long()
    if bound.norm == "l2":
        assert int((change**2).sum((1, 2, 3)).max()) <= (255 * bound.epsilon) ** 2
    if bound.norm == "linf":
        assert int(change.abs().max()) <= math.floor(255 * bound.epsilon)
    with torch.no_grad():
        sure = net(found.images / 255).softmax(1).gather(1, targets[:, None])[:, 0]
    assert torch.equal(found.reached, fooled(net, found, targets) & (sure >= 0.6))
    assert found.reached.any() or budget in ("l2=0.4", "linf=2/255")


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["l2=0.004", "l2=0.3", "l2=1", "linf=1/255", "linf=8/255", "linf=0.1"]),
    st.floats(0.001, 3),
)
def test_whatever_is_rounded_is_within_the_budget(seed: int, words: str, scale: float) -> None:
    drawn, budget = torch.Generator().manual_seed(seed), PerturbationBudget.parse(words)
    start = torch.randint(0, 256, (2, 3, 6, 6), generator=drawn).to(torch.uint8)
    x = budget.project(start / 255 + scale * torch.randn(start.shape, generator=drawn), start / 255)
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    change = budget.quantize_into_ball(x, start).long() - start.long()
    if budget.norm == "l2":
        assert int((change**2).sum((1, 2, 3)).max()) <= (255 * budget.epsilon) ** 2
    else:
        assert int(change.abs().max()) <= math.floor(255 * budget.epsilon + 1e-6)


@pytest.mark.slow
def test_it_stops_at_the_first_success_and_goes_on_to_a_confidence(net: ImageClassifier, start: Tensor) -> None:
    targets = others(net, start)
    first = run_pgd(net, start, targets, AttackConfig(step_size=0.01))
    assert first.reached.all()
    assert first.steps.min() >= 3
    for number in range(3):
        fewer = run_pgd(
            net,
            start[[number]],
            targets[[number]],
            AttackConfig(step_size=0.01, max_steps=int(first.steps[number]) - 1),
        )
        assert not fewer.reached.any()
    sure = run_pgd(net, start, targets, AttackConfig(step_size=0.01, confidence=0.9, max_steps=1000))
    assert (sure.steps > first.steps).all()
    with torch.no_grad():
        assert (net(sure.images / 255).softmax(1).gather(1, targets[:, None]) >= 0.9).all()


def test_an_image_that_is_done_at_once_is_not_changed(net: ImageClassifier, start: Tensor) -> None:
    targets = others(net, start, by=0)
    targets[1] = (targets[1] + 1) % 10
    found = run_pgd(net, start, targets)
    assert found.steps[[0, 2]].tolist() == [0, 0]
    assert torch.equal(found.images[[0, 2]], start[[0, 2]])
    assert found.steps[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "climb",
    [
        AttackConfig(),
        AttackConfig(momentum=1.0, diversity_probability=0.7, confidence=0.8),
        AttackConfig(budget=PerturbationBudget("linf", 0.02)),
    ],
)
def test_an_image_does_not_depend_on_its_neighbors(net: ImageClassifier, start: Tensor, climb: AttackConfig) -> None:
    net.double()  # so that a batch's own rounding does not show in bytes
    targets = others(net, start)
    together = run_pgd(net, start, targets, climb, seed=3)
    for number in range(3):
        alone = run_pgd(net, start[[number]], targets[[number]], climb, seed=3, image_indices=[number])
        assert torch.equal(alone.images[0], together.images[number])
        assert alone.steps[0] == together.steps[number]


@pytest.mark.slow
def test_many_images_go_through_in_batches_and_come_back_in_order() -> None:
    net = wrapped(nn.Sequential(nn.Flatten(), nn.Linear(3 * 200 * 200, 10)), side=200)
    start = torch.randint(0, 256, (5, 3, 200, 200), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    targets, steps = others(net, start), []
    found = run_pgd(net, start, targets, on_progress=steps.append)
    assert steps == ["image 1 of 5", "image 4 of 5"]
    assert fooled(net, found, targets).all()
    assert (
        l2_norms(found.images.double() - start.double()) < l2_norms(found.images.flip(0).double() - start.double()) + 1
    )[[0, 4]].all()


@pytest.mark.slow
def test_draws_depend_on_the_seed(net: ImageClassifier, start: Tensor) -> None:
    targets, climb = others(net, start), AttackConfig(momentum=1.0, diversity_probability=1.0, confidence=0.9)
    once, again, other = (run_pgd(net, start, targets, climb, seed=seed).images for seed in (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_on_several_networks_all_are_fooled_each_at_its_own_size(net: ImageClassifier, start: Tensor) -> None:
    small = wrapped(
        filled(nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(200, 10))), side=24
    )
    small.crop_fraction = 0.8
    targets = others(net, start)
    found = run_pgd(
        [net, small], start, targets, AttackConfig(confidence=0.5, max_steps=1000, objective="log-probability")
    )
    assert found.reached.all()
    assert fooled(net, found, targets).all()
    with torch.no_grad():
        assert (small(differentiable_preprocess(found.images / 255, small)).argmax(1) == targets).all()
        assert differentiable_preprocess(found.images / 255, small).shape == (3, 3, 24, 24)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite1", "efficientnet_lite2"])
def test_what_a_surrogate_takes_is_what_its_preprocessing_gives_to_about_a_level(name: str) -> None:
    net, first = pretrained(name), pretrained()
    photo = (255 * first.preprocess(read_image("chelsea"))[0]).round().to(torch.uint8)
    difference = (differentiable_preprocess(photo[None] / 255, net) - net.preprocess(photo)).abs()
    assert float(difference.max()) < 3 / 255
    assert float(difference.mean()) < 0.5 / 255


def test_a_wanted_distance_is_reached(net: ImageClassifier, start: Tensor) -> None:
    wanted = torch.tensor([0.5, 1.0, 2.0])
    found = run_pgd(net, start, others(net, start), target_distance=wanted)
    assert found.reached.all()
    assert torch.allclose(l2_norms(found.images.double() - start.double()).float() / 255, wanted, atol=0.08)


def test_diversity_shrinks_a_fraction_of_the_images_and_loses_none_of_them() -> None:
    x = torch.ones(400, 1, 20, 30)
    varied = input_diversity(x, 0.7, 0, list(range(400)), 5)
    assert varied.shape == x.shape
    changed = (varied != 1).flatten(1).any(1)
    assert 0.55 < float(changed.float().mean()) < 0.75  # of 70 % some are drawn to keep their size
    assert float(varied.mean((1, 2, 3)).min()) >= 0.9**2 * 0.98
    assert torch.equal(input_diversity(x, 0.0, 0, list(range(400)), 5), x)


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_the_networks_are_left_as_they_were(
    convnet: ImageClassifier, resnet: ImageClassifier, start: Tensor, mode: str
) -> None:
    for net in (convnet, resnet):
        net.train(mode == "training")
        for number, parameter in enumerate(net.parameters()):
            parameter.requires_grad_(number % 2 == 0)
            parameter.grad = torch.ones_like(parameter) if number % 4 == 0 else None
    before, random = [state(convnet), state(resnet)], torch.get_rng_state()
    run_pgd(
        [convnet, resnet],
        start,
        torch.tensor([1, 2, 3]),
        AttackConfig(momentum=1.0, diversity_probability=0.5, max_steps=3),
    )
    assert same(before, [state(convnet), state(resnet)])
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("at", [1, 2, 4])
def test_the_network_is_left_as_it_was_though_a_pass_breaks(start: Tensor, at: int) -> None:
    breaks = Breaks(build("simple_convnet", (3, 32, 32), 10))
    net = wrapped(breaks)
    targets, breaks.passes, breaks.at = others(net, start), 0, at
    net.train()
    before = state(net)
    with pytest.raises(RuntimeError, match="the pass broke"):
        run_pgd(net, start, targets, AttackConfig(max_steps=5, confidence=0.999))
    assert same(before, state(net))


def test_a_gradient_of_zeros_leaves_the_image_where_it_is(start: Tensor) -> None:
    net = linear(torch.zeros(2, 192, dtype=torch.float64))
    start = start[:1, :, :8, :8]
    found = run_pgd(net, start, torch.tensor([1]), AttackConfig(max_steps=3))
    assert not found.reached.any()
    assert torch.equal(found.images, start)


@pytest.mark.parametrize(
    "words",
    ["linf", "linf=", "linf=eight", "l3=1", "l2=nan", "l2=-1", "l2=0", "linf=0.5/255", "1/0", "linf=1/0", "", "l2=inf"],
)
def test_an_unknown_budget_is_refused_in_one_line(words: str) -> None:
    with pytest.raises(LabError, match=r"give linf=8/255|one of the 255 levels") as refused:
        PerturbationBudget.parse(words)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"objective": "logits"}, "did you mean 'logit'"),
        ({"step_size": 0.0}, "the step size is 0.0"),
        ({"step_size": -1.0}, "the step size is -1.0"),
        ({"step_size": math.nan}, "the step size is nan"),
        ({"step_size": math.inf}, "the step size is inf"),
        ({"max_steps": 0}, "0 steps"),
        ({"confidence": 1.0}, "the confidence is 1.0"),
        ({"confidence": -0.1}, "the confidence is -0.1"),
        ({"confidence": math.nan}, "the confidence is nan"),
    ],
)
def test_nonsense_numbers_are_refused(how: dict, said: str) -> None:
    with pytest.raises(LabError, match=said):
        AttackConfig(**how)


def test_the_default_step_size_depends_on_the_image_and_the_budget() -> None:
    assert AttackConfig().step_size_for(3 * 224 * 224) == 0.5
    assert AttackConfig().step_size_for(3 * 56 * 56) == 0.25
    assert AttackConfig(budget=PerturbationBudget("l2", 1.0)).step_size_for(3 * 224 * 224) == 0.25
    assert AttackConfig(budget=PerturbationBudget("linf", 0.5), step_size=2.0).step_size_for(12) == 2.0


def test_pixels_of_bytes_are_those_of_preprocessing(convnet: ImageClassifier) -> None:
    photo = read_image("coffee")
    fitted = convnet.preprocess(photo)
    assert torch.equal(to_pixels(convnet, (255 * fitted).round().to(torch.uint8)), fitted)
