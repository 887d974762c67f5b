"""The gradients of one logit at many points, on a copy of the network that takes less time for them.

In evaluation mode a batch norm scales and shifts its channels by fixed numbers. Where it follows a convolution, the copy has
them in the convolution's weights, so a pass goes over its maps fewer times; and it takes several points in one pass. That is
right where a pass does the same with every image, so it is done for networks all of whose modules are known, and then proven
at one point. A person's own code may do anything with an image: it computes each point alone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, islice

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from convolab.inspection.passes import logit_gradients
from convolab.inspection.types import SinglePixels
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import inference_view

BATCH_PIXELS = 3 * 224 * 224  # in a pass: EfficientNet-Lite 0 takes the least time an image with 3 (32 MB of cache)
BATCH_IMAGES = 32  # images in a pass
TOLERANCE = 1e-5  # of the largest value: how far a gradient of the copy may be from the network's own

KNOWN_CODE = ("convolab.models.", "torch.nn.", "torchvision.models.", "torchvision.ops.")  # packages of modules
Followers = dict[nn.Conv2d, nn.BatchNorm2d]  # a convolution -> the batch norm that alone takes its output


def iter_logit_gradients(
    net: ImageClassifier, points: Iterable[SinglePixels], target: int
) -> Iterator[Float[Tensor, "c h w"]]:
    """The gradient of the target's logit with respect to each point, in order; the network is in evaluation mode.

    The copy is taken if the network's modules are known and its gradient at the first point, in a pass with others, is the
    network's own, which is computed alone; else the network itself computes each alone. Points are taken from the iterable
    a batch ahead. Raises LabError for a network that has no gradient.
    """
    if not all(is_known(module) for module in net.modules()):
        for point in points:
            yield logit_gradients(net, point, target)[0]
        return
    remaining = iter(points)
    first = next(remaining, None)
    if first is None:
        return
    with recorded_followers(net) as followers:
        alone = logit_gradients(net, first, target)[0]
    batch_size = max(1, min(BATCH_IMAGES, BATCH_PIXELS // first[0, 0].numel()))
    others = list(islice(remaining, max(batch_size - 1, 1)))
    copied = folded_copy(net, followers) if others else None
    proven = None if copied is None else proven_gradients(copied, [first, *others], target, alone)
    if copied is None or proven is None:
        yield alone
        for point in chain(others, remaining):
            yield logit_gradients(net, point, target)[0]
        return
    yield from proven
    while batch := list(islice(remaining, batch_size)):
        yield from logit_gradients(copied, torch.cat(batch), target)


def is_known(module: nn.Module) -> bool:
    """Whether a module's code is convolab's, torch's or torchvision's, and nothing was added to it."""
    added = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        type(module).__module__.startswith(KNOWN_CODE)
        and "forward" not in vars(module)
        and not any(getattr(module, name, None) for name in added)
    )


def proven_gradients(
    copied: ImageClassifier, points: list[SinglePixels], target: int, alone: Float[Tensor, "c h w"]
) -> list[Float[Tensor, "c h w"]] | None:
    """The copy's gradients at the points in one pass; None if the first of them is not `alone`, or if that is zero."""
    try:
        gradients = logit_gradients(copied, torch.cat(points), target)
    except Exception:  # a network may fail in any way on what it was not written for
        return None
    largest, difference = float(alone.abs().max()), float((gradients[0] - alone).abs().max())
    return list(gradients) if 0 < largest < float("inf") and difference <= TOLERANCE * largest else None


@contextmanager
def recorded_followers(net: nn.Module) -> Iterator[Followers]:
    """Fill a dict, while the network runs inside, with the convolutions whose outputs batch norms take."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensors too: an id is free again when its object is gone
    followers: Followers = {}
    calls: Counter[nn.Module] = Counter()

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = module, output
        elif isinstance(module, nn.BatchNorm2d) and inputs and id(inputs[0]) in outputs:
            followers[outputs[id(inputs[0])][0]] = module

    with ExitStack() as hooks:
        for module in net.modules():
            if isinstance(module, nn.Conv2d) or type(module) is nn.BatchNorm2d:
                hooks.callback(module.register_forward_hook(record).remove)
        yield followers
    for conv, norm in list(followers.items()):
        if calls[conv] > 1 or calls[norm] > 1:
            del followers[conv]


def folded_copy(net: ImageClassifier, followers: Followers) -> ImageClassifier | None:
    """A view of the network whose batch norms are in the weights of the convolutions before them; None if it has no view."""
    copied = inference_view(net)
    if copied is net or net.scale.device.type != "cpu":
        return None
    twins = dict(zip(net.modules(), copied.modules(), strict=True))
    folded = {twins[norm] for conv, norm in followers.items() if fold_norm(twins[conv], norm)}
    for parent in copied.modules():
        for name, child in parent.named_children():
            if child in folded:
                setattr(parent, name, nn.Identity())
    return copied


def fold_norm(conv: nn.Module, norm: nn.BatchNorm2d) -> bool:
    """Put a batch norm's scale and shift in the convolution's weights, if these are plain parameters."""
    weights = dict(conv.named_parameters(recurse=False))
    if "weight" not in weights or norm.running_mean is None or norm.running_var is None:
        return False
    weight, bias = fuse_conv_bn_weights(
        weights["weight"], weights.get("bias"), norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight, conv.bias = weight.requires_grad_(False), bias.requires_grad_(False)
    return True
