"""Fold batch norms into the convolutions before them, for the duration of an inspection.

In evaluation mode a batch norm is a scale and a shift per channel, which the convolution's weights can absorb: the same
function, with two passes fewer over memory for each batch norm, forward and backward. The network's own weights stay as
they are.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from convolab.models.hooks import (
    Args,
    CallRecorder,
    CallSite,
    Function,
    FunctionCallHook,
    Kwargs,
    RecordedCall,
    hook_calls,
)


class FoldingHook(FunctionCallHook):
    """Calls folded convolutions with their folded weights, and passes over the batch norms that were folded."""

    def __init__(self, folded_weights: dict[CallSite, tuple[Tensor, Tensor]], batch_norms: set[CallSite]) -> None:
        super().__init__()
        self.folded_weights = folded_weights
        self.batch_norms = batch_norms

    def on_call(self, call_site: CallSite, function: Function, args: Args, kwargs: Kwargs) -> object:
        if call_site in self.batch_norms:
            return args[0]
        if call_site in self.folded_weights:
            other_kwargs = {name: value for name, value in kwargs.items() if name not in ("weight", "bias")}
            return function(args[0], *self.folded_weights[call_site], *args[3:], **other_kwargs)
        return function(*args, **kwargs)


@contextmanager
def fold_batch_norms(network: nn.Module, recorder: CallRecorder) -> Iterator[None]:
    """In forward passes inside the block, fold every batch norm that directly follows a convolution in a recorded pass.

    Calls are counted from the start of a pass, so there may be only one pass at a time.
    """
    pairs = list(find_conv_bn_pairs(recorder.calls))
    folding_hook = FoldingHook(
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


def find_conv_bn_pairs(calls: Sequence[RecordedCall]) -> Iterator[tuple[RecordedCall, RecordedCall]]:
    """Pairs of a convolution and the batch norm in evaluation mode that alone uses its output."""
    producers = {id(call.output): call for call in calls if call.function == "conv2d"}
    use_counts = Counter(id(value) for call in calls for value in call.input_tensors)
    for call in calls:
        if call.function == "batch_norm" and not call.argument(5, "training"):
            conv = producers.get(id(call.args[0]))
            if conv is not None and use_counts[id(conv.output)] == 1 and len(conv.args) >= 3:
                yield conv, call


def fuse_conv_bn_weights(conv: RecordedCall, norm: RecordedCall) -> tuple[Tensor, Tensor]:
    """The weight and bias of a single convolution that computes what a convolution and its batch norm compute."""
    weight, bias = conv.args[1:3]
    mean = norm.tensor_argument(1, "running_mean")
    variance = norm.tensor_argument(2, "running_var")
    gamma = norm.tensor_argument(3, "weight")
    beta = norm.tensor_argument(4, "bias")
    eps = norm.argument(7, "eps")
    if mean is None or variance is None or not isinstance(eps, float):  # torch itself requires them
        raise TypeError(f"{norm.call_site} is not a batch norm in evaluation mode")
    factor = torch.rsqrt(variance + eps)
    if gamma is not None:
        factor = factor * gamma
    shift = -mean if bias is None else bias - mean
    shift = shift * factor if beta is None else shift * factor + beta
    return (weight * factor.view(-1, 1, 1, 1)).detach(), shift.detach()
