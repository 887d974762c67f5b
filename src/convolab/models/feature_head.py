"""Where a network's last feature map ends and its head begins, found by recording one forward pass, for any network.

A head is a mean over the map, or its flattening, and then one linear layer. With such a head each cell of the map
contributes separately to a logit: class activation maps and dense predictions are exact. Gradients with respect to the
last map need no head.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convolab.core.errors import LabError, require
from convolab.core.rng import make_generator
from convolab.core.torch_functions import Args, Function, Kwargs
from convolab.models.classifier import ImageClassifier
from convolab.models.hooks import CallSite, FunctionCallHook, RecordedCall, hook_calls, record_calls
from convolab.models.inference import frozen_eval

FeatureMap = Float[Tensor, "n channels rows columns"]
Logits = Float[Tensor, "n classes"]
HeadKind = Literal["average", "flatten"]

# Functions that pass values through unchanged, at most reshaped (dropout in evaluation mode).
PASSTHROUGH_OPS = {"flatten", "view", "view_as", "reshape", "squeeze", "contiguous", "to", "float", "clone", "detach"}
PASSTHROUGH_OPS |= {"dropout", "dropout_", "dropout2d", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"}
MORE_CELLS_REMEDY = (
    "let a map of 2 x 2 cells or more reach the head, by fewer poolings (of simple_convnet, an entry less in "
    "model.channels) or a larger data.image_size"
)
LINEAR_HEAD_REMEDY = "give one that ends so, such as simple_convnet, resnet_small or efficientnet_lite0"


@dataclass(frozen=True)
class ClassifierHead:
    """What turns the last feature map into logits: its `average` or its `flatten`ing, then one linear layer."""

    kind: HeadKind
    weight: Tensor  # [classes, channels] after an average, [classes, channels, h, w] after flattening
    bias: Tensor  # [classes]

    def __call__(self, features: FeatureMap) -> Logits:
        """The logits of a feature map: of any size after an average, of the network's own after flattening."""
        if self.kind == "average":
            return features.mean((2, 3)) @ self.weight.T + self.bias
        return features.flatten(1) @ self.weight.flatten(1).T + self.bias


@dataclass(frozen=True)
class FeatureExtractor:
    """A network split after its last feature map.

    `feature_shape` is the map's [channels, height, width] for an image of the network's input size. `head` is None if
    more than pooling and one linear layer follows; `no_head_reason` then says what.
    """

    net: ImageClassifier
    call_site: CallSite
    feature_shape: tuple[int, int, int]
    head: ClassifierHead | None
    no_head_reason: str = ""

    @property
    def layer_name(self) -> str:
        """The name of the module that computes the map."""
        return self.call_site.module or "the network's own forward"

    def forward_features(self, pixels: Float[Tensor, "n c h w"]) -> FeatureMap:
        """The last feature map of images of any size; the forward pass stops there. Gradients flow to the pixels."""
        with suppress(StopForward), capture_call(self.net.network, self.call_site, stop=True) as capture:
            self.net.forward_unchecked(pixels)
        return self.require_captured(capture, pixels)

    def forward_features_and_logits(
        self, pixels: Float[Tensor, "n c h w"], *, detach: bool = False
    ) -> tuple[FeatureMap, Logits]:
        """The last feature map and the logits, from one forward pass.

        With `detach` the map is a leaf that requires gradients: only what follows it is in the graph.
        """
        with capture_call(self.net.network, self.call_site, detach=detach) as capture:
            logits = self.net.forward_unchecked(pixels)
        return self.require_captured(capture, pixels), logits

    def require_captured(self, capture: "CallCapture", pixels: Tensor) -> FeatureMap:
        """The captured map. Raises LabError if the pass did not reach it."""
        if capture.captured is None:
            raise LabError(
                f"images of {list(pixels.shape[2:])} take another path through this network "
                "and do not reach its last feature map"
            )
        return capture.captured

    def require_head(self, purpose: str) -> ClassifierHead:
        """The head. Raises LabError, with what the network would need, if there is none."""
        if self.head is None:
            raise LabError(
                f"{purpose} needs a last feature map that is averaged or flattened "
                f"and then classified by one linear layer: {self.no_head_reason}"
            )
        return self.head


def create_feature_extractor(net: ImageClassifier) -> FeatureExtractor:
    """Split a network after its last feature map, found by one forward pass over a noise image.

    The head is verified on that pass. Raises LabError if the network has no feature map: nothing after a convolution
    has a height and a width.

    >>> from convolab.models.pretrained import pretrained
    >>> extractor = create_feature_extractor(pretrained("efficientnet_lite0"))
    >>> extractor.layer_name, extractor.feature_shape, extractor.head.kind, list(extractor.head.weight.shape)
    ('act2', (1280, 7, 7), 'average', [1000, 1280])
    """
    parameter = next(net.parameters(), torch.zeros(()))
    noise = torch.rand(1, net.channels, *net.input_size, generator=make_generator(0, "split")).to(parameter)
    with torch.no_grad(), frozen_eval(net), record_calls(net.network) as recorder:
        logits = net.forward_unchecked(noise)
    return trace_back_from_logits(net, recorder.calls, logits)


def is_feature_map(call: RecordedCall) -> bool:
    """Whether a call computes a map [N, C, H, W] of more than one cell."""
    return call.output.ndim == 4 and min(call.output.shape[2:]) > 1


def is_global_average(call: RecordedCall) -> bool:
    """Whether a call takes the mean over all of a map (verified numerically at the end)."""
    if call.function == "mean":
        value, dim = call.args[0], call.argument(1, "dim")
        dims = dim if isinstance(dim, list | tuple) else () if dim is None else (dim,)
        return (value.ndim, {d % value.ndim for d in dims}) in ((4, {2, 3}), (3, {2}))
    return (
        call.function in ("adaptive_avg_pool2d", "avg_pool2d")
        and call.output.ndim == 4
        and max(call.output.shape[2:]) == 1
    )


def is_linear_layer(call: RecordedCall) -> bool:
    """Whether a call is a linear layer, or a convolution of a 1x1 map, which is one."""
    return call.function == "linear" or (call.function == "conv2d" and max(call.output.shape[2:]) == 1)


def trace_back_from_logits(net: ImageClassifier, calls: Sequence[RecordedCall], logits: Tensor) -> FeatureExtractor:
    """Trace back from the logits to the last feature map, along each call's first tensor."""
    first_conv = next((number for number, call in enumerate(calls) if call.function == "conv2d"), len(calls))
    require(
        first_conv < len(calls),
        "this network has no feature map, because it has no convolution: methods that need one do not apply",
    )
    weight = bias = None
    kind: HeadKind = "flatten"
    no_head_reason = ""
    value, end = logits, len(calls)
    while True:
        number = next((n for n in range(end - 1, first_conv - 1, -1) if calls[n].output is value), -1)
        require(
            number >= 0,
            "this network has no feature map: "
            f"nothing with a height and a width lies between its convolutions and its logits: {MORE_CELLS_REMEDY}",
        )
        call = calls[number]
        if is_feature_map(call):
            break
        if is_global_average(call):
            kind = "average"
        elif is_linear_layer(call) and weight is None:
            weight = call.tensor_argument(1, "weight")
            bias = call.tensor_argument(2, "bias")
        elif call.function not in PASSTHROUGH_OPS and not no_head_reason:
            is_single_cell = call.output.ndim == 4 and call.output.shape[1] > 1
            role = "acts on a map of a single cell" if is_single_cell else "lies between"
            remedy = MORE_CELLS_REMEDY if is_single_cell else LINEAR_HEAD_REMEDY
            no_head_reason = f"in this one {call.call_site} {role}: {remedy}"
        value = call.input_tensors[0] if call.input_tensors else value
        end = number
    head = None if no_head_reason else make_head(kind, weight, bias, call.output)
    if head is None or not torch.allclose(head(call.output), logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max())):
        head = None
        no_head_reason = no_head_reason or f"in this one something else is computed there: {LINEAR_HEAD_REMEDY}"
    _, channels, height, width = call.output.shape
    return FeatureExtractor(net, call.call_site, (channels, height, width), head, no_head_reason)


def make_head(kind: HeadKind, weight: Tensor | None, bias: Tensor | None, features: Tensor) -> ClassifierHead | None:
    """The head with this weight and bias, or None if their shapes do not match the map."""
    channels = features.shape[1]
    if weight is None:  # the map holds a score for each class already, and is averaged
        weight = torch.eye(channels).to(features)
    weight = weight.detach().flatten(1)
    if weight.shape[1] != (channels if kind == "average" else features[0].numel()):
        return None
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    return ClassifierHead(kind, weight if kind == "average" else weight.view(-1, *features.shape[1:]), bias)


class StopForward(BaseException):
    """Stops a forward pass at the feature map; no network's own `except Exception` catches it."""


class CallCapture(FunctionCallHook):
    """Captures the output of the call at one call site."""

    def __init__(self, call_site: CallSite, stop: bool, detach: bool) -> None:
        super().__init__()
        self.call_site = call_site
        self.stop = stop
        self.detach = detach
        self.captured: Tensor | None = None

    def on_call(self, call_site: CallSite, function: Function, args: Args, kwargs: Kwargs) -> object:
        out = function(*args, **kwargs)
        if call_site != self.call_site or not isinstance(out, Tensor):
            return out
        if self.detach:
            with torch.enable_grad():
                out = out.detach().requires_grad_()
        self.captured = out
        if self.stop:
            raise StopForward
        return out


@contextmanager
def capture_call(
    network: nn.Module, call_site: CallSite, *, stop: bool = False, detach: bool = False
) -> Iterator[CallCapture]:
    """Capture the output of the call at a call site in the forward pass made inside the block.

    With `stop` the pass ends there, by a `StopForward`; with `detach` the output is a leaf that requires gradients.
    """
    capture = CallCapture(call_site, stop, detach)
    with hook_calls(capture, network, [call_site.module]):
        yield capture
