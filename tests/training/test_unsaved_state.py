"""What a network keeps outside of its weights: found where a resumed run would compute something else, and only there."""

import threading
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.callbacks import stop_after
from support.own_code import own_code_folder
from torch import nn

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.models.registry import build
from convolab.training.run import Run
from convolab.training.setup import build_trainer
from convolab.training.unsaved_state import FirstNetwork, is_same

SOURCE = '''
import random
import threading
from collections import deque
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn


class Grows:
    def __init__(self):
        self.factor = 1

    def __call__(self, *values):
        self.factor += 1
        return values[-1] * self.factor


class Keeps(nn.Module):
    """Multiplies its logits with what it keeps, `what` that is."""

    seen = [0]
    steps = 0

    def __init__(self, shape, classes, what: str = "", start: int = 0):
        super().__init__()
        self.head, self.what, self.start, self.calls = nn.Linear(64, classes), what, start, 0
        self.register_buffer("count", torch.zeros(()), persistent=False)
        self.tensor, self.array = torch.zeros(()), np.zeros(1)
        self.deque, self.dict, self.set, self.object = deque(maxlen=3), {}, set(), SimpleNamespace(inner={"steps": 0})
        self.generator, self.python, self.numpy = torch.Generator(), random.Random(0), np.random.default_rng(0)
        self.hidden, self.stream = [nn.BatchNorm1d(64)], (number for number in range(10**6))
        self.cache, self.features, self.notes, self.factor = {}, None, [], 0
        self.drop, self.head.weight.steps = nn.Dropout(), 0
        if what == "forward_hook":
            self.head.register_forward_hook(Grows())
        if what == "module_hook":
            self.head.register_full_backward_pre_hook(self.grow)
        if what == "gradient_hook":
            self.head.weight.register_hook(self.grow)
        if what == "gradient_object":
            self.head.weight.register_hook(Grows())
        if what == "accumulated_hook":
            self.head.weight.register_post_accumulate_grad_hook(self.grow_gradient)
        if what == "noting_hook":
            self.head.weight.register_hook(self.note)
        if what == "enclosing_hook":
            self.head.weight.register_hook(lambda gradient: self.seen_gradients.append(gradient))
            self.seen_gradients = []

    def forward(self, x):
        x = x.flatten(1)
        if not self.training:
            return self.head(x)
        self.calls += 1
        if self.what and self.calls > self.start:
            return getattr(self, self.what)(x)
        return self.head(x)

    def grow(self, *values):
        if self.calls > self.start:
            self.factor += 1
        return values[0] * (1 + self.factor) if len(values) == 1 else (values[1][0] * (1 + self.factor),)

    def grow_gradient(self, parameter):
        self.factor += 1
        parameter.grad *= 1 + self.factor

    def note(self, gradient):
        self.notes.append(gradient.norm().item())

    def hooked(self, x):
        return self.head(x)

    forward_hook = module_hook = gradient_hook = gradient_object = accumulated_hook = hooked
    noting_hook = enclosing_hook = hooked

    def attribute_of_parameter(self, x):
        self.head.weight.steps += 1
        return self.head(x) * self.head.weight.steps

    def noted_on_parameter(self, x):
        self.head.weight.steps += 1
        return self.head(x)

    def mode(self, x):
        logits = self.drop(self.head(x))
        self.drop.eval()
        return logits

    def mode_each_time(self, x):
        self.drop.eval()
        return self.drop(self.head(x))

    def buffer(self, x):
        self.count += 1
        return self.head(x) * (1 + self.count)

    def replaced_buffer(self, x):
        self.count = self.count + 1
        return self.head(x) * (1 + self.count)

    def tensor_(self, x):
        self.tensor = 0.9 * self.tensor + 0.1 * self.head(x).mean()
        return self.head(x) + self.tensor

    def array_(self, x):
        self.array += 1
        return self.head(x) * float(1 + self.array[0])

    def deque_(self, x):
        self.deque.append(x.mean())
        return self.head(x) * sum(self.deque)

    def dict_(self, x):
        self.dict["steps"] = self.dict.get("steps", 0) + 1
        return self.head(x) * self.dict["steps"]

    def set_(self, x):
        self.set.add(len(self.set))
        return self.head(x) * len(self.set)

    def object_(self, x):
        self.object.inner["steps"] += 1
        return self.head(x) * self.object.inner["steps"]

    def generator_(self, x):
        return self.head(x * torch.rand(1, generator=self.generator))

    def python_(self, x):
        return self.head(x * self.python.random())

    def numpy_(self, x):
        return self.head(x * self.numpy.random())

    def stream_(self, x):
        return self.head(x) * next(self.stream)

    def hidden_(self, x):
        self.hidden[0].train()(x)
        return self.head(self.hidden[0].eval()(x))

    def class_(self, x):
        type(self).steps += 1
        return self.head(x) * self.steps

    def class_list(self, x):
        self.seen[0] += 1
        return self.head(x) * self.seen[0]

    def frozen(self, x):
        self.head.bias.requires_grad_(False)
        return self.head(x)

    def detached(self, x):
        self.dict["steps"] = self.dict.get("steps", 0) + 1
        logits = self.head(x)
        return logits if self.dict["steps"] < 3 else logits.detach() + logits * 0

    def cached(self, x):
        if x.shape not in self.cache:
            self.cache[x.shape] = torch.linspace(0, 1, x.shape[1])
        return self.head(x * self.cache[x.shape])

    def noted(self, x):
        self.features = self.head(x)
        self.notes.append(self.features.mean())
        self.tensor, self.object.last = self.features, x
        Keeps.steps += 1
        return self.features

    def reseeded(self, x):
        return self.head(x * torch.rand(1, generator=self.generator.manual_seed(3)))

    def locked(self, x):
        self.lock = threading.Lock()
        return self.head(x)
'''
KEEPERS = {
    "buffer": "self.count", "replaced_buffer": "self.count", "tensor_": "self.tensor", "array_": "self.array",
    "deque_": "self.deque", "dict_": "self.dict", "set_": "self.set", "object_": "self.object",
    "generator_": "self.generator", "python_": "self.python", "numpy_": "self.numpy", "hidden_": "self.hidden", "stream_": "self.stream",
    "class_": "Keeps.steps", "class_list": "Keeps.seen", "frozen": "head.bias.requires_grad", "detached": "self.dict",
    "forward_hook": "self._forward_hooks", "module_hook": "self.factor", "gradient_hook": "self.factor",
    "gradient_object": "self.weight._backward_hooks", "accumulated_hook": "self.factor",
    "attribute_of_parameter": "self.weight.steps", "mode": "drop.training",
}  # fmt: skip
HARMLESS = [
    "", "cached", "noted", "reseeded", "locked", "noted_on_parameter", "noting_hook", "enclosing_hook", "mode_each_time",
]  # fmt: skip


@pytest.fixture
def keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipes = own_code_folder(tmp_path, monkeypatch, "keeps.py", SOURCE)

    def recipe(what: str, **overrides: object):
        network = {"model.name": "keeps.py:Keeps", "model.what": what}
        return recipes({**network, "training.epochs": 2, **overrides})

    return recipe


@pytest.mark.slow
@pytest.mark.parametrize("what", [what for what in KEEPERS if what != "frozen"])
def test_a_network_that_computes_with_what_no_file_holds_is_refused_before_the_training(
    what: str, keeps, digits: DatasetSplits
) -> None:
    with pytest.raises(
        LabError, match=r"^the network computes with .*, which it changes while it is trained"
    ) as caught:
        build_trainer(keeps(what), digits, "cpu")
    assert KEEPERS[what] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert build_trainer(keeps(what, **{"training.exact": False}), digits, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["buffer", "object_", "generator_", "class_", "frozen", "gradient_hook"])
def test_a_network_that_begins_with_that_later_is_refused_at_the_next_saved_state(
    what: str, keeps, digits: DatasetSplits
) -> None:
    with pytest.raises(LabError, match=r"^the network computes with "):
        Run.start(keeps(what, **{"model.start": 9}), digits, "run")
    assert Run("run").status == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("what", HARMLESS)
def test_a_network_that_caches_or_notes_something_down_is_resumed_bit_for_bit(
    what: str, keeps, digits: DatasetSplits
) -> None:
    whole = Run.start(keeps(what), digits, "whole")
    Run.start(keeps(what), digits, "stopped", callbacks=stop_after(9))
    assert (Run("stopped").resume(digits).folder / "last.safetensors").read_bytes() == (
        whole.folder / "last.safetensors"
    ).read_bytes()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rows(x[:, 0])[0][:, -1])


NETWORKS = [
    Recurrent(),
    nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 4, 3)), nn.Flatten(), nn.Linear(144, 10)),
    nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 4, 3)), nn.Dropout(), nn.Flatten(), nn.Linear(144, 10)),
    *(build(name, (1, 8, 8), 10) for name in ("shallow_net", "simple_convnet", "resnet_small", "torchvision/resnet18")),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)
def test_networks_of_layers_that_are_known_are_not_refused_and_stay_as_they_are(network: nn.Module) -> None:
    first = FirstNetwork(network)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    pixels, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    assert first.find_unsaved(network, pixels, labels, is_tried=True) == []
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    for _ in range(3):
        network(pixels)
    assert first.find_unsaved(network, pixels, labels, is_tried=False) == []


def test_the_check_costs_a_few_passes_of_the_network() -> None:
    network, pixels, labels = build("simple_convnet", (1, 8, 8), 10), torch.rand(8, 1, 8, 8), torch.arange(8)
    passes: list[None] = []
    network.register_forward_pre_hook(lambda *_: passes.append(None))  # copies of the network have it too
    FirstNetwork(network).find_unsaved(network, pixels, labels, is_tried=True)
    assert 2 <= len(passes) <= 8


def test_values_are_compared_by_what_they_hold() -> None:
    itself: list[object] = []
    itself.append(itself)
    other: list[object] = []
    other.append(other)
    assert is_same(itself, other)
    assert is_same(SimpleNamespace(a=deque([float("nan")])), SimpleNamespace(a=deque([float("nan")])))
    assert not is_same(SimpleNamespace(a=1), SimpleNamespace(a=2))
    assert not is_same(threading.Lock(), threading.Lock())
    assert not is_same({1: 2}, {2: 1})
    assert not is_same(torch.zeros(1), torch.zeros(1, dtype=torch.int64))
