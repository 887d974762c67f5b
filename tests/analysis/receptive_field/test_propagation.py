"""Receptive fields computed from the graph, compared with where the gradient of one output cell is not zero."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convolab.analysis.receptive_field.result import ReceptiveField
from convolab.analysis.summary import summarize_network
from convolab.core.rng import isolated_rng


def set_positive_weights(net: nn.Module) -> nn.Module:
    """Make a network float64 with positive weights, and its norms the identity."""
    net = net.double().eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in net.named_parameters():
        weight.data = torch.rand(weight.shape, generator=generator, dtype=torch.float64) + 0.5
        if weight.ndim > 1:
            weight.data /= weight[0].numel()
        elif name.endswith("bias"):
            weight.data.zero_()
    return net


def same_conv(kernel: int, stride: int, dilation: int = 1) -> nn.Module:
    """A convolution with the padding of TensorFlow: an odd pixel is added on the right and at the bottom."""

    class SameConv(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            pads = []
            for n in (x.shape[3], x.shape[2]):
                total = max((-(-n // stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0)
                pads += [total // 2, total - total // 2]
            return super().forward(F.pad(x, pads))

    return SameConv(2, 2, kernel, stride, dilation=dilation)


def conv(kernel: int | tuple[int, int], **options: object) -> nn.Module:
    return nn.Conv2d(2, 2, kernel, **options)


class Residual(nn.Module):
    def __init__(self, body: nn.Module, skip: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.skip = body, skip or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class Concatenated(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class SqueezeExcitation(nn.Module):
    """Squeeze and excitation: every cell is scaled by a mean over the whole image."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


class SpaceToDepth(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


class Crop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 3:-2, 1:]


class Shuffled(nn.Module):
    """Channels shuffled as in ShuffleNet by reshapes; the axes are permuted and permuted back."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class Upsampled(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, **self.options)


class Repeated(nn.Module):
    """Rows twice, columns three times: an upsampling by hand."""

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(3, 3)


class Flipped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(2)


class Rolled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.roll(x, 4, dims=3)


ARCHITECTURES: dict[str, nn.Module] = {
    "strided": nn.Sequential(
        conv(7, stride=2, padding=3), nn.ReLU(), conv(3, stride=2, padding=1), conv((1, 5), stride=(2, 1))
    ),
    "dilated": nn.Sequential(
        conv(3, dilation=2, padding=2), conv(3, dilation=4, padding=4, stride=2), conv(2, dilation=3)
    ),
    "asymmetric padding": nn.Sequential(
        nn.ZeroPad2d((0, 1, 2, 0)), conv(4, stride=2), nn.ZeroPad2d((2, 0, 0, 0)), conv(3)
    ),
    "TF same padding": nn.Sequential(same_conv(3, 2), same_conv(5, 2), same_conv(3, 1, dilation=2), same_conv(2, 2)),
    "residual": nn.Sequential(
        conv(3, stride=2, padding=1),
        Residual(nn.Sequential(conv(3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), conv(3, padding=1))),
        Residual(nn.Sequential(conv(3, padding=1, stride=2), conv(3, padding=1)), conv(1, stride=2)),
    ),
    "concatenation": nn.Sequential(
        Concatenated(conv(1), conv(3, padding=1), conv(5, padding=2), nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(1))),
        nn.Conv2d(8, 2, 3, stride=2),
    ),
    "pooling": nn.Sequential(
        conv(3), nn.AvgPool2d(2), conv(3), nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.LPPool2d(1, 2)
    ),
    "unequal branches": nn.Sequential(
        Concatenated(
            nn.Sequential(conv(7, padding=3), nn.AvgPool2d(2)),
            conv(2, stride=2),
            nn.Sequential(nn.ZeroPad2d((2, 0, 1, 1)), conv(4, stride=2)),
        ),
        nn.Conv2d(6, 2, 3),
    ),
    "transposed": nn.Sequential(
        conv(3, stride=2, padding=1), nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1), conv(3)
    ),
    "transposed by three": nn.Sequential(
        conv(4, stride=4), nn.ConvTranspose2d(2, 2, 5, stride=3, padding=1), conv(2, stride=2)
    ),
    "encoder and decoder": nn.Sequential(
        Residual(
            nn.Sequential(
                conv(3, padding=1), nn.AvgPool2d(2), conv(3, padding=1), Upsampled(scale_factor=2, mode="nearest")
            )
        ),
        conv(3),
    ),
    "bilinear": nn.Sequential(nn.AvgPool2d(4), Upsampled(scale_factor=2, mode="bilinear"), conv(3)),
    "repeated": nn.Sequential(conv(3, stride=2), Repeated(), conv(3)),
    "to an odd size": nn.Sequential(
        nn.AvgPool2d(4), Upsampled(size=(13, 17), mode="bilinear"), Upsampled(size=(29, 31), mode="nearest")
    ),
    "space to depth": nn.Sequential(
        SpaceToDepth(), nn.Conv2d(8, 2, 3, padding=1), nn.PixelUnshuffle(2), nn.Conv2d(8, 4, 2), nn.PixelShuffle(2)
    ),
    "cropped": nn.Sequential(conv(3, stride=2), Crop(), conv(3)),
    "channels moved": nn.Sequential(conv(3, stride=2), Shuffled(), conv(3)),
    "adaptive pooling": nn.Sequential(conv(3, padding=1), nn.AdaptiveAvgPool2d((7, 6))),
    "flipped": nn.Sequential(conv(3, stride=2, padding=1), Flipped(), conv(3)),
    # The cells at the seam depend on both edges.
    "rolled": nn.Sequential(conv(3, stride=2, padding=1), Rolled(), conv(3)),
}


def gradient_box(net: nn.Module, cell: Sequence[int], size: tuple[int, int]) -> list[tuple[int, int]]:
    """The first and last row and column on which the cell of a map [N, C, h, w] depends."""
    image = (
        torch.rand(1, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
    ).requires_grad_()
    output = net(image)
    (gradient,) = torch.autograd.grad(output[0, :, cell[0], cell[1]].sum(), image)
    is_nonzero = (gradient[0] != 0).any(0)
    return [(int(line.nonzero()[0]), int(line.nonzero()[-1])) for line in (is_nonzero.any(1), is_nonzero.any(0))]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_receptive_field_is_where_the_gradient_is_not_zero(name: str) -> None:
    with isolated_rng():
        net = set_positive_weights(ARCHITECTURES[name])
    size = (48, 52)
    cost = summarize_network(net, (2, *size))
    field, (height, width) = cost.layers[-1].receptive_field, cost.layers[-1].output_shape[2:]
    assert isinstance(field, ReceptiveField)
    assert not field.measured
    cells = {
        (height // 2, width // 2),
        (height // 2 + 1, width // 2 - 1),
        (0, 0),
        (height - 1, width - 1),
        (1, width - 2),
    }
    if name == "rolled":
        cells.add((5, 2))
    largest = [0, 0]
    for cell in cells:
        for axis, (low, high) in enumerate(gradient_box(net, cell, size)):
            largest[axis] = max(largest[axis], high - low + 1)
            if name in SINGLE_PHASE:  # every cell has the field of the first, shifted
                start = field.start[axis] + cell[axis] * field.stride[axis]
                end = start + field.size[axis] - 1
                if name != "dilated" or (
                    start >= 0 and end < size[axis]
                ):  # a dilated kernel cut by the border has holes there
                    assert (max(start, 0), min(end, size[axis] - 1)) == (low, high)
                assert max(start, 0) <= low <= high <= min(end, size[axis] - 1)
            else:
                assert high - low + 1 <= field.size[axis]
    assert largest == [min(n, extent) for n, extent in zip(field.size, size, strict=True)]


# The cells of these have several phases: their size is that of the largest cell.
SEVERAL_PHASES = [
    "transposed",
    "transposed by three",
    "encoder and decoder",
    "bilinear",
    "repeated",
    "to an odd size",
    "space to depth",
    "adaptive pooling",
]
SINGLE_PHASE = set(ARCHITECTURES) - {*SEVERAL_PHASES, "flipped", "rolled"}


@pytest.mark.slow
def test_cells_of_several_phases_have_the_computed_intervals() -> None:
    from convolab.analysis.tracer import trace_network

    for name in set(ARCHITECTURES) - SINGLE_PHASE:
        with isolated_rng():
            net = set_positive_weights(ARCHITECTURES[name])
        rf_state = trace_network(net, (2, 48, 52)).calls[-1].rf_state
        with torch.no_grad():
            height, width = net(torch.zeros(1, 2, 48, 52, dtype=torch.float64)).shape[2:]
        for cell in [(height // 2, width // 2), (height // 2 + 1, width // 2 - 1), (height // 2 - 1, width // 2 + 1)]:
            for axis, extent in enumerate(gradient_box(net, cell, (48, 52))):
                interval = rf_state[axis].interval_at(cell[axis])
                assert (max(interval[0], 0), min(interval[1], (48, 52)[axis] - 1)) == extent, (name, cell, axis)


def test_squeeze_excitation_makes_the_field_global_and_keeps_its_size() -> None:
    with isolated_rng():
        net = set_positive_weights(nn.Sequential(conv(3, stride=2), SqueezeExcitation(), conv(3)))
    cost = summarize_network(net, (2, 49, 53))
    before, after = cost.layers[0].receptive_field, cost.layers[-1].receptive_field
    assert (before.is_global, before.size, before.stride, before.start) == ((False, False), (3, 3), (2, 2), (0, 0))
    assert (after.is_global, after.size, after.stride, after.start) == ((True, True), (7, 7), (2, 2), (0, 0))
    assert gradient_box(net, (5, 5), (49, 53)) == [(0, 48), (0, 52)]
    # With one pixel less, the last row and column are outside the strided convolution: the field is not global.
    field = summarize_network(net, (2, 48, 52)).layers[-1].receptive_field
    assert (field.is_global, field.size) == ((False, False), (47, 51))
    assert gradient_box(net, (5, 5), (48, 52)) == [(0, 46), (0, 50)]


@pytest.mark.parametrize(
    ("norm", "is_global"),
    [
        (nn.BatchNorm2d(2), False),
        (nn.BatchNorm2d(2, track_running_stats=False), True),
        (nn.GroupNorm(1, 2), True),
        (nn.InstanceNorm2d(2), True),
    ],
)
def test_a_norm_with_statistics_of_the_image_has_a_global_field(norm: nn.Module, is_global: bool) -> None:
    cost = summarize_network(nn.Sequential(conv(3), norm), (2, 16, 16))
    assert cost.layers[-1].receptive_field.is_global == (is_global, is_global)
    assert cost.layers[-1].receptive_field.size == (3, 3)


def test_after_a_flatten_a_linear_layer_depends_on_the_whole_image() -> None:
    cost = summarize_network(
        nn.Sequential(nn.Conv2d(2, 2, 3, stride=2, padding=(1, 1)), nn.Flatten(), nn.Linear(2 * 8 * 8, 3)), (2, 16, 16)
    )
    conv, linear = cost.layers[0].receptive_field, cost.layers[-1].receptive_field
    assert (conv.is_global, conv.size) == ((False, False), (3, 3))
    assert (linear.is_global, linear.size, linear.stride) == ((True, True), (17, 17), (None, None))


class TinyVisionTransformer(nn.Module):
    """A vision transformer of two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 8, 4, 4)
        self.first = nn.Parameter(torch.ones(1, 1, 8))
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        return self.head(self.blocks(x)[:, 0])


def test_tokens_depend_on_their_patch_until_attention_makes_them_global() -> None:
    with isolated_rng():
        cost = summarize_network(TinyVisionTransformer(), (2, 16, 20))
    fields = {
        layer.name: layer.receptive_field
        for layer in cost.layers
        if layer.kind in ("Conv2d", "MultiheadAttention", "Linear")
    }
    assert (fields["patches"].size, fields["patches"].stride) == ((4, 4), (4, 4))
    assert fields["blocks.0.self_attn"].is_global == (True, True)
    assert fields["head"].is_global == (True, True)
    assert not any(layer.rf_unknown_reason for layer in cost.layers)


@pytest.mark.parametrize("axes", [1, 3])
def test_signals_and_volumes_have_receptive_fields_too(axes: int) -> None:
    kinds = {1: (nn.Conv1d, nn.AvgPool1d), 3: (nn.Conv3d, nn.AvgPool3d)}[axes]
    cost = summarize_network(
        nn.Sequential(kinds[0](1, 2, 3, padding=1), kinds[1](2), kinds[0](2, 2, 3)), (1, *[16] * axes)
    )
    field = cost.layers[-1].receptive_field
    assert (field.size, field.stride, field.start) == ((8,) * axes, (2,) * axes, (-1,) * axes)
    assert field.center == (2.5,) * axes


@pytest.mark.slow
def test_the_center_of_the_field_of_the_last_map_of_efficientnet_lite_is_known() -> None:
    from convolab.models.resolve import resolve_model

    spec = resolve_model("efficientnet_lite0")
    last = next(layer for layer in summarize_network(spec.build, spec.input_shape).layers if layer.name == "conv_head")
    assert (last.receptive_field.stride, last.receptive_field.center) == ((32, 32), (31.0, 31.0))


class CircularConvNet(nn.Module):
    """A network with circular padding, which copies into slices: there is no rule for that."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")
        self.next = nn.Conv2d(2, 2, 3, stride=2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.next(self.conv(x)))


def test_a_field_that_cannot_be_computed_from_the_graph_is_measured_and_a_note_says_so() -> None:
    messages: list[str] = []
    with isolated_rng():
        cost = summarize_network(CircularConvNet(), (2, 16, 16), on_message=messages.append)
    field = cost.layers[-1].receptive_field
    assert field.measured
    assert messages == ["measuring the receptive fields of 3 layers by gradient"]
    assert (field.size, field.stride, field.start) == ((5, 5), (2, 2), (-1, -1))
    assert any("could not be computed from the graph" in note and "measured" in note for note in cost.notes)
    assert all(layer.receptive_field.measured for layer in cost.layers)


def test_a_measured_field_has_no_stride_and_start_where_steps_are_uneven() -> None:
    """Of two neighbors after an upsampling one has the step of the whole map: it must not pass for the stride."""
    with isolated_rng():
        net = nn.Sequential(CircularConvNet(), nn.ConvTranspose2d(2, 2, 3, 2, 1))
    field = summarize_network(net, (2, 32, 32)).layers[-1].receptive_field
    assert field.measured
    assert (field.stride, field.start, field.center) == ((None, None),) * 3


def test_a_field_that_can_be_neither_computed_nor_measured_is_unknown() -> None:
    with torch.device("meta"):
        net = CircularConvNet()
    cost = summarize_network(net, (2, 16, 16))
    assert cost.layers[-1].receptive_field is None
    assert cost.layers[-1].rf_unknown_reason
    assert any("are unknown" in note for note in cost.notes)
    # Given the class, it is built again with weights.
    assert summarize_network(CircularConvNet, (2, 16, 16)).layers[-1].receptive_field.size == (5, 5)


def test_measuring_does_not_change_the_network_or_the_random_generator() -> None:
    with isolated_rng():
        net = CircularConvNet()
    before, state = net.conv.weight.clone(), torch.get_rng_state()
    summarize_network(net, (2, 16, 16))
    assert torch.equal(net.conv.weight, before)
    assert net.conv.weight.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["strided", "dilated", "TF same padding", "residual", "concatenation", "pooling"])
def test_the_field_measured_by_gradient_is_the_one_computed_from_the_graph(name: str) -> None:
    from convolab.analysis.receptive_field.gradient import measure_by_gradient
    from convolab.analysis.receptive_field.result import to_receptive_field
    from convolab.analysis.tracer import trace_network

    with isolated_rng():
        net = ARCHITECTURES[name]
    trace = trace_network(net, (2, 64, 64))
    indices = range(len(trace.calls))
    by_gradient = measure_by_gradient(net, (2, 64, 64), trace, indices)
    for index in indices:
        computed = to_receptive_field(trace.calls[index].rf_state)
        measured = by_gradient[index]
        assert isinstance(computed, ReceptiveField), trace.calls[index].kind
        assert (measured.size, measured.stride, measured.start) == (computed.size, computed.stride, computed.start)


class Normalized(nn.Module):
    """A feature map divided by its own 2-norm along some dimensions, as in the global response norm of ConvNeXt V2."""

    def __init__(self, dim: int | tuple[int, ...]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x / x.norm(p=2, dim=self.dim, keepdim=True)


@pytest.mark.parametrize(
    ("dim", "is_global"), [(1, (False, False)), ((2, 3), (True, True)), (3, (False, True)), ((), (True, True))]
)
def test_a_vector_norm_reduces_over_its_dimensions(dim: int | tuple[int, ...], is_global: tuple) -> None:
    field = summarize_network(lambda: Normalized(dim), (3, 32, 32)).layers[-1].receptive_field
    assert field.size == (3, 3)
    assert field.is_global == is_global


def test_functional_normalize_has_a_receptive_field() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(x, dim=-1)

    (layer,) = summarize_network(Net(), (3, 8, 8)).layers
    assert layer.receptive_field.is_global == (False, True)


def test_after_a_write_into_a_view_the_field_of_its_base_is_unknown() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            y.view(y.shape)[:, :, :4] = y[:, :, 4:].clone()
            return y * 2

    with torch.device("meta"):
        layers = summarize_network(Net(), (2, 8, 8)).layers
    assert layers[0].receptive_field.size == (3, 3)
    assert layers[-1].rf_unknown_reason
