"""Networks by name: their options, their initial weights, and the user's own in a file, a package or the registry."""

import math
import random
import re
from collections import OrderedDict
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.core.rng import isolated_rng
from convolab.models import registry
from convolab.models.registry import build
from convolab.models.zoo import ImageShape

NAMES = ("shallow_net", "shallow_net_class", "simple_convnet", "resnet_small")


@pytest.fixture
def restore_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove from the registry what the test registers."""
    monkeypatch.setattr(registry, "NETWORKS", dict(registry.NETWORKS))


def pixels(shape: ImageShape, n: int = 3) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same tensors, by name and bit for bit."""
    a, b = one.state_dict(), other.state_dict()
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


# Initial weights


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_depend_on_the_seed_only_and_do_not_use_the_global_generator(name: str) -> None:
    torch.manual_seed(1)
    first = build(name, (1, 8, 8), 10, seed=4)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    build("resnet_small", (3, 32, 32), 5, seed=9)
    repeated = build(name, (1, 8, 8), 10, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert same(first, repeated)
    for (layer, one), other in zip(
        first.named_parameters(), build(name, (1, 8, 8), 10, seed=5).parameters(), strict=True
    ):
        assert one.std() == 0 or not torch.equal(one, other), layer  # the weights of a batch norm are ones and zeros


def test_layers_of_the_same_shape_have_different_initial_weights() -> None:
    net = build("resnet_small", (3, 32, 32), 10, blocks=3)
    weights = [layer.weight for layer in net.features.stage1.modules() if isinstance(layer, nn.Conv2d)]
    assert len({weight.sum().item() for weight in weights}) == 6


def test_the_initial_weights_of_a_layer_depend_on_its_name_and_not_on_other_layers() -> None:
    one = nn.Sequential(OrderedDict(a=nn.Conv2d(1, 4, 3), b=nn.Conv2d(4, 4, 3), c=nn.Flatten()))
    other = nn.Sequential(OrderedDict(b=nn.Conv2d(4, 4, 3), more=nn.Linear(5, 5), a=nn.Conv2d(1, 4, 3)))
    with isolated_rng():
        for net in (one, other):
            registry.initialize_weights(net, seed=0)
    for layer in ("a", "b"):
        assert torch.equal(one.get_submodule(layer).weight, other.get_submodule(layer).weight)
        assert torch.equal(one.get_submodule(layer).bias, other.get_submodule(layer).bias)


def test_a_longer_network_has_the_initial_weights_of_the_shorter_one() -> None:
    shorter, longer = (
        build("simple_convnet", (1, 32, 32), 10, channels=c).state_dict() for c in ([8, 16], [8, 16, 16])
    )
    assert all(torch.equal(shorter[f"features.{i}.conv.weight"], longer[f"features.{i}.conv.weight"]) for i in (0, 1))


@pytest.mark.parametrize("is_registered", [True, False])
def test_what_the_constructor_of_an_own_network_initializes_stays_as_it_is(
    is_registered: bool, tmp_path: Path, restore_registry: None
) -> None:
    source = """
from torch import nn

def mine(shape, classes):
    net = nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], classes), nn.Linear(classes, classes))
    nn.init.zeros_(net[1].weight)
    return net
"""
    names: dict[str, registry.NetworkFactory] = {}
    exec(source, names)
    (tmp_path / "own.py").write_text(source)
    registry.register(names["mine"])
    name = "mine" if is_registered else f"{tmp_path}/own.py:mine"
    first, again, other = (build(name, (1, 8, 8), 3, seed=seed) for seed in (0, 0, 1))
    assert not first[1].weight.any()
    assert same(first, again)
    assert not torch.equal(first[2].weight, other[2].weight)


def test_numpys_and_pythons_draws_in_an_own_constructor_are_those_of_the_seed(restore_registry: None) -> None:
    @registry.register
    def draws(shape: ImageShape, classes: int) -> nn.Module:
        layer = nn.Linear(64, classes)
        layer.weight = nn.Parameter(torch.from_numpy(np.random.randn(classes, 64)).float())
        layer.bias = nn.Parameter(torch.tensor([random.random() for _ in range(classes)]))
        return nn.Sequential(nn.Flatten(), layer)

    states = random.getstate(), np.random.get_state()[1].copy()
    first, again, other = (build("draws", (1, 8, 8), 10, seed=seed) for seed in (0, 0, 1))
    assert same(first, again)
    assert not torch.equal(first[1].weight, other[1].weight)
    assert not torch.equal(first[1].bias, other[1].bias)
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])


# Registry and options


def test_a_users_function_is_registered_by_one_line(restore_registry: None) -> None:
    @registry.register
    def mine(shape: ImageShape, classes: int, wide: int = 4, *, bias: bool = True) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], wide), nn.Linear(wide, classes, bias=bias))

    net = build("mine", (1, 8, 8), 3, wide=6, bias=False)
    assert net(pixels((1, 8, 8))).shape == (3, 3)
    assert net[1].out_features == 6
    assert net[2].bias is None
    assert registry.resolve_options("mine", {"wide": 9}) == {"wide": 9, "bias": True}


def test_a_function_without_a_name_of_its_own_is_registered_under_a_given_one(restore_registry: None) -> None:
    def mine(shape: ImageShape, classes: int, wide: int = 4) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], wide), nn.Linear(wide, classes))

    narrow = partial(mine, wide=2)
    with pytest.raises(LabError, match=r"it has no name of its own: give one, as in register\(factory, name='mine'\)"):
        registry.register(narrow)
    registry.register(narrow, "narrow")
    assert build("narrow", (1, 8, 8), 3)[1].out_features == 2


def test_a_users_class_is_registered_under_a_given_name(restore_registry: None) -> None:
    class Mine(nn.Module):
        def __init__(self, shape: ImageShape, classes: int) -> None:
            super().__init__()
            self.linear = nn.Linear(shape[1] * shape[2], classes)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.flatten(1))

    registry.register(Mine, "my_net")
    assert isinstance(build("my_net", (1, 8, 8), 3), Mine)
    with pytest.raises(LabError, match="the network 'my_net' has no option 'wide': it has none"):
        build("my_net", (1, 8, 8), 3, wide=6)


SOURCE = """
from torch import nn
from pydantic import PositiveInt
Width = PositiveInt

class Mine(nn.Sequential):
    def __init__(self, shape: tuple[int, int, int], classes: int, wide: Width = 4) -> None:
        super().__init__(nn.Flatten(), nn.Linear(shape[1] * shape[2], wide), nn.Linear(wide, classes))

nothing = 3

def too_few(shape):
    return nn.Flatten()

def needs(shape, classes, wide: int):
    return nn.Flatten()
"""


@pytest.fixture(params=["", "from __future__ import annotations\n"], ids=["plain", "with postponed annotations"])
def network_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file with a user's networks, its annotations as types and as strings."""
    path = tmp_path / "networks.py"
    path.write_text(request.param + SOURCE)
    registry.trust_named(f"{path}:Mine")
    return path


def test_a_network_is_found_in_a_file(network_file: Path) -> None:
    net = build(f"{network_file}:Mine", (1, 8, 8), 3, wide=6)
    assert net(pixels((1, 8, 8))).shape == (3, 3)
    assert net[1].out_features == 6
    assert same(net, build(f"{network_file}:Mine", (1, 8, 8), 3, wide=6))


def test_the_options_of_a_network_in_a_file_are_checked_by_its_own_types(network_file: Path) -> None:
    with pytest.raises(LabError, match=r"model\.wide = 'a'"):
        registry.resolve_options(f"{network_file}:Mine", {"wide": "a"})
    with pytest.raises(LabError, match=r"model\.wide = 0"):
        registry.resolve_options(f"{network_file}:Mine", {"wide": 0})
    with pytest.raises(LabError, match=r"model\.wide"):
        registry.resolve_options(f"{network_file}:needs", {})


def test_a_network_is_found_in_an_installed_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "users_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "networks.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    assert build("users_package.networks:Mine", (1, 8, 8), 3)[1].out_features == 4


def test_a_file_or_module_without_the_network_is_refused(network_file: Path) -> None:
    for name, message in {
        f"{network_file}:Mime": "has no Mime: did you mean 'Mine'",
        f"{network_file.parent}/other.py:Mine": "no file .*other.py",
        "no_such_package.nets:Mine": "there is no Python file of a network for 'no_such_package.nets'",
        f"{network_file}:nothing": "nothing of networks.py is not a network: give a subclass of torch.nn.Module",
        f"{network_file}:too_few": r"must take \(shape, classes, ...options\), and takes \(shape\)",
        f"{network_file}:": "is not the name of your own code",
        ":Mine": "is not the name of your own code",
        ".networks:Mine": "is not the name of your own code",
    }.items():
        with pytest.raises(LabError, match=message):
            registry.resolve_options(name, {})


def test_a_type_that_does_not_exist_at_run_time_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("from __future__ import annotations\ndef net(shape, classes, wide: Missing = 3): ...\n")
    registry.trust_named(f"{path}:net")
    with pytest.raises(LabError, match="'Missing' is not defined"):
        registry.resolve_options(f"{path}:net", {})


def make_factory(signature: str) -> registry.NetworkFactory:
    """A function with this signature, as a user would write it."""
    names = {"nn": nn}
    exec(f"def mine{signature}: return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))", names)
    return names["mine"]


@pytest.mark.parametrize(
    "signature", ["(**options)", "(shape, **options)", "(*, shape, classes)", "()", "(shape, *, classes=3)"]
)
def test_a_factory_that_cannot_be_called_by_shape_and_classes_is_refused(
    signature: str, restore_registry: None
) -> None:
    registry.register(make_factory(signature))
    with pytest.raises(
        LabError,
        match=rf"^the network 'mine' must take \(shape, classes, ...options\), and takes {re.escape(signature)}$",
    ):
        build("mine", (1, 8, 8), 3)


@pytest.mark.parametrize(
    "signature",
    ["(*args)", "(*args, **options)", "(shape, *rest)", "(shape, classes, /)", "(shape, classes, **options)"],
)
def test_a_factory_that_accepts_shape_and_classes_in_any_way_is_called_with_them(
    signature: str, restore_registry: None
) -> None:
    registry.register(make_factory(signature))
    assert build("mine", (1, 8, 8), 3)(pixels((1, 8, 8))).shape[1:] == (3,)
    assert registry.resolve_options("mine", {}) == {}


def test_a_keyword_after_any_number_of_arguments_is_an_option(restore_registry: None) -> None:
    registry.register(make_factory("(*args, wide: int = 4)"))
    assert registry.resolve_options("mine", {"wide": 9}) == {"wide": 9}
    with pytest.raises(LabError, match="has no option 'args'"):
        registry.resolve_options("mine", {"args": 9})


def test_a_class_without_a_readable_signature_is_refused(restore_registry: None) -> None:
    registry.register(dict)
    with pytest.raises(LabError, match="the network 'dict' has no readable signature"):
        registry.resolve_options("dict", {})


@pytest.mark.parametrize(
    "value", [date(2024, 1, 1), {1, 2}, nn.ReLU, nn.ReLU(), 1j, b"16", math.nan, math.inf, [math.inf]], ids=repr
)
def test_an_option_or_default_that_a_recipe_cannot_contain_is_refused_by_its_key(
    value: object, restore_registry: None
) -> None:
    @registry.register
    def any_options(shape: ImageShape, classes: int, first=1, second=value) -> nn.Module: ...

    for options in ({"first": value, "second": 2}, {}):
        with pytest.raises(
            LabError, match=r"^model\.(first|second) = .*: a recipe holds strings, finite numbers, booleans and lists$"
        ):
            registry.resolve_options("any_options", options)


def test_an_option_of_a_type_that_no_recipe_has_is_refused(restore_registry: None) -> None:
    registry.register(make_factory("(shape, classes, act: nn.Module = None)"))
    with pytest.raises(LabError, match=r"^the network 'mine' takes .*act.*, and a recipe cannot hold that: .*$"):
        registry.resolve_options("mine", {})


def test_a_private_argument_is_not_an_option(restore_registry: None) -> None:
    registry.register(make_factory("(shape, classes, wide: int = 3, _act: int = 3)"))
    assert registry.resolve_options("mine", {}) == {"wide": 3}
    with pytest.raises(LabError, match="the network 'mine' has no option '_act'"):
        registry.resolve_options("mine", {"_act": 4})


def test_the_error_about_an_unknown_network_suggests_the_nearest() -> None:
    with pytest.raises(LabError, match="unknown network 'simple_convnets': did you mean 'simple_convnet'"):
        build("simple_convnets", (3, 32, 32), 10)
    with pytest.raises(
        LabError, match=r"known: efficientnet_lite0, .*resnet_small, shallow_net, shallow_net_class, simple_convnet"
    ):
        build("zzz", (3, 32, 32), 10)
    with pytest.raises(LabError, match=r"'mine\.toml' is a recipe, not a network"):
        build("mine.toml", (3, 32, 32), 10)
    with pytest.raises(LabError, match="did you mean timm/resnet18 or torchvision/resnet18"):
        build("resnet18", (3, 32, 32), 10)


def test_the_error_about_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(LabError, match="'simple_convnet' has no option 'residuals': did you mean 'residual'"):
        build("simple_convnet", (3, 32, 32), 10, residuals=True)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("simple_convnet", "channels", "a"),
        ("simple_convnet", "channels", 16),
        ("simple_convnet", "channels", [0]),
        ("simple_convnet", "channels", [16, -1]),
        ("simple_convnet", "channels", [16, 8.5]),
        ("simple_convnet", "batch_norm", "yes"),
        ("simple_convnet", "batch_norm", 1),
        ("simple_convnet", "residual", None),
        ("shallow_net", "hidden", 0),
        ("shallow_net", "hidden", "128"),
        ("shallow_net", "hidden", True),
        ("shallow_net_class", "hidden", 1.5),
        ("resnet_small", "blocks", 0),
    ],
)
def test_an_option_of_the_wrong_type_is_refused_by_its_key(name: str, option: str, value: object) -> None:
    with pytest.raises(LabError, match=rf"^model\.{option}.* = "):
        build(name, (3, 32, 32), 10, **{option: value})


def test_a_list_and_a_tuple_of_channels_are_the_same() -> None:
    assert registry.resolve_options("simple_convnet", {"channels": [4, 8]}) == registry.resolve_options(
        "simple_convnet", {"channels": (4, 8)}
    )


def test_a_users_file_is_run_once_and_again_after_it_was_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from torch import nn\nprint('run')\n"
        "def net(shape, classes, wide: int = 3): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    for _ in range(3):
        build(f"{path}:net", (1, 8, 8), 10)
    assert capsys.readouterr().out == "run\n"
    path.write_text(path.read_text().replace("wide: int = 3", "wide: int = 4"))
    registry.trust_named(f"{path}:net")
    assert registry.resolve_options(f"{path}:net", {}) == {"wide": 4}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("simple_convnet", {"channels": [10**9]}, "at most 1000000"),
        (
            "simple_convnet",
            {"channels": [10**6] * 2},
            "would have 9,0.* parameters, and may have 500,000,000: give smaller",
        ),
        ("simple_convnet", {"channels": [4] * 10**5}, "at most 100 of them"),
        ("resnet_small", {"blocks": 10**9}, "at most 200"),
        ("resnet_small", {"channels": [10**5], "blocks": 2}, "parameters, and may have 500,000,000"),
        ("shallow_net", {"hidden": 10**30}, "hidden = 1000.*at most 1000000"),
        ("shallow_net_class", {"hidden": 10**6}, "parameters, and may have 500,000,000"),
    ],
)
def test_a_network_larger_than_memory_is_refused_before_it_is_allocated(name, options, message):
    with pytest.raises(LabError, match=message):
        build(name, (3, 64, 64), 10, **options)


def test_a_network_of_ones_own_for_which_memory_is_not_enough_is_refused(restore_registry):
    registry.register(lambda shape, classes: nn.Linear(10**9, 10**9), "huge")
    with pytest.raises(LabError, match="there is not enough memory: the network 'huge' is too large"):
        build("huge", (3, 64, 64), 10)


@pytest.mark.parametrize("name", ["torch.nn:Module", "torch.nn:Linear"])
def test_a_network_that_cannot_be_built_of_shape_and_classes_is_refused_in_one_line(name):
    with pytest.raises(LabError, match=f"the network '{name}' cannot be built: TypeError: ") as caught:
        build(name, (1, 8, 8), 10)
    assert "\n" not in str(caught.value)


def test_a_network_of_no_classes_is_refused():
    with pytest.raises(LabError, match="give at least 1"):
        build("simple_convnet", (1, 8, 8), 0)
