"""Where a network's last feature map ends and its head begins, found by watching one pass: no network needs to tell.

A head is a mean over the map, or its flattening, and then one linear layer. With such a head every cell of the map has a say of
its own in a logit: class activation maps and dense responses are exact. Gradients with respect to the last map need no head.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convolab.core.errors import need
from convolab.core.rng import generator
from convolab.models.classifier import PixelNet, undisturbed
from convolab.models.hooks import Call, Listener, Place, Record, listening, recording

Map = Float[Tensor, "n channels rows columns"]
Logits = Float[Tensor, "n classes"]

# Functions that hand a value on: another shape, the same numbers (dropout in evaluation).
HANDS_ON = {"flatten", "view", "view_as", "reshape", "squeeze", "contiguous", "to", "float", "clone", "detach"}
HANDS_ON |= {"dropout", "dropout_", "dropout2d", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"}


@dataclass(frozen=True)
class Head:
    """What turns the last feature map into logits: its `average` or its `flatten`ing, then one linear layer."""

    kind: Literal["average", "flatten"]
    weight: Tensor  # [classes, channels] behind an average, [classes, channels, h, w] behind a flattening
    bias: Tensor  # [classes]

    def __call__(self, features: Map) -> Logits:
        """The logits of a feature map: of any size behind an average, of the network's own behind a flattening."""
        if self.kind == "average":
            return features.mean((2, 3)) @ self.weight.T + self.bias
        return features.flatten(1) @ self.weight.flatten(1).T + self.bias


@dataclass(frozen=True)
class Split:
    """A network cut behind its last feature map.

    `shape` is the map's [channels, height, width] for a picture of the network's own size. `head` is None where more than
    pooling and one linear layer follows; `lacking` then says what.
    """

    net: PixelNet
    place: Place
    shape: tuple[int, int, int]
    head: Head | None
    lacking: str = ""

    @property
    def layer(self) -> str:
        """The module whose result the map is."""
        return self.place.module or "the network's own forward"

    def features(self, pixels: Float[Tensor, "n c h w"]) -> Map:
        """The last feature map of pictures of any size; the pass ends there. Gradients flow to the pixels."""
        with suppress(_Stop), watching(self.net.network, self.place, stop=True) as watch:
            self.net.respond(pixels)
        return self.found(watch, pixels)

    def features_and_logits(self, pixels: Float[Tensor, "n c h w"], *, detach: bool = False) -> tuple[Map, Logits]:
        """The last feature map and the logits, of one pass.

        With `detach` the map is a leaf that requires gradients: only what follows it is in the graph.
        """
        with watching(self.net.network, self.place, detach=detach) as watch:
            logits = self.net.respond(pixels)
        return self.found(watch, pixels), logits

    def found(self, watch: "_Watch", pixels: Tensor) -> Map:
        need(
            watch.found is not None,
            f"pictures of {list(pixels.shape[2:])} take another way through this network, without its last map",
        )
        return watch.found

    def need_head(self, purpose: str) -> Head:
        """The head. Raises LabError, with what the network would need, if there is none."""
        need(
            self.head is not None,
            f"{purpose} needs a last feature map that is averaged or flattened and then classified by one linear layer: {self.lacking}",
        )
        return self.head


def split(net: PixelNet) -> Split:
    """Cut a network behind its last feature map, found by one pass over a picture of noise.

    Whether the head that was found is right is checked on that pass. Raises LabError if the network has no feature map, that is
    nothing with a height and a width behind a convolution.

    >>> from convolab.models.pretrained import pretrained
    >>> parts = split(pretrained("efficientnet_lite0"))
    >>> parts.layer, parts.shape, parts.head.kind, list(parts.head.weight.shape)
    ('act2', (1280, 7, 7), 'average', [1000, 1280])
    """
    parameter = next(net.parameters(), torch.zeros(()))
    noise = torch.rand(1, net.channels, *net.size, generator=generator(0, "split")).to(parameter)
    with torch.no_grad(), undisturbed(net), recording(net.network) as record:
        logits = net.respond(noise)
    return _read_backwards(net, record, logits)


def is_map(call: Call) -> bool:
    return call.out.ndim == 4 and min(call.out.shape[2:]) > 1


def averages(call: Call) -> bool:
    """Whether a call takes the mean over all of a map (which is checked by number in the end)."""
    if call.function == "mean":
        value, dims = call.args[0], call.argument(1, "dim")
        dims = {d % value.ndim for d in ((dims,) if isinstance(dims, int) else dims or ())}
        return (value.ndim, dims) in ((4, {2, 3}), (3, {2}))
    return (
        call.function in ("adaptive_avg_pool2d", "avg_pool2d") and call.out.ndim == 4 and max(call.out.shape[2:]) == 1
    )


def classifies(call: Call) -> bool:
    """Whether a call is a linear layer, maybe written as a convolution of a 1x1 map."""
    return call.function == "linear" or (call.function == "conv2d" and max(call.out.shape[2:]) == 1)


def _read_backwards(net: PixelNet, record: Record, logits: Tensor) -> Split:
    """From the logits to the last feature map, along every call's first tensor."""
    calls, value, end = record.calls, logits, len(record.calls)
    first = next((number for number, call in enumerate(calls) if call.function == "conv2d"), end)
    need(
        first < end,
        "this network has no feature map, because it has no convolution: lenses that need one cannot look into it",
    )
    weight = bias = None
    kind, lacking = "flatten", ""
    while True:
        number = next((n for n in range(end - 1, first - 1, -1) if calls[n].out is value), None)
        need(
            number is not None,
            "this network has no feature map: nothing with a height and a width stands between its convolutions and its logits",
        )
        call = calls[number]
        if is_map(call):
            break
        if averages(call):
            kind = "average"
        elif classifies(call) and weight is None:
            weight, bias = call.argument(1, "weight").detach().flatten(1), call.argument(2, "bias")
        elif call.function not in HANDS_ON and not lacking:
            shrunk = call.out.ndim == 4 and call.out.shape[1] > 1
            lacking = (
                f"in this one {call.place} {'works on what has shrunk to one cell' if shrunk else 'stands between'}"
            )
        value, end = call.inputs[0] if call.inputs else value, number
    shape = tuple(call.out.shape[1:])
    head = None if lacking else _head(kind, weight, bias, call.out)
    if head is None or not torch.allclose(head(call.out), logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max())):
        return Split(net, call.place, shape, None, lacking or "in this one something else happens there")
    return Split(net, call.place, shape, head)


def _head(kind: str, weight: Tensor | None, bias: Tensor | None, features: Tensor) -> Head | None:
    """The head of the parts that were found, or None if they do not fit the map."""
    channels = features.shape[1]
    if weight is None:  # the map holds a score for each class already, and is averaged
        weight = torch.eye(channels).to(features)
    if weight.shape[1] != (channels if kind == "average" else features[0].numel()):
        return None
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    return Head(kind, weight if kind == "average" else weight.view(-1, *features.shape[1:]), bias)


class _Stop(BaseException):
    """Ends a pass at the feature map; no network's own `except Exception` catches it."""


class _Watch(Listener):
    """Keeps the result of the call at one place."""

    def __init__(self, place: Place, stop: bool, detach: bool) -> None:
        super().__init__()
        self.place, self.stop, self.detach, self.found = place, stop, detach, None

    def met(self, place: Place, function: Callable, args: tuple, kwargs: dict) -> Any:
        out = function(*args, **kwargs)
        if place != self.place:
            return out
        if self.detach:
            with torch.enable_grad():
                out = out.detach().requires_grad_()
        self.found = out
        if self.stop:
            raise _Stop
        return out


@contextmanager
def watching(network: nn.Module, place: Place, *, stop: bool = False, detach: bool = False) -> Iterator[_Watch]:
    watch = _Watch(place, stop, detach)
    with listening(watch, network, [place.module]):
        yield watch
