import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_nets import classifier_of
from torch import Tensor, nn

from convolab.analysis.summary import summarize_network
from convolab.core.errors import LabError
from convolab.models import zoo
from convolab.models.feature_head import create_feature_extractor
from convolab.models.registry import build
from convolab.training.recipe import Recipe

SHALLOW, CONVNETS = ("shallow_net", "shallow_net_class"), ("simple_convnet", "resnet_small")


def pixels(shape: zoo.ImageShape, n: int = 3) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same tensors, by name and bit for bit."""
    a, b = one.state_dict(), other.state_dict()
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


def perturb_weights(net: nn.Module, shape: zoo.ImageShape, classes: int) -> nn.Module:
    """The network with weights, biases and running statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(1)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=generator) - 0.5, alpha=0.4)
    return net


# Sequential and class


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_the_shallow_net_and_its_class_are_the_same_network_bit_for_bit(shape: zoo.ImageShape) -> None:
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
@pytest.mark.parametrize("side", [8, 9, 28, 32, 64, 96])
@pytest.mark.parametrize(
    ("name", "options"), [*((n, {}) for n in (*SHALLOW, *CONVNETS)), ("simple_convnet", {"residual": True})]
)
def test_every_network_accepts_every_image_size(name: str, options: dict, channels: int, side: int) -> None:
    shape = (channels, side, side)
    if name == "resnet_small" and side == 9:
        with pytest.raises(LabError, match="9x9 cannot be halved 2 times: give sides divisible by 4"):
            build(name, shape, 7)
        return
    logits = build(name, shape, 7, **options)(pixels(shape))
    assert logits.shape == (3, 7)
    assert logits.isfinite().all()


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.integers(8, 64), st.integers(8, 64), st.integers(1, 7), st.booleans())
def test_a_convnet_accepts_any_image_size_and_any_number_of_stages(
    height: int, width: int, stages: int, residual: bool
) -> None:
    net = build("simple_convnet", (1, height, width), 2, channels=[3] * stages, residual=residual)
    halvings = min(stages, min(height, width).bit_length() - 1)
    assert net.features(pixels((1, height, width))).shape == (3, 3, height >> halvings, width >> halvings)
    assert net(pixels((1, height, width))).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 32, 32), "2 channels"),
        ((4, 32, 32), "4 channels"),
        ((3, 7, 32), "7x32"),
        ((3, 32, 7), "32x7"),
        ((1, 513, 8), "513x8"),
        ((1, 8, 513), "8x513"),
    ],
)
@pytest.mark.parametrize("name", [*SHALLOW, *CONVNETS])
def test_images_of_a_size_that_the_networks_do_not_accept_are_refused(
    name: str, shape: zoo.ImageShape, message: str
) -> None:
    with pytest.raises(LabError, match=f"images (have|are) {message}"):
        build(name, shape, 10)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("simple_convnet", {"channels": [16, 8], "residual": True}, "decrease"),
        ("simple_convnet", {"channels": []}, "empty"),
        ("resnet_small", {"channels": [16, 8]}, "non-decreasing"),
        ("resnet_small", {"channels": []}, "at least one"),
    ],
)
def test_stages_whose_channels_do_not_fit_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(LabError, match=message):
        build(name, (3, 32, 32), 10, **options)


def test_channels_may_decrease_if_there_is_no_shortcut() -> None:
    assert build("simple_convnet", (1, 8, 8), 10, channels=[8, 4])(pixels((1, 8, 8))).shape == (3, 10)


# Layers


def executed_layers(net: nn.Module, x: Tensor) -> list[tuple[type[nn.Module], tuple[int, ...]]]:
    """The layers in the order in which they run, with the shape of their output for one image."""
    layers = []
    hooks = [
        layer.register_forward_hook(lambda layer, _, y: layers.append((type(layer), tuple(y.shape[1:]))))
        for layer in net.modules()
        if not list(layer.children()) and not isinstance(layer, nn.Identity)
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return layers


def test_the_simple_convnet_runs_the_layers_that_its_docstring_lists() -> None:
    net = build("simple_convnet", (3, 32, 40), 10)
    expected = []
    for channels, h, w in ((16, 32, 40), (32, 16, 20), (64, 8, 10)):
        expected += [
            (nn.Conv2d, (channels, h, w)),
            (nn.MaxPool2d, (channels, h // 2, w // 2)),
            (nn.BatchNorm2d, (channels, h // 2, w // 2)),
        ]
    assert executed_layers(net, pixels((3, 32, 40))) == [
        *expected,
        (zoo.GlobalAvgPool2d, (64, 1, 1)),
        (nn.Flatten, (64,)),
        (nn.Linear, (10,)),
    ]


def test_without_batch_norm_there_is_none_and_convolutions_have_biases() -> None:
    net = build("simple_convnet", (3, 32, 32), 10, batch_norm=False)
    assert [kind for kind, _ in executed_layers(net, pixels((3, 32, 32)))][:4] == [
        nn.Conv2d,
        nn.MaxPool2d,
        nn.Conv2d,
        nn.MaxPool2d,
    ]
    assert all(layer.bias is not None for layer in net.modules() if isinstance(layer, nn.Conv2d))


def test_the_resnet_runs_the_layers_that_its_docstring_lists() -> None:
    net = build("resnet_small", (3, 32, 40), 10, blocks=2)
    expected = [(nn.Conv2d, (32, 32, 40)), (nn.BatchNorm2d, (32, 32, 40)), (nn.ReLU, (32, 32, 40))]
    for channels, h, w in ((32, 32, 40), (64, 16, 20), (128, 8, 10)):
        expected += [(nn.Conv2d, (channels, h, w)), (nn.BatchNorm2d, (channels, h, w))] * 4
    assert executed_layers(net, pixels((3, 32, 40))) == [
        *expected,
        (zoo.GlobalAvgPool2d, (128, 1, 1)),
        (nn.Flatten, (128,)),
        (nn.Linear, (10,)),
    ]
    with_weights = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(with_weights) == 6 * 2 + 2


def pad_shortcut(x: Tensor, like: Tensor) -> Tensor:
    """A shortcut, computed explicitly: 2x2 means if the size changes, zeros as new channels."""
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
def test_the_simple_convnet_computes_what_its_docstring_describes(residual: bool, batch_norm: bool, side: int) -> None:
    shape = (3, side, side)
    net = perturb_weights(
        build("simple_convnet", shape, 10, residual=residual, batch_norm=batch_norm), shape, 10
    ).eval()
    weights, x = net.state_dict(), pixels(shape)
    for i in range(3):
        y = F.max_pool2d(
            F.conv2d(x, weights[f"features.{i}.conv.weight"], weights.get(f"features.{i}.conv.bias"), padding=1), 2
        )
        if batch_norm:
            y = norm(weights, f"features.{i}.norm", y)
        x = (y + pad_shortcut(x, y) if residual and i > 0 else y).clamp(min=0)
    expected = x.mean((2, 3)) @ weights["head.linear.weight"].T + weights["head.linear.bias"]
    torch.testing.assert_close(net(pixels(shape)), expected)


def test_the_resnet_computes_what_its_docstring_describes() -> None:
    shape = (1, 28, 32)
    net = perturb_weights(build("resnet_small", shape, 10, channels=[4, 6], blocks=2), shape, 10).eval()
    weights, x = net.state_dict(), pixels(shape)
    x = norm(weights, "features.stem.norm", F.conv2d(x, weights["features.stem.conv.weight"], padding=1)).clamp(min=0)
    for stage in (1, 2):
        for block in (0, 1):
            name, stride = f"features.stage{stage}.{block}", 2 if (stage, block) == (2, 0) else 1
            y = norm(
                weights, f"{name}.norm1", F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            ).clamp(min=0)
            y = norm(weights, f"{name}.norm2", F.conv2d(y, weights[f"{name}.conv2.weight"], padding=1))
            x = (y + pad_shortcut(x, y)).clamp(min=0)
    expected = x.mean((2, 3)) @ weights["head.linear.weight"].T + weights["head.linear.bias"]
    torch.testing.assert_close(net(pixels(shape)), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (1, 3), (7, 2), (1, 1)])
def test_global_average_pooling_and_its_gradient_are_those_of_torch(
    height: int, width: int, layout: torch.memory_format
) -> None:
    maps = [pixels((5, height, width)).contiguous(memory_format=layout).requires_grad_() for _ in range(2)]
    for layer, features in zip((zoo.GlobalAvgPool2d(), nn.AdaptiveAvgPool2d(1)), maps, strict=True):
        (layer(features) * torch.arange(5.0).view(5, 1, 1)).square().sum().backward()
    torch.testing.assert_close(maps[0].grad, maps[1].grad)
    torch.testing.assert_close(zoo.GlobalAvgPool2d()(maps[0]), nn.AdaptiveAvgPool2d(1)(maps[1]))


def test_the_gradient_of_global_average_pooling_has_the_memory_format_of_its_input() -> None:
    features = pixels((5, 4, 4)).contiguous(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(zoo.GlobalAvgPool2d()(features).sum(), features)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("name", "options"), [("simple_convnet", {"residual": True}), ("resnet_small", {"blocks": 2})])
def test_a_residual_network_with_convolutions_of_zeros_is_the_chain_of_its_shortcuts(name: str, options: dict) -> None:
    shape = (3, 32, 32)
    net = build(name, shape, 10, **options).eval()
    first, *later_layers = net.features
    for layer in nn.ModuleList(later_layers if name == "simple_convnet" else net.features[1:]).modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    x = first(pixels(shape))
    pooled = F.avg_pool2d(F.avg_pool2d(x, 2), 2)
    features = net.features(pixels(shape))
    torch.testing.assert_close(features[:, : x.shape[1]], pooled)
    assert features[:, x.shape[1] :].abs().max() == 0


# Parameters


@pytest.mark.parametrize("channels", [(16, 32, 64), (5,), (8, 8, 8, 8)])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_the_simple_convnet_has_the_parameters_of_its_formula(
    channels: tuple[int, ...], batch_norm: bool, in_channels: int
) -> None:
    net = build("simple_convnet", (in_channels, 32, 32), 7, channels=list(channels), batch_norm=batch_norm)
    inputs = (in_channels, *channels[:-1])
    formula = (
        sum(9 * i * o + (2 * o if batch_norm else o) for i, o in zip(inputs, channels, strict=True))
        + 7 * channels[-1]
        + 7
    )
    assert sum(p.numel() for p in net.parameters()) == formula


def test_residual_adds_no_parameter_and_does_not_change_the_initial_weights() -> None:
    plain, residual = (build("simple_convnet", (3, 32, 32), 10, seed=5, residual=r) for r in (False, True))
    assert same(plain, residual)
    assert not torch.allclose(plain(pixels((3, 32, 32))), residual(pixels((3, 32, 32))))


def test_without_batch_norm_the_convolutions_have_the_same_initial_weights() -> None:
    with_norm, without_norm = (
        build("simple_convnet", (3, 32, 32), 10, seed=5, batch_norm=b).state_dict() for b in (True, False)
    )
    shared = [name for name in with_norm if name in without_norm]
    assert shared == [
        "features.0.conv.weight",
        "features.1.conv.weight",
        "features.2.conv.weight",
        "head.linear.weight",
        "head.linear.bias",
    ]
    assert all(torch.equal(with_norm[name], without_norm[name]) for name in shared)


# Options of simple_convnet that came later


def test_a_recipe_of_the_default_network_has_the_key_that_it_had_before_there_were_more_options() -> None:
    assert Recipe().to_dict()["model"] == {
        "name": "simple_convnet", "channels": [16, 32, 64], "batch_norm": True, "residual": False,
    }  # fmt: skip
    assert Recipe().key == "abb018a8b6a1"
    defaults = {"activation": "relu", "depth": 1, "kernel": 3, "dropout": 0}
    assert Recipe.from_dict({"model": {"name": "simple_convnet", **defaults}}) == Recipe()
    for option, value in {"activation": "gelu", "depth": 2, "kernel": 5, "dropout": 0.5}.items():
        changed = Recipe.from_dict({"model": {option: value}})
        assert changed.model.options[option] == value
        assert changed.key != Recipe().key
        assert changed.with_overrides({f"model.{option}": defaults[option]}) == Recipe()


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("depth", "kernel"), [(1, 3), (1, 1), (2, 3), (3, 5), (2, 7)])
def test_depth_and_kernel_have_the_parameters_of_their_closed_form(
    depth: int, kernel: int, batch_norm: bool, residual: bool
) -> None:
    options = {"channels": [4, 6], "depth": depth, "kernel": kernel, "batch_norm": batch_norm, "residual": residual}
    net = build("simple_convnet", (3, 16, 16), 10, **options)
    pairs = [(3, 4), (4, 6)]
    weights = sum(k * kernel**2 * (c + (depth - 1) * k) for c, k in pairs)
    per_conv = 2 if batch_norm else 1  # scale and shift, or a bias
    expected = weights + sum(per_conv * k * depth for _, k in pairs) + 10 * 6 + 10
    assert summarize_network(net, (3, 16, 16)).num_parameters == expected
    assert net.features(pixels((3, 16, 16))).shape == (3, 6, 4, 4)
    assert net(pixels((3, 16, 16))).shape == (3, 10)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"])
def test_an_activation_is_the_one_of_its_name_and_changes_no_parameters(activation: zoo.Activation) -> None:
    net = build("simple_convnet", (3, 16, 16), 10, activation=activation, depth=2, channels=[4]).eval()
    assert same(net, build("simple_convnet", (3, 16, 16), 10, depth=2, channels=[4]))
    activate = getattr(F, activation)
    weights, x = net.state_dict(), pixels((3, 16, 16))
    y = F.conv2d(x, weights["features.0.conv.weight"], padding=1)
    y = activate(norm({**weights}, "features.0.norm1", y))
    y = F.conv2d(y, weights["features.0.conv1.weight"], padding=1)
    y = activate(norm({**weights}, "features.0.norm", F.max_pool2d(y, 2)))
    torch.testing.assert_close(net.features(x), y)


def test_with_a_shortcut_a_deep_stage_adds_its_input() -> None:
    options = {"channels": [4, 4], "depth": 2}
    plain, residual = (build("simple_convnet", (3, 16, 16), 10, residual=r, **options).eval() for r in (False, True))
    assert same(plain, residual)
    with torch.no_grad():
        for net in (plain, residual):
            net.features[1].conv1.weight.zero_()  # what it computes is then zero
    x = pixels((3, 16, 16))
    assert plain.features(x).abs().max() == 0
    expected = F.relu(F.avg_pool2d(residual.features[0](x), 2))
    torch.testing.assert_close(residual.features(x), expected)


@pytest.mark.slow
def test_dropout_zeroes_means_before_the_last_layer_in_training_only() -> None:
    net = build("simple_convnet", (3, 16, 16), 10, dropout=0.5)
    plain = build("simple_convnet", (3, 16, 16), 10)
    assert same(net, plain)
    x = torch.rand(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seen = []
    net.head.linear.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    net(x)
    before = plain.head[:2](plain.features(x))
    zeros, zeros_before = (float((means == 0).float().mean()) for means in (seen[0], before))
    assert zeros == pytest.approx(0.5 + 0.5 * zeros_before, abs=0.03)
    torch.testing.assert_close(net.eval()(x), plain.eval()(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 4}, "model.kernel = 4: give an odd size"),
        ({"kernel": 0}, "model.kernel = 0"),
        ({"depth": 0}, "model.depth = 0"),
        ({"dropout": 1.0}, "model.dropout = 1.0"),
        ({"activation": "swish"}, "model.activation = 'swish'"),
        ({"activations": "relu"}, "did you mean 'activation'"),
    ],
)
def test_an_option_that_a_convnet_cannot_have_is_refused(options: dict, message: str) -> None:
    with pytest.raises(LabError, match=message):
        build("simple_convnet", (3, 32, 32), 10, **options)


@pytest.mark.slow
def test_explanations_and_boxes_work_with_every_later_option() -> None:
    net = build("simple_convnet", (3, 32, 32), 10, activation="gelu", depth=2, kernel=5, dropout=0.2, residual=True)
    classifier = classifier_of(net)
    extractor = create_feature_extractor(classifier)
    assert extractor.head is not None
    assert extractor.head.kind == "average"
