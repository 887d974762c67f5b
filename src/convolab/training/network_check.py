"""Whether a network takes the images, as it is evaluated and as it is trained: found out before work starts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convolab.core.errors import LabError, require
from convolab.core.rng import isolated_rng, lent_generators
from convolab.core.text import join_with_and
from convolab.data.dataset import ImageDataset, Subset
from convolab.models.inference import describe_unsteady_logits, eval_mode
from convolab.models.own_code import own_code_errors
from convolab.training.transforms import to_float01
from convolab.training.unsaved_state import find_rebuilt_otherwise

if TYPE_CHECKING:
    from convolab.training.callbacks import TrainingCallbacks
    from convolab.training.trainer import Trainer


def check_network(
    network: nn.Module, train: ImageDataset | Subset, batch_size: int, device: torch.device | str = "cpu"
) -> None:
    """Raise LabError unless a network gives a logit per class in evaluation and in a batch that it is trained on.

    Two images are enough to tell, or the one of a batch of one. Nothing of the network changes, and no random number
    is drawn. One that makes layers or parameters only as it is used is refused too: see `require_same_tensors`.

    >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    >>> pets = ImageDataset(images, torch.arange(4) % 2, ("cat", "dog"), "pets")
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.BatchNorm1d(2))
    >>> check_network(network, pets, batch_size=2)
    >>> check_network(network, pets, batch_size=1)
    Traceback (most recent call last):
    convolab.core.errors.LabError: the network cannot be trained on batches of 1 image: ValueError: Expected more than ...
    """
    require_real_parameters(network)
    before = network.state_dict(keep_vars=True)
    check_forward(network, train, device)
    count = min(2, batch_size, len(train))
    with unchanged(network, device):
        network.train()
        batches = f"batches of {batch_size} image{'s' * (batch_size > 1)}"
        advice = ": set training.batch_size to 2 or more" if batch_size == 1 else ""
        with own_code_errors(f"the network cannot be trained on {batches}", advice):
            logits = forward(network, train, count, device)
    require_logits(logits, count, len(train.classes), "in training")
    require_same_tensors(network, before)


def require_real_parameters(network: nn.Module) -> None:
    """Raise LabError for a parameter of complex numbers, which our optimizers cannot change."""
    for name, parameter in network.named_parameters():
        require(
            not parameter.is_complex(),
            f"the network's parameter {name} is complex, and only real ones are trained: keep torch.view_as_real of it as "
            "the parameter, and use torch.view_as_complex in the forward pass",
        )


def require_storable(network: nn.Module) -> None:
    """Raise LabError unless a file can hold all of a network's state, and the network takes it back."""
    state = network.state_dict()
    for name, value in state.items():
        is_kept = (
            isinstance(value, Tensor)
            and value.layout == torch.strided
            and not value.is_quantized
            and value.dtype != torch.complex128
        )
        kind = f"a tensor ({value.dtype}, {value.layout})" if isinstance(value, Tensor) else type(value).__name__
        require(
            is_kept,
            f"the network's state has in {name} {kind}, which a file of weights cannot hold: keep it as a plain tensor "
            "(register_buffer, or what get_extra_state gives)",
        )
    with own_code_errors("the network does not take its own state (load_state_dict)"):
        network.load_state_dict(state)


def require_rebuildable(network: nn.Module, twin: nn.Module, train: ImageDataset | Subset, batch_size: int) -> None:
    """Raise LabError unless a network that is built again computes the same once it has the weights of the first.

    `twin` is the network built with another seed, and gets the weights: as a test builds it, of a file that has no seed.
    """
    with own_code_errors("the network does not take its weights (load_state_dict) when it is built with another seed"):
        twin.load_state_dict(network.state_dict())
    with lent_generators("cpu", 1):  # it counts as many passes as the network, and may draw something in the first
        check_network(twin, train, batch_size)
    images, labels = train.gather(torch.arange(min(2, len(train))))
    names = find_rebuilt_otherwise(network, twin, to_float01(images), labels)
    if names:
        raise LabError(
            f"the network computes with {join_with_and(names)}, which no file of weights holds and which is another when the "
            "network is built again, as a test does: draw in the constructor, and keep it in a persistent buffer (register_buffer)"
        )


def require_same_tensors(network: nn.Module, before: Mapping[str, object]) -> None:
    """Raise LabError unless a network has the parameters and buffers that it had before it was used.

    The weights of one that makes them as it goes fit no new one, and an optimizer changes those alone that it got.
    """
    now = network.state_dict(keep_vars=True)
    for name in (*now, *before):
        is_new = isinstance(now.get(name), nn.Parameter) and now[name] is not before.get(name)
        require(
            name in now and name in before and not is_new,
            f"the network {'makes' if name in now else 'removes'} {name} in its forward pass, so its weights would not fit a "
            "new one, nor be trained: build all layers, parameters and buffers in its constructor",
        )


def warn_of_odd_logits(trainer: "Trainer", callbacks: "TrainingCallbacks") -> None:
    """Say what `describe_unsteady_logits` finds in a person's own network, and whether it ends in a softmax.

    Tried with three images. Nothing of the network changes.
    """
    if not trainer.runs_own_code:
        return
    images = trainer.train_set.gather(torch.arange(min(3, len(trainer.train_set))))[0]
    with unchanged(trainer.net, trainer.device):
        pixels = to_float01(images.to(trainer.device))
        unsteady = describe_unsteady_logits(trainer.net, pixels)
        with torch.no_grad():
            logits = trainer.net(pixels).float()
    if unsteady:
        callbacks.on_message(unsteady)
    if bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-4):
        callbacks.on_message(
            "the network gives probabilities, not logits: the loss takes the softmax itself, so leave it out of the "
            "network, or it learns slowly"
        )


def check_forward(network: nn.Module, train: ImageDataset | Subset, device: torch.device | str = "cpu") -> None:
    """Raise LabError unless a network gives a logit per class in evaluation mode."""
    count = min(2, len(train))
    shape = "x".join(map(str, train.shape))
    with unchanged(network, device), own_code_errors(f"the network does not accept images of shape {shape}"):
        logits = forward(network, train, count, device)
    require_logits(logits, count, len(train.classes), "")


@torch.no_grad()
def forward(network: nn.Module, train: ImageDataset | Subset, count: int, device: torch.device | str) -> object:
    """What the network gives for the first images."""
    images, _ = train.gather(torch.arange(count))
    return network(to_float01(images.to(device)))


@contextmanager
def unchanged(network: nn.Module, device: torch.device | str) -> Iterator[None]:
    """Restore a network's modes and buffers, such as running means, and torch's random generators at the end."""
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    with eval_mode(network), isolated_rng(device):
        try:
            yield
        finally:
            with torch.no_grad():
                for module, name, buffer, value in buffers:
                    setattr(module, name, buffer.copy_(value))


def require_logits(logits: object, count: int, num_classes: int, where: str) -> None:
    """Raise LabError unless a network's output is a tensor with one logit per class."""
    gives = f"the network gives {where}".rstrip()
    require(isinstance(logits, Tensor), f"{gives} {type(logits).__name__}: it must give a tensor of logits")
    assert isinstance(logits, Tensor)
    layout = str(logits.layout).removeprefix("torch.").removesuffix("_coo")
    require(logits.layout == torch.strided, f"{gives} a {layout} tensor: it must give a dense one, as .to_dense() does")
    require(
        logits.is_floating_point(),
        f"{gives} numbers of type {str(logits.dtype).removeprefix('torch.')}: it must give logits that are floating-point numbers",
    )
    require(
        tuple(logits.shape) == (count, num_classes),
        f"{gives} {list(logits.shape)} for {count} images of {num_classes} classes: it must give one logit per class",
    )
