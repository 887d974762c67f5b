"""The model parameter randomization test: does a map change with the weights (Adebayo et al. 2018, arXiv:1810.03292)?

A map that stays as it was when all weights are random does not explain the network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from convolab.analysis.meta import tensors_in
from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.core.stats import Interval, mean_interval
from convolab.core.torch_functions import Args, Function, FunctionCalls, Kwargs
from convolab.core.types import MessageCallback
from convolab.inspection.explain.methods import SaliencyMethod
from convolab.inspection.explain.null_maps import phase_randomized, rank_correlation, sobel_edges
from convolab.inspection.types import Heatmap, SinglePixels
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import copied_network, frozen_eval

N_NULL_MAPS = 19  # random maps with the map's spectrum: one more would be above all of them once in 20 times
NORMS = ("batch_norm", "group_norm", "layer_norm")


@dataclass(frozen=True)
class RandomizationTest:
    """How similar a map stays when weights are randomized: rank correlations of absolute values.

    Attributes:
        layer_groups: names of the network's groups of layers, the head first.
        cascading: with all groups from the head down to this one randomized; None where the map became constant or
            not finite.
        independent: with this group alone randomized; None likewise.
        edge_correlation: of the map with the image's edges, which do not depend on any weight: a map that is as similar
            to them is suspect.
        null_95th_percentile: of the absolute correlation with random maps that have this map's spectrum: the largest of 19.
    """

    layer_groups: tuple[str, ...]
    cascading: tuple[float | None, ...]
    independent: tuple[float | None, ...]
    edge_correlation: float | None
    null_95th_percentile: float


def run_randomization_test(
    net: ImageClassifier,
    pixels: SinglePixels,
    target: int,
    heatmap: Heatmap,
    method: SaliencyMethod,
    *,
    seed: int = 0,
    on_progress: MessageCallback = lambda message: None,
) -> RandomizationTest:
    """Randomize the weights of copies of the network, group by group, and compare the method's maps with `heatmap`.

    Args:
        net: the network, which stays as it is.
        pixels: one image, [1, C, H, W], in [0, 1].
        target: the class's index.
        heatmap: the method's map of the trained network, [H, W].
        method: what makes a map.
        seed: of the new weights.
        on_progress: called with a line of text before each group of layers.

    Returns:
        The rank correlation of each map with `heatmap`, with all groups down to one randomized and with one alone.

    Raises LabError for a network that has no parameters or that Python cannot copy.
    """
    groups = layer_groups(net, pixels)
    cascading: list[float | None] = []
    independent: list[float | None] = []

    def correlation_without(randomized_groups: Sequence[tuple[str, list[str]]]) -> float | None:
        return rank_correlation(heatmap, method(randomized_copy(net, randomized_groups, seed), pixels, target).values)

    for index, (name, _) in enumerate(groups):
        on_progress(f"randomizing the weights of {name}")
        cascading.append(correlation_without(groups[: index + 1]))
        # The head alone is the first step of both.
        independent.append(correlation_without(groups[index : index + 1]) if index else cascading[0])
    null_maps = (phase_randomized(heatmap, seed, index) for index in range(N_NULL_MAPS))
    null_correlations = [abs(rank_correlation(heatmap, null_map) or 0.0) for null_map in null_maps]
    return RandomizationTest(
        layer_groups=tuple(name for name, _ in groups),
        cascading=tuple(cascading),
        independent=tuple(independent),
        edge_correlation=rank_correlation(heatmap, sobel_edges(pixels, heatmap)),
        null_95th_percentile=max(null_correlations),
    )


class ParameterUses(FunctionCalls):
    """Notes, while a network runs inside this block, which of its parameters each function takes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.names = {id(parameter): name for name, parameter in network.named_parameters()}
        self.calls: list[tuple[str, list[str]]] = []  # a function's name and those of the parameters

    def on_function(self, function: Function, args: Args, kwargs: Kwargs) -> object:
        result = function(*args, **kwargs)
        names = [self.names[id(tensor)] for tensor in tensors_in([args, kwargs]) if id(tensor) in self.names]
        if names and tensors_in(result):  # else it looked at a shape or the like
            self.calls.append((function.__name__, names))
        return result


def layer_groups(net: ImageClassifier, pixels: SinglePixels) -> list[tuple[str, list[str]]]:
    """The network's groups of layers, the head first, each with its parameters' names; every parameter is in one.

    Layers are in one group if the first two parts of their path are the same; a layer that only normalizes belongs to
    the group before it. Parameters that no function in Python takes, as those of a scripted part, come last.

    Raises LabError for a network without parameters.
    """
    with frozen_eval(net), torch.no_grad(), ParameterUses(net.network) as uses:
        net.forward_unchecked(pixels.to(net.scale))
    require(uses.names, "this network has no parameters, so there are no weights to randomize: leave the check out")
    groups: dict[str, list[str]] = {}
    placed: set[str] = set()
    for function, names in uses.calls:
        new = [name for name in dict.fromkeys(names) if name not in placed]
        if not new:
            continue
        group_name = layer_group_name(new[0])
        if function in NORMS and groups and group_name not in groups:
            group_name = next(reversed(groups))
        groups.setdefault(group_name, []).extend(new)
        placed.update(new)
    unused: dict[str, list[str]] = {}
    for name in uses.names.values():
        if name not in placed:
            group_name = layer_group_name(name)
            (groups if group_name in groups else unused).setdefault(group_name, []).append(name)
    return [*reversed(groups.items()), *reversed(unused.items())]


def layer_group_name(parameter_name: str) -> str:
    """The first two parts of the path of a parameter's layer; the parameter's name if the network itself has it.

    >>> layer_group_name("features.stem.conv.weight"), layer_group_name("head.bias"), layer_group_name("scale")
    ('features.stem', 'head', 'scale')
    """
    return ".".join(parameter_name.split(".")[:-1][:2]) or parameter_name


def randomized_copy(net: ImageClassifier, groups: Sequence[tuple[str, list[str]]], seed: int) -> ImageClassifier:
    """A copy of the network with the weights of some groups randomized.

    Each of their tensors is drawn from a normal distribution of its own mean and standard deviation, so the following
    layers get values of the usual magnitude. The draw depends on the tensor's name alone, so it is the same in every
    copy. Raises LabError for a network that cannot be copied.
    """
    copied_net = copied_network(net, "so that its weights cannot be randomized: leave the check out")
    parameters: dict[str, nn.Parameter] = dict(copied_net.network.named_parameters())
    with torch.no_grad():
        for name in (name for _, names in groups for name in names):
            weights = parameters[name]
            std = weights.std(correction=0) if weights.numel() > 1 else weights.abs()
            random_values = torch.randn(weights.shape, generator=make_generator(seed, "forget", name)).to(weights)
            weights.copy_(weights.mean() + std * random_values)
    return copied_net


def describe_randomization(test: RandomizationTest) -> str:
    """The test in words."""
    head = test.cascading[0]
    head_text = (
        f"with the head's weights randomized, rank correlation with the map {head:+.2f}; " if head is not None else ""
    )
    edges = test.edge_correlation
    edge_text = f"; rank correlation with the image's edges {edges:+.2f}" if edges is not None else ""
    return (
        f"{head_text}all weights randomized, {remaining_text(test.cascading[-1], test.null_95th_percentile)}{edge_text}"
    )


def remaining_text(correlation: float | None, null_95th_percentile: float) -> str:
    """What remains of a map with all weights randomized, in words."""
    if correlation is None:
        return "the map became constant or not finite"
    reference = f"the 95th percentile of random maps with its spectrum ({null_95th_percentile:.2f})"
    if abs(correlation) <= null_95th_percentile:
        return f"{correlation:+.2f}, within {reference}"
    return f"{correlation:+.2f}, above {reference}: part of the map does not depend on the weights"


def remaining_similarity(tests: Sequence[Mapping[str, Any]]) -> dict[str, Interval | float | int | None]:
    """What remains of a method's maps when weights are randomized, over images, with t-intervals over them.

    `tests` are `RandomizationTest`s as dicts, one for each image. `head` is with the head's weights alone randomized,
    `all` with all weights. `above_null_95th_percentile` counts the images where, with all weights randomized, the map
    stays above its own null percentile; by chance one in 20 does. `constant_or_nonfinite` counts the maps of which
    nothing remained.
    """
    final = [
        (test["cascading"][-1], test["null_95th_percentile"]) for test in tests if test["cascading"][-1] is not None
    ]
    head_correlations = [test["cascading"][0] for test in tests if test["cascading"][0] is not None]
    edge_correlations = [test["edge_correlation"] for test in tests if test["edge_correlation"] is not None]
    return {
        "head": mean_interval(head_correlations) if head_correlations else None,
        "all": mean_interval([correlation for correlation, _ in final]) if final else None,
        "null_95th_percentile": sum(test["null_95th_percentile"] for test in tests) / len(tests),
        "above_null_95th_percentile": sum(abs(correlation) > percentile for correlation, percentile in final),
        "constant_or_nonfinite": len(tests) - len(final),
        "edge_correlation": mean_interval(edge_correlations) if edge_correlations else None,
    }
