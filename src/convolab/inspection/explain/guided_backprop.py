"""Guided backpropagation, for the networks it is defined for, and a refusal that names the layer for all others.

Hooks hang on the nodes of one backward pass, not on modules: activations that a `forward` calls as functions are guided too, and
nothing of the network is touched.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.models.classifier import ImageClassifier
from convolab.models.hooks import record_calls

RELU_OPERATIONS = {"Relu", "Hardtanh", "Threshold", "Clamp", "ClampMin"}  # guided where they cut off at 0
# Steps that are linear in what comes from the picture, or pick some of it: guidance does not concern them.
LINEAR_OPERATIONS = """Convolution MkldnnConvolution Addmm Mm Bmm Baddbmm Linear Add Sub Neg Addcmul Mean Sum Cat Stack View UnsafeView Reshape
ReshapeAlias Alias AsStrided Clone ToCopy Expand Repeat Permute T Transpose Squeeze Unsqueeze Select Slice Split SplitWithSizes Unbind
Index Gather ConstantPadNd ReflectionPad2D ReplicationPad2D MaxPool2DWithIndices MaxPool2D AvgPool2D AdaptiveAvgPool2D AdaptiveMaxPool2D
NativeBatchNorm CudnnBatchNorm UpsampleNearest2D UpsampleBilinear2D PixelShuffle AccumulateGrad Contiguous Narrow Flip Roll"""


def guided_gradient(net: ImageClassifier, x: Float[Tensor, "1 c h w"], target: int) -> Float[Tensor, "c h w"]:
    """The gradient of a logit, negative values set to 0 on their way back through every ReLU (Springenberg et al. 2014).

    Raises LabError, with the layer's name, for a network with any other activation: there it would be the plain gradient under
    another name. It is one too for a network without any ReLU.
    """
    with torch.enable_grad(), record_calls(net.network) as record:
        x = x.detach().requires_grad_()
        score = net.forward_unchecked(x)[0, target]
    call_sites = {call.output.grad_fn: str(call.call_site) for call in record.calls if call.output.grad_fn is not None}
    relus = []
    for node in backward_graph_nodes(score.grad_fn):
        kind = operation_name(node)
        if kind in RELU_OPERATIONS and lower_clip_bound(node) == 0:
            relus.append(node)
        elif kind not in LINEAR_OPERATIONS.split():
            layer_name = call_sites.get(node) or "a step in the network's forward"
            raise LabError(
                f"guided backpropagation is defined for ReLUs alone, and {layer_name} is {kind}: use another method"
            )
    require(relus, "guided backpropagation needs ReLUs, and this network has none: its map would be the plain gradient")
    hooks = [
        node.register_prehook(lambda grads: tuple(g if g is None else g.clamp(min=0) for g in grads)) for node in relus
    ]
    try:
        return torch.autograd.grad(score, x)[0][0]
    finally:
        for hook in hooks:
            hook.remove()


def backward_graph_nodes(start: Any) -> Iterator[Any]:
    """All nodes of a backward pass."""
    visited, pending = {start}, [start]
    while pending:
        node = pending.pop()
        yield node
        for next_node, _ in node.next_functions:
            if next_node is not None and next_node not in visited:
                visited.add(next_node)
                pending.append(next_node)


def operation_name(node: Any) -> str:
    """A node's operation, e.g. Relu for ReluBackward0.

    >>> kind_of(torch.ones(1, requires_grad=True).relu().grad_fn)
    'Relu'
    """
    return node.name().rpartition("::")[2].partition("Backward")[0]


def lower_clip_bound(node: Any) -> float | None:
    """Below which value an activation cuts off."""
    if operation_name(node) == "Relu":
        return 0.0
    for name in ("_saved_min_val", "_saved_min", "_saved_threshold"):
        if hasattr(node, name):
            value = getattr(node, name)
            return None if value is None else float(value)
    return None
