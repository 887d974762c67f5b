"""PGD takes the steps of the L2 attacks of foolbox and torchattacks, and fools as often within the same budget.

In float64, so that bytes differ only if a value is on the border between two levels.
"""

import foolbox
import pytest
import torch
from torch import Tensor, nn

from convolab.data.image_io import read_image
from convolab.inspection.adversarial.budget import PerturbationBudget
from convolab.inspection.adversarial.pgd import AttackConfig, run_pgd
from convolab.models.classifier import ImageClassifier
from convolab.models.pretrained import pretrained

NEVER = 1 - 1e-12  # a confidence that is never reached: all steps are made
STEP = 0.4


def small_net() -> ImageClassifier:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10)
    )
    half = (0.5, 0.4, 0.45)
    return ImageClassifier(network, mean=half, std=half, input_size=(32, 32), classes=tuple("abcdefghij")).eval()


NETWORKS = {"small": small_net, "lite0": pretrained}


@pytest.fixture(params=NETWORKS)
def net(request: pytest.FixtureRequest) -> ImageClassifier:
    return NETWORKS[request.param]().double()


@pytest.fixture
def start(net: ImageClassifier) -> Tensor:
    return torch.stack(
        [
            (255 * net.preprocess(read_image(name))[0]).round().to(torch.uint8)
            for name in ("chelsea", "coffee")[: 1 if net.input_size[0] > 32 else 2]
        ]
    )


TARGETS = torch.tensor([1, 7])


def run_foolbox(
    net: ImageClassifier, start: Tensor, steps: int, size: float, step: float = STEP, random: bool = False
) -> Tensor:
    attack = foolbox.attacks.L2BasicIterativeAttack(steps=steps, abs_stepsize=step, random_start=random)
    model = foolbox.PyTorchModel(net, bounds=(0, 1))
    return attack.run(
        model, pixels(net, start), foolbox.criteria.TargetedMisclassification(TARGETS[: len(start)]), epsilon=size
    )


def run_torchattacks(net: ImageClassifier, start: Tensor, steps: int, size: float, step: float = STEP) -> Tensor:
    # What it needs excludes what our other tools need, so it is in no extra.
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed: pip install torchattacks")
    attack = torchattacks.PGDL2(net, eps=size, alpha=step, steps=steps, random_start=False)
    attack.set_mode_targeted_by_label(quiet=True)
    return attack(pixels(net, start), TARGETS[: len(start)])


LIBRARIES = {"foolbox": run_foolbox, "torchattacks": run_torchattacks}


def pixels(net: ImageClassifier, start: Tensor) -> Tensor:
    return start.to(net.scale) / 255


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("steps", [1, 3])
def test_the_same_steps_on_the_log_probability(net: ImageClassifier, start: Tensor, library: str, steps: int) -> None:
    ours = run_pgd(
        net,
        start,
        TARGETS[: len(start)],
        AttackConfig("log-probability", step_size=STEP, max_steps=steps, confidence=NEVER),
    ).images
    theirs = LIBRARIES[library](net, start, steps, size=100.0).detach()
    assert float((theirs - pixels(net, start)).flatten(1).norm(dim=1).min()) > 0.9 * STEP
    difference = (ours.long() - (255 * theirs).round().long()).abs()
    assert int(difference.max()) <= 1
    assert int((difference > 0).sum()) <= 1e-4 * difference.numel()


@pytest.mark.parametrize("text", ["l2=0.7", "linf=6/255"])
def test_the_same_projection(text: str) -> None:
    budget, generator = PerturbationBudget.parse(text), torch.Generator().manual_seed(0)
    start = torch.rand(4, 3, 8, 8, generator=generator, dtype=torch.float64)
    x = start + 0.1 * torch.randn(start.shape, generator=generator, dtype=torch.float64)
    kind = foolbox.attacks.L2BasicIterativeAttack if budget.norm == "l2" else foolbox.attacks.LinfBasicIterativeAttack
    theirs = (
        kind().project(foolbox.attacks.base.ep.astensor(x), foolbox.attacks.base.ep.astensor(start), budget.epsilon).raw
    )
    assert torch.allclose(budget.project(x, start), theirs.clamp(0, 1))


def test_momentum_is_that_of_the_paper() -> None:
    """g = mu g + grad / ||grad||_1; x = x + alpha g / ||g||_2 (Dong et al. 2018, equations 6 and 9)."""
    net, step = small_net().double(), 0.05
    photo = (255 * net.preprocess(read_image("coffee"))[0]).round().to(torch.uint8)[None]
    x, momentum = pixels(net, photo), torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    for _ in range(6):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(net(leaf)[0, 1], leaf)
        momentum = 0.8 * momentum + gradient / gradient.norm(p=1)
        x = (x + step * momentum / momentum.norm()).clamp(0, 1)
    attacked = run_pgd(
        net, photo, TARGETS[:1], AttackConfig("logit", step_size=step, max_steps=6, momentum=0.8, confidence=NEVER)
    ).images
    assert int((attacked.long() - (255 * x).round().long()).abs().max()) == 0
    plain = run_pgd(
        net, photo, TARGETS[:1], AttackConfig("logit", step_size=step, max_steps=6, confidence=NEVER)
    ).images
    assert not torch.equal(attacked, plain)


@pytest.mark.parametrize("library", LIBRARIES)
def test_at_least_as_many_images_are_fooled_within_the_same_budget(library: str) -> None:
    net, size = pretrained(), 2.5
    names = ("chelsea", "coffee")
    start = torch.stack([(255 * net.preprocess(read_image(name))[0]).round().to(torch.uint8) for name in names])
    theirs = (255 * LIBRARIES[library](net, start, steps=12, size=size)).round() / 255
    ours = run_pgd(
        net,
        start,
        TARGETS,
        AttackConfig("log-probability", PerturbationBudget("l2", size), step_size=STEP, max_steps=12),
    )
    with torch.no_grad():
        hits = [int((net(x.clamp(0, 1)).argmax(1) == TARGETS).sum()) for x in (ours.images / 255, theirs)]
    assert hits[1] > 0
    assert hits[0] >= hits[1]
    lengths = [float((x - start / 255).flatten(1).norm(dim=1).mean()) for x in (ours.images / 255, theirs)]
    assert lengths[0] <= lengths[1]
