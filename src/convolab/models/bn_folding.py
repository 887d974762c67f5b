"""Batch norms folded into the convolutions before them, while a lens looks.

In evaluation a batch norm is a factor and a shift for each channel, which the convolution's weights can take over: the same
function, with two passes over memory less for each, forward and backward. The network's own weights stay as they are.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from convolab.models.hooks import Call, Listener, Place, Record, listening


class _Folded(Listener):
    def __init__(self, weights: dict[Place, tuple[Tensor, Tensor]], norms: set[Place]) -> None:
        super().__init__()
        self.weights, self.norms = weights, norms

    def met(self, place: Place, function: Callable, args: tuple, kwargs: dict) -> Any:
        if place in self.norms:
            return args[0]
        if place in self.weights:
            return function(
                args[0],
                *self.weights[place],
                *args[3:],
                **{k: v for k, v in kwargs.items() if k not in ("weight", "bias")},
            )
        return function(*args, **kwargs)


@contextmanager
def folded(network: nn.Module, record: Record) -> Iterator[None]:
    """Passes made meanwhile skip every batch norm that follows a convolution directly, as a `record` of one pass shows.

    The turns of calls are counted anew in each pass: one pass at a time.
    """
    pairs = list(foldable(record.calls))
    listener = _Folded({conv.place: fold(conv, norm) for conv, norm in pairs}, {norm.place for _, norm in pairs})
    modules = sorted({call.place.module for pair in pairs for call in pair})

    def anew(*_: object) -> None:
        listener.turns.clear()

    start = network.register_forward_pre_hook(anew)
    try:
        with listening(listener, network, modules):
            yield
    finally:
        start.remove()


def foldable(calls: list[Call]) -> Iterator[tuple[Call, Call]]:
    """Convolutions whose result goes into a batch norm in evaluation, and nowhere else."""
    makers = {id(call.out): call for call in calls if call.function == "conv2d"}
    uses = Counter(id(value) for call in calls for value in call.inputs)
    for call in calls:
        if call.function == "batch_norm" and not call.argument(5, "training"):
            conv = makers.get(id(call.args[0]))
            if conv is not None and uses[id(conv.out)] == 1 and len(conv.args) >= 3:
                yield conv, call


def fold(conv: Call, norm: Call) -> tuple[Tensor, Tensor]:
    """The weights and bias of a convolution that does what it and its batch norm do."""
    weight, bias = conv.args[1:3]
    mean, variance, gamma, beta = (
        norm.argument(i, n) for i, n in ((1, "running_mean"), (2, "running_var"), (3, "weight"), (4, "bias"))
    )
    factor = torch.rsqrt(variance + norm.argument(7, "eps"))
    if gamma is not None:
        factor = factor * gamma
    shift = (0 if bias is None else bias) - mean
    shift = shift * factor + (0 if beta is None else beta)
    return (weight * factor.view(-1, 1, 1, 1)).detach(), shift.detach()
