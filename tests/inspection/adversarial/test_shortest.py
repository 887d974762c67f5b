"""The shortest perturbation: judged as saved, within its gradients, never longer than the default's, deterministic."""

import pytest
import torch
from support.small_nets import capture_state, classifier_of, is_equal, randomize_parameters
from torch import Tensor, nn

import convolab
from convolab.core.errors import LabError
from convolab.inspection.adversarial.budget import l2_distances
from convolab.inspection.adversarial.pgd import AttackConfig, run_pgd
from convolab.inspection.adversarial.shortest import run_shortest
from convolab.models.classifier import ImageClassifier


@pytest.fixture
def net() -> ImageClassifier:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(400, 10),
    )
    return classifier_of(randomize_parameters(layers))


def targets_of(net: ImageClassifier, start: Tensor) -> Tensor:
    with torch.no_grad():
        return (net(start / 255).argmax(1) + 3) % 10


@pytest.mark.slow
def test_it_fools_in_bytes_and_is_shorter_than_the_default(net: ImageClassifier, start: Tensor) -> None:
    targets = targets_of(net, start)
    plain, found = run_pgd(net, start, targets), run_shortest(net, start, targets, AttackConfig(max_steps=40))
    assert plain.reached.all()
    assert found.reached.all()
    with torch.no_grad():
        assert torch.equal(net(found.images / 255).argmax(1), targets)
    ours, theirs = l2_distances(found.images, start), l2_distances(plain.images, start)
    assert bool((ours < theirs).all())


@pytest.mark.slow
def test_on_a_linear_network_the_length_is_near_the_distance_to_the_boundary() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(64, 2, bias=False)
    layer.weight.data = torch.randn(2, 64, generator=generator)
    net = ImageClassifier(
        nn.Sequential(nn.Flatten(), layer), mean=(0.0,), std=(1.0,), input_size=(8, 8), classes=("a", "b")
    ).eval()
    image = torch.randint(60, 190, (1, 1, 8, 8), generator=generator).to(torch.uint8)
    normal = (layer.weight[1] - layer.weight[0]).detach()
    value = float(normal @ (image / 255).flatten())
    found = run_shortest(net, image, torch.tensor([int(value < 0)]), AttackConfig(max_steps=40))
    distance = abs(value) / float(normal.norm())
    assert distance <= float(l2_distances(found.images, image)) <= 1.05 * distance


@pytest.mark.parametrize("gradients", [1, 7])
def test_no_more_gradients_are_taken_than_allowed_and_all_passes_are_counted(
    net: ImageClassifier, start: Tensor, gradients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets, calls = targets_of(net, start), []
    plain_grad, plain_forward = torch.autograd.grad, net.forward_unchecked

    def counted_grad(*args, **settings):
        calls.append("gradient")
        return plain_grad(*args, **settings)

    def counted_forward(x):
        calls.append("gradient's forward" if torch.is_grad_enabled() else "forward")
        return plain_forward(x)

    monkeypatch.setattr(torch.autograd, "grad", counted_grad)
    monkeypatch.setattr(net, "forward_unchecked", counted_forward)
    found = run_shortest(net, start[:1], targets[:1], AttackConfig(max_steps=gradients))
    assert calls.count("gradient") == gradients == int(found.steps)
    assert found.forward_passes is not None
    assert calls.count("forward") == int(found.forward_passes)
    assert len(found.paths[0]) == gradients + 1


@pytest.mark.slow
def test_it_is_the_same_again_and_alone_and_leaves_the_network_as_it_was(net: ImageClassifier, start: Tensor) -> None:
    targets, config, before = targets_of(net, start), AttackConfig(max_steps=15), capture_state(net)
    first, again = (run_shortest(net, start, targets, config) for _ in range(2))
    alone = run_shortest(net, start[2:], targets[2:], config)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images[2:], alone.images)
    assert is_equal(before, capture_state(net))


def test_an_image_that_is_not_fooled_is_reported_as_such(net: ImageClassifier, start: Tensor) -> None:
    found = run_shortest(net, start, targets_of(net, start), AttackConfig(max_steps=1, step_size=1e-4))
    assert not found.reached.any()


@pytest.mark.slow
def test_a_run_of_gray_images_is_fooled_from_python_with_the_same_numbers(tmp_path) -> None:
    run = convolab.train("shallow_net", epochs=3, lr=0.1, out=tmp_path / "run")
    image = run.load_splits().train.images[0].expand(3, -1, -1)
    finding = convolab.fool(image, "random", run, shortest=True, max_steps=20)
    (found,) = finding.metrics["images"]
    assert found["fooled"]
    assert found["steps"] == 20
    assert finding.metrics["shortest"]
    assert found["l2"] == pytest.approx(float(l2_distances(finding.arrays["fooling"], finding.arrays["clean"])))
    assert f"20 gradients and {found['forward_passes']} forward passes" in str(finding)
    assert found["l2"] <= convolab.fool(image, "random", run).metrics["images"][0]["l2"]


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"for_transfer": True}, {"budget": "l2=1"}, {"confidence": 0.5}])
def test_what_does_not_go_with_it_is_refused_in_one_line(more: dict) -> None:
    with pytest.raises(LabError, match="leave these out") as caught:
        convolab.fool("chelsea", "goldfish", shortest=True, **more)
    assert "\n" not in str(caught.value)
