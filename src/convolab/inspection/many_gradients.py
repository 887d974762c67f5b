"""The gradients of one logit at many points, in passes that take less time.

In evaluation mode a batch norm scales and shifts its channels by fixed numbers. Where it follows a convolution, its scale is
in that convolution's weights on the way back, which then goes over fewer maps. The way forward stays as it is, bit for bit: of
the millions of numbers that meet a ReLU some are within rounding of its kink, and would fall on its other side. And a pass
takes several points. That is right where it does the same with every image, so it is done for networks all of whose modules
are known, and then proven at one point. A person's own code may do anything with an image: it computes each point alone.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convolab.inspection.passes import logit_gradients
from convolab.inspection.types import SinglePixels
from convolab.models.classifier import ImageClassifier

BATCH_VALUES = 41_000_000  # that the convolutions of a pass give (164 MB): 6 photos in EfficientNet-Lite 0
BATCH_IMAGES = 32  # in a pass, at most
TOLERANCE = 1e-5  # of the largest value: how far a gradient of a shorter pass may be from the network's own

KNOWN_CODE = ("convolab.models.", "torch.nn.", "torchvision.models.", "torchvision.ops.")  # packages of modules


@dataclass
class Convolutions:
    """What a pass of one image shows of a network's convolutions."""

    followers: dict[nn.Conv2d, nn.BatchNorm2d] = field(default_factory=dict)  # -> the norm that alone takes the output
    num_values: int = 0  # of all their outputs


def iter_logit_gradients(
    net: ImageClassifier, points: Iterable[SinglePixels], target: int
) -> Iterator[Float[Tensor, "c h w"]]:
    """The gradient of the target's logit with respect to each point, in order; the network is in evaluation mode.

    They are taken in shorter passes if the network's modules are known and the gradient at the first point, in a pass with
    others, is the one that it has alone; else each is computed alone. Points are taken from the iterable a batch ahead.
    Raises LabError for a network that has no gradient.
    """
    if not all(is_known(module) for module in net.modules()):
        for point in points:
            yield logit_gradients(net, point, target)[0]
        return
    remaining = iter(points)
    first = next(remaining, None)
    if first is None:
        return
    with recorded_convolutions(net) as convolutions:
        alone = logit_gradients(net, first, target)[0]
    batch_size = max(1, min(BATCH_IMAGES, BATCH_VALUES // max(1, convolutions.num_values)))
    others = list(islice(remaining, max(batch_size - 1, 1)))
    way_back = FoldedWayBack(convolutions)
    proven = proven_gradients(net, way_back, [first, *others], target, alone) if others else None
    if proven is None:
        yield alone
        for point in chain(others, remaining):
            yield logit_gradients(net, point, target)[0]
        return
    yield from proven
    while batch := list(islice(remaining, batch_size)):
        with way_back:
            gradients = logit_gradients(net, torch.cat(batch), target)
        yield from gradients


def is_known(module: nn.Module) -> bool:
    """Whether a module's code is convolab's, torch's or torchvision's, and nothing was added to it."""
    added = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        type(module).__module__.startswith(KNOWN_CODE)
        and "forward" not in vars(module)
        and not any(getattr(module, name, None) for name in added)
    )


def proven_gradients(
    net: ImageClassifier,
    way_back: "FoldedWayBack",
    points: list[SinglePixels],
    target: int,
    alone: Float[Tensor, "c h w"],
) -> list[Float[Tensor, "c h w"]] | None:
    """The gradients at the points in one shorter pass; None if the first of them is not `alone`, or if that is zero."""
    try:
        with way_back:
            gradients = logit_gradients(net, torch.cat(points), target)
    except Exception:  # a network may fail in any way on what it was not written for
        return None
    largest, difference = float(alone.abs().max()), float((gradients[0] - alone).abs().max())
    return list(gradients) if 0 < largest < float("inf") and difference <= TOLERANCE * largest else None


@contextmanager
def recorded_convolutions(net: nn.Module) -> Iterator[Convolutions]:
    """What is found, while the network runs inside, of its convolutions and the batch norms that take their outputs."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensors too: an id is free again when its object is gone
    found = Convolutions()
    calls: Counter[nn.Module] = Counter()

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = module, output
            found.num_values += output.numel()
        elif isinstance(module, nn.BatchNorm2d) and inputs and id(inputs[0]) in outputs:
            found.followers[outputs[id(inputs[0])][0]] = module

    with ExitStack() as hooks:
        for module in net.modules():
            if isinstance(module, nn.Conv2d) or type(module) is nn.BatchNorm2d:
                hooks.callback(module.register_forward_hook(record).remove)
        yield found
    found.followers = {conv: norm for conv, norm in found.followers.items() if calls[conv] == calls[norm] == 1}


class NormalizedConvolution(NamedTuple):
    """A convolution's weight, the same with the scale of the batch norm behind it, and that norm."""

    weight: Tensor
    scaled_weight: Tensor
    norm: nn.BatchNorm2d


class FoldedWayBack(TorchFunctionMode):
    """Inside this block a convolution and the batch norm that takes its output are one step on the way back.

    The convolution gives what the norm makes of its maps, and the norm passes that on. The network is not changed, and
    other threads may use it meanwhile.
    """

    def __init__(self, convolutions: Convolutions) -> None:
        super().__init__()
        self.convolutions = {
            id(conv.weight): NormalizedConvolution(conv.weight, scale_filters(conv.weight, norm), norm)
            for conv, norm in convolutions.followers.items()
            if norm.running_var is not None
            and not any(p.requires_grad for p in (*conv.parameters(), *norm.parameters()))
        }  # with the weights themselves, so that no other tensor gets the id of one
        self.normalized: Tensor | None = None  # what the last of them gave, with its norm

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        if func is torch.conv2d:
            return self.conv2d(*args, **(kwargs or {}))
        if func is F.batch_norm and args and args[0] is self.normalized:
            return args[0]
        return func(*args, **(kwargs or {}))

    def conv2d(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Tensor:
        convolution = self.convolutions.get(id(weight))
        if convolution is None or isinstance(padding, str):
            return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
        stride, padding, dilation = (
            (value, value) if isinstance(value, int) else value for value in (stride, padding, dilation)
        )
        output = NormalizedConv2d.apply(input, bias, convolution, (stride, padding, dilation, groups))
        self.normalized = output
        return output


class NormalizedConv2d(torch.autograd.Function):
    """A convolution and a batch norm in evaluation mode: [N, C, H, W] -> [N, K, H', W']; the gradient is the images' alone."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch's)
        images: Tensor,
        bias: Tensor | None,
        convolution: NormalizedConvolution,
        geometry: tuple[Any, ...],
    ) -> Tensor:
        ctx.save_for_backward(images, convolution.scaled_weight)
        ctx.geometry = geometry
        return convolution.norm(torch.conv2d(images, convolution.weight, bias, *geometry))

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 (torch's)
        *gradients: Tensor,
    ) -> tuple[Tensor, None, None, None]:
        (images, scaled_weight), (stride, padding, dilation, groups) = ctx.saved_tensors, ctx.geometry
        # torch.nn.grad.conv2d_input is the same, but does not tell torch the images' layout, and takes twice as long.
        of_images, _, _ = torch.ops.aten.convolution_backward(
            gradients[0],
            images,
            scaled_weight,
            None,
            stride,
            padding,
            dilation,
            False,
            (0, 0),
            groups,
            (True, False, False),
        )
        return of_images, None, None, None


def scale_filters(weight: Float[Tensor, "k c h w"], norm: nn.BatchNorm2d) -> Float[Tensor, "k c h w"]:
    """Filters times what a batch norm multiplies each one's output with."""
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    return (weight * scale[:, None, None, None]).contiguous(memory_format=torch.channels_last)
