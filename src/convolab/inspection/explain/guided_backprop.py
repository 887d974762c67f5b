"""Guided backpropagation, for the networks it is defined for; for all others a refusal that names the layer.

The hooks are on the nodes of one backward pass, not on modules: activations that a `forward` calls as functions are
guided too, and nothing of the network is changed.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import Node

from convolab.core.errors import LabError, require
from convolab.inspection.passes import gradient_of
from convolab.inspection.types import SinglePixels
from convolab.models.classifier import ImageClassifier
from convolab.models.hooks import record_calls

RELU_OPERATIONS = {"Relu", "Hardtanh", "Threshold", "Clamp", "ClampMin"}  # guided where their lower bound is 0
# Operations that are linear in the image's activations, or select some of them: guidance does not concern them.
LINEAR_OPERATIONS = """
    Convolution MkldnnConvolution Addmm Mm Bmm Baddbmm Linear Add Sub Neg Addcmul Mean Sum Cat Stack View UnsafeView
    Reshape ReshapeAlias Alias AsStrided Clone ToCopy Expand Repeat Permute T Transpose Squeeze Unsqueeze Select Slice
    Split SplitWithSizes Unbind Index Gather ConstantPadNd ReflectionPad2D ReplicationPad2D MaxPool2DWithIndices
    MaxPool2D AvgPool2D AdaptiveAvgPool2D AdaptiveMaxPool2D NativeBatchNorm CudnnBatchNorm UpsampleNearest2D
    UpsampleBilinear2D PixelShuffle AccumulateGrad Contiguous Narrow Flip Roll
"""


def guided_gradient(net: ImageClassifier, x: SinglePixels, target: int) -> Float[Tensor, "c h w"]:
    """The gradient of a logit, with negative values set to 0 on their way back through every ReLU.

    Springenberg et al. 2014, arXiv:1412.6806. Raises LabError, with the layer's name, for a network with any other
    activation, or without any ReLU: there the result would be the plain gradient under another name. Raises it too for
    a network without a gradient.
    """
    with torch.enable_grad(), record_calls(net.network) as recorder:
        x = x.detach().requires_grad_()
        score = net.forward_unchecked(x)[0, target]
    call_sites = {
        call.output.grad_fn: str(call.call_site) for call in recorder.calls if call.output.grad_fn is not None
    }
    relus = []
    for node in backward_graph_nodes(score.grad_fn):
        operation = operation_name(node)
        if operation in RELU_OPERATIONS and lower_clip_bound(node) == 0:
            relus.append(node)
        elif operation not in LINEAR_OPERATIONS.split():
            layer_name = call_sites.get(node) or "a step in the network's forward"
            raise LabError(
                f"guided backpropagation is defined for ReLUs alone, and {layer_name} is {operation}: "
                "use another method"
            )
    require(
        relus or not score.requires_grad,  # without a gradient nothing is known of the layers
        "guided backpropagation needs ReLUs, and this network has none: its map would be the plain gradient",
    )
    hooks = [node.register_prehook(clamp_gradients) for node in relus]
    try:
        return gradient_of(score, x)[0]
    finally:
        for hook in hooks:
            hook.remove()


def clamp_gradients(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(gradient if gradient is None else gradient.clamp(min=0) for gradient in gradients)


def backward_graph_nodes(start: Node | None) -> Iterator[Node]:
    """All nodes of a backward pass, from its start."""
    pending = [] if start is None else [start]
    visited = set(pending)
    while pending:
        node = pending.pop()
        yield node
        for next_node, _ in node.next_functions:
            if next_node is not None and next_node not in visited:
                visited.add(next_node)
                pending.append(next_node)


def operation_name(node: Node) -> str:
    """A node's operation, e.g. Relu for ReluBackward0.

    >>> operation_name(torch.ones(1, requires_grad=True).relu().grad_fn)
    'Relu'
    """
    return node.name().rpartition("::")[2].partition("Backward")[0]


def lower_clip_bound(node: Node) -> float | None:
    """The value below which an activation is constant; None if there is no such value."""
    if operation_name(node) == "Relu":
        return 0.0
    for name in ("_saved_min_val", "_saved_min", "_saved_threshold"):
        if hasattr(node, name):
            value = getattr(node, name)
            return None if value is None else float(value)
    return None
