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


class FoldingError(Exception):
    """A pass takes another path than the recorded one, so its batch norms cannot be folded as they were there."""


class FoldingHook(FunctionCallHook):
    """Calls folded convolutions with their folded weights, and passes over the batch norms that were folded.

    Raises FoldingError in a pass that does not go as the recorded one did: another convolution at a call site, or a
    batch norm of something else than its convolution's output.
    """

    def __init__(self, pairs: Sequence[tuple[RecordedCall, RecordedCall]]) -> None:
        super().__init__()
        self.convolutions = {conv.call_site: (conv.args[1], norm.call_site) for conv, norm in pairs}
        self.folded_weights = {conv.call_site: fuse_conv_bn_weights(conv, norm) for conv, norm in pairs}
        self.batch_norms = {norm.call_site for _, norm in pairs}
        self.awaiting: dict[CallSite, object] = {}  # the output of a folded convolution, by its batch norm's call site

    def start_pass(self) -> None:
        self.call_counts.clear()
        self.awaiting.clear()

    def end_pass(self) -> None:
        if self.awaiting:
            raise FoldingError(f"{next(iter(self.awaiting))} was not called in this pass")

    def on_call(self, call_site: CallSite, function: Function, args: Args, kwargs: Kwargs) -> object:
        if call_site in self.batch_norms:
            if self.awaiting.pop(call_site, None) is not args[0]:
                raise FoldingError(f"{call_site} does not follow its convolution in this pass")
            return args[0]
        if call_site in self.folded_weights:
            weight, batch_norm = self.convolutions[call_site]
            if len(args) < 3 or args[1] is not weight:
                raise FoldingError(f"{call_site} has other weights in this pass")
            self.awaiting[batch_norm] = out = function(args[0], *self.folded_weights[call_site], *args[3:], **kwargs)
            return out
        return function(*args, **kwargs)


@contextmanager
def fold_batch_norms(network: nn.Module, recorder: CallRecorder) -> Iterator[None]:
    """In forward passes inside the block, fold every batch norm that directly follows a convolution in a recorded pass.

    Calls are counted from the start of a pass, so there may be only one pass at a time. That the folded network computes
    what the network does is not known: other code may use or change a convolution's output before its batch norm. A
    caller proves it, as `inspection.passes.many_passes` does. A pass that fails may be repeated outside the block.
    """
    pairs = list(find_conv_bn_pairs(recorder.calls))
    folding_hook = FoldingHook(pairs)
    module_names = sorted({call.call_site.module for pair in pairs for call in pair})

    del pairs  # they hold activations of the recorded pass
    handles = [
        network.register_forward_pre_hook(lambda *_: folding_hook.start_pass()),
        network.register_forward_hook(lambda *_: folding_hook.end_pass()),
    ]
    try:
        with hook_calls(folding_hook, network, module_names):
            yield
    finally:
        for handle in handles:
            handle.remove()


def find_conv_bn_pairs(calls: Sequence[RecordedCall]) -> Iterator[tuple[RecordedCall, RecordedCall]]:
    """Pairs of a convolution and the batch norm in evaluation mode that alone uses its output."""
    producers = {id(call.output): call for call in calls if call.function == "conv2d"}
    use_counts = Counter(id(value) for call in calls for value in call.input_tensors)
    for call in calls:
        if call.function == "batch_norm" and call.args and not call.argument(5, "training"):
            conv = producers.get(id(call.args[0]))
            is_layer = conv is not None and len(conv.args) >= 3 and isinstance(conv.args[1], nn.Parameter)
            if conv is not None and is_layer and use_counts[id(conv.output)] == 1:
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
