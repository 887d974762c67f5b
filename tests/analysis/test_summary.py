"""Exact totals, counts per layer, memory, and that the network is not changed."""

import contextlib
import resource
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convolab.analysis.summary import summarize_network
from convolab.core.errors import LabError
from convolab.models.resolve import resolve_model

TOTALS = {
    "torchvision/alexnet": (714_188_480, 61_100_840, 224),
    "torchvision/vgg16": (15_470_264_320, 138_357_544, 224),
    "torchvision/resnet18": (1_814_073_344, 11_689_512, 224),
    "torchvision/resnet50": (4_089_184_256, 25_557_032, 224),
    "torchvision/mobilenet_v2": (300_774_272, 3_504_872, 224),
    "efficientnet_lite0": (385_187_552, 4_652_008, 224),
    "efficientnet_lite1": (600_185_232, 5_416_680, 240),
    "efficientnet_lite2": (859_736_272, 6_092_072, 260),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOTALS)
def test_published_networks_have_exactly_their_known_costs(name: str) -> None:
    macs, parameters, side = TOTALS[name]
    spec = resolve_model(name)
    assert spec.input_shape == (3, side, side)
    cost = summarize_network(spec.build, spec.input_shape)
    assert (cost.macs, cost.num_parameters, cost.flops) == (macs, parameters, 2 * macs)
    assert cost.mismatches == ()
    assert cost.num_checked == sum(layer.macs > 0 for layer in cost.layers)
    assert cost.unsupported_ops == {}
    assert sum(layer.macs_fraction for layer in cost.layers) == pytest.approx(1)


class Functional(nn.Module):
    """Products by functions of torch instead of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(7, 5))
        self.kernel = nn.Parameter(torch.randn(4, 2, 3))

    def forward(self, x: Tensor) -> Tensor:  # [N, 6, 5]
        y = F.linear(x, self.weight)  # 6 x 5 x 7
        y = torch.matmul(y, y.transpose(1, 2))  # 6 x 7 x 6
        y = torch.einsum("nij,njk->nik", y, x)  # 6 x 6 x 5
        y = torch.bmm(y, y.mT)  # 6 x 5 x 6
        y = F.conv1d(y[:, :2], self.kernel, padding=1)  # 4 x 6 x 2 x 3
        q = y[:, None]  # [N, 1, 4, 6]
        y = F.scaled_dot_product_attention(q, q, q)[:, 0]  # 2 x 4 x 4 x 6
        return torch.baddbmm(y, y @ y.mT, y)  # 4 x 6 x 4 and 4 x 4 x 6


def test_functional_calls_are_counted_like_layers() -> None:
    expected = [6 * 5 * 7, 6 * 7 * 6, 6 * 6 * 5, 6 * 5 * 6, 4 * 6 * 2 * 3, 2 * 4 * 4 * 6, 4 * 6 * 4, 4 * 4 * 6]
    cost = summarize_network(Functional(), (6, 5))
    assert [layer.macs for layer in cost.layers if layer.macs] == expected
    kinds = [layer.kind for layer in cost.layers if layer.macs]
    assert kinds == ["linear", "matmul", "einsum", "bmm", "conv1d", "scaled_dot_product_attention", "matmul", "baddbmm"]
    assert cost.num_parameters == 7 * 5 + 4 * 2 * 3
    assert summarize_network(Functional(), (6, 5), batch_size=3).macs == 3 * sum(expected)


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention_is_one_layer_with_all_its_products_and_parameters(need_weights: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.attention(x, x, x, need_weights=need_weights)[0])

    cost = summarize_network(Net(), (9, 16))
    (attention,) = [layer for layer in cost.layers if layer.macs]
    assert (attention.name, attention.kind) == ("attention", "MultiheadAttention")
    assert attention.macs == 4 * 9 * 16 * 16 + 2 * 9 * 9 * 16
    assert attention.num_parameters == 4 * 16 * 16 + 4 * 16
    assert attention.activation_bytes == 4 * (9 * 16 + 9 * 9 * need_weights)


@pytest.mark.parametrize(("in_place", "num_bytes"), [(False, 4 * 8), (True, 0)])
def test_a_module_that_calls_functions_in_place_of_its_children_has_the_memory_of_its_output(
    in_place: bool, num_bytes: int
) -> None:
    class Functions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu_(x) if in_place else F.relu(F.linear(x, self.linear.weight)).view(-1, 2, 4)

    cost = summarize_network(nn.Sequential(nn.Linear(8, 8), Functions(), nn.Tanh()), (8,))
    assert [layer.activation_bytes for layer in cost.layers][:3] == [4 * 8, num_bytes, 4 * 8]


def test_a_reused_module_counts_each_call_and_its_parameters_once() -> None:
    linear = nn.Linear(8, 8)
    cost = summarize_network(nn.Sequential(linear, nn.ReLU(), linear), (8,))
    assert (cost.macs, cost.num_parameters) == (2 * 64, 72)
    assert [(layer.call_index, layer.num_parameters) for layer in cost.layers if layer.kind == "Linear"] == [
        (1, 72),
        (2, 0),
    ]


def test_tied_weights_are_counted_once_and_each_layer_with_its_own_bias() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    net[1].weight = net[0].weight
    assert summarize_network(net, (8,)).num_parameters == 64 + 8 + 8


def test_frozen_parameters_are_counted_separately_and_save_nothing_for_the_backward_pass() -> None:
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    net[0].requires_grad_(False)
    cost = summarize_network(net, (8,))
    assert (cost.num_trainable, cost.num_frozen) == (28, 54)
    assert [layer.saved_for_backward_bytes for layer in cost.layers] == [0, 0, 4 * 6]


def test_unused_parameters_are_in_the_total_and_listed() -> None:
    net = nn.Sequential(nn.Linear(4, 4))
    net[0].extra = nn.Linear(3, 2)  # registered but never called
    cost = summarize_network(net, (4,))
    assert cost.num_parameters == 20 + 8
    assert [(layer.name, layer.num_parameters) for layer in cost.layers if "not called" in layer.kind] == [
        ("0.extra", 8)
    ]


def test_operations_that_are_not_counted_are_listed() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft2(F.softmax(x * 2, -1)).real

    cost = summarize_network(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), Net()), (3, 8, 8)
    )
    assert {"native_batch_norm", "relu", "max_pool2d_with_indices", "softmax", "mul"} <= set(cost.ignored_ops)
    assert any("fft" in name for name in cost.unsupported_ops)
    assert any("fft" in note for note in cost.notes)


def test_the_memory_of_a_layer_is_that_of_its_output_unless_it_works_in_place() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)
    )
    cost = summarize_network(net, (3, 8, 8))
    assert [layer.activation_bytes for layer in cost.layers] == [4 * 256, 0, 4 * 256, 0, 4 * 2]
    # The convolution saves the image, both ReLUs save their outputs, and the linear layer shares that of the last one.
    assert [layer.saved_for_backward_bytes for layer in cost.layers] == [4 * 192, 4 * 256, 4 * 256, 0, 0]
    assert summarize_network(net, (3, 8, 8), batch_size=5).saved_for_backward_bytes == 5 * cost.saved_for_backward_bytes


def test_the_memory_for_the_backward_pass_is_that_of_autograd_in_a_real_run() -> None:
    net = resolve_model("simple_convnet", (3, 32, 32)).build().eval()
    storages = {p.untyped_storage().data_ptr() for p in (*net.parameters(), *net.buffers())}
    saved_bytes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in storages and storage.nbytes():
            saved_bytes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = net(torch.rand(2, 3, 32, 32))
    assert summarize_network(net, (3, 32, 32), batch_size=2).saved_for_backward_bytes == sum(saved_bytes.values())
    assert output.requires_grad  # the graph and its saved tensors were alive until here


def test_the_network_is_not_changed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 2)).train()
    net[4].eval()
    before = {name: (tensor, tensor.clone()) for name, tensor in net.state_dict(keep_vars=True).items()}
    random = torch.get_rng_state()
    modes = [module.training for module in net.modules()]
    summarize_network(net, (3, 8, 8))
    with pytest.raises(LabError):
        summarize_network(net, (3, 9, 9))  # fails in the last layer, with hooks and meta copies in place
    after = net.state_dict(keep_vars=True)
    assert all(after[name] is tensor and torch.equal(tensor, value) for name, (tensor, value) in before.items())
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert not hasattr(torch.ones(1) + 1, "rf_state")  # no hook is left
    net.train()(torch.rand(2, 3, 8, 8)).sum().backward()


def test_a_summary_is_the_same_inside_no_grad_and_inference_mode() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.Flatten(), nn.Linear(256, 2))
    first = summarize_network(net, (3, 8, 8)).to_dict()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert summarize_network(net, (3, 8, 8)).to_dict() == first


def test_a_forward_pass_inside_inference_mode_is_counted_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 4)

        @torch.inference_mode()
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) @ torch.ones(4, 3)

    assert summarize_network(Net(), (8,)).macs == 8 * 4 + 4 * 3


def test_a_network_whose_forward_depends_on_values_is_run_with_weights_and_a_note_says_so() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) if x.sum().item() > 0 else x

    cost = summarize_network(Net(), (8,))
    assert cost.macs == 32
    assert any("run with its weights" in note for note in cost.notes)
    assert summarize_network(Net, (8,)).macs == 32
    with torch.device("meta"):
        net = Net()
    with pytest.raises(LabError, match="depends on tensor values"):
        summarize_network(net, (8,))


def test_a_billion_parameters_are_summarized_without_being_allocated() -> None:
    def build() -> nn.Module:
        return nn.Sequential(*(nn.Linear(10_000, 10_000) for _ in range(10)))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost = summarize_network(build, (10_000,))
    assert (cost.num_parameters, cost.macs) == (1_000_100_000, 1_000_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB; the weights would be 4,000,000


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch on even kernels
def test_every_kind_of_convolution_has_the_cost_of_its_closed_form() -> None:
    kinds = [
        (nn.Conv1d(4, 6, 3, stride=2, dilation=2, groups=2), (4, 20)),
        (nn.Conv2d(4, 6, (3, 5), stride=(1, 2), padding=(1, 0), bias=False), (4, 9, 11)),
        (nn.Conv2d(4, 8, 4, padding="same", groups=4), (4, 9, 11)),
        (nn.Conv3d(2, 3, 2, padding=1), (2, 5, 6, 7)),
        (nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), (4, 20)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, dilation=2), (4, 9, 11)),
        (nn.ConvTranspose3d(2, 3, 2), (2, 5, 6, 7)),
        (nn.Linear(7, 5), (3, 7)),
    ]
    for layer, shape in kinds:
        (row,) = summarize_network(layer, shape, batch_size=2).layers
        assert row.closed_form.macs == row.macs > 0, layer
        assert row.closed_form.num_parameters == row.num_parameters, layer


def test_a_layer_whose_cost_differs_from_its_closed_form_is_reported() -> None:
    class ConvolvesTwice(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + super().forward(x)

    cost = summarize_network(nn.Sequential(ConvolvesTwice(3, 4, 3)), (3, 8, 8))
    assert cost.num_checked == 1
    assert "7,776 MACs counted" in cost.mismatches[0]
    assert "3,888 by its closed form" in cost.mismatches[0]


@pytest.mark.parametrize(
    ("net", "shape", "texts"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (3, 3, 3), ["1 (Linear)", "[1, 27]", "[..., 12]"]),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), (1, 8, 8), ["0 (Conv2d)", "[1, 1, 8, 8]", "[N, 3, >= 3, >= 3]"]),
        (nn.Sequential(nn.Conv2d(3, 4, 5)), (3, 4, 4), ["0 (Conv2d)", "[1, 3, 4, 4]", ">= 5"]),
        (
            nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(3)),
            (3, 8, 8),
            ["1 (BatchNorm2d)", "[1, 4, 4, 4]", "[N, 3, ...]"],
        ),
        (nn.Sequential(nn.MaxPool2d(9)), (3, 8, 8), ["0 (MaxPool2d)", "[1, 3, 8, 8]"]),
        (nn.Linear(3, 3), (0,), ["positive integers"]),
        (nn.Linear(3, 3), (), ["positive integers"]),
        (nn.Sequential(nn.LazyLinear(3)), (3,), ["lazy"]),
    ],
)
def test_the_error_about_a_wrong_input_shape_names_the_layer_its_input_and_the_expected_shape(
    net: nn.Module, shape: tuple, texts: list[str]
) -> None:
    with pytest.raises(LabError) as caught:
        summarize_network(net, shape)
    for text in texts:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hooks_are_removed_after_any_error() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("a bug in the network")

    net = nn.Sequential(nn.Linear(3, 3), Net())
    with contextlib.suppress(KeyError):
        summarize_network(net, (3,))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert not net[0].weight.is_meta


def test_fold_has_no_products_and_is_not_an_unsupported_operation() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.fold(x, (4, 4), 2)

    cost = summarize_network(Net(), (12, 9))
    assert cost.unsupported_ops == {}
    assert cost.ignored_ops == {"col2im": 1}


def test_no_attribute_is_left_on_the_tensors_of_a_network_that_was_run_with_values() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("state", torch.zeros(1, 4))

        def forward(self, x: Tensor) -> Tensor:
            self.state.copy_(x)
            return x * 2 if x.sum().item() > 0 else x

    net = Net()
    summarize_network(net, (4,))
    assert not hasattr(net.state, "rf_state")


@pytest.mark.parametrize(
    "arguments",
    [{"stride": 0}, {"padding": -1}, {"dilation": 0}, {"kernel_size": 0}, {"stride": (1, 0)}, {"padding": (0, -2)}],
)
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_convolution_that_torch_refuses_has_no_counts(kind: type[nn.Module], arguments: dict) -> None:
    layer = kind(3, 8, **{"kernel_size": 3, **arguments}, device="meta")
    with pytest.raises(LabError, match=r"a convolution's .* is at least"):
        summarize_network(layer, (3, 32, 32))


@pytest.mark.parametrize("layer", [nn.AdaptiveAvgPool2d(0), nn.PixelShuffle(0)])
def test_a_layer_that_divides_by_zero_is_refused_in_one_line(layer: nn.Module) -> None:
    with pytest.raises(LabError, match="does not accept its input"):
        summarize_network(layer, (3, 32, 32))


@pytest.mark.parametrize("batch_size", [10**12, 10**400])
def test_a_batch_past_the_limit_is_refused_before_work(batch_size: int) -> None:
    with pytest.raises(LabError, match="holds more than 1,000,000,000,000 values"):
        summarize_network(nn.ReLU(), (3, 32, 32), batch_size=batch_size)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_scripted_network_is_refused_in_one_line() -> None:
    with pytest.raises(LabError, match="the network is scripted"):
        summarize_network(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3))), (3, 8, 8))


def test_integers_that_are_looked_up_are_counted_and_their_field_is_not_known() -> None:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.output = nn.Embedding(10, 4), nn.Linear(4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.output(self.table((x.clamp(0, 1) * 9).long()).mean((1, 2, 3)))

    result = summarize_network(Embedded(), (3, 8, 8))
    assert result.macs == 20
    assert result.layers[-1].receptive_field is None or not hasattr(result.layers[-1].receptive_field, "size")
    assert "cannot be measured either" in " ".join(result.notes)


def test_the_receptive_fields_of_a_network_that_cannot_be_copied_are_not_measured() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"))
    net.lock = threading.Lock()
    result = summarize_network(net, (2, 8, 8))
    assert "cannot be measured either (this network cannot be copied" in " ".join(result.notes)
    assert result.layers[-1].receptive_field is None


def test_a_convolution_that_learns_more_than_its_weight_and_bias_agrees_with_its_closed_form() -> None:
    class WithGain(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 4, 3)
            self.gain = nn.Parameter(torch.ones(4, 1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight * self.gain, self.bias)

    result = summarize_network(WithGain(), (3, 8, 8))
    assert result.num_parameters == 3 * 4 * 9 + 4 + 4
    assert not result.mismatches
