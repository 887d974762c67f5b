"""PGD: its steps follow the formula, budgets hold for bytes, images are independent, networks do not change."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_nets import (
    FailsAtPass,
    capture_state,
    classifier_of,
    is_equal,
    randomize_batch_norms,
    randomize_parameters,
)
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
def net() -> ImageClassifier:
    """A network whose predictions depend on the image, with a batch norm to fold."""
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(400, 10)
    )
    norm = randomize_batch_norms(nn.BatchNorm2d(8))
    return classifier_of(
        nn.Sequential(randomize_parameters(layers[0]), norm, nn.ReLU(), *randomize_parameters(layers[1:]))
    )


def other_classes(net: ImageClassifier, start: Tensor, offset: int = 3) -> Tensor:
    """For each image a class that is not the predicted one (with `offset` 0 it is)."""
    with torch.no_grad():
        return (net(start / 255).argmax(1) + offset) % len(net.classes)


def fooled(net: ImageClassifier, attack_result: AttackResult, targets: Tensor) -> Tensor:
    with torch.no_grad():
        return net(attack_result.images / 255).argmax(1) == targets


def linear_classifier(weights: Tensor) -> ImageClassifier:
    """Logits that are a linear function of the pixels: two classes."""
    layer = nn.Linear(weights.shape[1], 2, bias=False)
    layer.weight.data = weights
    net = ImageClassifier(
        nn.Sequential(nn.Flatten(), layer), mean=(0.0,) * 3, std=(1.0,) * 3, input_size=(8, 8), classes=("a", "b")
    )
    return net.eval().double()


def test_on_a_linear_network_the_number_and_the_length_of_the_steps_are_those_of_the_closed_form() -> None:
    """The gradient of the logit is its row w of weights, so x moves straight along w / ||w||."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 192, generator=generator, dtype=torch.float64)
    start = torch.randint(110, 140, (1, 3, 8, 8), generator=generator).to(torch.uint8)
    net, step = linear_classifier(weights), 0.04
    first, second = (weights @ (start.double() / 255).flatten()).tolist()
    target = int(first > second)
    direction = weights[target] / weights[target].norm()
    gain = step * float((weights[target] - weights[1 - target]) @ direction)
    needed = math.floor(abs(first - second) / gain) + 1
    assert needed >= 3
    result = run_pgd(net, start, torch.tensor([target]), AttackConfig("logit", step_size=step))
    expected = start.double().flatten() + 255 * needed * step * direction
    # Up to the rounding of the bytes, which may need one step more.
    assert result.steps.tolist() == [needed]
    assert torch.equal(result.images.flatten(), expected.round().to(torch.uint8))
    length = float(l2_norms(result.images.double() - start.double())) / 255
    assert length == pytest.approx(needed * step, abs=math.sqrt(192 / 12) / 255)
    assert bool(fooled(net, result, torch.tensor([target])))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradients_of_the_objectives_are_those_of_finite_differences(name: str) -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 4, 2])
    assert torch.autograd.gradcheck(lambda z: OBJECTIVES[name](z, targets), logits)


def test_the_values_of_the_objectives() -> None:
    logits, targets = torch.tensor([[1.0, 3.0, 2.0]]).double(), torch.tensor([1])
    assert float(OBJECTIVES["logit"](logits, targets)) == 3
    assert float(OBJECTIVES["margin"](logits, targets)) == 1
    assert float(OBJECTIVES["log-probability"](logits, targets)) == pytest.approx(
        3 - math.log(math.e + math.e**2 + math.e**3)
    )


@pytest.mark.slow
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_rounded_images_are_within_the_budget_and_success_is_that_of_them(
    net: ImageClassifier, start: Tensor, budget: str, objective: str
) -> None:
    targets, bound = other_classes(net, start), PerturbationBudget.parse(budget)
    result = run_pgd(net, start, targets, AttackConfig(objective, bound, confidence=0.6, max_steps=60))
    change = result.images.long() - start.long()
    if bound.norm == "l2":
        assert int((change**2).sum((1, 2, 3)).max()) <= (255 * bound.epsilon) ** 2
    if bound.norm == "linf":
        assert int(change.abs().max()) <= math.floor(255 * bound.epsilon)
    with torch.no_grad():
        confident = net(result.images / 255).softmax(1).gather(1, targets[:, None])[:, 0]
    assert torch.equal(result.reached, fooled(net, result, targets) & (confident >= 0.6))
    assert result.reached.any() or budget in ("l2=0.4", "linf=2/255")


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["l2=0.004", "l2=0.3", "l2=1", "linf=1/255", "linf=8/255", "linf=0.1"]),
    st.floats(0.001, 3),
)
def test_rounding_keeps_any_perturbation_within_the_budget(seed: int, text: str, scale: float) -> None:
    generator, budget = torch.Generator().manual_seed(seed), PerturbationBudget.parse(text)
    start = torch.randint(0, 256, (2, 3, 6, 6), generator=generator).to(torch.uint8)
    x = budget.project(start / 255 + scale * torch.randn(start.shape, generator=generator), start / 255)
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    change = budget.quantize_into_ball(x, start).long() - start.long()
    if budget.norm == "l2":
        assert int((change**2).sum((1, 2, 3)).max()) <= (255 * budget.epsilon) ** 2
    else:
        assert int(change.abs().max()) <= math.floor(255 * budget.epsilon + 1e-6)


@pytest.mark.slow
def test_the_attack_stops_at_the_first_success_or_at_the_requested_confidence(
    net: ImageClassifier, start: Tensor
) -> None:
    targets = other_classes(net, start)
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
    confident = run_pgd(net, start, targets, AttackConfig(step_size=0.01, confidence=0.9, max_steps=1000))
    assert (confident.steps > first.steps).all()
    with torch.no_grad():
        assert (net(confident.images / 255).softmax(1).gather(1, targets[:, None]) >= 0.9).all()


def test_an_image_that_is_classified_as_its_target_already_is_not_changed(net: ImageClassifier, start: Tensor) -> None:
    targets = other_classes(net, start, offset=0)
    targets[1] = (targets[1] + 1) % 10
    result = run_pgd(net, start, targets)
    assert result.steps[[0, 2]].tolist() == [0, 0]
    assert torch.equal(result.images[[0, 2]], start[[0, 2]])
    assert result.steps[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        AttackConfig(),
        AttackConfig(momentum=1.0, diversity_probability=0.7, confidence=0.8),
        AttackConfig(budget=PerturbationBudget("linf", 0.02)),
    ],
)
def test_the_result_for_an_image_does_not_depend_on_the_rest_of_the_batch(
    net: ImageClassifier, start: Tensor, config: AttackConfig
) -> None:
    net.double()  # so that rounding errors that depend on the batch do not change bytes
    targets = other_classes(net, start)
    in_batch = run_pgd(net, start, targets, config, seed=3)
    for number in range(3):
        alone = run_pgd(net, start[[number]], targets[[number]], config, seed=3, image_indices=[number])
        assert torch.equal(alone.images[0], in_batch.images[number])
        assert alone.steps[0] == in_batch.steps[number]


def test_two_targets_of_one_image_do_not_influence_each_other_through_the_batch(
    net: ImageClassifier, start: Tensor
) -> None:
    net.network[1] = nn.BatchNorm2d(8, track_running_stats=False)
    net.double().eval()
    clean, config, lines = start[[0, 0]], AttackConfig(max_steps=5), []
    first = int(other_classes(net, clean[:1]))
    targets = torch.tensor([first, (first + 1) % 10])
    together = run_pgd(net, clean, targets, config, on_progress=lines.append)
    assert lines == ["image 1 of 2", "image 2 of 2"]
    for number in range(2):
        alone = run_pgd(net, clean[[number]], targets[[number]], config)
        assert torch.equal(alone.images[0], together.images[number])


@pytest.mark.slow
def test_many_images_are_attacked_in_batches_and_returned_in_order() -> None:
    net = classifier_of(nn.Sequential(nn.Flatten(), nn.Linear(3 * 200 * 200, 10)), side=200)
    start = torch.randint(0, 256, (5, 3, 200, 200), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    targets, steps = other_classes(net, start), []
    result = run_pgd(net, start, targets, on_progress=steps.append)
    assert steps == ["image 1 of 5", "image 4 of 5"]
    assert fooled(net, result, targets).all()
    own, others = (l2_norms(result.images.double() - images.double()) for images in (start, start.roll(1, 0)))
    assert (own < others / 10).all()


def test_each_step_is_reported_with_the_probability_and_the_image_it_starts_from(
    net: ImageClassifier, start: Tensor
) -> None:
    calls: list[tuple[int, float, Tensor]] = []
    targets = other_classes(net, start)[:1]
    config = AttackConfig(confidence=0.9)
    result = run_pgd(
        net, start[:1], targets, config, on_step=lambda step, p, x: calls.append((step, p[0], x[0].clone()))
    )
    assert [step for step, _, _ in calls] == list(range(int(result.steps[0]) + 1))
    assert tuple(probability for _, probability, _ in calls) == result.paths[0]
    assert torch.equal(calls[0][2], start[0] / 255)
    assert torch.equal(run_pgd(net, start[:1], targets, config).images, result.images)


@pytest.mark.slow
def test_random_numbers_depend_on_the_seed(net: ImageClassifier, start: Tensor) -> None:
    targets, config = other_classes(net, start), AttackConfig(momentum=1.0, diversity_probability=1.0, confidence=0.9)
    first, repeated, other = (run_pgd(net, start, targets, config, seed=seed).images for seed in (0, 0, 1))
    assert torch.equal(first, repeated)
    assert not torch.equal(first, other)


@pytest.mark.slow
def test_several_networks_are_fooled_together_each_at_its_own_input_size(net: ImageClassifier, start: Tensor) -> None:
    small = classifier_of(
        randomize_parameters(nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(200, 10))),
        side=24,
    )
    small.crop_fraction = 0.8
    targets = other_classes(net, start)
    result = run_pgd(
        [net, small], start, targets, AttackConfig(confidence=0.5, max_steps=1000, objective="log-probability")
    )
    assert result.reached.all()
    assert fooled(net, result, targets).all()
    with torch.no_grad():
        assert (small(differentiable_preprocess(result.images / 255, small)).argmax(1) == targets).all()
        assert differentiable_preprocess(result.images / 255, small).shape == (3, 3, 24, 24)


def test_the_gradient_of_several_networks_is_that_of_the_mean_of_their_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    nets = []
    for _ in range(2):
        layer = nn.Linear(192, 3).double()
        layer.weight.data = 0.2 * torch.randn(3, 192, generator=generator, dtype=torch.float64)
        body = nn.Sequential(nn.Flatten(), layer)
        sizes = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "input_size": (8, 8), "classes": ("a", "b", "c")}
        nets.append(ImageClassifier(body, **sizes).eval().double())
    start = torch.randint(110, 140, (1, 3, 8, 8), generator=generator).to(torch.uint8)
    x = (start.double() / 255).requires_grad_()
    both = [net(x) for net in nets]

    def step_by(logits: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(logits.log_softmax(1)[0, 2], x, retain_graph=True)
        return x.detach() + 0.04 * gradient / gradient.norm()

    seen: list[Tensor] = []
    config = AttackConfig("log-probability", step_size=0.04, max_steps=1, confidence=0.999)
    run_pgd(nets, start, torch.tensor([2]), config, on_step=lambda step, p, pixels: seen.append(pixels.clone()))
    assert torch.allclose(seen[1], step_by((both[0] + both[1]) / 2), atol=1e-6)
    for other in (both[0], both[1], both[0] + both[1]):
        assert not torch.allclose(seen[1], step_by(other), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite1", "efficientnet_lite2"])
def test_the_differentiable_preprocessing_of_a_surrogate_is_its_own_up_to_about_one_level(name: str) -> None:
    net, first = pretrained(name), pretrained()
    photo = (255 * first.preprocess(read_image("chelsea"))[0]).round().to(torch.uint8)
    difference = (differentiable_preprocess(photo[None] / 255, net) - net.preprocess(photo)).abs()
    assert float(difference.max()) < 3 / 255
    assert float(difference.mean()) < 0.5 / 255


def test_a_target_distance_is_reached(net: ImageClassifier, start: Tensor) -> None:
    distances = torch.tensor([0.5, 1.0, 2.0])
    result = run_pgd(net, start, other_classes(net, start), target_distance=distances)
    assert result.reached.all()
    assert torch.allclose(l2_norms(result.images.double() - start.double()).float() / 255, distances, atol=0.08)


def test_input_diversity_shrinks_a_fraction_of_the_images_and_keeps_all_pixels() -> None:
    x = torch.ones(400, 1, 20, 30)
    varied = input_diversity(x, 0.7, 0, list(range(400)), 5)
    assert varied.shape == x.shape
    changed = (varied != 1).flatten(1).any(1)
    assert 0.55 < float(changed.float().mean()) < 0.75  # some of the 70 % are resized to their own size
    assert float(varied.mean((1, 2, 3)).min()) >= 0.9**2 * 0.98
    assert torch.equal(input_diversity(x, 0.0, 0, list(range(400)), 5), x)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_the_networks_are_not_changed(
    convnet: ImageClassifier, resnet: ImageClassifier, start: Tensor, mode: str
) -> None:
    for net in (convnet, resnet):
        net.train(mode == "training")
        for number, parameter in enumerate(net.parameters()):
            parameter.requires_grad_(number % 2 == 0)
            parameter.grad = torch.ones_like(parameter) if number % 4 == 0 else None
    before, random = [capture_state(convnet), capture_state(resnet)], torch.get_rng_state()
    run_pgd(
        [convnet, resnet],
        start,
        torch.tensor([1, 2, 3]),
        AttackConfig(momentum=1.0, diversity_probability=0.5, max_steps=3),
    )
    assert is_equal(before, [capture_state(convnet), capture_state(resnet)])
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("at", [1, 2, 4])
def test_the_network_is_not_changed_even_if_a_forward_pass_fails(start: Tensor, at: int) -> None:
    failing_network = FailsAtPass(build("simple_convnet", (3, 32, 32), 10))
    net = classifier_of(failing_network)
    targets, failing_network.num_passes, failing_network.fail_at = other_classes(net, start), 0, at
    net.train()
    before = capture_state(net)
    with pytest.raises(RuntimeError, match="the pass broke"):
        run_pgd(net, start, targets, AttackConfig(max_steps=5, confidence=0.999))
    assert is_equal(before, capture_state(net))


def test_a_gradient_of_zeros_does_not_change_the_image(start: Tensor) -> None:
    net = linear_classifier(torch.zeros(2, 192, dtype=torch.float64))
    start = start[:1, :, :8, :8]
    result = run_pgd(net, start, torch.tensor([1]), AttackConfig(max_steps=3))
    assert not result.reached.any()
    assert torch.equal(result.images, start)


@pytest.mark.parametrize(
    "text",
    ["linf", "linf=", "linf=eight", "l3=1", "l2=nan", "l2=-1", "l2=0", "linf=0.5/255", "1/0", "linf=1/0", "", "l2=inf"],
)
def test_an_unknown_budget_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(LabError, match=r"give linf=8/255|is out of range: give a number from 1/255") as caught:
        PerturbationBudget.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
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
def test_invalid_numbers_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(LabError, match=message):
        AttackConfig(**arguments)


def test_the_default_step_size_depends_on_the_image_and_the_budget() -> None:
    assert AttackConfig().step_size_for(3 * 224 * 224) == 0.5
    assert AttackConfig().step_size_for(3 * 56 * 56) == 0.25
    assert AttackConfig(budget=PerturbationBudget("l2", 1.0)).step_size_for(3 * 224 * 224) == 0.25
    assert AttackConfig(budget=PerturbationBudget("linf", 0.5), step_size=2.0).step_size_for(12) == 2.0


def test_bytes_are_converted_to_the_same_pixels_as_by_preprocessing(convnet: ImageClassifier) -> None:
    photo = read_image("coffee")
    fitted = convnet.preprocess(photo)
    assert torch.equal(to_pixels(convnet, (255 * fitted).round().to(torch.uint8)), fitted)
