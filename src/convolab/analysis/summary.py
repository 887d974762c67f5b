"""Parameters, MACs, memory and receptive field of a network, layer by layer, without allocating its weights."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TypeAlias

import torch
from torch import nn

from convolab.analysis.formulas import ClosedForm, closed_form
from convolab.analysis.other_counters import OtherCount, count_with, require_counters
from convolab.analysis.receptive_field.gradient import measure_by_gradient
from convolab.analysis.receptive_field.propagation import UnknownRF
from convolab.analysis.receptive_field.result import ReceptiveField, to_receptive_field
from convolab.analysis.tracer import DataDependentError, LayerCall, Trace, trace_network
from convolab.core.display import Displayable
from convolab.core.errors import LabError, require
from convolab.core.rng import isolated_rng
from convolab.core.text import pluralize
from convolab.core.types import Json, MessageCallback, python_values

NetworkOrBuilder: TypeAlias = nn.Module | Callable[[], nn.Module]  # the latter builds it
FieldOrReason: TypeAlias = ReceptiveField | UnknownRF | None
MAX_INPUT_VALUES = 10**12  # of a batch: later maps are larger, and torch counts bytes in 64 bits
MAX_MACS_TO_MEASURE = 5e11  # multiply-accumulates that measuring receptive fields may take: about a minute


@dataclass(frozen=True)
class LayerSummary:
    """One call of a layer: a module that calls no other, or a function between modules."""

    name: str  # the module's path; for a function, that of the module that calls it
    kind: str  # the module's class, or the function's name
    call_index: int  # 1 for the first call of this module, with which its parameters are counted; 0 if never called
    output_shape: tuple[int, ...]  # with the batch
    num_trainable: int
    num_frozen: int  # parameters that are not trained
    macs: int
    macs_fraction: float  # of the network's multiply-accumulates
    activation_bytes: int  # of the output; 0 if in place or a view
    saved_for_backward_bytes: int  # of what autograd keeps for the backward pass from here on
    receptive_field: ReceptiveField | None  # None: it does not depend on the input, or it is unknown
    rf_unknown_reason: str | None
    closed_form: ClosedForm | None  # for linear and convolutional layers
    ops: tuple[str, ...]  # PyTorch's operations, those that do more than move values

    @property
    def num_parameters(self) -> int:
        return self.num_trainable + self.num_frozen

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiplication and an addition for each multiply-accumulate."""
        return 2 * self.macs

    def to_dict(self) -> dict[str, Json]:
        """The layer as plain values, for JSON."""
        field = self.receptive_field
        analytic = self.closed_form
        return {
            "name": self.name,
            "kind": self.kind,
            "call_index": self.call_index,
            "output_shape": list(self.output_shape),
            "num_parameters": self.num_parameters,
            "num_trainable": self.num_trainable,
            "num_frozen": self.num_frozen,
            "macs": self.macs,
            "flops": self.flops,
            "macs_fraction": self.macs_fraction,
            "activation_bytes": self.activation_bytes,
            "saved_for_backward_bytes": self.saved_for_backward_bytes,
            "receptive_field": field
            and {
                "size": list(field.size),
                "stride": list(field.stride),
                "start": list(field.start),
                "center": list(field.center),
                "is_global": list(field.is_global),
                "measured": field.measured,
            },
            "rf_unknown_reason": self.rf_unknown_reason,
            "closed_form": analytic
            and {"formula": analytic.formula, "macs": analytic.macs, "num_parameters": analytic.num_parameters},
            "ops": list(self.ops),
        }


@dataclass(frozen=True, repr=False)
class ModelSummary(Displayable):
    """What a network costs, and which input pixels its layers depend on, for inputs of one shape."""

    network: str
    input_shape: tuple[int, ...]  # without the batch
    batch_size: int
    layers: tuple[LayerSummary, ...]
    ignored_ops: dict[str, int]  # operations that compute without counting as multiply-accumulates, and how often
    unsupported_ops: dict[str, int]  # operations of which it is not known whether they multiply
    notes: tuple[str, ...]  # what a reader should know of this summary
    mismatches: tuple[str, ...]  # between the counter and the closed forms, one line for each layer that has any
    other_counts: tuple[OtherCount, ...]  # by the other counters that `summary` was asked to run

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.input_shape))
        return (
            f"ModelSummary({self.network} for {self.batch_size} x {shape}: {self.num_parameters:,} parameters, "
            f"{self.macs:,} MACs, {pluralize(len(self.layers), 'layer')})"
        )

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one batch."""
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

    def to_dict(self) -> dict[str, Json]:
        """All of it as plain values, for JSON."""
        return {
            "network": self.network,
            "input_shape": list(self.input_shape),
            "batch_size": self.batch_size,
            "totals": {
                "macs": self.macs,
                "flops": self.flops,
                "num_parameters": self.num_parameters,
                "num_trainable": self.num_trainable,
                "num_frozen": self.num_frozen,
                "activation_bytes": self.activation_bytes,
                "saved_for_backward_bytes": self.saved_for_backward_bytes,
            },
            "self_check": {"num_checked": self.num_checked, "mismatches": list(self.mismatches)},
            "ignored_ops": self.ignored_ops,
            "unsupported_ops": self.unsupported_ops,
            "notes": list(self.notes),
            "other_counts": [count.to_dict() for count in self.other_counts],
            "layers": [layer.to_dict() for layer in self.layers],
        }


def summarize_network(
    network: NetworkOrBuilder,
    input_shape: Sequence[int],
    *,
    batch_size: int = 1,
    beside: Sequence[str] = (),
    on_message: MessageCallback = lambda message: None,
) -> ModelSummary:
    """Parameters, MACs, memory and receptive field of every layer of a network, for inputs of one shape.

    The network runs once in evaluation mode on PyTorch's meta device: nothing is allocated, nothing computed, and it
    is as it was afterwards. Multiply-accumulates (MACs) are those of convolutions, linear layers, matrix products and
    attention; biases, norms, activations and pooling have none. docs/summary.md explains each number.

    Args:
        network: a network, or a function that builds one, which is then built without weights.
        input_shape: the shape of one input without the batch: [channels, height, width], [channels, length] or
            [features].
        batch_size: inputs at a time; MACs and memory are those of one batch.
        beside: other counters to run on the network too, as far as they are installed (the extra `counters`): fvcore,
            torchinfo, thop, ptflops. They run the network, so it must have weights.
        on_message: called with a line of text before anything slow.

    Returns:
        A `ModelSummary` with one entry per call of a layer, totals, and notes. Memory is in bytes, receptive fields in
        pixels.

    Raises LabError if the network does not accept the input, naming the layer, the shape it got and the one it expects,
    and if `beside` names an unknown counter.

    >>> course = summarize_network(nn.Conv1d(1, 10, 3, padding=1, bias=False), (1, 100))
    >>> course.macs, course.num_parameters
    (3000, 30)
    >>> course.layers[0].receptive_field.size, course.layers[0].receptive_field.center
    ((3,), (0.0,))
    """
    shape, batch_size = tuple(python_values(input_shape)), python_values(batch_size)
    require(
        shape and all(isinstance(n, int) and n > 0 for n in shape) and batch_size > 0,
        f"the input shape {list(input_shape)} with a batch size of {batch_size} is not valid: "
        "give positive integers, such as [3, 224, 224]",
    )
    require(
        batch_size * prod(shape) <= MAX_INPUT_VALUES,
        f"a batch of these inputs, {'x'.join(map(str, shape))}, holds more than {MAX_INPUT_VALUES:,} values: give a "
        "smaller batch or input",
    )
    require_counters(beside)
    lazy_network, notes = build_without_weights(network)
    trace, trace_notes = trace_with_fallback(lazy_network, shape, batch_size)
    notes += trace_notes
    fields = [to_receptive_field(call.rf_state) for call in trace.calls]
    if any(isinstance(field, UnknownRF) for field in fields):
        fields, note = measure_unknown_fields(lazy_network, trace, fields, shape, on_message)
        notes.append(note)
    if trace.unsupported_ops:
        notes.append(f"unsupported operations, not counted: {', '.join(trace.unsupported_ops)}")
    layers = summarize_layers(trace, fields)
    other_counts = ()
    if beside:
        macs_by_kind: Counter[str] = Counter()
        for layer in layers:
            macs_by_kind[layer.kind] += layer.macs
        other_counts = count_with(beside, lazy_network.materialize(), (batch_size, *shape), macs_by_kind, on_message)
    return ModelSummary(
        network=type(lazy_network.module).__name__,
        input_shape=shape,
        batch_size=batch_size,
        layers=layers,
        ignored_ops=dict(trace.ignored_ops),
        unsupported_ops=dict(trace.unsupported_ops),
        notes=tuple(notes),
        mismatches=tuple(mismatch for call in trace.calls for mismatch in find_mismatches(call)),
        other_counts=other_counts,
    )


@dataclass(frozen=True)
class LazyNetwork:
    """A network to trace, and how to get it with weights where they are needed."""

    module: nn.Module
    build: Callable[[], nn.Module] | None  # None: there is no other than `module`

    def materialize(self) -> nn.Module | None:
        """The network with values in its weights; None if it has none."""
        if not any(tensor.is_meta for tensor in (*self.module.parameters(), *self.module.buffers())):
            return self.module
        if self.build is None:
            return None
        with isolated_rng():
            return self.build()


def build_without_weights(network: NetworkOrBuilder) -> tuple[LazyNetwork, list[str]]:
    """The network, built without weights if it is given as a function; and notes on that."""
    if isinstance(network, nn.Module):
        # torch.compile wraps the network that was written, and says so in an attribute.
        return LazyNetwork(getattr(network, "_orig_mod", network), None), []
    try:
        with torch.device("meta"):
            return LazyNetwork(network(), network), []
    except (RuntimeError, TypeError, LabError) as error:
        reason = error.__cause__ if isinstance(error, LabError) else error  # a network by name fails with a LabError
        if "meta" not in str(reason):
            raise
    with isolated_rng():
        note = "the network was built with its weights, because its constructor reads tensor values"
        return LazyNetwork(network(), network), [note]


def trace_with_fallback(network: LazyNetwork, shape: tuple[int, ...], batch_size: int) -> tuple[Trace, list[str]]:
    """The network's trace, of a run with values if it needs them; and notes on that."""
    try:
        return trace_network(network.module, shape, batch_size=batch_size), []
    except DataDependentError:
        if (materialized := network.materialize()) is None:
            raise
    trace = trace_network(materialized, shape, batch_size=batch_size, with_values=True)
    return trace, ["the network was run with its weights, because its forward pass depends on tensor values"]


def summarize_layers(trace: Trace, fields: Sequence[FieldOrReason]) -> tuple[LayerSummary, ...]:
    """The calls of a trace as layers, and after them the modules that no call used."""
    total_macs = trace.macs
    calls_per_module: Counter[int] = Counter()
    layers = []
    for call, field in zip(trace.calls, fields, strict=True):
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
                rf_unknown_reason=field.reason if isinstance(field, UnknownRF) else None,
                closed_form=call_closed_form(call),
                ops=tuple(call.ops),
            )
        )
    for module in trace.uncalled_modules:
        layers.append(
            LayerSummary(
                name=module.name,
                kind=f"{module.kind} (not called)",
                call_index=0,
                output_shape=(),
                num_trainable=module.num_trainable,
                num_frozen=module.num_frozen,
                macs=0,
                macs_fraction=0.0,
                activation_bytes=0,
                saved_for_backward_bytes=0,
                receptive_field=None,
                rf_unknown_reason=None,
                closed_form=None,
                ops=(),
            )
        )
    return tuple(layers)


def call_closed_form(call: LayerCall) -> ClosedForm | None:
    return closed_form(call.module, call.input_shapes[0], call.output_shape) if call.input_shapes else None


def find_mismatches(call: LayerCall) -> Iterator[str]:
    """Where the counter and the closed form differ, in one line: a bug here, or a layer that does not do what its
    attributes say.
    """
    analytic = call_closed_form(call)
    if analytic is None or call.module is None:
        return
    num_parameters = sum(p.numel() for p in call.module.parameters(recurse=False))
    differences = []
    if analytic.macs != call.macs:
        differences.append(f"{call.macs:,} MACs counted, {analytic.formula} = {analytic.macs:,} by its closed form")
    if analytic.num_parameters != num_parameters:
        differences.append(f"{num_parameters:,} parameters counted, {analytic.num_parameters:,} by its closed form")
    if differences:
        yield f"{call.name} ({call.kind}): {'; '.join(differences)}"


def measure_unknown_fields(
    network: LazyNetwork,
    trace: Trace,
    fields: Sequence[FieldOrReason],
    shape: tuple[int, ...],
    on_message: MessageCallback,
) -> tuple[list[FieldOrReason], str]:
    """The receptive fields, the unknown ones measured where that can be done; and a note on that."""
    unknown = {index: field for index, field in enumerate(fields) if isinstance(field, UnknownRF)}
    reasons = ", ".join(dict.fromkeys(field.reason for field in unknown.values()))
    prefix = f"receptive fields could not be computed from the graph past {reasons}: "
    # Elementwise layers share the state, and so the measurement, of the layer before.
    num_measurements = len({id(trace.calls[index].rf_state) for index in unknown})
    materialized = network.materialize() if trace.macs * num_measurements <= MAX_MACS_TO_MEASURE else None
    if materialized is None:
        return list(fields), (
            f"{prefix}those after it are unknown, because the network has no weights or is too large to measure them"
        )
    on_message(f"measuring the receptive fields of {len(unknown)} layers by gradient")
    try:
        measured = measure_by_gradient(materialized, shape, trace, list(unknown))
    except LabError as error:  # smooth functions take the place of the network's, and it may not accept their values
        return list(fields), f"{prefix}those after it are unknown, and cannot be measured either ({error})"
    return [measured.get(index, field) for index, field in enumerate(fields)], (
        f"{prefix}those after it (marked ~) are measured: the pixels where the gradient of the center cell is not zero"
    )
