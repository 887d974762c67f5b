"""The MACs that other tools count, by running them: fvcore, torchinfo, thop and ptflops (the extra `counters`).

Each counts by a convention of its own, and changes it from version to version. So the tool itself runs, on a copy of
the network in evaluation mode, and the difference between its count and ours is shown too: by kind of operation or
layer where the tool reports that, else as one number.
"""

import contextlib
import copy
import importlib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from convolab.core.errors import LabError, require, suggest
from convolab.core.types import Json, MessageCallback

INSTALL_HINT = "pip install 'convolab[counters]'"
# By fvcore's names.
PRODUCT_OPERATORS = frozenset(["conv", "linear", "addmm", "mm", "matmul", "bmm", "baddbmm", "einsum"])


@dataclass(frozen=True)
class OtherCount:
    """The multiply-accumulates that one tool counts for a network, and how they differ from ours."""

    tool: str
    convention: str  # what it counts
    version: str = ""
    macs: int | None = None  # None: it could not count, for the reason in `problem`
    differences: tuple[tuple[str, int], ...] = ()  # kind and MACs that it counts more (less, if negative) than we do
    problem: str = ""

    def to_dict(self) -> dict[str, Json]:
        return {
            "tool": self.tool,
            "version": self.version,
            "convention": self.convention,
            "macs": self.macs,
            "differences": dict(self.differences),
            "problem": self.problem,
        }


if TYPE_CHECKING:  # by name: MACs, parameters, children
    ThopChildren: TypeAlias = Mapping[str, tuple[float, float, "ThopChildren"]]
else:
    ThopChildren = Mapping


@dataclass(frozen=True)
class Tally:
    """What a tool reports: its total, and the parts of it where it gives them."""

    macs: int
    by_operator: Mapping[str, int] | None = None  # fvcore
    by_class: Mapping[str, int] | None = None  # of the modules: torchinfo, thop


def run_fvcore(net: nn.Module, images: Tensor) -> Tally:
    fvcore_nn = importlib.import_module("fvcore.nn")
    analysis = fvcore_nn.FlopCountAnalysis(net, images)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    return Tally(int(analysis.total()), by_operator={name: int(n) for name, n in analysis.by_operator().items()})


def run_torchinfo(net: nn.Module, images: Tensor) -> Tally:
    torchinfo = importlib.import_module("torchinfo")
    result = torchinfo.summary(net, input_data=images, verbose=0, device=images.device)
    by_class: Counter[str] = Counter()
    for layer in result.summary_list:
        if layer.is_leaf_layer:
            by_class[layer.class_name] += layer.macs
    return Tally(int(result.total_mult_adds), by_class=by_class)


def run_thop(net: nn.Module, images: Tensor) -> Tally:
    thop = importlib.import_module("thop")
    total, _, children = thop.profile(net, inputs=(images,), verbose=False, ret_layer_info=True)
    by_class: Counter[str] = Counter()

    def add(module: nn.Module, macs: float, children: ThopChildren) -> None:
        for name, (child_macs, _, grandchildren) in children.items():
            add(module.get_submodule(name), child_macs, grandchildren)
        by_class[type(module).__name__] += int(macs - sum(child_macs for child_macs, _, _ in children.values()))

    add(net, total, children)
    return Tally(int(total), by_class=by_class)


def run_ptflops(net: nn.Module, images: Tensor) -> Tally:
    ptflops = importlib.import_module("ptflops")
    macs, _ = ptflops.get_model_complexity_info(
        net, tuple(images.shape[1:]), as_strings=False, print_per_layer_stat=False
    )
    require(macs is not None, "it gives no number")
    return Tally(int(macs) * images.shape[0])  # it runs one image


COUNTERS: dict[str, tuple[Callable[[nn.Module, Tensor], Tally], str]] = {
    "fvcore": (run_fvcore, "operations of the traced graph: products, norms, adaptive pooling, interpolation"),
    "torchinfo": (run_torchinfo, "modules by their parameters, biases and norms included, no functions"),
    "thop": (run_thop, "modules of known classes: products without biases, norms, pooling, softmax, no functions"),
    "ptflops": (run_ptflops, "modules of known classes and some functions: biases, norms, activations, pooling too"),
}


def require_counters(names: Sequence[str]) -> None:
    """Raise LabError if a name is not a counter's."""
    for name in names:
        require(name in COUNTERS, f"unknown counter '{name}': {suggest(str(name), COUNTERS)}")


def count_with(
    names: Sequence[str],
    network: nn.Module | None,
    input_shape: Sequence[int],
    our_macs_by_kind: Mapping[str, int],
    on_message: MessageCallback = lambda message: None,
) -> tuple[OtherCount, ...]:
    """Run counters on a network, which is not changed, with zeros of a shape [N, C, ...] as input.

    `our_macs_by_kind` has our MACs by the module's class or the function's name. A counter that is not installed or
    fails gives an entry with its `problem`. Raises LabError if a name is unknown or the network has no weights.
    """
    require_counters(names)
    if network is None:
        raise LabError("other counters run the network: give it with weights, not on the meta device")
    counts = []
    for name in dict.fromkeys(names):
        run, convention = COUNTERS[name]
        try:
            installed = version(name)
        except PackageNotFoundError:
            counts.append(OtherCount(name, convention, problem=f"not installed: {INSTALL_HINT}"))
            continue
        on_message(f"running {name} {installed}")
        try:
            tally = run_quietly(run, network, input_shape)
        except Exception as error:  # whatever a tool raises on a network that it does not know
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            counts.append(OtherCount(name, convention, installed, problem=f"could not count this network: {reason}"))
            continue
        differences = find_differences(tally, our_macs_by_kind)
        counts.append(OtherCount(name, convention, installed, tally.macs, differences))
    return tuple(counts)


def run_quietly(run: Callable[[nn.Module, Tensor], Tally], network: nn.Module, input_shape: Sequence[int]) -> Tally:
    """Run one counter without its messages, on a copy of the network: some leave hooks and buffers behind.

    As in their documentation, not inside `torch.no_grad()`: there attention takes a path that fvcore cannot count.
    """
    net = copy.deepcopy(network).eval()
    parameter = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(0))
    images = torch.zeros(tuple(input_shape), dtype=parameter.dtype, device=parameter.device)
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        return run(net, images)


def find_differences(tally: Tally, ours: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """What a tool counts more than we do, in parts that add up to the difference of the totals; none is zero."""
    our_total = sum(ours.values())
    parts: Counter[str] = Counter()
    if tally.by_operator is not None:
        for operator, macs in tally.by_operator.items():
            parts["convolutions and matrix products" if operator in PRODUCT_OPERATORS else operator] += macs
        parts["convolutions and matrix products"] -= our_total
    elif tally.by_class is not None:
        parts.update(tally.by_class)
        parts.subtract(ours)
    parts["all other"] += tally.macs - our_total - sum(parts.values())
    if set(parts) == {"all other"}:
        parts = Counter({"in total": parts["all other"]})
    return tuple((kind, macs) for kind, macs in parts.items() if macs)
