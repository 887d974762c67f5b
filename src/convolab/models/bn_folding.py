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

from convolab.models.hooks import CallRecorder, CallSite, FunctionCallHook, RecordedCall, hook_calls


class _FoldingHook(FunctionCallHook):
    def __init__(self, folded_weights: dict[CallSite, tuple[Tensor, Tensor]], batch_norms: set[CallSite]) -> None:
        super().__init__()
        self.folded_weights, self.batch_norms = folded_weights, batch_norms

    def on_call(self, call_site: CallSite, function: Callable, args: tuple, kwargs: dict) -> Any:
        if call_site in self.batch_norms:
            return args[0]
        if call_site in self.folded_weights:
            return function(
                args[0],
                *self.folded_weights[call_site],
                *args[3:],
                **{k: v for k, v in kwargs.items() if k not in ("weight", "bias")},
            )
        return function(*args, **kwargs)


@contextmanager
def fold_batch_norms(network: nn.Module, recorder: CallRecorder) -> Iterator[None]:
    """Passes made meanwhile skip every batch norm that follows a convolution directly, as a `record` of one pass shows.

    The turns of calls are counted anew in each pass: one pass at a time.
    """
    pairs = list(find_conv_bn_pairs(recorder.calls))
    folding_hook = _FoldingHook(
        {conv.call_site: fuse_conv_bn_weights(conv, norm) for conv, norm in pairs},
        {norm.call_site for _, norm in pairs},
    )
    module_names = sorted({call.call_site.module for pair in pairs for call in pair})

    def reset_call_counts(*_: object) -> None:
        folding_hook.call_counts.clear()

    reset_handle = network.register_forward_pre_hook(reset_call_counts)
    try:
        with hook_calls(folding_hook, network, module_names):
            yield
    finally:
        reset_handle.remove()


def find_conv_bn_pairs(calls: list[RecordedCall]) -> Iterator[tuple[RecordedCall, RecordedCall]]:
    """Convolutions whose result goes into a batch norm in evaluation, and nowhere else."""
    producers = {id(call.output): call for call in calls if call.function == "conv2d"}
    use_counts = Counter(id(value) for call in calls for value in call.input_tensors)
    for call in calls:
        if call.function == "batch_norm" and not call.argument(5, "training"):
            conv = producers.get(id(call.args[0]))
            if conv is not None and use_counts[id(conv.output)] == 1 and len(conv.args) >= 3:
                yield conv, call


def fuse_conv_bn_weights(conv: RecordedCall, norm: RecordedCall) -> tuple[Tensor, Tensor]:
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
