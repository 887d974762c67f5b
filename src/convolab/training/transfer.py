"""What does not start from scratch: the weights that a network takes over, its frozen layers, and their learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from typing_extensions import TypedDict

from convolab.core.errors import require, suggest
from convolab.models.weights import last_layer_name, normalization_for, read_weights_source, take_weights
from convolab.training.recipe import ALL_BUT_THE_LAST, Model


class PretrainedRecord(TypedDict):
    """What a run's summary says of the weights it started from: enough to resume it without them."""

    weights: str  # as the recipe names them
    sha256: str
    taken: list[str]  # names of the tensors that were taken
    new: list[str]  # of those that were not
    mean: list[float] | None  # of the pixels that the weights expect; None: the data's
    std: list[float] | None


@dataclass(frozen=True)
class Transfer:
    """A network that does not start from scratch, or of which not all is trained.

    Attributes:
        record: of the weights it took; None if it took none.
        frozen: its layers of which no parameter is trained; they stay in evaluation mode.
        lr_factors: of the learning rate, for the parameters where it is not 1.
    """

    record: PretrainedRecord | None
    frozen: tuple[nn.Module, ...]
    lr_factors: dict[nn.Parameter, float]


def set_up_transfer(
    model: Model, network: nn.Module, classes: Sequence[str], channels: int, record: PretrainedRecord | None = None
) -> Transfer:
    """Load the weights that a recipe's model names, and freeze what it names.

    `record` is that of a run whose state holds all tensors: no weights are read then. Raises LabError, in one line, for
    weights that cannot be had, have changed or do not fit, and for a pattern that fits no parameter.
    """
    if model.weights and record is None:
        weights = read_weights_source(model.weights, model.name)
        require(
            weights.sha256 == model.weights_sha256,
            f"model.weights = {model.weights!r} has changed: its SHA-256 is {weights.sha256[:12]}..., and the recipe's "
            f"{str(model.weights_sha256)[:12]}...: restore the file, or make a new recipe",
        )
        taken, new = take_weights(network, weights, classes, f"the network '{model.name}'")
        mean, std = normalization_for(weights, channels) or (None, None)
        record = {
            "weights": model.weights, "sha256": weights.sha256, "taken": taken, "new": new,
            "mean": None if mean is None else list(mean), "std": None if std is None else list(std),
        }  # fmt: skip
    frozen = freeze(network, model.freeze, len(classes)) if model.freeze else ()
    factor = model.pretrained_lr_factor
    taken_names = set(record["taken"]) if record and factor else set()
    factors = {p: factor or 1.0 for name, p in network.named_parameters() if name in taken_names and p.requires_grad}
    return Transfer(record, frozen, factors)


def freeze(network: nn.Module, patterns: str | Sequence[str], num_classes: int) -> tuple[nn.Module, ...]:
    """Stop the training of the parameters whose names fit a pattern. Returns the layers that are frozen as a whole.

    Args:
        network: gets `requires_grad = False` for them.
        patterns: one or several as of file names, such as "features.0.*", or "all but the last layer".
        num_classes: tells which layer is the last.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 5))
    >>> freeze(network, ["0.*", "1.*"], 5) == (network[0], network[1])
    True
    >>> [name for name, p in network.named_parameters() if p.requires_grad]
    ['3.weight', '3.bias']
    """
    parameters = dict(network.named_parameters())
    if patterns == ALL_BUT_THE_LAST:
        last = last_layer_name(network, num_classes)
        chosen = {name for name in parameters if name.rpartition(".")[0] != last}
    else:
        chosen: set[str] = set()
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            fitting = {name for name in parameters if fnmatchcase(name, pattern)}
            require(
                fitting,
                f"model.freeze: no parameter of the network fits {pattern!r}: {suggest(pattern, parameters, 10)} (a pattern "
                f"as of file names, or '{ALL_BUT_THE_LAST}')",
            )
            chosen |= fitting
    require(len(chosen) < len(parameters), "model.freeze freezes every parameter of the network: leave some to train")
    for name in chosen:
        parameters[name].requires_grad_(False)
    frozen: list[nn.Module] = []
    inside: set[nn.Module] = set()  # of a frozen layer
    for layer in network.modules():
        own = list(layer.parameters())
        if own and not any(p.requires_grad for p in own) and layer not in inside:
            frozen.append(layer)
            inside.update(layer.modules())
    return tuple(frozen)


def describe_start(record: PretrainedRecord) -> str:
    """In one line what a network starts from.

    >>> describe_start({"weights": "a.pth", "sha256": "ab" * 32, "taken": ["a"], "new": ["b"], "mean": None, "std": None})
    'starts from a.pth (SHA-256 abababababab...): 1 tensor taken, new: b'
    """
    new, count = record["new"], len(record["taken"])
    listed = ", ".join(new[:4]) + (f" and {len(new) - 4} more" if len(new) > 4 else "")
    digest = record["sha256"][:12]
    taken = f"{count} tensor{'s' * (count != 1)} taken"
    return f"starts from {record['weights']} (SHA-256 {digest}...): {taken}, new: {listed or 'none'}"
