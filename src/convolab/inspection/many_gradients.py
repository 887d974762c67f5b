"""The gradients of one logit at many points, in passes that take less time.

In evaluation mode a batch norm scales and shifts its channels by fixed numbers. Where it follows a convolution, its scale is
in that convolution's weights on the way back, which then goes over fewer maps. The way forward stays as it is, bit for bit: of
the millions of numbers that meet a ReLU some are within rounding of its kink, and would fall on its other side. And a pass
takes several points. That is right where it does the same with every image, so it is done for networks all of whose modules
are known, and then proven at one point. A person's own code may do anything with an image: it computes each point alone.
"""

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from convolab.analysis.meta import tensors_in
from convolab.core.torch_functions import Args, Function, FunctionCalls, Kwargs
from convolab.inspection.passes import logit_gradients
from convolab.inspection.types import SinglePixels
from convolab.models.classifier import ImageClassifier

BATCH_BYTES = 490_000_000  # that a pass keeps for its way back: 6 photos in EfficientNet-Lite 0
BATCH_IMAGES = 32  # in a pass, at most
TOLERANCE = 1e-5  # of the largest value: how far a gradient of a shorter pass may be from the network's own

KNOWN_CODE = ("convolab.models.", "torch.nn.", "torchvision.models.", "torchvision.ops.")  # packages of modules


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
    kept, used = KeptForTheWayBack(net), ConvolutionUses()
    with kept.counted(), used:
        alone = logit_gradients(net, first, target)[0]
    batch_size = max(1, min(BATCH_IMAGES, BATCH_BYTES // max(1, kept.num_bytes)))
    others = list(islice(remaining, max(batch_size - 1, 1)))
    way_back = FoldedWayBack(used.normalized_alone())
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


class KeptForTheWayBack:
    """How much a pass of one image keeps for its way back, besides what the network holds anyway."""

    def __init__(self, net: nn.Module) -> None:
        self.own = {tensor.data_ptr() for tensor in chain(net.parameters(), net.buffers())}
        self.sizes: dict[int, int] = {}  # bytes by place in memory: two operations may keep one tensor

    @property
    def num_bytes(self) -> int:
        return sum(self.sizes.values())

    def counted(self) -> saved_tensors_hooks:
        """A block in which what is kept is counted."""

        def count(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in self.own:
                self.sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor.detach()

        return saved_tensors_hooks(count, lambda tensor: tensor)


@dataclass(frozen=True)
class NormalizedConvolution:
    """The weight of a convolution, and the arguments of the batch norm that alone takes what it gives."""

    weight: Tensor
    norm: Mapping[str, Any]

    def normalize(self, maps: Tensor) -> Tensor:
        return F.batch_norm(**{**self.norm, "input": maps})

    def scaled_weight(self) -> Float[Tensor, "k c h w"]:
        """The filters, times what the batch norm multiplies each one's output with."""
        scale = (self.norm["running_var"] + self.norm["eps"]).rsqrt()
        scale = scale if self.norm["weight"] is None else scale * self.norm["weight"]
        return (self.weight * scale[:, None, None, None]).contiguous(memory_format=torch.channels_last)


class ConvolutionUses(FunctionCalls):
    """Notes, while a network runs inside this block, what takes the outputs of its convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: Counter[int] = Counter()  # uses of a weight, by its id
        self.outputs: dict[int, tuple[Tensor, Tensor]] = {}  # (output, weight); held, or another object gets the id
        self.uses: Counter[int] = Counter()  # of an output
        self.norms: dict[int, Mapping[str, Any]] = {}  # arguments of the batch norm that takes an output

    def normalized_alone(self) -> list[NormalizedConvolution]:
        """The convolutions that ran once and whose output a batch norm takes, in evaluation mode, and nothing else."""
        found = []
        for key, norm in self.norms.items():
            weight = self.outputs[key][1]
            is_alone = self.weights[id(weight)] == self.uses[key] == 1
            tensors = (weight, *(value for name, value in norm.items() if name != "input"))
            needs_gradient = any(isinstance(tensor, Tensor) and tensor.requires_grad for tensor in tensors)
            if is_alone and not norm["training"] and not needs_gradient:
                found.append(NormalizedConvolution(weight, {**norm, "input": None}))
        return found

    def on_function(self, function: Function, args: Args, kwargs: Kwargs) -> object:
        result = function(*args, **kwargs)
        if result is None or tensors_in(result):  # else it looked at a shape or the like
            for tensor in tensors_in([args, list(kwargs.values())]):
                if id(tensor) in self.outputs:
                    self.uses[id(tensor)] += 1
        if function is F.batch_norm:
            norm = inspect.signature(F.batch_norm).bind(*args, **kwargs)
            norm.apply_defaults()
            if id(norm.arguments["input"]) in self.outputs:
                self.norms[id(norm.arguments["input"])] = norm.arguments
        elif function is torch.conv2d and isinstance(result, Tensor) and result.ndim == 4:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            self.weights[id(weight)] += 1
            self.outputs[id(result)] = result, weight
        return result


class FoldedWayBack(FunctionCalls):
    """Inside this block a convolution and the batch norm that takes its output are one step on the way back.

    The convolution gives what the norm makes of its maps, and the norm passes that on. The network is not changed, and
    other threads may use it meanwhile.
    """

    def __init__(self, convolutions: Iterable[NormalizedConvolution]) -> None:
        super().__init__()
        # With the weights themselves, so that no other tensor gets the id of one.
        self.convolutions = {id(conv.weight): (conv, conv.scaled_weight()) for conv in convolutions}
        self.normalized: dict[int, Tensor] = {}  # outputs whose norm comes later

    def on_function(self, function: Function, args: Args, kwargs: Kwargs) -> object:
        if function is torch.conv2d:
            return self.conv2d(*args, **kwargs)
        if function is F.batch_norm and args and id(args[0]) in self.normalized:
            return self.normalized.pop(id(args[0]))
        return function(*args, **kwargs)

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
        if id(weight) not in self.convolutions or isinstance(padding, str):
            return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
        stride, padding, dilation = (
            (value, value) if isinstance(value, int) else value for value in (stride, padding, dilation)
        )
        output = NormalizedConv2d.apply(input, bias, self.convolutions[id(weight)], (stride, padding, dilation, groups))
        self.normalized[id(output)] = output
        return output


class NormalizedConv2d(torch.autograd.Function):
    """A convolution and a batch norm in evaluation mode: [N, C, H, W] -> [N, K, H', W']; the gradient is the images' alone."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch's)
        images: Tensor,
        bias: Tensor | None,
        folded: tuple[NormalizedConvolution, Tensor],  # and its scaled weight
        geometry: tuple[Any, ...],
    ) -> Tensor:
        convolution, scaled_weight = folded
        ctx.save_for_backward(images, scaled_weight)
        ctx.geometry = geometry
        return convolution.normalize(torch.conv2d(images, convolution.weight, bias, *geometry))

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
