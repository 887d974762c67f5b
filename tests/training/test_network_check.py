"""A network that cannot be trained on the images is refused before work starts, and the check leaves no trace."""

from pathlib import Path

import pytest
import torch
from support.own_code import own_code_folder
from support.small_nets import capture_buffers
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.models.registry import build
from convolab.training.fit import fit
from convolab.training.network_check import check_network
from convolab.training.overfit import check_overfit
from convolab.training.recipe import Recipe, Training
from convolab.training.run import Run
from convolab.training.setup import build_trainer

LAZY = """
from torch import nn


def network(shape, classes):
    return nn.Sequential(nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(classes))
"""


class DifferentInTraining(nn.Module):
    """Gives a list when it is trained, as networks with auxiliary heads do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        logits = self.linear(x.flatten(1))
        return [logits, logits] if self.training else logits


class CountsItsPasses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear, self.drop = nn.BatchNorm2d(1), nn.Linear(64, 10), nn.Dropout()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes = self.passes + 1
        return self.drop(self.linear(self.norm(x).flatten(1)))


class MadeLate(nn.Module):
    """Makes its last layer, replaces a parameter or removes one in its first forward pass, `what` it does."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.linear, self.scale, self.what = nn.Linear(64, 10), nn.Parameter(torch.ones(10)), what

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "layer" and not hasattr(self, "last"):
            self.last = nn.Linear(10, 10)
        if self.what == "buffer":
            self.register_buffer("seen", x.mean())
        if self.what == "replaced":
            self.scale = nn.Parameter(self.scale.detach().clamp(max=1))
        if self.what == "removed" and hasattr(self, "scale"):
            del self.scale
        return self.linear(x.flatten(1)) if self.what == "removed" else self.linear(x.flatten(1)) * self.scale


UNUSUAL = '''
import torch
from torch import nn


class Unusual(nn.Module):
    """Keeps something that a file of weights cannot hold, `what` that is."""

    def __init__(self, shape, classes, what: str):
        super().__init__()
        self.head, self.what = nn.Linear(64, classes), what
        if what == "complex":
            self.filter = nn.Parameter(torch.ones(8, 5, dtype=torch.complex64))
        if what == "sparse":
            self.register_buffer("mask", torch.eye(8).to_sparse())
        if what == "double":
            self.register_buffer("factors", torch.ones(8, dtype=torch.complex128))

    def get_extra_state(self):
        return {"dict": {"version": 1}}.get(self.what, torch.ones(1))

    def set_extra_state(self, state):
        assert self.what != "one_way", "nothing is taken back"

    def forward(self, x):
        return self.head(x.flatten(1))
'''

DRAWN = """
import random

import numpy as np
import torch
from torch import nn


class Drawn(nn.Module):
    def __init__(self, shape, classes, what: str):
        super().__init__()
        self.what, self.head, self.factors = what, nn.Linear(64, classes), torch.rand(64)
        self.register_buffer("projection", torch.rand(64), persistent=what == "persistent")
        self.key, self.scale, self.cached = (lambda: what), random.random(), None
        self.drawn = None
        self.source = np.random.default_rng()
        if what == "zeros":
            nn.init.zeros_(self.head.weight)
        self.more = nn.ModuleList(nn.Linear(8, 8) for _ in range(torch.randint(2, 90, ()))) if what == "layers" else None

    def forward(self, x):
        x = x.flatten(1)
        if self.cached is None:
            self.cached = self.head.weight.detach().sum()
        match self.what:
            case "tensor":
                x = x * self.factors
            case "buffer" | "persistent" | "zeros":
                x = x * self.projection
            case "late":
                self.drawn = torch.rand(64) if self.drawn is None else self.drawn
                x = x * self.drawn
            case "number":
                x = x * self.scale
            case "cached":
                x = x * self.cached
            case "in_training" if self.training:
                x = x * self.factors
            case "random":
                x = x * torch.from_numpy(self.source.random(64)).float()
            case "seeded":
                x = x * torch.rand(64)
        return self.head(x)
"""


def recipe(**model: object) -> Recipe:
    return Recipe.from_dict({"model": model, "data": {"limit": 20}, "training": {"batch_size": 1, "epochs": 1}})


@pytest.mark.slow
@pytest.mark.parametrize("model", [{"name": "simple_convnet", "channels": [4, 4, 4]}, {"name": "simple_convnet"}])
def test_a_batch_of_one_image_is_refused_where_batch_norm_sees_one_value(model, digits: DatasetSplits, tmp_path):
    for start in (
        lambda: Run.start(recipe(**model), digits, tmp_path / "run"),
        lambda: check_overfit(recipe(**model), digits),
    ):
        with pytest.raises(
            LabError, match=r"cannot be trained on batches of 1 image: .*: set training.batch_size to 2"
        ):
            start()
    assert not (tmp_path / "run").exists()
    network = build("simple_convnet", (1, 8, 8), 10)
    with pytest.raises(LabError, match="cannot be trained on batches of 1 image"):
        fit(network, digits.train, training=Training(batch_size=1))


def test_fit_refuses_a_network_that_does_not_take_the_images_in_one_line(digits: DatasetSplits):
    for shape, message in [((3, 32, 32), "does not accept images of shape 1x8x8"), ((1, 8, 8), "one logit per class")]:
        network = build("shallow_net", shape, 7)
        with pytest.raises(LabError, match=message):
            fit(network, digits.train)


@pytest.mark.slow
def test_a_batch_of_one_image_is_trained_on_where_the_network_accepts_it(digits: DatasetSplits, tmp_path):
    assert Run.start(recipe(name="shallow_net"), digits, tmp_path / "run").status == "finished"
    assert Run.start(recipe(name="resnet_small", channels=[2]), digits, tmp_path / "two").status == "finished"


def test_a_network_that_gives_something_else_in_training_is_refused(digits: DatasetSplits):
    with pytest.raises(LabError, match="the network gives in training list: it must give a tensor of logits"):
        check_network(DifferentInTraining(), digits.train, batch_size=8)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("layer", "makes last.weight"),
        ("buffer", "makes seen"),
        ("replaced", "makes scale"),
        ("removed", "removes scale"),
    ],
)
def test_a_network_that_makes_its_layers_in_its_first_forward_pass_is_refused(
    what: str, words: str, digits: DatasetSplits
) -> None:
    with pytest.raises(LabError, match=f"^the network {words} in its forward pass, .*: build all layers") as caught:
        check_network(MadeLate(what), digits.train, batch_size=8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("complex", "the network's parameter filter is complex, .*: keep torch.view_as_real"),
        ("dict", "the network's state has in _extra_state dict, which a file of weights cannot hold"),
        ("sparse", r"the network's state has in mask a tensor \(torch.float32, torch.sparse_coo\), which a file"),
        ("double", r"the network's state has in factors a tensor \(torch.complex128, torch.strided\), which a file"),
        ("one_way", "the network does not take its own state .*: nothing is taken back"),
    ],
)
def test_a_network_that_no_file_of_weights_can_hold_is_refused_before_the_training(
    what: str, words: str, digits: DatasetSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = own_code_folder(tmp_path, monkeypatch, "unusual.py", UNUSUAL)
    with pytest.raises(LabError, match=words) as caught:
        Run.start(recipes({"model.name": "unusual.py:Unusual", "model.what": what}), digits, "run")
    assert "\n" not in str(caught.value)
    assert not Path("run").exists()


def test_a_network_whose_extra_state_is_a_tensor_is_trained(
    digits: DatasetSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = own_code_folder(tmp_path, monkeypatch, "unusual.py", UNUSUAL)
    run = Run.start(
        recipes({"model.name": "unusual.py:Unusual", "model.what": "", "training.epochs": 1}), digits, "run"
    )
    assert run.net().network.what == ""


@pytest.mark.slow
def test_a_network_with_torchs_lazy_layers_is_trained_and_its_first_weights_are_those_of_the_seed(
    digits: DatasetSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = own_code_folder(tmp_path, monkeypatch, "lazy.py", LAZY)
    network = {"model": {"name": "lazy.py:network"}}
    first, again, other = (
        build_trainer(Recipe.from_dict({**network, "training": {"seed": seed}}), digits, "cpu").net.state_dict()
        for seed in (0, 0, 1)
    )
    name = "network.2.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    run = Run.start(recipes({"model.name": "lazy.py:network"}), digits, "run")
    assert run.test(splits=digits).count == len(digits.test)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("tensor", "computes with .*self.factors, .*, which no file of weights holds and which is another when"),
        ("buffer", "computes with .*self.projection"),
        ("zeros", "computes with .*self.projection"),
        ("number", "computes with .*self.scale"),
        ("late", "computes with .*self.drawn"),
        ("layers", r"does not take its weights \(load_state_dict\) when it is built with another seed: "),
    ],
)
def test_a_constant_that_the_constructor_draws_and_no_file_holds_would_make_a_test_score_another_network(
    what: str, words: str, digits: DatasetSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = own_code_folder(tmp_path, monkeypatch, "drawn.py", DRAWN)
    with pytest.raises(LabError, match=words) as caught:
        Run.start(recipes({"model.name": "drawn.py:Drawn", "model.what": what}), digits, "run")
    assert "\n" not in str(caught.value)
    assert not Path("run").exists()


@pytest.mark.parametrize("what", ["persistent", "cached", "in_training", "random", "seeded"])
def test_a_network_is_not_refused_for_what_it_draws_and_evaluates_without_or_draws_each_time(
    what: str, digits: DatasetSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = own_code_folder(tmp_path, monkeypatch, "drawn.py", DRAWN)
    overrides = {"model.name": "drawn.py:Drawn", "model.what": what, "training.exact": False}
    trainer = build_trainer(recipes(overrides), digits, "cpu")
    assert all(parameter.grad is None for parameter in trainer.net.parameters())


def test_the_check_leaves_buffers_modes_and_random_numbers_as_they_were(digits: DatasetSplits):
    network = CountsItsPasses()
    network.drop.eval()
    before, state = capture_buffers(network), torch.get_rng_state()
    check_network(network, digits.train, batch_size=8)
    assert all(network.get_buffer(name) is buffer and buffer.equal(value) for name, (buffer, value) in before.items())
    assert torch.equal(state, torch.get_rng_state())
    assert (network.training, network.drop.training) == (True, False)
    assert all(parameter.grad is None for parameter in network.parameters())
