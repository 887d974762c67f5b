import math
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.models import zoo
from convolab.models.zoo import build

SHALLOW, CONVNETS = ("shallow_net", "shallow_net_class"), ("simple_convnet", "resnet_small")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, zoo.NetworkFactory]]:
    """The registry, which forgets what a test puts in."""
    monkeypatch.setattr(zoo, "NETWORKS", dict(zoo.NETWORKS))
    return zoo.NETWORKS


def pixels(shape: zoo.ImageShape, n: int = 3) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same tensors, by name and bit for bit."""
    a, b = one.state_dict(), other.state_dict()
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


def trained(net: nn.Module, shape: zoo.ImageShape, classes: int) -> nn.Module:
    """The network with weights, biases and running statistics that are no longer the first ones."""
    draw = torch.Generator().manual_seed(1)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=draw) - 0.5, alpha=0.4)
    return net


# Sequential and class


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_the_shallow_net_and_its_class_are_one_network_bit_for_bit(shape: zoo.ImageShape) -> None:
    sequential, module = (build(name, shape, 10, seed=3, hidden=50) for name in SHALLOW)
    assert isinstance(sequential, nn.Sequential)
    assert same(sequential, module)
    outputs = [net(pixels(shape, 20)) for net in (sequential, module)]
    assert torch.equal(*outputs)
    for output in outputs:
        F.cross_entropy(output, torch.arange(20) % 10).backward()
    for (name, one), other in zip(sequential.named_parameters(), module.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name


def test_the_shallow_net_is_two_linear_layers_with_a_relu_between() -> None:
    net = build("shallow_net", (3, 8, 9), 10)
    assert [type(layer) for layer in net] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    weights = net.state_dict()
    assert weights["hidden.weight"].shape == (128, 3 * 8 * 9)
    x = pixels((3, 8, 9)).reshape(3, -1)
    hidden = (x @ weights["hidden.weight"].T + weights["hidden.bias"]).clamp(min=0)
    torch.testing.assert_close(net(pixels((3, 8, 9))), hidden @ weights["output.weight"].T + weights["output.bias"])


# Shapes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 9, 28, 32, 64])
@pytest.mark.parametrize(
    ("name", "options"), [*((n, {}) for n in (*SHALLOW, *CONVNETS)), ("simple_convnet", {"residual": True})]
)
def test_every_network_takes_every_size(name: str, options: dict, channels: int, side: int) -> None:
    shape = (channels, side, side)
    if name == "resnet_small" and side == 9:
        with pytest.raises(LabError, match="9x9 cannot be halved 2 times: give sides that divide by 4"):
            build(name, shape, 7)
        return
    logits = build(name, shape, 7, **options)(pixels(shape))
    assert logits.shape == (3, 7)
    assert logits.isfinite().all()


@settings(max_examples=10, deadline=None)
@given(st.integers(8, 64), st.integers(8, 64), st.integers(1, 7), st.booleans())
def test_a_convnet_takes_any_sides_and_any_number_of_stages(
    height: int, width: int, stages: int, residual: bool
) -> None:
    net = build("simple_convnet", (1, height, width), 2, channels=[3] * stages, residual=residual)
    halvings = min(stages, min(height, width).bit_length() - 1)
    assert net.features(pixels((1, height, width))).shape == (3, 3, height >> halvings, width >> halvings)
    assert net(pixels((1, height, width))).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ((2, 32, 32), "2 channels"),
        ((4, 32, 32), "4 channels"),
        ((3, 7, 32), "7x32"),
        ((3, 32, 7), "32x7"),
        ((1, 65, 8), "65x8"),
        ((1, 8, 65), "8x65"),
    ],
)
@pytest.mark.parametrize("name", [*SHALLOW, *CONVNETS])
def test_pictures_the_networks_are_not_made_for_are_refused(name: str, shape: zoo.ImageShape, complaint: str) -> None:
    with pytest.raises(LabError, match=f"pictures (have|are) {complaint}"):
        build(name, shape, 10)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("simple_convnet", {"channels": [16, 8], "residual": True}, "shrink"),
        ("simple_convnet", {"channels": []}, "empty"),
        ("resnet_small", {"channels": [16, 8]}, "none smaller"),
        ("resnet_small", {"channels": []}, "at least one"),
    ],
)
def test_stages_that_cannot_be_joined_are_refused(name: str, options: dict, complaint: str) -> None:
    with pytest.raises(LabError, match=complaint):
        build(name, (3, 32, 32), 10, **options)


def test_channels_may_shrink_where_there_is_no_shortcut() -> None:
    assert build("simple_convnet", (1, 8, 8), 10, channels=[8, 4])(pixels((1, 8, 8))).shape == (3, 10)


# Layers


def leaves(net: nn.Module, x: Tensor) -> list[tuple[type[nn.Module], tuple[int, ...]]]:
    """The layers in the order in which they run, with the shape of what each gives for one picture."""
    seen = []
    hooks = [
        layer.register_forward_hook(lambda layer, _, y: seen.append((type(layer), tuple(y.shape[1:]))))
        for layer in net.modules()
        if not list(layer.children()) and not isinstance(layer, nn.Identity)
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_the_simple_convnet_runs_the_layers_its_docstring_lists() -> None:
    net = build("simple_convnet", (3, 32, 40), 10)
    expected = []
    for channels, h, w in ((16, 32, 40), (32, 16, 20), (64, 8, 10)):
        expected += [
            (nn.Conv2d, (channels, h, w)),
            (nn.MaxPool2d, (channels, h // 2, w // 2)),
            (nn.BatchNorm2d, (channels, h // 2, w // 2)),
        ]
    assert leaves(net, pixels((3, 32, 40))) == [
        *expected,
        (zoo.GlobalAvgPool2d, (64, 1, 1)),
        (nn.Flatten, (64,)),
        (nn.Linear, (10,)),
    ]


def test_without_batch_norm_there_is_none_and_convolutions_have_biases() -> None:
    net = build("simple_convnet", (3, 32, 32), 10, batch_norm=False)
    assert [kind for kind, _ in leaves(net, pixels((3, 32, 32)))][:4] == [
        nn.Conv2d,
        nn.MaxPool2d,
        nn.Conv2d,
        nn.MaxPool2d,
    ]
    assert all(layer.bias is not None for layer in net.modules() if isinstance(layer, nn.Conv2d))


def test_the_resnet_runs_the_layers_its_docstring_lists() -> None:
    net = build("resnet_small", (3, 32, 40), 10, blocks=2)
    expected = [(nn.Conv2d, (32, 32, 40)), (nn.BatchNorm2d, (32, 32, 40)), (nn.ReLU, (32, 32, 40))]
    for channels, h, w in ((32, 32, 40), (64, 16, 20), (128, 8, 10)):
        expected += [(nn.Conv2d, (channels, h, w)), (nn.BatchNorm2d, (channels, h, w))] * 4
    assert leaves(net, pixels((3, 32, 40))) == [
        *expected,
        (zoo.GlobalAvgPool2d, (128, 1, 1)),
        (nn.Flatten, (128,)),
        (nn.Linear, (10,)),
    ]
    with_weights = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(with_weights) == 6 * 2 + 2


def widened(x: Tensor, like: Tensor) -> Tensor:
    """A shortcut by hand: 2x2 means where the size changes, zeros as new channels."""
    if x.shape[2:] != like.shape[2:]:
        h, w = like.shape[2:]
        x = x[:, :, : 2 * h, : 2 * w].unflatten(3, (w, 2)).unflatten(2, (h, 2)).mean((3, 5))
    return torch.cat([x, x.new_zeros(len(x), like.shape[1] - x.shape[1], *x.shape[2:])], 1)


def norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var, w, b = (
        weights[f"{name}.{k}"].view(1, -1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * w + b


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("side", [9, 32])
def test_the_simple_convnet_computes_what_its_docstring_says(residual: bool, batch_norm: bool, side: int) -> None:
    shape = (3, side, side)
    net = trained(build("simple_convnet", shape, 10, residual=residual, batch_norm=batch_norm), shape, 10).eval()
    weights, x = net.state_dict(), pixels(shape)
    for i in range(3):
        y = F.max_pool2d(
            F.conv2d(x, weights[f"features.{i}.conv.weight"], weights.get(f"features.{i}.conv.bias"), padding=1), 2
        )
        if batch_norm:
            y = norm(weights, f"features.{i}.norm", y)
        x = (y + widened(x, y) if residual and i > 0 else y).clamp(min=0)
    expected = x.mean((2, 3)) @ weights["head.linear.weight"].T + weights["head.linear.bias"]
    torch.testing.assert_close(net(pixels(shape)), expected)


def test_the_resnet_computes_what_its_docstring_says() -> None:
    shape = (1, 28, 32)
    net = trained(build("resnet_small", shape, 10, channels=[4, 6], blocks=2), shape, 10).eval()
    weights, x = net.state_dict(), pixels(shape)
    x = norm(weights, "features.stem.norm", F.conv2d(x, weights["features.stem.conv.weight"], padding=1)).clamp(min=0)
    for stage in (1, 2):
        for block in (0, 1):
            name, stride = f"features.stage{stage}.{block}", 2 if (stage, block) == (2, 0) else 1
            y = norm(
                weights, f"{name}.norm1", F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            ).clamp(min=0)
            y = norm(weights, f"{name}.norm2", F.conv2d(y, weights[f"{name}.conv2.weight"], padding=1))
            x = (y + widened(x, y)).clamp(min=0)
    expected = x.mean((2, 3)) @ weights["head.linear.weight"].T + weights["head.linear.bias"]
    torch.testing.assert_close(net(pixels(shape)), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (1, 3), (7, 2), (1, 1)])
def test_the_mean_over_a_map_is_torchs_and_so_is_its_gradient(
    height: int, width: int, layout: torch.memory_format
) -> None:
    maps = [pixels((5, height, width)).contiguous(memory_format=layout).requires_grad_() for _ in range(2)]
    for layer, features in zip((zoo.GlobalAvgPool2d(), nn.AdaptiveAvgPool2d(1)), maps, strict=True):
        (layer(features) * torch.arange(5.0).view(5, 1, 1)).square().sum().backward()
    torch.testing.assert_close(maps[0].grad, maps[1].grad)
    torch.testing.assert_close(zoo.GlobalAvgPool2d()(maps[0]), nn.AdaptiveAvgPool2d(1)(maps[1]))


def test_the_gradient_of_a_mean_over_a_map_lies_as_the_map_does() -> None:
    features = pixels((5, 4, 4)).contiguous(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(zoo.GlobalAvgPool2d()(features).sum(), features)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("name", "options"), [("simple_convnet", {"residual": True}), ("resnet_small", {"blocks": 2})])
def test_a_residual_network_with_zeroed_convolutions_is_its_shortcut_chain(name: str, options: dict) -> None:
    shape = (3, 32, 32)
    net = build(name, shape, 10, **options).eval()
    first, *rest = net.features
    for layer in nn.ModuleList(rest if name == "simple_convnet" else net.features[1:]).modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    x = first(pixels(shape))
    halved = F.avg_pool2d(F.avg_pool2d(x, 2), 2)
    features = net.features(pixels(shape))
    torch.testing.assert_close(features[:, : x.shape[1]], halved)
    assert features[:, x.shape[1] :].abs().max() == 0


# Parameters


@pytest.mark.parametrize("channels", [(16, 32, 64), (5,), (8, 8, 8, 8)])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("colours", [1, 3])
def test_the_simple_convnet_has_the_parameters_of_its_formula(
    channels: tuple[int, ...], batch_norm: bool, colours: int
) -> None:
    net = build("simple_convnet", (colours, 32, 32), 7, channels=list(channels), batch_norm=batch_norm)
    inputs = (colours, *channels[:-1])
    formula = (
        sum(9 * i * o + (2 * o if batch_norm else o) for i, o in zip(inputs, channels, strict=True))
        + 7 * channels[-1]
        + 7
    )
    assert sum(p.numel() for p in net.parameters()) == formula


def test_residual_adds_no_parameter_and_starts_from_the_same_weights() -> None:
    plain, residual = (build("simple_convnet", (3, 32, 32), 10, seed=5, residual=r) for r in (False, True))
    assert same(plain, residual)
    assert not torch.allclose(plain(pixels((3, 32, 32))), residual(pixels((3, 32, 32))))


def test_without_batch_norm_the_convolutions_start_from_the_same_weights() -> None:
    normed, bare = (build("simple_convnet", (3, 32, 32), 10, seed=5, batch_norm=b).state_dict() for b in (True, False))
    shared = [name for name in normed if name in bare]
    assert shared == [
        "features.0.conv.weight",
        "features.1.conv.weight",
        "features.2.conv.weight",
        "head.linear.weight",
        "head.linear.bias",
    ]
    assert all(torch.equal(normed[name], bare[name]) for name in shared)


# Initial weights


@pytest.mark.parametrize("name", [*SHALLOW, *CONVNETS])
def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_generator_untouched(name: str) -> None:
    torch.manual_seed(1)
    first = build(name, (1, 8, 8), 10, seed=4)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    build("resnet_small", (3, 32, 32), 5, seed=9)
    again = build(name, (1, 8, 8), 10, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert same(first, again)
    for (layer, one), other in zip(
        first.named_parameters(), build(name, (1, 8, 8), 10, seed=5).parameters(), strict=True
    ):
        assert one.std() == 0 or not torch.equal(one, other), layer  # a batch norm starts from ones and zeros


def test_layers_of_one_shape_start_from_different_weights() -> None:
    net = build("resnet_small", (3, 32, 32), 10, blocks=3)
    weights = [layer.weight for layer in net.features.stage1.modules() if isinstance(layer, nn.Conv2d)]
    assert len({weight.sum().item() for weight in weights}) == 6


def test_a_layers_weights_depend_on_its_name_and_not_on_its_neighbours(registry: dict[str, zoo.NetworkFactory]) -> None:
    def forwards(shape: zoo.ImageShape, classes: int) -> nn.Module:
        return nn.Sequential(OrderedDict(a=nn.Conv2d(1, 4, 3), b=nn.Conv2d(4, 4, 3), c=nn.Flatten()))

    def backwards(shape: zoo.ImageShape, classes: int) -> nn.Module:
        return nn.Sequential(OrderedDict(b=nn.Conv2d(4, 4, 3), more=nn.Linear(5, 5), a=nn.Conv2d(1, 4, 3)))

    zoo.register(forwards)
    zoo.register(backwards)
    one, other = build("forwards", (1, 8, 8), 10), build("backwards", (1, 8, 8), 10)
    for layer in ("a", "b"):
        assert torch.equal(one.get_submodule(layer).weight, other.get_submodule(layer).weight)
        assert torch.equal(one.get_submodule(layer).bias, other.get_submodule(layer).bias)


def test_a_longer_network_starts_where_the_shorter_one_does() -> None:
    shorter, longer = (
        build("simple_convnet", (1, 32, 32), 10, channels=c).state_dict() for c in ([8, 16], [8, 16, 16])
    )
    assert all(torch.equal(shorter[f"features.{i}.conv.weight"], longer[f"features.{i}.conv.weight"]) for i in (0, 1))


# Registry and options


def test_a_persons_function_joins_by_one_line(registry: dict[str, zoo.NetworkFactory]) -> None:
    @zoo.register
    def mine(shape: zoo.ImageShape, classes: int, wide: int = 4, *, bias: bool = True) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], wide), nn.Linear(wide, classes, bias=bias))

    net = build("mine", (1, 8, 8), 3, wide=6, bias=False)
    assert net(pixels((1, 8, 8))).shape == (3, 3)
    assert net[1].out_features == 6
    assert net[2].bias is None
    assert zoo.resolve_options("mine", {"wide": 9}) == {"wide": 9, "bias": True}


def test_a_persons_class_joins_under_a_name_of_its_own(registry: dict[str, zoo.NetworkFactory]) -> None:
    class Mine(nn.Module):
        def __init__(self, shape: zoo.ImageShape, classes: int) -> None:
            super().__init__()
            self.linear = nn.Linear(shape[1] * shape[2], classes)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.flatten(1))

    zoo.register(Mine, "my_net")
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
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file with somebody's networks, its annotations as types and as strings."""
    path = tmp_path / "networks.py"
    path.write_text(request.param + SOURCE)
    return path


def test_a_network_is_found_in_a_file(file: Path) -> None:
    net = build(f"{file}:Mine", (1, 8, 8), 3, wide=6)
    assert net(pixels((1, 8, 8))).shape == (3, 3)
    assert net[1].out_features == 6
    assert same(net, build(f"{file}:Mine", (1, 8, 8), 3, wide=6))


def test_the_options_of_a_network_in_a_file_are_checked_by_its_own_types(file: Path) -> None:
    with pytest.raises(LabError, match=r"model\.wide = 'a'"):
        zoo.resolve_options(f"{file}:Mine", {"wide": "a"})
    with pytest.raises(LabError, match=r"model\.wide = 0"):
        zoo.resolve_options(f"{file}:Mine", {"wide": 0})
    with pytest.raises(LabError, match=r"model\.wide"):
        zoo.resolve_options(f"{file}:needs", {})


def test_a_network_is_found_in_an_installed_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "somebodys_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "networks.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    assert build("somebodys_package.networks:Mine", (1, 8, 8), 3)[1].out_features == 4


def test_a_file_or_module_without_the_network_is_refused(file: Path) -> None:
    for name, complaint in {
        f"{file}:Mime": "has no Mime: did you mean 'Mine'",
        f"{file.parent}/other.py:Mine": "no file .*other.py",
        "no_such_package.nets:Mine": "cannot import 'no_such_package.nets' for the network Mine",
        f"{file}:nothing": "is 3: give a class, or a function",
        f"{file}:too_few": r"must take \(shape, classes, ...options\), and takes \(shape\)",
        f"{file}:": "names no network",
        ":Mine": "names no network",
        ".networks:Mine": "names no network",
    }.items():
        with pytest.raises(LabError, match=complaint):
            zoo.resolve_options(name, {})


def test_a_type_that_is_not_there_at_run_time_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("from __future__ import annotations\ndef net(shape, classes, wide: Missing = 3): ...\n")
    with pytest.raises(LabError, match="'Missing' is not defined"):
        zoo.resolve_options(f"{path}:net", {})


def factory(signature: str) -> zoo.NetworkFactory:
    """A function of the signature, as a person would write it."""
    names = {"nn": nn}
    exec(f"def mine{signature}: return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))", names)
    return names["mine"]


@pytest.mark.parametrize(
    "signature", ["(**options)", "(shape, **options)", "(*, shape, classes)", "()", "(shape, *, classes=3)"]
)
def test_a_factory_that_cannot_be_called_by_shape_and_classes_is_refused(
    signature: str, registry: dict[str, zoo.NetworkFactory]
) -> None:
    zoo.register(factory(signature))
    with pytest.raises(
        LabError,
        match=rf"^the network 'mine' must take \(shape, classes, ...options\), and takes {re.escape(signature)}$",
    ):
        build("mine", (1, 8, 8), 3)


@pytest.mark.parametrize(
    "signature",
    ["(*args)", "(*args, **options)", "(shape, *rest)", "(shape, classes, /)", "(shape, classes, **options)"],
)
def test_a_factory_that_takes_shape_and_classes_in_any_way_is_called_with_them(
    signature: str, registry: dict[str, zoo.NetworkFactory]
) -> None:
    zoo.register(factory(signature))
    assert build("mine", (1, 8, 8), 3)(pixels((1, 8, 8))).shape[1:] == (3,)
    assert zoo.resolve_options("mine", {}) == {}


def test_an_option_behind_any_number_of_arguments_is_one(registry: dict[str, zoo.NetworkFactory]) -> None:
    zoo.register(factory("(*args, wide: int = 4)"))
    assert zoo.resolve_options("mine", {"wide": 9}) == {"wide": 9}
    with pytest.raises(LabError, match="has no option 'args'"):
        zoo.resolve_options("mine", {"args": 9})


def test_a_built_in_that_does_not_tell_what_it_takes_is_refused() -> None:
    with pytest.raises(LabError, match="the network 'builtins:dict' does not tell what it takes"):
        zoo.resolve_options("builtins:dict", {})


@pytest.mark.parametrize(
    "value", [date(2024, 1, 1), {1, 2}, nn.ReLU, torch.eye(2), 1j, b"16", math.nan, math.inf, [math.inf]], ids=repr
)
def test_an_option_or_default_that_a_recipe_cannot_hold_is_refused_by_its_key(
    value: object, registry: dict[str, zoo.NetworkFactory]
) -> None:
    @zoo.register
    def open_minded(shape: zoo.ImageShape, classes: int, first=1, second=value) -> nn.Module: ...

    for chosen in ({"first": value, "second": 2}, {}):
        with pytest.raises(
            LabError, match=r"^model\.(first|second) = .*: a recipe holds strings, finite numbers, booleans and lists$"
        ):
            zoo.resolve_options("open_minded", chosen)


def test_an_option_of_a_type_that_no_recipe_has_is_refused(registry: dict[str, zoo.NetworkFactory]) -> None:
    zoo.register(factory("(shape, classes, act: nn.Module = None)"))
    with pytest.raises(LabError, match=r"^the network 'mine' takes .*act.*, and a recipe cannot hold that: .*$"):
        zoo.resolve_options("mine", {})


def test_a_private_argument_is_no_option(registry: dict[str, zoo.NetworkFactory]) -> None:
    zoo.register(factory("(shape, classes, wide: int = 3, _act: int = 3)"))
    assert zoo.resolve_options("mine", {}) == {"wide": 3}
    with pytest.raises(LabError, match="the network 'mine' has no option '_act'"):
        zoo.resolve_options("mine", {"_act": 4})


def test_an_unknown_network_suggests_the_nearest() -> None:
    with pytest.raises(LabError, match="unknown network 'simple_convnets': did you mean 'simple_convnet'"):
        build("simple_convnets", (3, 32, 32), 10)
    with pytest.raises(LabError, match="known: resnet_small, shallow_net, shallow_net_class, simple_convnet"):
        build("zzz", (3, 32, 32), 10)


def test_an_unknown_option_suggests_the_nearest() -> None:
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
    assert zoo.resolve_options("simple_convnet", {"channels": [4, 8]}) == zoo.resolve_options(
        "simple_convnet", {"channels": (4, 8)}
    )


def test_a_persons_file_is_run_once_and_again_when_it_was_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from torch import nn\nprint('run')\ndef net(shape, classes, wide: int = 3): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    for _ in range(3):
        build(f"{path}:net", (1, 8, 8), 10)
    assert capsys.readouterr().out == "run\n"
    path.write_text(path.read_text().replace("wide: int = 3", "wide: int = 4"))
    os.utime(path, ns=(1, 1))
    assert zoo.resolve_options(f"{path}:net", {}) == {"wide": 4}
