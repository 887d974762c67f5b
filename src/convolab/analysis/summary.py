"""What a network costs and what it sees: layer by layer, without allocating its weights or computing anything."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from convolab.analysis.conventions import Reckoning
from convolab.analysis.conventions_by_class import observer
from convolab.analysis.formulas import ClosedForm, closed_form
from convolab.analysis.receptive_field.gradient import measure_by_gradient
from convolab.analysis.receptive_field.propagation import ReceptiveField, to_receptive_field
from convolab.analysis.tracer import DataDependentError, LayerCall, Trace, trace_network
from convolab.core.errors import require
from convolab.core.rng import isolated_rng

NetworkOrBuilder = nn.Module | Callable[[], nn.Module]  # the latter builds it
MAX_MACS_TO_MEASURE = 5e11  # multiply-accumulates that measuring fields may take: about a minute


@dataclass(frozen=True)
class LayerSummary:
    """One call of a layer: a module that calls no other, or a function between modules."""

    name: str  # the module's path; for a function, that of the module that calls it
    kind: str  # the module's class, or the function's name
    call_index: int  # 1 for the first call of this module; its parameters are counted with that
    output_shape: tuple[int, ...]  # with the batch
    num_trainable: int
    num_frozen: int  # parameters that are not trained
    macs: int
    macs_fraction: float  # of the network's multiply-accumulates
    activation_bytes: int  # of the output, 0 if it takes its input's place
    saved_for_backward_bytes: int  # of what autograd keeps for the backward pass from here on
    receptive_field: (
        ReceptiveField | None
    )  # None: this layer does not depend on the picture, or `unfollowed` says why it is not known
    rf_unknown_reason: str | None
    closed_form: ClosedForm | None  # for linear and convolutional layers
    ops: tuple[str, ...]  # of PyTorch, those that do more than move values

    @property
    def num_parameters(self) -> int:
        return self.num_trainable + self.num_frozen

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiplication and an addition for each multiply-accumulate."""
        return 2 * self.macs


@dataclass(frozen=True)
class ModelSummary:
    """What a network costs and sees for inputs of one shape."""

    network: str
    input_shape: tuple[int, ...]
    batch_size: int
    layers: tuple[LayerSummary, ...]
    ignored_ops: dict[str, int]  # operations that compute without counting as multiply-accumulates, and how often
    unsupported_ops: dict[str, int]  # operations of which it is not known whether they multiply
    notes: tuple[str, ...]  # what a reader should know of this account
    mismatches: tuple[str, ...]  # of the count and the closed forms
    other_count: Reckoning | None  # the total by another tool's convention

    @cached_property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def num_trainable(self) -> int:
        return sum(layer.num_trainable for layer in self.layers)

    @property
    def num_frozen(self) -> int:
        return sum(layer.num_frozen for layer in self.layers)

    @property
    def num_parameters(self) -> int:
        return self.num_trainable + self.num_frozen

    @property
    def activation_bytes(self) -> int:
        return sum(layer.activation_bytes for layer in self.layers)

    @property
    def saved_for_backward_bytes(self) -> int:
        return sum(layer.saved_for_backward_bytes for layer in self.layers)

    @property
    def num_checked(self) -> int:
        """The layers whose count was checked against the closed form."""
        return sum(layer.closed_form is not None for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "network": self.network,
            "input": list(self.input_shape),
            "batch": self.batch_size,
            "totals": {
                "macs": self.macs,
                "flops": self.flops,
                "parameters": self.num_parameters,
                "trainable": self.num_trainable,
                "frozen": self.num_frozen,
                "forward_bytes": self.activation_bytes,
                "backward_bytes": self.saved_for_backward_bytes,
            },
            "self_check": {"layers": self.num_checked, "disagreements": list(self.mismatches)},
            "uncounted": self.ignored_ops,
            "unknown": self.unsupported_ops,
            "notes": list(self.notes),
            "convention": self.other_count.values() if self.other_count else None,
            "layers": [layer_to_dict(layer) for layer in self.layers],
        }


def summary(
    network: NetworkOrBuilder,
    input_shape: Sequence[int],
    *,
    batch_size: int = 1,
    counter: str | None = None,
    on_message: Callable[[str], None] = lambda note: None,
) -> ModelSummary:
    """What every layer of a network costs and sees for inputs of `input_shape`, [channels, height, width] or [n], no batch.

    The network may be given as a function that builds it: it is then built without weights. In evaluation mode; nothing is
    allocated, nothing computed, and the network stays as it was. Multiply-accumulates are those of convolutions, linear
    layers, matrix products and attention, no bias, norm or activation (docs/account.md explains each figure). `convention`
    adds the total by the rules of fvcore, torchinfo, thop, ptflops or timm. `on_note` hears when something takes long.

    Raises LabError if the input does not fit the network, naming the layer, what it got and what it wants.

    >>> course = account(nn.Conv1d(1, 10, 3, padding=1, bias=False), (1, 100))
    >>> course.macs, course.parameters, course.layers[0].field.size, course.layers[0].field.centre
    (3000, 30, (3,), (0.0,))
    """
    shape = tuple(input_shape)
    require(
        shape and all(isinstance(n, int) and n > 0 for n in shape) and batch_size > 0,
        f"the input shape {list(input_shape)} with a batch of {batch_size} is none: give positive whole numbers, such as 3x224x224",
    )
    network, notes = build_without_weights(network)
    trace_result, watch = trace_with_fallback(network, shape, batch_size, counter, notes)
    fields = [to_receptive_field(call.rf_state) for call in trace_result.calls]
    if any(isinstance(field, str) for field in fields):
        fields, note = measure_unknown_fields(network, trace_result, fields, shape, on_message)
        notes.append(note)
    layers = summarize_layers(trace_result, fields)
    if trace_result.unsupported_ops:
        notes.append(f"not known whether these multiply, so not counted: {', '.join(trace_result.unsupported_ops)}")
    return ModelSummary(
        network=type(network.module).__name__,
        input_shape=shape,
        batch_size=batch_size,
        layers=layers,
        ignored_ops=dict(trace_result.ignored_ops),
        unsupported_ops=dict(trace_result.unsupported_ops),
        notes=tuple(notes),
        mismatches=tuple(said for call in trace_result.calls for said in find_mismatches(call)),
        other_count=watch.reckoning(sum(layer.macs for layer in layers)) if watch else None,
    )


@dataclass(frozen=True)
class LazyNetwork:
    """A network to trace, and how to get it with weights where they are needed."""

    module: nn.Module
    build: Callable[[], nn.Module] | None  # None: it came as it is

    def materialize(self) -> nn.Module | None:
        """The network with values in its weights, if it can be had."""
        if not any(tensor.is_meta for tensor in (*self.module.parameters(), *self.module.buffers())):
            return self.module
        if self.build is None:
            return None
        with isolated_rng():
            return self.build()


def build_without_weights(network: NetworkOrBuilder) -> tuple[LazyNetwork, list[str]]:
    """The network, built without weights if it is given as a function; and what is to be said of that."""
    if isinstance(network, nn.Module):
        return LazyNetwork(
            getattr(network, "_orig_mod", network), None
        ), []  # torch.compile wraps the network that was written
    try:
        with torch.device("meta"):
            return LazyNetwork(network(), network), []
    except (RuntimeError, NotImplementedError) as error:
        if "meta" not in str(error):
            raise
    with isolated_rng():
        return LazyNetwork(network(), network), [
            "the network was built with its weights, because its making looks at values"
        ]


def trace_with_fallback(
    network: LazyNetwork, shape: tuple[int, ...], batch_size: int, convention: str | None, notes: list[str]
) -> tuple[Trace, Any]:
    """The network's trace, and the convention's observer, which watched."""
    watch = observer(convention) if convention else None
    try:
        return trace_network(network.module, shape, batch_size=batch_size, observer=watch), watch
    except DataDependentError:
        if (materialized := network.materialize()) is None:
            raise
        watch = observer(convention) if convention else None
        trace_result = trace_network(materialized, shape, batch_size=batch_size, observer=watch, with_values=True)
        notes.append("the network was run with values, because it looks at them while it runs")
        return trace_result, watch


def summarize_layers(trace_result: Trace, fields: Sequence[ReceptiveField | str | None]) -> tuple[LayerSummary, ...]:
    """The calls of a trace as layers, and behind them the modules that no call used."""
    total_macs = sum(call.macs for call in trace_result.calls)
    calls_per_module: Counter[int] = Counter()
    layers = []
    for call, field in zip(trace_result.calls, fields, strict=True):
        calls_per_module[id(call.module)] += 1
        layers.append(
            LayerSummary(
                name=call.name,
                kind=call.kind,
                call_index=calls_per_module[id(call.module)] if call.module is not None else 1,
                output_shape=call.output_shape,
                num_trainable=call.num_trainable,
                num_frozen=call.num_frozen,
                macs=call.macs,
                macs_fraction=call.macs / total_macs if total_macs else 0.0,
                activation_bytes=call.activation_bytes,
                saved_for_backward_bytes=call.saved_for_backward_bytes,
                receptive_field=field if isinstance(field, ReceptiveField) else None,
                rf_unknown_reason=field if isinstance(field, str) else None,
                closed_form=call_closed_form(call),
                ops=tuple(call.ops),
            )
        )
    for name, kind, trainable, frozen in trace_result.uncalled_modules:
        layers.append(
            LayerSummary(name, f"{kind} (not called)", 0, (), trainable, frozen, 0, 0.0, 0, 0, None, None, None, ())
        )
    return tuple(layers)


def call_closed_form(call: LayerCall) -> ClosedForm | None:
    return (
        closed_form(call.module, call.input_shapes[0], call.output_shape)
        if call.module is not None and call.input_shapes
        else None
    )


def find_mismatches(call: LayerCall) -> Iterator[str]:
    """Where the count and the closed form differ: a bug here, or a layer that does other than its attributes say."""
    if analytic := call_closed_form(call):
        parameters = sum(p.numel() for p in call.module.parameters(recurse=False))
        if analytic.macs != call.macs:
            yield f"{call.name} ({call.kind}): {call.macs:,} MACs counted, {analytic.formula} = {analytic.macs:,} by its closed form"
        if analytic.num_parameters != parameters:
            yield f"{call.name} ({call.kind}): {parameters:,} parameters counted, {analytic.num_parameters:,} by its closed form"


def measure_unknown_fields(
    network: LazyNetwork,
    trace_result: Trace,
    fields: Sequence[ReceptiveField | str | None],
    shape: tuple[int, ...],
    on_message: Callable[[str], None],
) -> tuple[list[ReceptiveField | str | None], str]:
    """The fields that could not be followed, measured where that can be done; and what is to be said of it."""
    unknown_indices = [number for number, field in enumerate(fields) if isinstance(field, str)]
    reasons = ", ".join(dict.fromkeys(fields[number] for number in unknown_indices))
    prefix = f"the graph could not be followed past {reasons}: "
    fields, total_macs = list(fields), sum(call.macs for call in trace_result.calls)
    materialized = (
        network.materialize()
        if total_macs * count_distinct_rf_states(trace_result, unknown_indices) <= MAX_MACS_TO_MEASURE
        else None
    )
    if materialized is None:
        return (
            fields,
            prefix
            + "the fields behind it are not known, as the network has no weights at hand or is too large to measure them",
        )
    on_message(f"measuring the receptive fields of {len(unknown_indices)} layers that could not be followed")
    measured_fields = measure_by_gradient(materialized, shape, trace_result, unknown_indices)
    for index, field in measured_fields.items():
        fields[index] = field
    return (
        fields,
        prefix + "the fields behind it (~) are measured, by where the gradient of the middle cell is not zero",
    )


def count_distinct_rf_states(trace_result: Trace, call_indices: Sequence[int]) -> int:
    """How many different sights are among those calls': an elementwise layer has that of the layer before."""
    return len({id(trace_result.calls[number].rf_state) for number in call_indices})


def layer_to_dict(layer: LayerSummary) -> dict[str, Any]:
    """A layer as plain values."""
    field, analytic = layer.receptive_field, layer.closed_form
    return {
        "name": layer.name,
        "kind": layer.kind,
        "call": layer.call_index,
        "output": list(layer.output_shape),
        "parameters": layer.num_parameters,
        "trainable": layer.num_trainable,
        "frozen": layer.num_frozen,
        "macs": layer.macs,
        "flops": layer.flops,
        "share": layer.macs_fraction,
        "forward_bytes": layer.activation_bytes,
        "backward_bytes": layer.saved_for_backward_bytes,
        "field": field
        and {
            "size": list(field.size),
            "stride": list(field.stride),
            "start": list(field.start),
            "centre": list(field.center),
            "whole": list(field.is_global),
            "measured": field.measured,
        },
        "unfollowed": layer.rf_unknown_reason,
        "closed_form": analytic
        and {"formula": analytic.formula, "macs": analytic.macs, "parameters": analytic.num_parameters},
        "operations": list(layer.ops),
    }
