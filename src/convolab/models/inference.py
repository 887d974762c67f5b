"""Use a network without changing it: evaluation mode, the logits of images, the most probable classes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convolab.models.classifier import ImageClassifier


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode; at the end each of its modules is back in its own mode, even after an exception.

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
    """`eval_mode` in which no parameter takes gradients; `requires_grad` is restored, and an existing `.grad` stays."""
    flags = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    with eval_mode(net):
        net.requires_grad_(False)
        try:
            yield
        finally:
            for parameter, requires_grad in flags:
                parameter.requires_grad_(requires_grad)


def freeze_for_inference(net: ImageClassifier) -> ImageClassifier:
    """Put a network in evaluation mode for good: no gradients of its parameters, pixels outside [0, 1] refused."""
    net.validate_inputs = True
    return net.eval().requires_grad_(False)


def compute_logits(
    net: ImageClassifier, pixels: Float[Tensor, "n c h w"] | Sequence[Float[Tensor, "1 c h w"]], batch_size: int = 256
) -> Float[Tensor, "n classes"]:
    """The logits of images in evaluation mode, `batch_size` images in one forward pass; the network stays as it is.

    Args:
        net: the network. Its device and floating-point type are the logits' too.
        pixels: floats in [0, 1]: a tensor, or images one by one, which are put together batch by batch.
        batch_size: images in one forward pass. The last bits of a logit may depend on it.
    """
    with frozen_eval(net), torch.no_grad():
        batches = (pixels[first : first + batch_size] for first in range(0, len(pixels), batch_size))
        stacked = (batch if isinstance(batch, Tensor) else torch.cat(list(batch)) for batch in batches)
        return torch.cat([net(batch.to(net.scale)) for batch in stacked])


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
    return [ClassProbability(classes[i], i, p) for i, p in zip(indices.tolist(), values.tolist(), strict=True)]
