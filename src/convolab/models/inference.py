"""Use a network without changing it: evaluation mode, the logits of images, the most probable classes."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convolab.core.errors import LabError, describe_exception, require
from convolab.core.rng import isolated_rng
from convolab.models.classifier import ImageClassifier

LOGIT_TOLERANCE = 1e-3  # of the largest value: float32 rounding stays below it
AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode; at the end each module's mode is restored, even after an exception.

    The mode belongs to the network, not to the thread: while one thread trains it, no other may use it in this block.
    A network that is in evaluation mode already, as `pretrained` returns it, may be shared between threads.

    >>> net = nn.Dropout()
    >>> with eval_mode(net): inside = net.training
    >>> inside, net.training
    (False, True)
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def frozen_eval(net: nn.Module) -> Iterator[None]:
    """`eval_mode`, and no parameter requires gradients; `requires_grad` is restored, and an existing `.grad` stays."""
    flags = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    with eval_mode(net):
        net.requires_grad_(False)
        try:
            yield
        finally:
            for parameter, requires_grad in flags:
                parameter.requires_grad_(requires_grad)


def freeze_for_inference(net: ImageClassifier) -> ImageClassifier:
    """Put a network in evaluation mode, freeze its parameters and let it refuse pixels outside [0, 1].

    Raises LabError for weights that are not finite.
    """
    require_finite_weights(net)
    net.validate_inputs = True
    return net.eval().requires_grad_(False)


def inference_view(net: ImageClassifier) -> ImageClassifier:
    """A copy of a network on the processor that shares its weights in memory, in evaluation mode, parameters frozen.

    Modes, hooks and `requires_grad` that are set on the view leave `net` as it is. So several threads may use one
    network at a time, each through its own view, as long as nobody changes the weights. Weights on a graphics card are
    copied. A network that Python cannot copy is returned itself: it may be used by one thread at a time. Raises LabError
    for weights that are not finite.

    >>> net = ImageClassifier(nn.Linear(1, 1), mean=(0.5,), std=(0.5,), input_size=(1, 1), classes=("a",))
    >>> view = inference_view(net)
    >>> view.training, net.training, view.network.weight.data_ptr() == net.network.weight.data_ptr()
    (False, True, True)
    """
    require_finite_weights(net)
    same_memory: dict[int, object] = {
        id(p): nn.Parameter(p.detach().cpu(), requires_grad=False) for p in net.parameters()
    }
    same_memory |= {id(buffer): buffer.cpu() for buffer in net.buffers()}
    try:
        return copy.deepcopy(net, same_memory).eval()
    except Exception:  # a network may hold anything, and its own `__deepcopy__` may fail in any way
        return net


def copied_network(network: AnyNetwork, purpose: str) -> AnyNetwork:
    """A copy of a network that shares nothing with it. Raises LabError, with the purpose, if Python cannot copy it."""
    try:
        return copy.deepcopy(network)
    except Exception as error:  # a network may hold anything, and its own `__deepcopy__` may fail in any way
        raise LabError(f"this network cannot be copied, {purpose} ({describe_exception(error)})") from error


def compute_logits(
    net: ImageClassifier,
    pixels: Float[Tensor, "n c h w"] | Sequence[Float[Tensor, "1 c h w"]],
    batch_size: int = 256,
    image_name: str = "the image",
) -> Float[Tensor, "n classes"]:
    """The logits of images in evaluation mode, `batch_size` images in one forward pass; the network stays as it is.

    Args:
        net: the network.
        pixels: floats in [0, 1]: a tensor, or images one by one, which are stacked batch by batch.
        batch_size: images in one forward pass. The last bits of a logit may depend on it.
        image_name: what an error calls the images.

    Returns:
        Logits [N, classes] with the network's device and floating-point type.

    Raises LabError for logits that are not all finite.
    """
    with frozen_eval(net), torch.no_grad():
        batches = (pixels[first : first + batch_size] for first in range(0, len(pixels), batch_size))
        stacked = (batch if isinstance(batch, Tensor) else torch.cat(list(batch)) for batch in batches)
        logits = torch.cat([net(batch.to(net.scale)) for batch in stacked])
    require_finite_logits(logits, image_name)
    return logits


def describe_unsteady_logits(net: nn.Module, pixels: Float[Tensor, "n c h w"]) -> str:
    """What is wrong with a network whose logits for an image are not a function of the image; empty if nothing is.

    Tried in evaluation mode: the same batch twice, and its first image alone. Logits that are NaN or infinite are no
    function either.

    >>> describe_unsteady_logits(nn.Flatten(), torch.rand(3, 1, 2, 2))
    ''
    >>> describe_unsteady_logits(nn.BatchNorm2d(1, track_running_stats=False), torch.rand(3, 1, 2, 2))[:40]
    "the network's logits for an image depend"
    """
    with isolated_rng(pixels.device), eval_mode(net), torch.no_grad():
        together, again = net(pixels).float(), net(pixels).float()
        alone = net(pixels[:1]).float()
    if not torch.cat([together, again, alone]).isfinite().all():
        return (
            "the network gives logits that are NaN or infinite: look for a division by zero, a logarithm or a root of "
            "numbers that are not above it, or weights that are too large"
        )
    if not is_rounding_apart(again, together):
        return (
            "the network gives other logits for the same images each time: it draws random numbers in evaluation too, as "
            "F.dropout does without training=self.training, or computes with what it changes"
        )
    if not is_rounding_apart(alone, together[:1]):
        return (
            "the network's logits for an image depend on the other images of its batch, as with batch norm without "
            "running statistics: its accuracy is that of these batches, and not that of single images"
        )
    return ""


def is_rounding_apart(values: Tensor, others: Tensor) -> bool:
    """Whether values differ from others by rounding alone; False where one is not finite."""
    difference = (values - others).abs().max()
    return bool(difference.isfinite() and difference <= LOGIT_TOLERANCE * others.abs().max())


def require_finite_logits(logits: Float[Tensor, "..."], image_name: str) -> None:
    """Raise LabError unless all logits are finite: of others no class and no probability can be given.

    >>> require_finite_logits(torch.tensor([1.0, -2.0]), "chelsea")
    """
    require(
        logits.isfinite().all(),
        f"the network's logits for {image_name} are not all finite numbers, so they give no class: its weights are "
        "damaged, or its training diverged",
    )


def require_finite_weights(net: nn.Module) -> None:
    """Raise LabError, naming the tensor, for weights that are NaN or infinite: a network may hide them from its logits.

    Infinities are allowed in buffers that no layer learns, such as the masks of attention.

    >>> require_finite_weights(nn.BatchNorm2d(3))
    """
    learned = {name for name, _ in net.named_parameters()}
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        is_learned = name in learned or name.rpartition(".")[2].startswith("running_")
        is_valid = tensor.isfinite() if is_learned else ~tensor.isnan()
        require(
            tensor.is_meta or is_valid.all(),
            f"the network's weights are damaged: {name.removeprefix('network.')} holds NaN or infinite numbers; "
            "train it again, or restore its file",
        )


@dataclass(frozen=True)
class ClassProbability:
    """A class and its probability; as text `tabby 58.3 %`."""

    name: str
    index: int
    probability: float  # in [0, 1]

    def to_dict(self) -> dict[str, str | float]:
        return {"class": self.name, "probability": self.probability}

    def __str__(self) -> str:
        return f"{self.name} {100 * self.probability:.1f} %"


def top_classes(classes: Sequence[str], probabilities: Float[Tensor, "classes"], k: int) -> list[ClassProbability]:
    """The `k` most probable classes, or all if there are fewer, the most probable first.

    >>> [str(c) for c in top_classes(("cat", "dog", "owl"), torch.tensor([0.2, 0.7, 0.1]), 2)]
    ['dog 70.0 %', 'cat 20.0 %']
    """
    values, indices = probabilities.topk(min(k, len(probabilities)))
    return [
        ClassProbability(classes[int(i)], int(i), float(p))
        for i, p in zip(indices.tolist(), values.tolist(), strict=True)
    ]
